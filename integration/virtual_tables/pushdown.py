"""What of a $filter FHIR can search for. Pure.

A search only narrows: it finds every resource whose row fulfils the condition, and mostly more.
The whole condition is evaluated again on what it finds, so that an answer never depends on how a
FHIR server compares; only the work does. What has no search narrows nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

from integration.fhir.search import Parameters, escape, join_or
from integration.mapping.model import AttributeMap, Kind, Search, SearchType
from integration.odata.expressions import (
    And,
    Compare,
    Constant,
    Expression,
    Field,
    In,
    Match,
    Operand,
    Or,
    Order,
    Truth,
)
from integration.odata.model import Value
from integration.virtual_tables.entity_type import MappedEntityType

# A day with no time zone may be a day earlier or later, and a partial date is its first or last.
_DAY = timedelta(days=1)
# What rows show is cut to the second.
_SECOND = timedelta(seconds=1)

# https://hl7.org/fhir/R4/datatypes.html#id
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")

# More alternatives make an address that servers refuse.
_MOST_VALUES = 50

# Type and id by property and key: what lookups in a condition point at.
Targets = Mapping[tuple[str, UUID], str]


@dataclass(frozen=True, slots=True)
class SearchPart:
    """`exact`: what it finds is the answer, and nothing else. `nothing`: no row can fulfil it."""

    parameters: Parameters = ()
    is_exact: bool = True
    is_empty: bool = False


_LEFT = SearchPart(is_exact=False)
_NOTHING = SearchPart(is_empty=True)


def build_search(
    condition: Expression | None, shape: MappedEntityType, targets: Targets
) -> SearchPart:
    """The search for what fulfils `condition`, as far as there is one."""
    parts = [_pushed(part, shape, targets) for part in _conjuncts(condition)]
    return SearchPart(
        tuple(dict.fromkeys(each for part in parts for each in part.parameters)),
        all(part.is_exact for part in parts),
        any(part.is_empty for part in parts),
    )


def list_keys(condition: Expression | None) -> set[tuple[str, UUID]]:
    """Every property of GUIDs with a value that the condition compares it with."""
    found: set[tuple[str, UUID]] = set()
    for name, values in _compared(condition):
        found |= {(name, value) for value in values if isinstance(value, UUID)}
    return found


def list_properties(condition: Expression | None) -> set[str]:
    """Every property that the condition names."""
    return {name for name, _ in _compared(condition)}


def list_unsearched(
    condition: Expression | None, shape: MappedEntityType, targets: Targets
) -> list[str]:
    """The properties of the parts for which there is no exact search: why a query costs much."""
    parts = (part for part in _conjuncts(condition) if not _pushed(part, shape, targets).is_exact)
    return sorted({name for part in parts for name, _ in _compared(part)})


def build_sort(order: tuple[Order, ...], shape: MappedEntityType) -> str | None:
    """The value of _sort that brings rows into this order, if there is one."""
    if len(order) != 1:
        return None
    (by,) = order
    if by.property.name == shape.entity.updated_column:
        name = "_lastUpdated"
    else:
        attribute = shape.attributes.get(by.property.name)
        search = attribute.virtual_column.search if attribute else None
        if search is None or not search.sorts:
            return None
        name = search.name
    return f"-{name}" if by.descending else name


def _conjuncts(condition: Expression | None) -> tuple[Expression, ...]:
    if condition is None:
        return ()
    return condition.parts if isinstance(condition, And) else (condition,)


def _pushed(part: Expression, shape: MappedEntityType, targets: Targets) -> SearchPart:
    match part:
        case Or(parts):
            alternatives = _alternatives(parts)
            return _LEFT if alternatives is None else _equal(*alternatives, shape, targets)
        case In(Field(known, "as is"), values):
            return _equal(known.name, values, shape, targets)
        case Compare("eq", Field(known, "as is"), Constant(value)):
            return _equal(known.name, (value,), shape, targets)
        case Truth(Field(known, "as is")):
            return _equal(known.name, (True,), shape, targets)
        case Compare(operator, Field(known, "as is"), Constant(datetime() as moment)):
            return _bounded(operator, known.name, moment, shape)
        case Match(_, Field(known), Constant(str() as text)):
            return _containing(known.name, text, shape)
    return _LEFT


def _alternatives(parts: tuple[Expression, ...]) -> tuple[str, tuple[Value, ...]] | None:
    """a eq 1 or a eq 2 or a in (3,4): one property, and its values."""
    names, values = set(), []
    for part in parts:
        match part:
            case Compare("eq", Field(known, "as is"), Constant(value)):
                names.add(known.name)
                values.append(value)
            case In(Field(known, "as is"), several):
                names.add(known.name)
                values += several
            case _:
                return None
    return (names.pop(), tuple(values)) if len(names) == 1 else None


def _equal(
    name: str, values: tuple[Value, ...], shape: MappedEntityType, targets: Targets
) -> SearchPart:
    """Rows where the property has one of the values."""
    if any(value is None for value in values) or not 0 < len(values) <= _MOST_VALUES:
        return _LEFT
    entity = shape.entity
    if name == entity.key:
        ids = [targets[name, cast("UUID", value)] for value in values]
        return SearchPart((("_id", join_or(ids)),))
    if name == entity.id_column:
        ids = [str(value) for value in values if _ID.fullmatch(str(value))]
        return SearchPart((("_id", join_or(ids)),)) if ids else _NOTHING
    if name == entity.updated_column:
        moments = cast("tuple[datetime, ...]", values)
        return _between("_lastUpdated", min(moments), max(moments), _SECOND)
    attribute = shape.attributes.get(name)
    search = attribute.virtual_column.search if attribute else None
    if attribute is None or search is None:
        return _LEFT
    return _searched(attribute, search, name, values, targets)


def _searched(
    attribute: AttributeMap,
    search: Search,
    name: str,
    values: tuple[Value, ...],
    targets: Targets,
) -> SearchPart:
    match attribute.kind:
        case Kind.CHOICE:
            if attribute.default in values:
                return _LEFT  # rows of resources that have no such element
            codes = [code for code, options in attribute.choices.items() if {*options} & {*values}]
            return SearchPart(((search.name, join_or(codes)),), search.exact) if codes else _NOTHING
        case Kind.LOOKUP:
            type_ = attribute.virtual_column.target
            if type_ is None:
                return _LEFT
            named = [f"{type_}/{targets[name, cast('UUID', value)]}" for value in values]
            return SearchPart(((search.name, join_or(named)),), search.exact)
        case Kind.DATE | Kind.DATETIME:
            moments = cast("tuple[datetime, ...]", values)
            return _between(search.name, min(moments), max(moments), _DAY)
    return _copied(attribute, search, values)


def _copied(attribute: AttributeMap, search: Search, values: tuple[Value, ...]) -> SearchPart:
    if attribute.default in values:
        return _LEFT
    if attribute.virtual_column.type == "boolean":
        return SearchPart(
            ((search.name, join_or(str(one).lower() for one in values)),), search.exact
        )
    texts = [one for one in values if isinstance(one, str)]
    if len(texts) != len(values) or not all(_is_plain(one, attribute) for one in texts):
        return _LEFT
    if search.type is SearchType.TOKEN:
        return SearchPart(((search.name, join_or(texts)),), search.exact)
    if search.type is SearchType.STRING:
        return SearchPart(((f"{search.name}:contains", join_or(texts)),), is_exact=False)
    return _LEFT


def _is_plain(text: str, attribute: AttributeMap) -> bool:
    """Whether a server finds it as it is shown: a longer text was cut, blanks may have been left
    out, and how letters beyond ASCII are compared is each server's own affair."""
    return bool(text.strip()) and text.isascii() and len(text) < attribute.virtual_column.max_length


