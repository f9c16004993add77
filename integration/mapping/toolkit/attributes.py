"""One attribute map of the toolkit becomes one of ours: an action type, a kind. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from integration.core import decimal_json
from integration.mapping.model import AttributeMap, Kind
from integration.mapping.toolkit.elements import is_primitive
from integration.mapping.toolkit.json_path import NotRead
from integration.mapping.toolkit.rows import AttributeRow, Table, ValueRow
from integration.mapping.toolkit.translate import Translated, quoted, translate

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
_TRUTHS = frozenset({"boolean", "bit", "twooptions"})
_WHOLES = frozenset({"integer", "int", "bigint", "wholenumber"})
_LOOKUPS = frozenset({"lookup", "customer", "owner"})
_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)
_TRUTH = {"true": 1, "yes": 1, "1": 1, "false": 0, "no": 0, "0": 0}

# Tables whose DateTime columns all keep days (format date):
# microsoft/CDM schemaDocuments/Healthcare, Contact.cdm.json and its like
_OF_DAYS = frozenset({"contact", "account", "msemr_medicalidentifier", "msemr_relatedperson"})


@dataclass(frozen=True, slots=True)
class Carried:
    """Our attribute map, and where its values may differ from the toolkit's."""

    map: AttributeMap
    caveats: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Where an attribute map is: its table and the type that its paths start from."""

    table: str
    type: str
    known: Table | None


def action(row: AttributeRow) -> str:
    """What a reader of the toolkit's forms calls it."""
    return ACTIONS.get(row.action or 0) or row.action_name or f"action {row.action}"


def is_expand(row: AttributeRow) -> bool:
    """The value of Expand is not published; its label, its expansion map and its column say it."""
    if row.action in ACTIONS:
        return False
    said = row.action_name.lower().startswith("expan")
    return said or bool(row.expansion) or row.column == "not applicable"


def selection(row: AttributeRow) -> str:
    """The JSONPath of the element map. Raises NotRead."""
    text = row.element_map
    if not text.startswith("{"):
        if not text.startswith("$"):
            raise NotRead("there is no element map" if not text else "the element map is no JSON")
        return text
    selected = _element_map(row).get("s")
    if not isinstance(selected, str) or not selected.strip():
        raise NotRead("the element map has no s")
    return selected


def has_template(row: AttributeRow) -> bool:
    """Whether the element map says what to create on writing back."""
    try:
        return row.element_map.startswith("{") and "c" in _element_map(row)
    except NotRead:
        return False


def _element_map(row: AttributeRow) -> Mapping[str, Any]:
    try:
        found = decimal_json.decode(row.element_map.encode("utf-8", "replace"))
    except decimal_json.Malformed as error:
        raise NotRead(f"the element map is {error}") from None
    if not isinstance(found, dict):
        raise NotRead("the element map is no JSON object")
    return found


def carried(row: AttributeRow, target: Target) -> Carried:
    """Raises NotRead for what cannot be carried over."""
    if not COLUMN.fullmatch(row.column):
        raise NotRead("the attribute name is no logical name of a column")
    read = _READ.get(row.action or 0)
    if read is None:
        raise NotRead("the action type is not known")
    found = read(row, target)
    if row.template:
        why = "it is marked as a template, the effect of which is not published"
        return replace(found, caveats=(*found.caveats, why))
    return found


def _translated(row: AttributeRow, target: Target) -> Translated:
    found = translate(selection(row), target.type)
    if found.is_list:
        why = "JSONPath ends at a whole list; here its first item is taken"
        return replace(found, caveats=(*found.caveats, why))
    return found


def _primitive(row: AttributeRow, target: Target) -> Translated:
    found = _translated(row, target)
    if found.type and not is_primitive(found.type):
        raise NotRead(f"the path ends at a whole {found.type}, no value")
    return found


def _type(row: AttributeRow) -> str:
    return row.column_type.lower().replace(" ", "").removesuffix("type")


# -- Copy Data -----------------------------------------------------------------------------------


def _copied(row: AttributeRow, target: Target) -> Carried:
    found, column = _primitive(row, target), _type(row)
    if column in _LOOKUPS:
        raise NotRead("a lookup takes no copy of a value")
    if column in _CHOICES and found.type not in ("integer", "positiveInt", "unsignedInt"):
        raise NotRead("a choice takes no copy of a code: it would need Mapped Value")
    kind, caveats = Kind.COPY, found.caveats
    if column not in _TEXTS:
        if found.type == "date":
            kind = Kind.DATE
        elif found.type in ("dateTime", "instant"):
            kind, more = _moment(row.column, target)
            caveats += more
    return Carried(AttributeMap(row.column, kind, found.path), caveats)


def _moment(column: str, target: Target) -> tuple[Kind, tuple[str, ...]]:
    """Whether the column keeps days or instants: by the metadata, else by what is published."""
    known = target.known
    if known is not None and known.days is not None:
        return (Kind.DATE if column in known.days else Kind.DATETIME), ()
    if target.table in _OF_DAYS:
        return Kind.DATE, ()
    return Kind.DATETIME, (
        "taken for a column of instants, for which a day without a time is left out; "
        "if it keeps days, make it kind = 'date'",
    )


