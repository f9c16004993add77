"""What is wanted of an organisation, and the steps towards it, as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Body = Mapping[str, Any]

# Stands in a step's body, and wherever one is told, for the feed's key; it is put in on sending.
SECRET = "***"  # noqa: S105


@dataclass(frozen=True, slots=True)
class VirtualColumn:
    """One column; `external` is the feed's property. `type` is that of Dataverse's metadata."""

    name: str
    external_name: str
    label: str
    type: str = "String"
    max_length: int = 100
    options: tuple[tuple[int, str], ...] = ()  # of a Picklist: value and label
    is_date_only: bool = False  # of a DateTime


@dataclass(frozen=True, slots=True)
class VirtualLookup:
    """A lookup to a table that has rows."""

    name: str
    external_name: str
    label: str
    target: str


@dataclass(frozen=True, slots=True)
class VirtualTable:
    """A virtual table; `set`, `entity_type` and `key` are the feed's names."""

    name: str
    entity_set: str
    entity_type: str
    key: str
    label: str
    name_column: VirtualColumn
    columns: tuple[VirtualColumn, ...]
    lookups: tuple[VirtualLookup, ...] = ()
    dropped_lookups: tuple[str, ...] = ()  # lookups that Dataverse cannot have


@dataclass(frozen=True, slots=True)
class CustomColumn:
    """A column of a table that has rows, for the mirror."""

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
    """What the mirror needs of one table that it does not have by itself."""

    table: str
    columns: tuple[CustomColumn, ...]
    keys: tuple[CustomKey, ...]
    undescribed: tuple[str, ...] = ()  # columns that maps name, and nobody describes


@dataclass(frozen=True, slots=True)
class Feed:
    """How Dataverse reaches the feed."""

    address: str
    paging: str = "server"  # or client
    timeout: int = 30  # seconds, up to 120


@dataclass(frozen=True, slots=True)
class Role:
    """What the app's user may do: by table, and on the platform as a whole."""

    name: str
    tables: Mapping[str, tuple[str, ...]]
    platform: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Requirements:
    """Everything. `identity` is the client id of the app's identity; None: no user is made."""

    prefix: str
    solution: str
    custom_tables: tuple[CustomTable, ...]
    virtual_tables: tuple[VirtualTable, ...]
    feed: Feed | None
    role: Role
    identity: str | None = None
    business_unit: str | None = None  # its name; None: the root one

    @property
    def changed_tables(self) -> tuple[str, ...]:
        """The tables whose definitions this may change."""
        return (
            *(one.table for one in self.custom_tables),
            *(one.name for one in self.virtual_tables),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One request that makes something."""

    description: str
    method: str
    path: str
    body: Body = field(default_factory=dict)
    solution: str | None = None  # which the piece goes into


@dataclass(frozen=True, slots=True)
class Existing:
    """Something that is there already."""

    description: str


@dataclass(frozen=True, slots=True)
class ManualTask:
    """Something for a person to look at."""

    description: str


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Something that Dataverse cannot have."""

    description: str


Item = Step | Existing | ManualTask | Unsupported


def make_placeholder(what: str) -> str:
    """Stands, in a dry run, for an id that there will be once the steps before are done."""
    return f"<the id of {what}>"
