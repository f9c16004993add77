"""What the relay needs in Dataverse, and the steps to get there, as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Body = Mapping[str, Any]

# A placeholder for the feed's key, in bodies and in what is printed. Sending replaces it.
SECRET = "***"  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualColumn:
    """A column of a virtual table. `type` is a type of Dataverse's metadata."""

    name: str
    external_name: str  # the property of the feed
    label: str
    type: str = "String"
    max_length: int = 100
    options: tuple[tuple[int, str], ...] = ()  # of a Picklist: value and label
    is_date_only: bool = False  # of a DateTime


@dataclass(frozen=True, slots=True)
class VirtualLookup:
    """A lookup from a virtual table to another table."""

    name: str
    external_name: str
    label: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualTable:
    """A virtual table. `entity_set`, `entity_type` and `key` are the feed's names."""

    name: str
    entity_set: str
    entity_type: str
    key: str
    label: str
    name_column: VirtualColumn
    columns: tuple[VirtualColumn, ...]
    lookups: tuple[VirtualLookup, ...] = ()
    tried_lookups: tuple[VirtualLookup, ...] = ()  # to other virtual tables: see plan_tried_lookups


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTable:
    """A table with rows, where the organisation has none of Microsoft's: it has the columns and
    lookups of a virtual table."""

    name: str
    shown_by: VirtualTable


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomColumn:
    """A column that the mirror writes, of a table with rows of its own."""

    name: str
    schema_name: str
    label: str
    type: str
    max_length: int = 100
    format: str = ""  # of a DateTime: date or datetime
    behavior: str = ""
    target: str | None = None  # of a Lookup


@dataclass(frozen=True, slots=True)
class CustomKey:
    """An alternate key."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CustomTable:
    """What the mirror needs of a table beyond what it has by default."""

    table: str
    columns: tuple[CustomColumn, ...]
    keys: tuple[CustomKey, ...]
    undescribed: tuple[str, ...] = ()  # columns that maps write and no file defines
    tracked: bool = False  # people's edits of its rows are written to FHIR


@dataclass(frozen=True, slots=True)
class Feed:
    """How Dataverse reaches the feed of the virtual tables."""

    address: str
    paging: str = "server"  # or client
    timeout: int = 30  # seconds, up to 120


@dataclass(frozen=True, slots=True)
class Role:
    """The security role of the app's user: verbs by table, and privileges of the platform."""

    name: str
    tables: Mapping[str, tuple[str, ...]]
    platform: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """All that the relay needs in Dataverse."""

    prefix: str
    solution: str
    custom_tables: tuple[CustomTable, ...]
    virtual_tables: tuple[VirtualTable, ...]
    feed: Feed | None
    role: Role
    identity: str | None = None  # client id of the app's identity; None: no user is added
    own_tables: tuple[OwnTable, ...] = ()
    business_unit: str | None = None  # by name; None: the root business unit
    language: int = 1033  # of labels: the organisation's base language

    @property
    def changed_tables(self) -> tuple[str, ...]:
        """List the tables whose definitions may change."""
        return (
            *(table.table for table in self.custom_tables),
            *(table.name for table in self.virtual_tables),
            *(table.name for table in self.own_tables),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One request that adds or changes something. `trial`: what is left out, with all steps of the
    same kind, when Dataverse refuses one of them; None: the step must succeed."""

    description: str
    method: str
    path: str
    body: Body = field(default_factory=dict)
    solution: str | None = None  # the solution that the new component becomes part of
    trial: str | None = None


@dataclass(frozen=True, slots=True)
class Existing:
    """Something that exists already."""

    description: str


@dataclass(frozen=True, slots=True)
class ManualTask:
    """Something that a person has to look at, or to do by hand."""

    description: str


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Something that Dataverse does not allow."""

    description: str


Item = Step | Existing | ManualTask | Unsupported


def make_placeholder(what: str) -> str:
    """Return what stands in a dry run for an id that an earlier step would create."""
    return f"<the id of {what}>"
