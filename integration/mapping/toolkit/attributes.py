"""Convert one attribute map of the toolkit: its action type becomes a kind of ours. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from integration.core import decimal_json
from integration.mapping.model import AttributeMap, Kind
from integration.mapping.toolkit.elements import is_primitive
from integration.mapping.toolkit.json_path import Unconvertible
from integration.mapping.toolkit.rows import AttributeRow, Table, ValueRow
from integration.mapping.toolkit.translate import TranslatedPath, quote, translate

COPY, DEFAULT, MAPPED, REFERENCE, CONCEPT = range(440670000, 440670005)
ACTIONS = {
    COPY: "Copy Data",
    DEFAULT: "Set Default Value",
    MAPPED: "Mapped Value",
    REFERENCE: "FK Reference",
    CONCEPT: "Lookup Codeable Concept",
}

COLUMN = re.compile(r"[a-z][a-z0-9_]{0,127}")

_TEXTS = frozenset({"string", "memo", "nvarchar", "ntext"})
_CHOICES = frozenset({"picklist", "state", "status", "optionset", "choice"})
_BOOLEANS = frozenset({"boolean", "bit", "twooptions"})
_INTEGERS = frozenset({"integer", "int", "bigint", "wholenumber"})
_LOOKUPS = frozenset({"lookup", "customer", "owner"})
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_BOOLEAN_VALUES = {"true": 1, "yes": 1, "1": 1, "false": 0, "no": 0, "0": 0}

# Tables whose DateTime columns all hold dates without a time (format DateOnly):
# microsoft/CDM schemaDocuments/Healthcare, Contact.cdm.json and its like
_DATE_ONLY_TABLES = frozenset(
    {"contact", "account", "msemr_medicalidentifier", "msemr_relatedperson"}
)


@dataclass(frozen=True, slots=True)
class ConvertedAttribute:
    """An attribute map of ours, and the caveats: how its values may differ from the toolkit's."""

    map: AttributeMap
    caveats: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """What an attribute map writes to, and the FHIR type that its paths start from."""

    table: str
    type: str
    metadata: Table | None


def describe_action(row: AttributeRow) -> str:
    """Return the action type as the toolkit's forms name it."""
    return ACTIONS.get(row.action or 0) or row.action_name or f"action {row.action}"


def is_expand(row: AttributeRow) -> bool:
    """Tell whether the action type is Expand, whose value Microsoft does not publish."""
    if row.action in ACTIONS:
        return False
    is_labelled = row.action_name.lower().startswith("expan")
    return is_labelled or bool(row.expansion) or row.column == "not applicable"


def extract_json_path(row: AttributeRow) -> str:
    """Return the JSONPath of the element map. Raises Unconvertible if there is none."""
    text = row.element_map
    if not text.startswith("{"):
        if not text.startswith("$"):
            raise Unconvertible(
                "it has no element map" if not text else "its element map is not JSON"
            )
        return text
    selected = _parse_element_map(row).get("s")
    if not isinstance(selected, str) or not selected.strip():
        raise Unconvertible("its element map has no path (s)")
    return selected


def has_template(row: AttributeRow) -> bool:
    """Tell whether the element map says what to create in FHIR on writing back."""
    try:
        return row.element_map.startswith("{") and "c" in _parse_element_map(row)
    except Unconvertible:
        return False


def _parse_element_map(row: AttributeRow) -> Mapping[str, Any]:
    try:
        found = decimal_json.decode(row.element_map.encode("utf-8", "replace"))
    except decimal_json.Malformed as error:
        raise Unconvertible(f"its element map is {error}") from None
    if not isinstance(found, dict):
        raise Unconvertible("its element map is not a JSON object")
    return found


def convert_attribute(row: AttributeRow, target: Target) -> ConvertedAttribute:
    """Convert an attribute map. Raises Unconvertible with the reason if it cannot be."""
    if not COLUMN.fullmatch(row.column):
        raise Unconvertible("its attribute name is not the logical name of a column")
    read = _CONVERTERS.get(row.action or 0)
    if read is None:
        raise Unconvertible("its action type is unknown")
    found = read(row, target)
    if row.template:
        why = "it is marked as a template, and Microsoft does not publish what that does"
        return replace(found, caveats=(*found.caveats, why))
    return found


