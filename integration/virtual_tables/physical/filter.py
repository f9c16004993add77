"""A condition of the feed as a $filter of the Web API. Pure.

What Dataverse compares otherwise than the feed is not left to it: the filter finds those rows and
more, and each is looked at. So a filter is exact, or it is wider than the condition, and a part
that could only be narrower is left out. Dataverse compares text without regard to case and, by its
collation, to accents. And a negation stands before comparisons alone, each of which says what holds
for null.
https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/filter-rows
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from integration.dataverse.requests import quote_literal
from integration.odata.expressions import (
    And,
    Compare,
    Constant,
    Expression,
    Field,
    In,
    Is,
    Match,
    Not,
    Operator,
    Or,
    Truth,
)
from integration.odata.model import Property, Type, Value
from integration.virtual_tables.physical.table import PhysicalColumn, PhysicalTable

_NEGATED: dict[Operator, Operator] = {
    "eq": "ne",
    "ne": "eq",
    "lt": "ge",
    "le": "gt",
    "gt": "le",
    "ge": "lt",
}

# Dataverse takes no more conditions in one query, of which this module adds one:
# https://learn.microsoft.com/power-apps/developer/data-platform/fetchxml/reference/condition
_MAX_CONDITIONS = 499

# What may be a condition in the text of a filter. In a literal it is none, and is counted still.
_CONDITION = re.compile(r" (?:eq|ne|lt|le|gt|ge) |(?:contains|startswith|endswith)\(")

# Dataverse refuses dates before this one, in filters too:
# https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/datetimeattributemetadata
_FIRST_DATE = datetime(1753, 1, 1, tzinfo=UTC)
_LAST_DATE = datetime(9999, 12, 31, tzinfo=UTC)

# A day may be kept as an instant that is up to 14 hours before or after its midnight in UTC.
_DAY_SPREAD = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class RowFilter:
    """A $filter; None: none that is of use. `is_exact`: it finds no row but those that satisfy the
    condition."""

    text: str | None
    is_exact: bool = False


# The greatest that a column of whole or decimal numbers can hold: a greater literal is refused.
# https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/decimalattributemetadata
_LARGEST_NUMBER = 100_000_000_000

_WHOLE_NUMBERS = frozenset({"Integer", "BigInt", "Picklist", "State", "Status"})

_NOTHING_KNOWN = RowFilter(None)
_ALL = RowFilter(None, is_exact=True)


def build_filter(condition: Expression | None, table: PhysicalTable) -> RowFilter:
    """Build the filter that finds every row which satisfies a condition."""
    if condition is None:
        return _ALL
    found = _build(condition, table, negated=False)
    if found.text is not None and len(_CONDITION.findall(found.text)) > _MAX_CONDITIONS:
        return _NOTHING_KNOWN
    return found


def _build(condition: Expression, table: PhysicalTable, *, negated: bool) -> RowFilter:
    match condition:
        case And(parts):
            found = [_build(part, table, negated=negated) for part in parts]
            return _join_any(found) if negated else _join_all(found)
        case Or(parts):
            found = [_build(part, table, negated=negated) for part in parts]
            return _join_all(found) if negated else _join_any(found)
        case Not(part):
            return _build(part, table, negated=not negated)
        case Is(Compare() | In() as part, bool(value)):  # these are never null
            return _build(part, table, negated=negated is value)
        case Truth(Field(property_)):
            return _compare_property(table, property_, "eq", not negated)
        case Compare(operator, Field() as left, Constant(value)) if negated:
            found = [_compare_field(table, left, _NEGATED[operator], value)]
            if operator not in ("eq", "ne"):  # null is not greater, so it is among the others
                found.append(_compare_field(table, left, "eq", None))
            return _join_any(found) if len(found) > 1 else found[0]
        case Compare(operator, Field() as left, Constant(value)):
            return _compare_field(table, left, operator, value)
        case In(Field() as left, values):
            operator_: Operator = "ne" if negated else "eq"
            found = [_compare_field(table, left, operator_, value) for value in values]
            return _join_all(found) if negated else _join_any(found)
        case Match(function, Field(property_), Constant(str(part))) if not negated:
            return _match(table, property_, function, part)
    return _NOTHING_KNOWN


def _join_all(parts: Iterable[RowFilter]) -> RowFilter:
    listed = list(parts)
    texts = dict.fromkeys(part.text for part in listed if part.text is not None)
    is_exact = all(part.is_exact for part in listed)
    if not texts:
        return RowFilter(None, is_exact)
    return RowFilter(" and ".join(texts) if len(texts) > 1 else next(iter(texts)), is_exact)


def _join_any(parts: Iterable[RowFilter]) -> RowFilter:
    listed = list(parts)
    texts = [part.text for part in listed]
    if not texts or any(text is None for text in texts):
        return _NOTHING_KNOWN
    joined = " or ".join(f"({text})" for text in dict.fromkeys(texts))
    return RowFilter(f"({joined})", all(part.is_exact for part in listed))


# -- one property ----------------------------------------------------------------------------------


def _compare_field(
    table: PhysicalTable, field: Field, operator: Operator, value: Value
) -> RowFilter:
    """`tolower` and `toupper` change what is equal, but for a text that Dataverse compares without
    regard to case anyway."""
    if field.case != "as is" and operator != "eq":
        return _NOTHING_KNOWN
    return _compare_property(table, field.property, operator, value)


def _compare_property(
    table: PhysicalTable, property_: Property, operator: Operator, value: Value
) -> RowFilter:
    columns = table.columns[property_.name]
    if len(columns) != 1:
        return _compare_first(columns, property_, operator, value)
    column = columns[0]
    if value is None:
        return _compare_null(table, property_, column, operator)
    return _compare_column(property_, column, operator, value)


def _compare_first(
    columns: tuple[PhysicalColumn, ...], property_: Property, operator: Operator, value: Value
) -> RowFilter:
    """Compare the first of several columns that has a value: one of them has to satisfy it. A
    property without columns is null in each row."""
    if not columns or value is None or operator == "ne":
        return _NOTHING_KNOWN
    found = [_compare_column(property_, column, operator, value) for column in columns]
    return RowFilter(_join_any(found).text)


def _compare_null(
    table: PhysicalTable, property_: Property, column: PhysicalColumn, operator: Operator
) -> RowFilter:
    """A lookup that leads elsewhere, and a row without the column, are shown as null, too."""
    if operator not in ("eq", "ne"):
        return _NOTHING_KNOWN  # it is false, which costs more to say than to look
    is_plain = column.lookup is None and (
        property_.type is not Type.GUID or len(column.column.targets) < 2
    )
    text = f"{column.path} {operator} null"
    if is_plain:
        return RowFilter(text, is_exact=True)
    return RowFilter(text) if operator == "ne" else _NOTHING_KNOWN


def _compare_column(
    property_: Property, column: PhysicalColumn, operator: Operator, value: Value
) -> RowFilter:
    match property_.type:
        case Type.STRING:
            return _compare_text(column, operator, value)
        case Type.DATE_TIME_OFFSET if isinstance(value, datetime):
            compare = _compare_day if column.is_day else _compare_instant
            return compare(column, operator, value)
        case Type.INT32 | Type.INT64 | Type.DECIMAL if isinstance(value, int | Decimal):
            return _compare_number(column, operator, Decimal(value))
        case Type.BOOLEAN if isinstance(value, bool):
            return _compare_exactly(column, operator, "true" if value else "false")
        case Type.GUID if isinstance(value, UUID) and operator in ("eq", "ne"):
            # A lookup of several tables may lead to a row that the property does not show.
            is_exact = len(column.column.targets) < 2
            found = _compare_exactly(column, operator, str(value))
            return found if is_exact else RowFilter(found.text if operator == "eq" else None)
    return _NOTHING_KNOWN


def _compare_exactly(column: PhysicalColumn, operator: Operator, literal: str) -> RowFilter:
    """Null is unequal to every value, and neither greater nor less."""
    text = f"{column.path} {operator} {literal}"
    if operator == "ne":
        text = f"({text} or {column.path} eq null)"
    return RowFilter(text, is_exact=True)


def _compare_number(column: PhysicalColumn, operator: Operator, value: Decimal) -> RowFilter:
    """Dataverse keeps floating-point numbers otherwise than the feed shows them, and compares a
    whole number with whole numbers alone."""
    kind = column.column.type
    is_whole = value == value.to_integral_value()
    if kind in ("Double", "Boolean") or abs(value) > _LARGEST_NUMBER:
        return _NOTHING_KNOWN
    if kind in _WHOLE_NUMBERS and not is_whole:
        return _NOTHING_KNOWN
    return _compare_exactly(column, operator, format(value, "f"))


def _compare_instant(column: PhysicalColumn, operator: Operator, value: datetime) -> RowFilter:
    """Dataverse keeps whole seconds."""
    second = value.replace(microsecond=0)
    if second < _FIRST_DATE:
        return _NOTHING_KNOWN
    if second != value:
        if operator in ("eq", "ne"):
            return _NOTHING_KNOWN
        operator = "le" if operator in ("lt", "le") else "gt"
    return _compare_exactly(column, operator, _format_instant(column, second))


def _compare_day(column: PhysicalColumn, operator: Operator, value: datetime) -> RowFilter:
    """A day is not always kept as its midnight in UTC, so the filter is wider."""
    if operator == "ne" or not _FIRST_DATE + _DAY_SPREAD < value < _LAST_DATE - _DAY_SPREAD:
        return _NOTHING_KNOWN
    earliest = f"{column.path} ge {_format_instant(column, value - _DAY_SPREAD)}"
    latest = f"{column.path} le {_format_instant(column, value + _DAY_SPREAD)}"
    if operator == "eq":
        return RowFilter(f"{earliest} and {latest}")
    return RowFilter(latest if operator in ("lt", "le") else earliest)


def _format_instant(column: PhysicalColumn, value: datetime) -> str:
    if column.column.behavior == "DateOnly":
        return value.date().isoformat()
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _compare_text(column: PhysicalColumn, operator: Operator, value: Value) -> RowFilter:
    if operator != "eq" or not isinstance(value, str) or not _is_plain_text(value):
        return _NOTHING_KNOWN
    return RowFilter(f"{column.path} eq {quote_literal(value)}")


def _match(table: PhysicalTable, property_: Property, function: str, part: str) -> RowFilter:
    columns = table.columns[property_.name]
    if not columns or not part or not _is_plain_text(part):
        return _NOTHING_KNOWN
    literal = quote_literal(part)
    found = [RowFilter(f"{function}({column.path},{literal})") for column in columns]
    return _join_any(found) if len(found) > 1 else found[0]


def _is_plain_text(text: str) -> bool:
    """Whether Dataverse finds at least what the feed does. Of other alphabets lower case is not
    the same to both, and in `contains` % and _ may stand for any text."""
    return text.isascii() and text.isprintable() and not set(text) & set("%_[]")
