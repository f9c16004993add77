"""What the relay needs in Dataverse, by the maps in use and the files of this folder."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from integration.app.settings import MirrorSettings
from integration.core.errors import Misconfigured
from integration.mapping import load
from integration.mapping.concepts import CONCEPT_TABLE
from integration.mapping.load import Maps
from integration.mapping.model import EntityMap, Kind, Route
from integration.provision.model import (
    CustomColumn,
    CustomKey,
    CustomTable,
    Feed,
    OwnTable,
    Requirements,
    Role,
)
from integration.provision.virtual_tables import build_virtual_table, build_virtual_tables
from integration.virtual_tables.physical.own_table import add_own_tables

FOLDER = Path(__file__).parent

# https://learn.microsoft.com/power-apps/maker/data-platform/create-solution#solution-publisher
_PREFIX = re.compile(r"(?!mscrm)[a-z][a-z0-9]{1,7}")

# The headers that a setting adds to changes. Each needs a privilege, which role.toml names.
_HEADERS = {
    "BYPASS_LOGIC": "mscrm.bypassbusinesslogicexecution",
    "IMPERSONATE": "callerobjectid",
}

Data = Mapping[str, Any]


def build_requirements(
    settings: MirrorSettings,
    *,
    feed: Feed | None,
    solution: str,
    identity: str | None,
    business_unit: str | None,
    keys: bool = False,
    also_mirrored: Collection[str] = (),
    physical: Collection[str] = (),
) -> Requirements:
    """Return all that is needed for the maps in use.

    `keys`: alternate keys on Microsoft's own columns, too. `also_mirrored`: resource types that are
    mirrored although their tables are virtual by default; `physical`: of those the ones that get a
    table of the organisation's. Raises Misconfigured.
    """
    prefix = settings.map_prefix or ""
    if not _PREFIX.fullmatch(prefix):
        raise Misconfigured(
            "set MAP_PREFIX to the publisher's prefix: 2 to 8 lower-case letters and digits, "
            "beginning with a letter, and not with mscrm"
        )
    maps = load.load_maps(settings.map_set, prefix, settings.maps_folder, settings.enabled_maps)
    if maps.broken:
        raise Misconfigured("; ".join(maps.broken.values()))
    is_plain = settings.map_set == "plain"
    maps = add_own_tables(maps, prefix if is_plain else None)
    also_mirrored = {*also_mirrored, *physical}
    mirrored = [] if settings.target == "off" else list(_select_mirrored(maps, also_mirrored))
    own_tables = tuple(_build_own_tables(maps, physical, prefix))
    virtual = build_virtual_tables(maps.available, maps.entities.values(), prefix) if feed else ()
    return Requirements(
        prefix=prefix,
        solution=solution,
        custom_tables=build_custom_tables(
            mirrored,
            settings.map_set,
            prefix,
            keys=keys,
            writes_back=settings.write_back != "off",
        ),
        virtual_tables=virtual,
        own_tables=own_tables,
        feed=feed if virtual else None,
        role=build_role(settings, maps, mirrored, [table.name for table in virtual]),
        identity=identity,
        business_unit=business_unit,
    )


def _select_mirrored(maps: Maps, also: Collection[str]) -> Iterator[EntityMap]:
    for name in also:
        entity = maps.entities.get(name)
        if entity is None or Route.DATAVERSE not in entity.routes:
            raise Misconfigured(f"--mirrored {name}: no map in use writes rows of it")
    for name, entity in maps.entities.items():
        if entity.routes[0] is Route.DATAVERSE or name in also:
            yield entity


def _build_own_tables(maps: Maps, physical: Collection[str], prefix: str) -> Iterator[OwnTable]:
    for name in physical:
        entity = maps.entities.get(name)
        if entity is None or entity.own_table is None:
            raise Misconfigured(
                f"--physical {name}: no map in use may have rows of a table of yours. With "
                "MAP_SET=healthcare Microsoft's table has them: --mirrored"
            )
        shown_by = build_virtual_table(entity, prefix, maps.available)
        yield OwnTable(name=entity.own_table.table, shown_by=shown_by)


def build_custom_tables(
    mirrored: Iterable[EntityMap],
    set_: str,
    prefix: str,
    *,
    keys: bool = False,
    writes_back: bool = False,
) -> tuple[CustomTable, ...]:
    """Return the columns with the publisher's prefix that the maps write, the tables' keys, and
    whose changes are tracked. `writes_back`: edits of rows are written to FHIR."""
    described = read_descriptions(set_, prefix)
    named: dict[str, dict[str, None]] = {}
    tracked: set[str] = set()
    for entity in mirrored:
        if entity.own_table is not None:
            continue  # made whole, or not at all
        if writes_back and entity.is_written_back:
            tracked.add(entity.table)
        on = entity.select_route(Route.DATAVERSE)
        named.setdefault(on.table, {}).update(dict.fromkeys(on.columns))
        for expand in on.expands:
            columns = (attribute.column for attribute in expand.attributes)
            named.setdefault(expand.table, {}).update(dict.fromkeys(columns))
    made = (
        replace(
            _build_custom_table(
                table, columns, described.get(table, {}), prefix, keys=keys or set_ == "plain"
            ),
            tracked=table in tracked,
        )
        for table, columns in named.items()
    )
    return tuple(
        table for table in made if table.columns or table.keys or table.undescribed or table.tracked
    )


def read_descriptions(set_: str, prefix: str) -> Mapping[str, Data]:
    """Read the definitions of the columns and keys that a set of maps needs, by table."""
    text = (FOLDER / f"custom/{set_}.json").read_text("utf-8")
    found: dict[str, Data] = json.loads(text.replace("{prefix}", prefix))
    return found


def _build_custom_table(
    table: str, named: Iterable[str], described: Data, prefix: str, *, keys: bool
) -> CustomTable:
    columns = described.get("columns", {})
    prefixed = [name for name in named if name.startswith(f"{prefix}_")]
    required_keys = described.get("keys", ()) if keys else ()
    return CustomTable(
        table,
        tuple(_build_column(name, columns[name]) for name in prefixed if name in columns),
        tuple(CustomKey(key["name"], tuple(key["columns"])) for key in required_keys),
        tuple(name for name in prefixed if name not in columns),
    )


def _build_column(name: str, data: Data) -> CustomColumn:
    return CustomColumn(
        name=name,
        schema_name=data["schemaName"],
        label=data["label"],
        type=data["type"],
        max_length=data.get("maxLength", 100),
        format=data.get("format", ""),
        behavior=data.get("behavior", ""),
        target=next(iter(data.get("targets", ())), None),
    )


def build_role(
    settings: MirrorSettings, maps: Maps, mirrored: Iterable[EntityMap], virtual: Iterable[str]
) -> Role:
    """Return the role of the app's user, with the fewest privileges that do.

    `virtual`: the virtual tables whose changes the app sends to Dataverse.
    """
    data = tomllib.loads((FOLDER / "role.toml").read_text("utf-8"))
    kinds, tables = data["tables"], dict[str, dict[str, None]]()
    for table, kind in (
        *_list_role_kinds(settings, maps, mirrored),
        *((name, "virtual") for name in virtual),
    ):
        tables.setdefault(table, {}).update(dict.fromkeys(kinds[kind]))
    platform = list(data["platform"])
    for setting, privileges in data["settings"].items():
        if _HEADERS[setting] in settings.change_headers:
            platform += privileges
    granted = {table: tuple(verbs) for table, verbs in tables.items()}
    return Role(data["name"], granted, tuple(platform))


def _list_role_kinds(
    settings: MirrorSettings, maps: Maps, mirrored: Iterable[EntityMap]
) -> Iterator[tuple[str, str]]:
    """Yield each table, and which of role.toml's lists of privileges it needs."""
    for entity in mirrored:
        on = entity.select_route(Route.DATAVERSE)
        yield on.table, "row"
        if settings.on_delete == "delete" or Route.VIRTUAL in entity.routes:
            yield on.table, "deleted"
        yield from ((expand.table, "child") for expand in on.expands)
        expanded = (attribute for expand in on.expands for attribute in expand.attributes)
        kinds = {attribute.kind for attribute in (*on.attributes, *expanded)}
        if Kind.CONCEPT in kinds:
            yield CONCEPT_TABLE.table, "concept"
        if Kind.LOOKUP in kinds:
            for target in maps.available.values():
                if target.routes[0] is Route.DATAVERSE:
                    yield target.table, "target"
