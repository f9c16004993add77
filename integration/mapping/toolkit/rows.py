"""Rows of the toolkit's tables as values: entity maps, attribute maps, value maps. Pure.

Columns: microsoft/CDM, schemaDocuments/Healthcare/AzureAPIforFHIRsupport/SyncAgentCommon. Columns
that were added later have no published logical name: `NewerColumns` holds an organisation's names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from integration.core.errors import Misconfigured

ENTITY_MAP = "msind_updateserviceentitymap"
ATTRIBUTE_MAP = "msind_updateserviceattributemap"
VALUE_MAP = "msind_attributevaluemap"
RESOURCE = "msind_azurefhirresource"
TABLES = (ENTITY_MAP, ATTRIBUTE_MAP, VALUE_MAP, RESOURCE)

# https://learn.microsoft.com/power-apps/developer/data-platform/webapi/retrieve-entity-using-web-api#formatted-values
_FORMATTED = "@OData.Community.Display.V1.FormattedValue"

_INACTIVE = 1

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewerColumns:
    """Logical names of columns added after 2023; "" if unknown."""

    expand: str = ""  # entity map: Expand, yes or no
    parent_link: str = ""  # entity map: Parent Link Attribute
    expansion_map: str = ""  # attribute map: Expansion Entity Map
    matching: str = ""  # attribute map: Used in Record Matching


# The label of each in the toolkit's forms, and the table that has it:
# https://learn.microsoft.com/dynamics365/industry/healthcare/data-integration-toolkit-attribute-maps
LABELS = {
    "expand": (ENTITY_MAP, "Expand"),
    "parent_link": (ENTITY_MAP, "Parent Link Attribute"),
    "expansion_map": (ATTRIBUTE_MAP, "Expansion Entity Map"),
    "matching": (ATTRIBUTE_MAP, "Used in Record Matching"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeRow:
    """One row of msind_updateserviceattributemap, with the values that it maps."""

    id: str
    name: str
    entity: str
    column: str
    column_type: str
    action: int | None
    action_name: str
    concept_type: str
    element_map: str
    reference: str  # FHIR resource reference
    disabled: bool
    inactive: bool
    template: bool
    expansion: str  # the id of an entity map
    matching: bool
    values: tuple[ValueRow, ...]


@dataclass(frozen=True, slots=True)
class ValueRow:
    """One row of msind_attributevaluemap."""

    fhir: str
    dataverse: str
    static: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityRow:
    """One row of msind_updateserviceentitymap, with its attribute maps."""

    id: str
    name: str
    table: str
    resource: str
    disabled: bool
    inactive: bool
    writeback: bool
    messages: frozenset[int]
    expand: bool
    parent_link: str
    attributes: tuple[AttributeRow, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Metadata of a table that a map writes."""

    entity_set: str
    key: str
    date_only: frozenset[str] | None = (
        None  # DateTime columns of the format DateOnly; None: unknown
    )


@dataclass(frozen=True, slots=True)
class Toolkit:
    """All entity maps, and metadata of the tables that they write, if known."""

    entities: tuple[EntityRow, ...]
    newer_columns: NewerColumns
    tables: Mapping[str, Table] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def parse_newer_columns(given: Iterable[str]) -> NewerColumns:
    """Parse options such as `expand=msind_…`. Raises Misconfigured."""
    names = [column.name for column in fields(NewerColumns)]
    pairs = [option.partition("=")[::2] for option in given]
    wrong = [name for name, column in pairs if name not in names or not column.strip()]
    if wrong:
        raise Misconfigured(f"--column takes {', '.join(f'{name}=…' for name in names)}")
    return NewerColumns(**{name: column.strip().lower() for name, column in pairs})


def read_toolkit(
    data: Mapping[str, Iterable[Row]], newer_columns: NewerColumns = NewerColumns()
) -> Toolkit:
    """Build the toolkit from rows by table, as the Web API returns them. Raises Misconfigured."""
    missing = [name for name in (ENTITY_MAP, ATTRIBUTE_MAP) if not data.get(name)]
    if missing:
        raise Misconfigured(f"there are no rows of {' or '.join(missing)}")
    codes = {
        _read_id(row, RESOURCE): _read_text(row, "msind_code") for row in data.get(RESOURCE, ())
    }
    values: dict[str, list[ValueRow]] = {}
    for row in data.get(VALUE_MAP, ()):
        if not _is_inactive(row):
            values.setdefault(_read_lookup(row, ATTRIBUTE_MAP), []).append(_read_value(row))
    attributes: dict[str, list[AttributeRow]] = {}
    for row in data[ATTRIBUTE_MAP]:
        attribute = _read_attribute(row, codes, values, newer_columns)
        attributes.setdefault(attribute.entity, []).append(attribute)
    entities = tuple(
        _read_entity(row, codes, attributes, newer_columns) for row in data[ENTITY_MAP]
    )
    orphans = sum(map(len, attributes.values())) - sum(
        len(entity.attributes) for entity in entities
    )
    notes = (
        (f"{orphans} attribute maps belong to an entity map that is missing",) if orphans else ()
    )
    ordered = sorted(
        entities, key=lambda entity: (entity.resource, entity.disabled, entity.name, entity.id)
    )
    return Toolkit(tuple(ordered), newer_columns, notes=notes)


