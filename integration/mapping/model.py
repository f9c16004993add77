"""Entity maps and attribute maps as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """How a value gets from an element into a column."""

    COPY = "copy"  # text, numbers, booleans as they are
    DATE = "date"  # a whole day, YYYY-MM-DD
    MOMENT = "moment"  # an instant; stored in UTC
    CHOICE = "choice"  # a code becomes an option value
    DEFAULT = "default"  # a constant, whatever the resource says


class TooLong(StrEnum):
    """What to do with text that is longer than its column."""

    CUT = "cut"
    OMIT = "omit"


@dataclass(frozen=True, slots=True)
class AttributeMap:
    """One column and where its value comes from."""

    column: str
    kind: Kind
    path: str | None = None  # FHIRPath; None for a constant
    choices: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # best first
    default: Any = None  # when the element is absent
    too_long: TooLong = TooLong.CUT


@dataclass(frozen=True, slots=True)
class EntityMap:
    """One resource type and its table. The bookkeeping columns say which version a row shows."""

    resource: str
    table: str
    entity_set: str
    key: str
    id_column: str
    version_column: str
    updated_column: str
    variables: Mapping[str, str]  # FHIRPath by name, used as %name in paths
    attributes: tuple[AttributeMap, ...]

    @property
    def columns(self) -> list[str]:
        """Every column that the map may write."""
        bookkeeping = [self.key, self.id_column, self.version_column, self.updated_column]
        return bookkeeping + [attribute.column for attribute in self.attributes]


@dataclass(frozen=True, slots=True)
class Mapped:
    """A row as it should be, and notes on what could not be brought over: paths, no values."""

    columns: Mapping[str, Any]
    notes: tuple[str, ...]
