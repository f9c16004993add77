"""The data routes that an operator has chosen, by resource type; the maps say the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class KeptRoutes(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def all(self) -> Mapping[str, str]:
        """Routes by resource type."""

    async def choose(self, type_: str, route: str) -> None:
        """From now on. Repeating it changes nothing."""


@dataclass(slots=True)
class MemoryRoutes:
    """The double: the same contract in a dictionary."""

    chosen: dict[str, str] = field(default_factory=dict)

    async def all(self) -> Mapping[str, str]:
        return dict(self.chosen)

    async def choose(self, type_: str, route: str) -> None:
        self.chosen[type_] = route