def _read_entity(
    row: Row,
    codes: Mapping[str, str],
    attributes: dict[str, list[AttributeRow]],
    newer_columns: NewerColumns,
) -> EntityRow:
    key = _read_id(row, ENTITY_MAP)
    rows = sorted(attributes.get(key, []), key=lambda row: (row.column, row.name, row.id))
    return EntityRow(
        id=key,
        name=_read_text(row, "msind_name") or key,
        table=_read_text(row, "msind_entityname").lower(),
        resource=codes.get(_read_lookup(row, RESOURCE)) or _read_label(row, f"_{RESOURCE}_value"),
        disabled=_read_flag(row, "msind_disabled"),
        inactive=_is_inactive(row),
        writeback=_read_flag(row, "msind_writeback"),
        messages=_read_choices(row, "msind_supportedmessages"),
        expand=bool(newer_columns.expand) and _read_flag(row, newer_columns.expand),
        parent_link=_read_text(row, newer_columns.parent_link).lower()
        if newer_columns.parent_link
        else "",
        attributes=tuple(rows),
    )


def _read_attribute(
    row: Row,
    codes: Mapping[str, str],
    values: Mapping[str, list[ValueRow]],
    newer_columns: NewerColumns,
) -> AttributeRow:
    key = _read_id(row, ATTRIBUTE_MAP)
    action = row.get("msind_actiontype")
    found = sorted(values.get(key, []), key=lambda row: (row.fhir, row.dataverse))
    reference = _read_lookup(row, "msind_fhirresourcereference")
    label = _read_label(row, "_msind_fhirresourcereference_value")
    return AttributeRow(
        id=key,
        name=_read_text(row, "msind_name"),
        entity=_read_lookup(row, ENTITY_MAP),
        column=_read_text(row, "msind_cdsattributename").lower(),
        column_type=_read_text(row, "msind_cdsattributetype"),
        action=action if type(action) is int else None,
        action_name=_read_label(row, "msind_actiontype"),
        concept_type=_read_text(row, "msind_codeableconcepttypevalue"),
        element_map=_read_text(row, "msind_fhirelementmap"),
        reference=(codes.get(reference) or label) if reference else "",
        disabled=_read_flag(row, "msind_disabled"),
        inactive=_is_inactive(row),
        template=_read_flag(row, "msind_istemplate"),
        expansion=_read_lookup(row, newer_columns.expansion_map)
        if newer_columns.expansion_map
        else "",
        matching=bool(newer_columns.matching) and _read_flag(row, newer_columns.matching),
        values=tuple(found),
    )


def _read_value(row: Row) -> ValueRow:
    return ValueRow(
        _read_text(row, "msind_azurefhirvalue"),
        _read_text(row, "msind_cdsvalue"),
        _read_text(row, "msind_staticvalue"),
        _read_text(row, "msind_optionsetlabel"),
    )


def _read_id(row: Row, table: str) -> str:
    key = _normalize_guid(row.get(f"{table}id"))
    if not key:
        raise Misconfigured(f"a row of {table} has no {table}id")
    return key


def _read_lookup(row: Row, name: str) -> str:
    return _normalize_guid(row.get(f"_{name}_value")) or _normalize_guid(row.get(name))


def _normalize_guid(value: object) -> str:
    return value.strip("{} ").lower() if isinstance(value, str) else ""


def _read_label(row: Row, name: str) -> str:
    return _read_text(row, f"{name}{_FORMATTED}")


def _read_text(row: Row, name: str) -> str:
    value = row.get(name)
    return value.strip() if isinstance(value, str) else "" if value is None else str(value)


def _read_flag(row: Row, name: str) -> bool:
    return row.get(name) in (True, 1, "true", "True", "1", "Yes")


def _is_inactive(row: Row) -> bool:
    return bool(row.get("statecode") == _INACTIVE)


def _read_choices(row: Row, name: str) -> frozenset[int]:
    """Parse a multi-select choice, which the Web API returns as text with commas."""
    parts = _read_text(row, name).split(",")
    return frozenset(int(part) for part in parts if part.strip().isdigit())
