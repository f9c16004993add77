"""The tables of the stand-in. Each is a JSON file under tables/; a new file is a new table.

A column states `type`, `schemaName` and `label`, and if they apply: `required` (none if absent),
`maxLength`, `min`, `max`, `precision`, `format`, `behavior`, `options` (a status option names its
`state`), `globalChoice`, `targets`, `navigation` (target table -> navigation property; a lookup
without one cannot be bound), `readOnly`, `composedOf`, `cascadeDelete` (RemoveLink if absent),
`external` (the property of a virtual table's feed). A virtual table states its own `external`.

`Additions` are an organisation's custom columns and alternate keys of these tables. PLAIN has those
for an organisation without Cloud for Healthcare. The tables of tables/setup/ are filled when an
organisation is set up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from integration import provision

FOLDER = Path(__file__).parent / "tables"
SETUP = FOLDER / "setup"
PLAIN = Path(provision.__file__).parent / "custom/plain.json"

# By table: {"columns": {name: column}, "keys": [key]}, as the files under tables/ write them. With
# keys of None the table has no alternate key at all: an organisation may have deleted it, or it has
# failed. https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity
Additions = Mapping[str, Mapping[str, Any]]

LOOKUPS = frozenset({"Lookup", "Customer", "Owner"})
CHOICES = frozenset({"Picklist", "State", "Status"})

EDM = {
    "String": "Edm.String",
    "Memo": "Edm.String",
    "Integer": "Edm.Int32",
    "BigInt": "Edm.Int64",
    "Picklist": "Edm.Int32",
    "State": "Edm.Int32",
    "Status": "Edm.Int32",
    "Boolean": "Edm.Boolean",
    "Double": "Edm.Double",
    "Decimal": "Edm.Decimal",
    "Money": "Edm.Decimal",
    "Uniqueidentifier": "Edm.Guid",
    "Lookup": "Edm.Guid",
    "Customer": "Edm.Guid",
    "Owner": "Edm.Guid",
    "Image": "Edm.Binary",
}


@dataclass(frozen=True, slots=True)
class Option:
    value: int
    label: str
    state: int | None = None
    external: str | None = None  # what a virtual table's provider finds it by


@dataclass(frozen=True, slots=True)
class Key:
    """An alternate key. Only an `Active` one is enforced; one whose index could not be built,
    since two rows had the same values, is `Failed`.

    https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity
    """

    name: str
    columns: tuple[str, ...]
    status: str = "Active"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    name: str
    type: str
    schema_name: str
    label: str
    required: str = "none"
    max_length: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    precision: int | None = None  # decimal places
    format: str | None = None
    behavior: str | None = None
    options: tuple[Option, ...] = ()
    global_choice: str | None = None
    targets: tuple[str, ...] = ()
    navigation: tuple[tuple[str, str], ...] = ()  # (target table, navigation property)
    read_only: bool = False
    composed_of: tuple[str, ...] = ()
    cascade_delete: str = "RemoveLink"
    external: str | None = None

    @property
    def is_lookup(self) -> bool:
        return self.type in LOOKUPS

    @property
    def property_name(self) -> str:
        """The name in the Web API: a lookup is read as `_column_value`.

        https://learn.microsoft.com/power-apps/developer/data-platform/webapi/web-api-properties
        """
        return f"_{self.name}_value" if self.is_lookup else self.name

    @property
    def edm(self) -> str:
        if self.type == "DateTime":
            return "Edm.Date" if self.behavior == "DateOnly" else "Edm.DateTimeOffset"
        return EDM[self.type]


@dataclass(frozen=True, slots=True)
class External:
    """The data provider of a virtual table, its data source, and the table's names there."""

    provider: str
    source: str | None
    name: str
    collection: str


