"""Entity maps, and what they make of a resource, as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """How a value gets from an element into a column."""

    COPY = "copy"  # text, numbers, booleans as they are
    DATE = "date"  # a whole day
    DATETIME = "datetime"  # an instant; stored in UTC
    CHOICE = "choice"  # a code becomes an option value
    DEFAULT = "default"  # a constant, whatever the resource says
    LOOKUP = "lookup"  # a reference becomes the row of the resource
    CONCEPT = "concept"  # a code becomes a row of the codeable concepts


class LongText(StrEnum):
    """What to do with text that is longer than its column."""

    CUT = "cut"
    OMIT = "omit"


class PartialDate(StrEnum):
    """What to do with a date that says no day: 1980, 1980-05."""

    OMIT = "omit"
    FIRST = "first"  # its first day
    LAST = "last"


class LongId(StrEnum):
    """What to do with a FHIR id that is longer than its column. It is never cut."""

    REFUSE = "refuse"
    DIGEST = "digest"  # the row's key stands for it, a GUID derived from it


class Route(StrEnum):
    """Where Dataverse has the rows of a table from."""

    DATAVERSE = "dataverse"  # the mirror writes them
    VIRTUAL = "virtual"  # the feed shows them, from FHIR


class SearchType(StrEnum):
    """Of a search parameter: https://hl7.org/fhir/R4/search.html#ptypes"""

    STRING = "string"
    TOKEN = "token"  # noqa: S105
    DATE = "date"
    REFERENCE = "reference"
    NUMBER = "number"


class ChildRemoval(StrEnum):
    """Which child rows go that the resource no longer has."""

    ALL = "all"
    OURS = "ours"  # whose key is the one that we would have derived
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Search:
    """The search parameter that finds every resource whose column has a value; and more, unless it
    is `exact`. `sorts`: it puts resources into the order of the column, too."""

    name: str
    type: SearchType
    exact: bool = False
    sorts: bool = False


@dataclass(frozen=True, slots=True)
class VirtualColumn:
    """What the feed and a virtual table say of a column, beside its kind."""

    type: str = "string"  # of what is copied: string, memo, integer, decimal, boolean
    max_length: int = 100
    label: str = ""
    target: str | None = None  # the resource type that a lookup points at
    search: Search | None = None
    writable: bool = False
    create_only: bool = False  # written when a resource is created, and never again


@dataclass(frozen=True, slots=True)
class AttributeMap:
    """One column and where its value comes from."""

    column: str
    kind: Kind
    path: str | None = None  # FHIRPath; None for a constant
    choices: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # best first
    default: Any = None  # when the element is absent, or does not fit
    too_long: LongText = LongText.CUT
    partial: PartialDate = PartialDate.OMIT
    concept: int | None = None  # the msemr_type of the concept
    route: Route | None = None  # the one route that it is for; None: each
    virtual_column: VirtualColumn = VirtualColumn()
    defined_at: str = field(default="", compare=False)  # file:line


@dataclass(frozen=True, slots=True)
class ExpandMap:
    """A repeating element whose items are rows of their own, children of the resource's row."""

    path: str
    table: str
    entity_set: str
    key: str
    parent: str  # the child's lookup to the row of the resource
    match: tuple[str, ...]  # equal in these columns is the same row
    remove: ChildRemoval
    attributes: tuple[AttributeMap, ...]
    defined_at: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class UnmappedElement:
    """What a map has no columns for: how many items `path` finds is noted."""

    element: str
    path: str
    defined_at: str = field(default="", compare=False)


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
    kind_column: str | None  # tells apart the resource types that share the table
    long_id: LongId
    variables: Mapping[str, str]  # FHIRPath by name, used as %name in paths
    attributes: tuple[AttributeMap, ...]
    expands: tuple[ExpandMap, ...]
    enabled: bool
    file: str = field(compare=False)
    unmapped_elements: tuple[UnmappedElement, ...] = ()
    routes: tuple[Route, ...] = (Route.DATAVERSE,)  # which it may have, the default first
    name_column: str | None = None  # what stands for a row of the virtual table
    create: Mapping[str, Any] = field(default_factory=dict)  # elements of what is created there

    def select_route(self, route: Route) -> EntityMap:
        """The map with the attributes of one route."""
        kept = tuple(one for one in self.attributes if one.route in (None, route))
        return self if len(kept) == len(self.attributes) else replace(self, attributes=kept)

    @property
    def version_columns(self) -> tuple[str, str, str]:
        """The bookkeeping columns: id, version, last update."""
        return self.id_column, self.version_column, self.updated_column

    @property
    def kind_value(self) -> Any:
        """What the kind column says of rows of this map."""
        return next(
            (one.default for one in self.attributes if one.column == self.kind_column), None
        )

    def has_kind_of(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of the table is of this map's resource type, as far as it says: patients
        and practitioners may share a table, and an id."""
        return self.kind_column is None or row.get(self.kind_column) in (None, self.kind_value)

    @property
    def columns(self) -> list[str]:
        """Every column of the row that the map may write."""
        return [
            self.key,
            *self.version_columns,
            *(attribute.column for attribute in self.attributes),
        ]

    @property
    def tables(self) -> list[str]:
        """The table of the row, and those of its children."""
        return list(dict.fromkeys((self.table, *(expand.table for expand in self.expands))))


@dataclass(frozen=True, slots=True)
class Lookup:
    """The value of a lookup: the row that shows `resource`."""

    resource: str  # Type/id


@dataclass(frozen=True, slots=True)
class Concept:
    """The value of a lookup of codeable concepts; type and code say which one."""

    type: int
    code: str
    name: str
    text: str | None


@dataclass(frozen=True, slots=True)
class ChildRow:
    """A child row as it should be; the parent's lookup is not among its columns."""

    expand_map: ExpandMap
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MappedRows:
    """Rows as they should be: each value a JSON scalar, None where the column is cleared, a Link
    or a Concept. Notes say what could not be brought over: where and why, no values."""

    values: Mapping[str, Any]
    children: tuple[ChildRow, ...]
    notes: tuple[str, ...]
