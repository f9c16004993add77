"""Entity maps, and what they make of a resource, as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """How the value of an element becomes the value of a column."""

    COPY = "copy"  # text, numbers and booleans as they are
    DATE = "date"  # a day
    DATETIME = "datetime"  # an instant; stored in UTC
    CHOICE = "choice"  # a code becomes an option value
    DEFAULT = "default"  # a constant, whatever the resource says
    LOOKUP = "lookup"  # a reference becomes a lookup of the row that shows the resource
    CONCEPT = "concept"  # a code becomes a lookup of a row of the codeable concepts
    MAP = "map"  # which map has written the row: a digest of it


class LongText(StrEnum):
    """What to do with text that is longer than its column."""

    CUT = "cut"
    OMIT = "omit"


class PartialDate(StrEnum):
    """What to do with a date that has no day: 1980, 1980-05."""

    OMIT = "omit"
    FIRST = "first"  # take its first day
    LAST = "last"


class Absent(StrEnum):
    """What becomes of a column when FHIR has nothing for it."""

    CLEAR = "clear"
    KEEP = "keep"  # what somebody has written there stays


class Conflict(StrEnum):
    """What holds when somebody has changed a column in Dataverse, and FHIR its element since."""

    FHIR = "fhir"  # the row is written over, and a note says so
    DATAVERSE = "dataverse"  # FHIR is written over
    HOLD = "hold"  # neither, until somebody makes them agree


class LongId(StrEnum):
    """What to do with a FHIR id that is longer than its column. It is never cut."""

    REFUSE = "refuse"
    DIGEST = "digest"  # write a GUID that is derived from the id instead


class Route(StrEnum):
    """Where the rows of a table come from."""

    DATAVERSE = "dataverse"  # Dataverse's own rows, which the mirror writes
    VIRTUAL = "virtual"  # FHIR; the OData endpoint answers for the virtual table


class SearchType(StrEnum):
    """The type of a search parameter: https://hl7.org/fhir/R4/search.html#ptypes"""

    STRING = "string"
    TOKEN = "token"  # noqa: S105  # no password
    DATE = "date"
    REFERENCE = "reference"
    NUMBER = "number"
    # A token whose text is searched for, with :text: https://hl7.org/fhir/R4/search.html#modifiers
    TEXT = "text"


class ChildRemoval(StrEnum):
    """Which child rows to delete when the resource no longer has their items."""

    ALL = "all"
    OURS = "ours"  # rows whose primary key is the one that the mirror derives
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Search:
    """The search parameter that finds every resource whose column has a value. It may find others,
    too, unless it is `exact`. With `sorts`, `_sort` orders resources as the column does. With
    `of_words`, it finds the parts of a text one by one, which the column shows with blanks between
    them."""

    name: str
    type: SearchType
    exact: bool = False
    sorts: bool = False
    of_words: bool = False


