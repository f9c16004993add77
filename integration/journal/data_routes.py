"""The data routes that an operator has chosen. The maps have the routes of all other types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class DataRouteStore(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def list_routes(self) -> Mapping[str, str]:
        """Return the chosen routes by resource type."""

    async def set_route(self, type_: str, route: str) -> None:
        """Choose the route of a resource type. Repeating it changes nothing."""


@dataclass(slots=True)
class MemoryDataRouteStore:
    """The same contract in a dictionary, for tests."""

    routes: dict[str, str] = field(default_factory=dict)

    async def list_routes(self) -> Mapping[str, str]:
        return dict(self.routes)

    async def set_route(self, type_: str, route: str) -> None:
        self.routes[type_] = route