def _translate_path(row: AttributeRow, target: Target) -> TranslatedPath:
    found = translate(extract_json_path(row), target.type)
    if found.is_list:
        why = "the JSONPath ends at a whole list; the relay takes its first item"
        return replace(found, caveats=(*found.caveats, why))
    return found


def _translate_to_primitive(row: AttributeRow, target: Target) -> TranslatedPath:
    found = _translate_path(row, target)
    if found.type and not is_primitive(found.type):
        raise Unconvertible(f"its path ends at a whole {found.type}, which is no value")
    return found


def _normalize_type(row: AttributeRow) -> str:
    return row.column_type.lower().replace(" ", "").removesuffix("type")


# -- Copy Data -----------------------------------------------------------------------------------


def _convert_copy(row: AttributeRow, target: Target) -> ConvertedAttribute:
    found, column = _translate_to_primitive(row, target), _normalize_type(row)
    if column in _LOOKUPS:
        raise Unconvertible("a lookup cannot take a copied value")
    if column in _CHOICES and found.type not in ("integer", "positiveInt", "unsignedInt"):
        raise Unconvertible("a choice cannot take a copied code: it needs Mapped Value")
    kind, caveats = Kind.COPY, found.caveats
    if column not in _TEXTS:
        if found.type == "date":
            kind = Kind.DATE
        elif found.type in ("dateTime", "instant"):
            kind, more = _choose_date_kind(row.column, target)
            caveats += more
    return ConvertedAttribute(AttributeMap(column=row.column, kind=kind, path=found.path), caveats)


def _choose_date_kind(column: str, target: Target) -> tuple[Kind, tuple[str, ...]]:
    """Tell whether the column holds dates or instants, by metadata or by Microsoft's schema."""
    metadata = target.metadata
    if metadata is not None and metadata.date_only is not None:
        return (Kind.DATE if column in metadata.date_only else Kind.DATETIME), ()
    if target.table in _DATE_ONLY_TABLES:
        return Kind.DATE, ()
    return Kind.DATETIME, (
        "assumed to be a column of instants, which leaves out dates without a time; if it holds "
        "dates, set kind = 'date'",
    )


# -- Set Default Value ---------------------------------------------------------------------------


def _convert_default(row: AttributeRow, target: Target) -> ConvertedAttribute:
    values = list(
        dict.fromkeys(value_row.static or value_row.dataverse for value_row in row.values)
    )
    if len(values) != 1 or not values[0]:
        raise Unconvertible(
            "msind_attributevaluemap has no single value for it, and which column holds it is not "
            "published: add it by hand"
        )
    value, column = values[0], _normalize_type(row)
    if column in _LOOKUPS:
        raise Unconvertible("a lookup cannot take a constant")
    caveat = "its value was taken from its row of msind_attributevaluemap, which is not documented"
    if column in _BOOLEANS:
        if value.lower() not in _BOOLEAN_VALUES:
            raise Unconvertible("its default is neither yes nor no")
        constant: Any = bool(_BOOLEAN_VALUES[value.lower()])
    elif column in _CHOICES | _INTEGERS or (not column and row.values[0].label):
        constant = _parse_integer(value)
        if constant is None:
            raise Unconvertible("its default is not a whole number, as the column requires")
    else:
        constant = value
    return ConvertedAttribute(
        AttributeMap(column=row.column, kind=Kind.DEFAULT, default=constant), (caveat,)
    )


# -- Mapped Value --------------------------------------------------------------------------------