# What a map calls the type of a copied value, and what Dataverse calls it.
COLUMN_TYPES = {
    "string": "String",
    "memo": "Memo",
    "integer": "Integer",
    "decimal": "Decimal",
    "boolean": "Boolean",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualColumnOptions:
    """What the virtual table has to know of a column, beside its kind."""

    type: str = "string"  # of COLUMN_TYPES, where a value is copied
    max_length: int = 100
    label: str = ""
    target: str | None = None  # the resource type that a lookup points at
    search: Search | None = None
    writable: bool = False
    create_only: bool = False  # writable only when the resource is created


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeMap:
    """One column and where its value comes from."""

    column: str
    kind: Kind
    path: str | None = None  # FHIRPath; None for a constant
    choices: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # options, best first
    default: Any = None  # when the element is absent, or does not fit
    too_long: LongText = LongText.CUT
    partial: PartialDate = PartialDate.OMIT
    absent: Absent = Absent.CLEAR
    concept: int | None = None  # the concept's msemr_type
    route: Route | None = None  # the only route that has the column; None: every route
    # Whether what somebody types into it is written into the element that it shows, which is found
    # in each resource, and what holds when FHIR has another value by then.
    writeback: bool = False
    conflict: Conflict = Conflict.FHIR
    virtual_column: VirtualColumnOptions = VirtualColumnOptions()
    defined_at: str = field(default="", compare=False)  # file:line


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpandMap:
    """A repeating element whose items are rows of their own, children of the resource's row."""

    path: str
    table: str
    entity_set: str
    key: str
    parent: str  # the child's lookup of the resource's row
    match: tuple[str, ...]  # two rows that are equal in these columns are the same row
    remove: ChildRemoval
    attributes: tuple[AttributeMap, ...]
    defined_at: str = field(default="", compare=False)  # file:line


@dataclass(frozen=True, slots=True)
class NotedElement:
    """An element that is noted: how many items `path` finds, for which there are no columns; or
    that it finds none, although a row needs one."""

    element: str
    path: str
    defined_at: str = field(default="", compare=False)  # file:line


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityMap:
    """One resource type and its table."""

    resource: str
    table: str
    entity_set: str
    key: str
    # The version columns: which version of which resource a row shows.
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
    digest: str = field(default="", compare=False)  # of the texts of its files
    unmapped_elements: tuple[NotedElement, ...] = ()
    expected_elements: tuple[NotedElement, ...] = ()
    routes: tuple[Route, ...] = (Route.DATAVERSE,)  # possible ones, the default first
    name_column: str | None = None  # the primary name column of the virtual table
    patient_lookup: str | None = None  # to the patient whom the virtual table shows, too
    newest_by: str | None = None  # the search parameter by which FHIR sorts lists, newest first
    create: Mapping[str, Any] = field(default_factory=dict)  # elements of every new resource
    # By variable, the path of what is made where it finds nothing and a column below it is written.
    make: Mapping[str, str] = field(default_factory=dict)
    # Of an organisation without Microsoft's table: the map of its own one.
    own_table: EntityMap | None = field(default=None, compare=False, repr=False)

    def select_route(self, route: Route) -> EntityMap:
        """Return the map with the attributes of one route."""
        if route is Route.DATAVERSE and self.own_table is not None:
            return self.own_table
        attributes = tuple(item for item in self.attributes if item.route in (None, route))
        if len(attributes) == len(self.attributes):
            return self
        return replace(self, attributes=attributes)

    @property
    def version_columns(self) -> tuple[str, str, str]:
        """The columns of id, version and last update."""
        return self.id_column, self.version_column, self.updated_column

    @property
    def map_column(self) -> str | None:
        """The column that says which map has written a row; None: none does."""
        return next((item.column for item in self.attributes if item.kind is Kind.MAP), None)

    @property
    def is_written_back(self) -> bool:
        """Whether an edit of one of its rows may reach FHIR."""
        return any(attribute.writeback for attribute in self.attributes)

    @property
    def tells_maps(self) -> bool:
        """Whether its rows say which map has written them. Else nobody can tell an edit from what
        an earlier map has made."""
        return self.map_column is not None

    @property
    def kind_value(self) -> Any:
        """The value of the kind column in every row of this map."""
        kinds = (item.default for item in self.attributes if item.column == self.kind_column)
        return next(kinds, None)

    def has_kind_of(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of the table may show this map's resource type: patients and practitioners
        may share a table, and an id."""
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
    """The value of a lookup of codeable concepts. Type and code identify the concept."""

    type: int
    code: str
    name: str
    text: str | None


@dataclass(frozen=True, slots=True)
class ChildRow:
    """A child row as it should be, without the lookup of its parent."""

    expand_map: ExpandMap
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MappedRows:
    """Rows as they should be. A value is a JSON scalar, a Lookup, a Concept, or None to clear the
    column; a column without a value stays as it is. The notes say what could not be mapped, where
    and why, without values. `changes_on`: the next day on which something of the resource begins or
    ceases to be in use, so that the rows may be others."""

    values: Mapping[str, Any]
    children: tuple[ChildRow, ...]
    notes: tuple[str, ...]
    changes_on: date | None = None
