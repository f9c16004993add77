"""The toolkit's own tables as values: entity maps, attribute maps, value maps, resources. Pure.

Columns: microsoft/CDM, schemaDocuments/Healthcare/AzureAPIforFHIRsupport/SyncAgentCommon. Columns
that came later have no published logical name: `Later` says how an organisation calls them.
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
class Later:
    """Logical names of the columns that came after 2023; "" where nobody said."""

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


@dataclass(frozen=True, slots=True)
class AttributeRow:
    """One row of msind_updateserviceattributemap, with the values that it translates."""

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


@dataclass(frozen=True, slots=True)
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
    """What the organisation's metadata says of a table that a map writes."""

    entity_set: str
    key: str
    days: frozenset[str] | None = None  # DateTime columns that keep days; None: not known


@dataclass(frozen=True, slots=True)
class Toolkit:
    """All that was found, and the tables as far as they are known."""

    entities: tuple[EntityRow, ...]
    later: Later
    tables: Mapping[str, Table] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def later(given: Iterable[str]) -> Later:
    """From `expand=msind_…`. Raises Misconfigured."""
    known = [one.name for one in fields(Later)]
    pairs = [each.partition("=")[::2] for each in given]
    wrong = [name for name, column in pairs if name not in known or not column.strip()]
    if wrong:
        raise Misconfigured(f"--column takes {', '.join(f'{one}=…' for one in known)}")
    return Later(**{name: column.strip().lower() for name, column in pairs})


def read(data: Mapping[str, Iterable[Row]], later: Later = Later()) -> Toolkit:
    """Rows by table, as the Web API gives them. Raises Misconfigured for others."""
    missing = [name for name in (ENTITY_MAP, ATTRIBUTE_MAP) if not data.get(name)]
    if missing:
        raise Misconfigured(f"there are no rows of {' or '.join(missing)}")
    codes = {_id(row, RESOURCE): _text(row, "msind_code") for row in data.get(RESOURCE, ())}
    values: dict[str, list[ValueRow]] = {}
    for row in data.get(VALUE_MAP, ()):
        if not _inactive(row):
            values.setdefault(_lookup(row, ATTRIBUTE_MAP), []).append(_value(row))
    attributes: dict[str, list[AttributeRow]] = {}
    for row in data[ATTRIBUTE_MAP]:
        one = _attribute(row, codes, values, later)
        attributes.setdefault(one.entity, []).append(one)
    entities = tuple(_entity(row, codes, attributes, later) for row in data[ENTITY_MAP])
    orphans = sum(map(len, attributes.values())) - sum(len(one.attributes) for one in entities)
    notes = (f"{orphans} attribute maps belong to no entity map that is here",) if orphans else ()
    ordered = sorted(entities, key=lambda one: (one.resource, one.disabled, one.name, one.id))
    return Toolkit(tuple(ordered), later, notes=notes)


def _entity(
    row: Row, codes: Mapping[str, str], attributes: dict[str, list[AttributeRow]], later: Later
) -> EntityRow:
    key = _id(row, ENTITY_MAP)
    own = sorted(attributes.get(key, []), key=lambda one: (one.column, one.name, one.id))
    return EntityRow(
        id=key,
        name=_text(row, "msind_name") or key,
        table=_text(row, "msind_entityname").lower(),
        resource=codes.get(_lookup(row, RESOURCE)) or _formatted(row, f"_{RESOURCE}_value"),
        disabled=_flag(row, "msind_disabled"),
        inactive=_inactive(row),
        writeback=_flag(row, "msind_writeback"),
        messages=_choices(row, "msind_supportedmessages"),
        expand=bool(later.expand) and _flag(row, later.expand),
        parent_link=_text(row, later.parent_link).lower() if later.parent_link else "",
        attributes=tuple(own),
    )


def _attribute(
    row: Row, codes: Mapping[str, str], values: Mapping[str, list[ValueRow]], later: Later
) -> AttributeRow:
    key = _id(row, ATTRIBUTE_MAP)
    action = row.get("msind_actiontype")
    found = sorted(values.get(key, []), key=lambda one: (one.fhir, one.dataverse))
    reference = _lookup(row, "msind_fhirresourcereference")
    said = _formatted(row, "_msind_fhirresourcereference_value")
    return AttributeRow(
        id=key,
        name=_text(row, "msind_name"),
        entity=_lookup(row, ENTITY_MAP),
        column=_text(row, "msind_cdsattributename").lower(),
        column_type=_text(row, "msind_cdsattributetype"),
        action=action if type(action) is int else None,
        action_name=_formatted(row, "msind_actiontype"),
        concept_type=_text(row, "msind_codeableconcepttypevalue"),
        element_map=_text(row, "msind_fhirelementmap"),
        reference=(codes.get(reference) or said) if reference else "",
        disabled=_flag(row, "msind_disabled"),
        inactive=_inactive(row),
        template=_flag(row, "msind_istemplate"),
        expansion=_lookup(row, later.expansion_map) if later.expansion_map else "",
        matching=bool(later.matching) and _flag(row, later.matching),
        values=tuple(found),
    )


def _value(row: Row) -> ValueRow:
    return ValueRow(
        _text(row, "msind_azurefhirvalue"),
        _text(row, "msind_cdsvalue"),
        _text(row, "msind_staticvalue"),
        _text(row, "msind_optionsetlabel"),
    )


def _id(row: Row, table: str) -> str:
    key = _guid(row.get(f"{table}id"))
    if not key:
        raise Misconfigured(f"a row of {table} has no {table}id")
    return key


def _lookup(row: Row, name: str) -> str:
    return _guid(row.get(f"_{name}_value")) or _guid(row.get(name))


def _guid(value: object) -> str:
    return value.strip("{} ").lower() if isinstance(value, str) else ""


def _formatted(row: Row, name: str) -> str:
    return _text(row, f"{name}{_FORMATTED}")


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    return value.strip() if isinstance(value, str) else "" if value is None else str(value)


def _flag(row: Row, name: str) -> bool:
    return row.get(name) in (True, 1, "true", "True", "1", "Yes")


def _inactive(row: Row) -> bool:
    return bool(row.get("statecode") == _INACTIVE)


def _choices(row: Row, name: str) -> frozenset[int]:
    """A multi-select choice is text with commas."""
    parts = _text(row, name).split(",")
    return frozenset(int(part) for part in parts if part.strip().isdigit())