def _convert_mapped(row: AttributeRow, target: Target) -> ConvertedAttribute:
    found = _translate_to_primitive(row, target)
    values = {(value_row.fhir.lower() if found.type == "boolean" else value_row.fhir): value_row
              for value_row in reversed(row.values) if value_row.fhir}  # fmt: skip
    if not values:
        raise Unconvertible("it maps no values: msind_attributevaluemap has no rows for it")
    caveats = found.caveats
    if len({(value_row.fhir, value_row.dataverse) for value_row in row.values}) > len(values):
        caveats += ("a code is mapped to two values; the relay takes the first",)
    chosen = {code: values[code] for code in sorted(values)}
    if _normalize_type(row) in _TEXTS:
        return ConvertedAttribute(
            AttributeMap(column=row.column, kind=Kind.COPY, path=_build_text_choice(found, chosen)),
            caveats,
        )
    options = {
        code: _parse_choice(value_row, _normalize_type(row)) for code, value_row in chosen.items()
    }
    if None in options.values():
        if _normalize_type(row):
            raise Unconvertible(
                "one of its values is not an option of a choice: a whole number, or yes or no"
            )
        return ConvertedAttribute(
            AttributeMap(column=row.column, kind=Kind.COPY, path=_build_text_choice(found, chosen)),
            caveats,
        )
    choices = {code: (option,) for code, option in options.items() if option is not None}
    return ConvertedAttribute(
        AttributeMap(column=row.column, kind=Kind.CHOICE, path=found.path, choices=choices), caveats
    )


def _build_text_choice(found: TranslatedPath, values: Mapping[str, ValueRow]) -> str:
    """Build FHIRPath that returns the text for each code, and nothing for other codes."""
    expression = "{}"
    for code, value_row in reversed([*values.items()]):
        test = code if found.type == "boolean" else quote(code)
        expression = f"iif($this = {test}, {quote(value_row.dataverse)}, {expression})"
    return f"{found.path}.select({expression})"


def _parse_choice(value_row: ValueRow, column: str) -> int | None:
    if column in _BOOLEANS or not _INTEGER.fullmatch(value_row.dataverse):
        return _BOOLEAN_VALUES.get(value_row.dataverse.lower()) if column not in _CHOICES else None
    return _parse_integer(value_row.dataverse)


def _parse_integer(text: str) -> int | None:
    return int(text) if _INTEGER.fullmatch(text) else None


# -- FK Reference --------------------------------------------------------------------------------


def _convert_reference(row: AttributeRow, target: Target) -> ConvertedAttribute:
    found = _translate_path(row, target)
    literal = found.owner_type == "Reference" and found.last == "reference"
    if found.type != "Reference" and not literal:
        raise Unconvertible("a lookup needs a path that ends at a Reference")
    path = found.path
    if row.reference and found.targets != (row.reference,):
        # The element may refer to other types as well, which other columns hold.
        text = "$this" if literal else "reference"
        kind = quote(f"{row.reference}/"), quote(f"/{row.reference}/")
        path += f".where({text}.startsWith({kind[0]}) or {text}.contains({kind[1]}))"
    return ConvertedAttribute(
        AttributeMap(column=row.column, kind=Kind.LOOKUP, path=path), found.caveats
    )


# -- Lookup Codeable Concept ---------------------------------------------------------------------


def _convert_concept(row: AttributeRow, target: Target) -> ConvertedAttribute:
    number = _parse_integer(row.concept_type)
    if number is None:
        raise Unconvertible("it has no codeable concept type value (a whole number)")
    found = _translate_path(row, target)
    path, caveats = found.path, found.caveats
    if found.last == "code" and found.owner_type == "Coding":
        # Take the whole coding: a new concept is named by its display.
        path = found.owner
    elif found.type and found.type not in ("CodeableConcept", "Coding", "code"):
        if not is_primitive(found.type):
            raise Unconvertible(f"a concept needs a code, and its path ends at a {found.type}")
        caveats += (f"the relay takes {found.last} for the code of the concept",)
    return ConvertedAttribute(
        AttributeMap(column=row.column, kind=Kind.CONCEPT, path=path, concept=number), caveats
    )


_CONVERTERS = {
    COPY: _convert_copy,
    DEFAULT: _convert_default,
    MAPPED: _convert_mapped,
    REFERENCE: _convert_reference,
    CONCEPT: _convert_concept,
}