@dataclass(frozen=True, kw_only=True)
class Table:
    name: str
    entity_set: str
    label: str
    primary_id: str
    primary_name: str
    ownership: str
    change_tracking: bool
    keys: tuple[Key, ...]
    columns: Mapping[str, Column]
    external: External | None = None

    @cached_property
    def properties(self) -> dict[str, Column]:
        """Columns by property name. A type discriminator (EntityName) is not a property."""
        columns = (column for column in self.columns.values() if column.type != "EntityName")
        return {column.property_name: column for column in columns}

    @cached_property
    def composed_columns(self) -> tuple[Column, ...]:
        """Columns that the platform composes from others, such as a full name."""
        return tuple(column for column in self.columns.values() if column.composed_of)

    @cached_property
    def active_keys(self) -> tuple[Key, ...]:
        return tuple(key for key in self.keys if key.status == "Active")

    @cached_property
    def navigations(self) -> dict[str, tuple[Column, str]]:
        """Column and target table by navigation property (case sensitive)."""
        return {
            navigation: (column, target)
            for column in self.columns.values()
            for target, navigation in column.navigation
        }

    def key_properties(self, key: Key) -> list[str]:
        return [self.columns[name].property_name for name in key.columns]


@dataclass(frozen=True, slots=True)
class Catalog:
    """The current tables. `data` holds their definitions in the form of the files."""

    by_name: dict[str, Table] = field(default_factory=dict)
    by_set: dict[str, Table] = field(default_factory=dict)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)

    def define(self, data: dict[str, Any]) -> Table:
        """Add a table, or replace its definition."""
        table = _parse_table(data)
        self.by_name[table.name] = self.by_set[table.entity_set] = table
        self.data[table.name] = data
        return table

    def remove(self, name: str) -> None:
        del self.by_set[self.by_name.pop(name).entity_set], self.data[name]


def load(additions: Additions | None = None, folder: Path = FOLDER) -> Catalog:
    files = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    more = additions or {}
    if unknown := more.keys() - {data["logicalName"] for data in files}:
        raise ValueError(f"there is no table {', '.join(sorted(unknown))} to add columns to")
    catalog = Catalog()
    for data in files:
        catalog.define(_merge_additions(data, more.get(data["logicalName"], {})))
    return catalog


def read_additions(path: Path = PLAIN, prefix: str = "new") -> dict[str, Any]:
    """Read a file of columns and keys; `{prefix}` in it becomes the publisher's prefix."""
    document: dict[str, Any] = json.loads(path.read_text("utf-8").replace("{prefix}", prefix))
    return document


def _merge_additions(data: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    columns = {**data["columns"], **more.get("columns", {})}
    added = more.get("keys", ())
    return {**data, "columns": columns, "keys": [] if added is None else [*data["keys"], *added]}


def _parse_table(data: dict[str, Any]) -> Table:
    return Table(
        name=data["logicalName"],
        entity_set=data["entitySet"],
        label=data["label"],
        primary_id=data["primaryId"],
        primary_name=data["primaryName"],
        ownership=data["ownership"],
        change_tracking=data["changeTracking"],
        keys=tuple(
            Key(key["name"], tuple(key["columns"]), key.get("status", "Active"))
            for key in data["keys"]
        ),
        columns={name: _parse_column(name, column) for name, column in data["columns"].items()},
        external=External(**data["external"]) if "external" in data else None,
    )


def _parse_column(name: str, data: dict[str, Any]) -> Column:
    return Column(
        name=name,
        type=data["type"],
        schema_name=data["schemaName"],
        label=data["label"],
        required=data.get("required", "none"),
        max_length=data.get("maxLength"),
        minimum=data.get("min"),
        maximum=data.get("max"),
        precision=data.get("precision"),
        format=data.get("format"),
        behavior=data.get("behavior"),
        options=tuple(
            Option(option["value"], option["label"], option.get("state"), option.get("external"))
            for option in data.get("options", ())
        ),
        global_choice=data.get("globalChoice"),
        targets=tuple(data.get("targets", ())),
        navigation=tuple(data.get("navigation", {}).items()),
        read_only=data.get("readOnly", False),
        composed_of=tuple(data.get("composedOf", ())),
        cascade_delete=data.get("cascadeDelete", "RemoveLink"),
        external=data.get("external"),
    )
