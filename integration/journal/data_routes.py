"""The data routes that an operator has chosen. The maps have the routes of all other types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ChosenRoute:
    """A route, who chose it, and when: to be shown, never to decide by. None: not known.

    `bringing`: the job that brings the rows into Dataverse. While it does, changes are mirrored
    already, and the table is still answered from FHIR.
    """

    route: str
    changed_by: str | None = None
    changed: datetime | None = None
    bringing: str | None = None


class DataRouteStore(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def list_routes(self) -> Mapping[str, ChosenRoute]:
        """Return the chosen routes by resource type."""

    async def set_routes(
        self, chosen: Mapping[str, ChosenRoute], seen: Mapping[str, ChosenRoute] | None = None
    ) -> bool:
        """Choose the routes of resource types: all of them or none. `seen`: only where these were
        chosen so far. Return whether they were."""


@dataclass(slots=True)
class MemoryDataRouteStore:
    """The same contract in a dictionary, for tests."""

    routes: dict[str, ChosenRoute] = field(default_factory=dict)

    async def list_routes(self) -> Mapping[str, ChosenRoute]:
        return dict(self.routes)

    async def set_routes(
        self, chosen: Mapping[str, ChosenRoute], seen: Mapping[str, ChosenRoute] | None = None
    ) -> bool:
        if any(self.routes.get(name) != route for name, route in (seen or {}).items()):
            return False
        self.routes |= chosen
        return True
