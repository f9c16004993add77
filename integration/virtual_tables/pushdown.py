"""Build the FHIR search for one part of a $filter. Pure.

A search only narrows: it finds every resource whose row satisfies the condition, and usually more.
The whole condition is evaluated again on what the search finds, so that the response never depends
on how a FHIR server compares values. A condition without a search narrows nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

from integration.fhir.search import Parameters, escape, join_or
from integration.mapping.model import AttributeMap, Kind, Search, SearchType
from integration.odata.expressions import (
    Compare,
    Constant,
    Expression,
    Field,
    Function,
    In,
    Match,
    Or,
    Truth,
)
from integration.odata.model import Value
from integration.virtual_tables.entity_type import MappedEntityType

# A date without a time zone may be a day earlier or later; a partial date is its first or last day.
_DAY = timedelta(days=1)
# Rows show datetimes cut to the second.
_SECOND = timedelta(seconds=1)

# https://hl7.org/fhir/R4/datatypes.html#id
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")

# More alternatives make a URL that servers refuse.
_MAX_VALUES = 50

# By property and key: the id of the resource whose row has that key.
TargetIds = Mapping[tuple[str, UUID], str]


@dataclass(frozen=True, slots=True)
class SearchPart:
    """The search for one part of a filter.

    `is_exact`: it finds the rows that satisfy the part and no others. `is_empty`: no row can
    satisfy the part.
    """

    parameters: Parameters = ()
    is_exact: bool = True
    is_empty: bool = False


NOT_SEARCHABLE = SearchPart(is_exact=False)
_EMPTY = SearchPart(is_empty=True)


def build_search(
    condition: Expression, entity_type: MappedEntityType, target_ids: TargetIds
) -> SearchPart:
    """Build the search that finds every row that satisfies `condition`.

    `target_ids` has every key that `condition` names.
    """
    match condition:
        case Or(parts):
            alternatives = _merge_alternatives(parts)
            if alternatives is None:
                return _search_same(parts, entity_type, target_ids)
            name, values = alternatives
            return _search_equal(name, values, entity_type, target_ids)
        case In(Field(property_, "as is"), values):
            return _search_equal(property_.name, values, entity_type, target_ids)
        case Compare("eq", Field(property_, "as is"), Constant(value)):
            return _search_equal(property_.name, (value,), entity_type, target_ids)
        case Truth(Field(property_, "as is")):
            return _search_equal(property_.name, (True,), entity_type, target_ids)
        case Compare(operator, Field(property_, "as is"), Constant(datetime() as limit)):
            return _search_bound(operator, property_.name, limit, entity_type)
        case Match(function, Field(property_), Constant(str() as text)):
            return _search_text(function, property_.name, text, entity_type)
    return NOT_SEARCHABLE


def _search_same(
    conditions: tuple[Expression, ...], entity_type: MappedEntityType, target_ids: TargetIds
) -> SearchPart:
    """Search for rows that satisfy one of the conditions, if one search finds those of each: a text
    in several columns of one element, as in a quick find."""
    searches = [build_search(part, entity_type, target_ids).parameters for part in conditions]
    if not searches[0] or any(search != searches[0] for search in searches):
        return NOT_SEARCHABLE
    return SearchPart(searches[0], is_exact=False)


def _merge_alternatives(
    conditions: tuple[Expression, ...],
) -> tuple[str, tuple[Value, ...]] | None:
    """Merge `a eq 1 or a eq 2 or a in (3,4)` into the one property and its values."""
    names, values = set(), []
    for condition in conditions:
        match condition:
            case Compare("eq", Field(property_, "as is"), Constant(value)):
                names.add(property_.name)
                values.append(value)
            case In(Field(property_, "as is"), members):
                names.add(property_.name)
                values += members
            case _:
                return None
    return (names.pop(), tuple(values)) if len(names) == 1 else None


def _search_equal(
    name: str, values: tuple[Value, ...], entity_type: MappedEntityType, target_ids: TargetIds
) -> SearchPart:
    """Search for rows in which the property has one of the values."""
    if any(value is None for value in values) or not 0 < len(values) <= _MAX_VALUES:
        return NOT_SEARCHABLE
    entity = entity_type.entity
    if name == entity.key:
        ids = [target_ids[name, cast("UUID", value)] for value in values]
        return SearchPart((("_id", join_or(ids)),))
    if name == entity.id_column:
        ids = [str(value) for value in values if _ID.fullmatch(str(value))]
        return SearchPart((("_id", join_or(ids)),)) if ids else _EMPTY
    if name == entity.updated_column:
        datetimes = cast("tuple[datetime, ...]", values)
        return _build_range("_lastUpdated", min(datetimes), max(datetimes), _SECOND)
    attribute, search = _find_search(name, entity_type)
    if attribute is None or search is None:
        return NOT_SEARCHABLE
    match attribute.kind:
        case Kind.CHOICE:
            return _search_choice(attribute, search, values)
        case Kind.LOOKUP:
            return _search_lookup(name, attribute, search, values, target_ids)
        case Kind.DATE | Kind.DATETIME:
            datetimes = cast("tuple[datetime, ...]", values)
            return _build_range(search.name, min(datetimes), max(datetimes), _DAY)
    return _search_copy(attribute, search, values)


def _find_search(
    name: str, entity_type: MappedEntityType
) -> tuple[AttributeMap | None, Search | None]:
    attribute = entity_type.attributes.get(name)
    return attribute, attribute.virtual_column.search if attribute else None


def _search_choice(
    attribute: AttributeMap, search: Search, values: tuple[Value, ...]
) -> SearchPart:
    if attribute.default in values:
        return NOT_SEARCHABLE  # resources without the element have the default, too
    codes = [code for code, options in attribute.choices.items() if {*options} & {*values}]
    return SearchPart(((search.name, join_or(codes)),), search.exact) if codes else _EMPTY


def _search_lookup(
    name: str,
    attribute: AttributeMap,
    search: Search,
    values: tuple[Value, ...],
    target_ids: TargetIds,
) -> SearchPart:
    type_ = attribute.virtual_column.target
    if type_ is None:
        return NOT_SEARCHABLE
    references = [f"{type_}/{target_ids[name, cast('UUID', value)]}" for value in values]
    return SearchPart(((search.name, join_or(references)),), search.exact)


def _search_copy(attribute: AttributeMap, search: Search, values: tuple[Value, ...]) -> SearchPart:
    if attribute.default in values:
        return NOT_SEARCHABLE
    if attribute.virtual_column.type == "boolean":
        texts = [str(value).lower() for value in values]
        return SearchPart(((search.name, join_or(texts)),), search.exact)
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) != len(values) or not all(_is_plain(text, attribute) for text in texts):
        return NOT_SEARCHABLE
    if search.type is SearchType.TOKEN:
        return SearchPart(((search.name, join_or(texts)),), search.exact)
    if search.type is SearchType.STRING:
        parts = [_pick_part(search, text) for text in texts]
        return SearchPart(((f"{search.name}:contains", join_or(parts)),), is_exact=False)
    if search.type is SearchType.TEXT and len(texts) == 1:
        return _search_beginning(search, texts[0])
    return NOT_SEARCHABLE


def _is_plain(text: str, attribute: AttributeMap) -> bool:
    """Whether a server finds the text as the row shows it.

    A longer text was cut, blanks may have been trimmed, each server compares letters beyond ASCII
    in its own way, and none takes control characters.
    """
    is_plain = bool(text.strip()) and text.isascii() and text.isprintable()
    return is_plain and len(text) < attribute.virtual_column.max_length


def _search_bound(
    operator: str, name: str, limit: datetime, entity_type: MappedEntityType
) -> SearchPart:
    """Search for rows after or before a datetime."""
    if operator not in ("gt", "ge", "lt", "le"):
        return NOT_SEARCHABLE
    if name == entity_type.entity.updated_column:
        return _build_bound("_lastUpdated", operator, limit, _SECOND)
    _, search = _find_search(name, entity_type)
    if search is None or search.type is not SearchType.DATE:
        return NOT_SEARCHABLE
    return _build_bound(search.name, operator, limit, _DAY)


def _build_bound(parameter: str, operator: str, limit: datetime, slack: timedelta) -> SearchPart:
    is_lower = operator in ("gt", "ge")
    try:
        widened = limit - slack if is_lower else limit + slack
    except OverflowError:
        return NOT_SEARCHABLE
    value = f"{'ge' if is_lower else 'le'}{_format_limit(widened, slack)}"
    return SearchPart(((parameter, value),), is_exact=False)


def _build_range(parameter: str, first: datetime, last: datetime, slack: timedelta) -> SearchPart:
    lower = _build_bound(parameter, "ge", first, slack)
    upper = _build_bound(parameter, "le", last, slack)
    return SearchPart(lower.parameters + upper.parameters, is_exact=False)


def _format_limit(limit: datetime, slack: timedelta) -> str:
    utc = limit.astimezone(UTC)
    # strftime writes years before 1000 with fewer than four digits.
    whole = utc.replace(tzinfo=None).isoformat(timespec="seconds")
    return utc.date().isoformat() if slack >= _DAY else f"{whole}Z"


def _search_text(
    function: Function, name: str, text: str, entity_type: MappedEntityType
) -> SearchPart:
    """Search for rows whose text contains, starts or ends with `text`."""
    attribute, search = _find_search(name, entity_type)
    if attribute is None or search is None or attribute.kind is not Kind.COPY:
        return NOT_SEARCHABLE
    if not _is_plain(text, attribute) or text != text.strip():
        return NOT_SEARCHABLE
    if search.type is SearchType.TEXT and function == "startswith":
        return _search_beginning(search, text)
    if search.type is not SearchType.STRING:
        return NOT_SEARCHABLE
    part = _pick_part(search, text)
    return SearchPart(((f"{search.name}:contains", escape(part)),), is_exact=False)


def _pick_part(search: Search, text: str) -> str:
    """Pick what one value has of a text: of a name in several parts the longest word."""
    return max(text.split(), key=len) if search.of_words else text


def _search_beginning(search: Search, text: str) -> SearchPart:
    """Search for codes that are named by a text that begins so. FHIR's :text finds these, and on
    some servers what has a word that begins so: https://hl7.org/fhir/R4/search.html#modifiers

    Servers do not agree how :text takes characters that separate values elsewhere.
    """
    if text != text.strip() or text != escape(text):
        return NOT_SEARCHABLE
    return SearchPart(((f"{search.name}:text", text),), is_exact=False)
