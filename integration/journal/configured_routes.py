"""The data routes that an operator has chosen, as a document of the configuration."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from integration.core.errors import Misconfigured, Unavailable
from integration.core.log_events import log_event
from integration.journal.configuration import DATA_ROUTES, ConfigurationVersion
from integration.journal.data_routes import ChosenRoute
from integration.journal.live_configuration import Configuration, LiveConfiguration

# How often a version is tried while others publish.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class ConfiguredRoutes:
    """See integration.journal.data_routes.DataRouteStore for the contract of each method."""

    live: LiveConfiguration

    async def list_routes(self) -> Mapping[str, ChosenRoute]:
        return _find_routes(await self.live.refresh())

    async def set_routes(
        self, chosen: Mapping[str, ChosenRoute], seen: Mapping[str, ChosenRoute] | None = None
    ) -> bool:
        for _ in range(_TRIES):
            configuration = await self.live.refresh()
            current, latest = _find_routes(configuration), configuration.version
            if any(current.get(name) != route for name, route in (seen or {}).items()):
                return False
            routes = {**current, **chosen}
            digest = await self.live.store.add_document(format_data_routes(routes))
            by = next(iter(chosen.values()))
            names = ", ".join(f"{name} {item.route}" for name, item in sorted(chosen.items()))
            version = ConfigurationVersion(
                number=latest.number + 1,
                documents={**latest.documents, DATA_ROUTES: digest},
                published=by.changed,
                published_by=by.changed_by or "",
                why=f"data routes: {names}",
            )
            if await self.live.store.add_version(version):
                log_event(
                    "configuration.published", version=version.number, restores=None, documents=1
                )
                await self.live.refresh()
                return True
        raise Unavailable("the configuration", "others kept publishing versions of it")


def _find_routes(configuration: Configuration) -> Mapping[str, ChosenRoute]:
    found = configuration.documents.get(DATA_ROUTES)
    return {} if found is None else parse_data_routes(found.text)


def parse_data_routes(text: str) -> dict[str, ChosenRoute]:
    """Return the chosen routes by resource type. Raises Misconfigured. Pure."""
    try:
        return {name: _parse_chosen(chosen) for name, chosen in tomllib.loads(text).items()}
    except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        raise Misconfigured(f"{DATA_ROUTES}: {error}") from None


def _parse_chosen(chosen: object) -> ChosenRoute:
    if not isinstance(chosen, dict) or not isinstance(chosen.get("route"), str):
        raise ValueError('a resource type needs a table with its route: route = "virtual"')
    changed, changed_by = chosen.get("changed"), chosen.get("changed_by")
    bringing = chosen.get("bringing")
    return ChosenRoute(
        chosen["route"],
        changed_by if isinstance(changed_by, str) else None,
        changed if isinstance(changed, datetime) else None,
        bringing if isinstance(bringing, str) else None,
    )


def format_data_routes(routes: Mapping[str, ChosenRoute]) -> str:
    """Return the document of these routes, by resource type. Pure."""
    blocks = []
    for name, chosen in sorted(routes.items()):
        lines = [f"[{name}]", f"route = {_quote(chosen.route)}"]
        if chosen.changed_by is not None:
            lines.append(f"changed_by = {_quote(chosen.changed_by)}")
        if chosen.changed is not None:
            lines.append(f"changed = {chosen.changed.isoformat()}")
        if chosen.bringing is not None:
            lines.append(f"bringing = {_quote(chosen.bringing)}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _quote(text: str) -> str:
    # A string of JSON is one of TOML, but for a character that no text here has:
    # https://toml.io/en/v1.0.0#string
    return msgspec.json.encode("".join(filter(str.isprintable, text))).decode()