def _bounded(operator: str, name: str, moment: datetime, shape: MappedEntityType) -> SearchPart:
    """Rows after or before a moment."""
    if operator not in ("gt", "ge", "lt", "le"):
        return _LEFT
    if name == shape.entity.updated_column:
        return _bound("_lastUpdated", operator, moment, _SECOND)
    attribute = shape.attributes.get(name)
    search = attribute.virtual_column.search if attribute else None
    if search is None or search.type is not SearchType.DATE:
        return _LEFT
    return _bound(search.name, operator, moment, _DAY)


def _bound(name: str, operator: str, moment: datetime, slack: timedelta) -> SearchPart:
    after = operator in ("gt", "ge")
    try:
        limit = moment - slack if after else moment + slack
    except OverflowError:
        return _LEFT
    return SearchPart(((name, f"{'ge' if after else 'le'}{_text(limit, slack)}"),), is_exact=False)


def _between(name: str, first: datetime, last: datetime, slack: timedelta) -> SearchPart:
    lower, upper = _bound(name, "ge", first, slack), _bound(name, "le", last, slack)
    return SearchPart(lower.parameters + upper.parameters, is_exact=False)


def _text(moment: datetime, slack: timedelta) -> str:
    there = moment.astimezone(UTC)
    return there.date().isoformat() if slack >= _DAY else there.strftime("%Y-%m-%dT%H:%M:%SZ")


def _containing(name: str, text: str, shape: MappedEntityType) -> SearchPart:
    attribute = shape.attributes.get(name)
    search = attribute.virtual_column.search if attribute else None
    if attribute is None or search is None or search.type is not SearchType.STRING:
        return _LEFT
    if attribute.kind is not Kind.COPY or not _is_plain(text, attribute) or text != text.strip():
        return _LEFT
    return SearchPart(((f"{search.name}:contains", escape(text)),), is_exact=False)


def _compared(condition: Expression | None) -> Iterator[tuple[str, tuple[Value, ...]]]:
    """The properties of a condition, each with the values that it is compared with."""
    match condition:
        case None:
            return
        case And(parts) | Or(parts):
            for part in parts:
                yield from _compared(part)
        case In(operand, values):
            yield from ((name, values) for name in _names(operand))
        case Compare(_, left, right):
            for one, other in ((left, right), (right, left)):
                value = (other.value,) if isinstance(other, Constant) else ()
                yield from ((name, value) for name in _names(one))
        case Match(_, one, other):
            yield from ((name, ()) for each in (one, other) for name in _names(each))
        case Truth(operand):
            yield from ((name, ()) for name in _names(operand))
        case _:  # Not, Is
            yield from _compared(condition.part)


def _names(operand: Operand) -> tuple[str, ...]:
    return (operand.property.name,) if isinstance(operand, Field) else ()
