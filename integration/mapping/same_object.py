"""Keys of caches. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False, slots=True)
class SameObject:
    """Compares a value by which object it is, not by all that it holds. That is safe for maps and
    columns: nobody changes one, and who caches it keeps it alive."""

    value: Any

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameObject) and other.value is self.value