# -- Set Default Value ---------------------------------------------------------------------------


def _constant(row: AttributeRow, target: Target) -> Carried:
    said = list(dict.fromkeys(one.static or one.dataverse for one in row.values))
    if len(said) != 1 or not said[0]:
        raise NotRead("no single value is found for it in msind_attributevaluemap; "
                      "which column keeps it is not published: add it by hand")  # fmt: skip
    value, column = said[0], _type(row)
    if column in _LOOKUPS:
        raise NotRead("a lookup takes no constant")
    caveat = "the value is taken from its row of msind_attributevaluemap, which is not published"
    if column in _TRUTHS:
        if value.lower() not in _TRUTH:
            raise NotRead("the default is neither yes nor no")
        constant: Any = bool(_TRUTH[value.lower()])
    elif column in _CHOICES | _WHOLES or (not column and row.values[0].label):
        constant = _option(value)
        if constant is None:
            raise NotRead("the default is no whole number, the column takes nothing else")
    else:
        constant = value
    return Carried(AttributeMap(row.column, Kind.DEFAULT, default=constant), (caveat,))


# -- Mapped Value --------------------------------------------------------------------------------


def _chosen(row: AttributeRow, target: Target) -> Carried:
    found = _primitive(row, target)
    values = {(one.fhir.lower() if found.type == "boolean" else one.fhir): one
              for one in reversed(row.values) if one.fhir}  # fmt: skip
    if not values:
        raise NotRead("it translates no values: there are no rows of msind_attributevaluemap")
    caveats = found.caveats
    if len({(one.fhir, one.dataverse) for one in row.values}) > len(values):
        caveats += ("a code stands for two values; the first is taken",)
    chosen = {code: values[code] for code in sorted(values)}
    if _type(row) in _TEXTS:
        return Carried(AttributeMap(row.column, Kind.COPY, _spelt(found, chosen)), caveats)
    options = {code: _choice(one, _type(row)) for code, one in chosen.items()}
    if None in options.values():
        if _type(row):
            raise NotRead("a value is no option of a choice: a whole number, or yes or no")
        return Carried(AttributeMap(row.column, Kind.COPY, _spelt(found, chosen)), caveats)
    choices = {code: (option,) for code, option in options.items() if option is not None}
    return Carried(AttributeMap(row.column, Kind.CHOICE, found.path, choices), caveats)


def _spelt(found: Translated, values: Mapping[str, ValueRow]) -> str:
    """FHIRPath that says the text for each code; nothing for another code."""
    said = "{}"
    for code, one in reversed([*values.items()]):
        test = code if found.type == "boolean" else quoted(code)
        said = f"iif($this = {test}, {quoted(one.dataverse)}, {said})"
    return f"{found.path}.select({said})"


def _choice(one: ValueRow, column: str) -> int | None:
    if column in _TRUTHS or not _WHOLE.fullmatch(one.dataverse):
        return _TRUTH.get(one.dataverse.lower()) if column not in _CHOICES else None
    return _option(one.dataverse)


def _option(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) else None


# -- FK Reference --------------------------------------------------------------------------------


def _linked(row: AttributeRow, target: Target) -> Carried:
    found = _translated(row, target)
    literal = found.owner_type == "Reference" and found.last == "reference"
    if found.type != "Reference" and not literal:
        raise NotRead("a lookup needs a path to a Reference")
    path = found.path
    if row.reference and found.targets != (row.reference,):
        # The element may lead to other types, which other columns show.
        said = "$this" if literal else "reference"
        kind = quoted(f"{row.reference}/"), quoted(f"/{row.reference}/")
        path += f".where({said}.startsWith({kind[0]}) or {said}.contains({kind[1]}))"
    return Carried(AttributeMap(row.column, Kind.LOOKUP, path), found.caveats)


# -- Lookup Codeable Concept ---------------------------------------------------------------------


def _coded(row: AttributeRow, target: Target) -> Carried:
    number = _option(row.concept_type)
    if number is None:
        raise NotRead("it has no codeable concept type value, a whole number")
    found = _translated(row, target)
    path, caveats = found.path, found.caveats
    if found.last == "code" and found.owner_type == "Coding":
        # The coding has the same code, and a display for the name of a new concept.
        path = found.owner
    elif found.type and found.type not in ("CodeableConcept", "Coding", "code"):
        if not is_primitive(found.type):
            raise NotRead(f"a concept needs a code, the path ends at a {found.type}")
        caveats += (f"{found.last} is taken for the code of the concept",)
    return Carried(AttributeMap(row.column, Kind.CONCEPT, path, concept=number), caveats)


_READ = {COPY: _copied, DEFAULT: _constant, MAPPED: _chosen, REFERENCE: _linked, CONCEPT: _coded}
