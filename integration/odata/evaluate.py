"""A condition on a row, and the order of rows. Pure.

Comparisons are true or false, with null too; functions of null are null; and, or and not know
three values: https://docs.oasis-open.org/odata/odata/v4.01/os/part2-url-conventions/odata-v4.01-os-part2-url-conventions.html#sec_LogicalOperators
Text is compared without regard to case, as Dataverse does, but for columns of codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
    Operand,
    Operator,
    Or,
    Order,
    Truth,
)
from integration.odata.model import EntityValues, Value

_HOLDS: dict[Operator, Callable[[Any, Any], bool]] = {
    "eq": lambda left, right: left == right,
    "ne": lambda left, right: left != right,
    "lt": lambda left, right: left < right,
    "le": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "ge": lambda left, right: left >= right,
}


def matches(expression: Expression | None, row: EntityValues) -> bool:
    """Whether the row belongs to the result; every row does where there is no filter."""
    return expression is None or evaluate(expression, row) is True


def evaluate(expression: Expression, row: EntityValues) -> bool | None:
    """True, false, or None for null."""
    match expression:
        case And(parts):
            return _all(evaluate(part, row) for part in parts)
        case Or(parts):
            return _negated(_all(_negated(evaluate(part, row)) for part in parts))
        case Not(part):
            return _negated(evaluate(part, row))
        case Is(part, value):
            return evaluate(part, row) is value
        case Truth(operand):
            return _value(operand, row)  # type: ignore[return-value]  # the parser saw to it
        case Compare(operator, left, right):
            fold = _folding(left, right)
            return _compared(operator, fold(_value(left, row)), fold(_value(right, row)))
        case In(operand, values):
            fold = _folding(operand)
            own = fold(_value(operand, row))
            return any(_compared("eq", own, fold(value)) for value in values)
        case Match(function, text, part):
            fold = _folding(text, part)
            whole, piece = fold(_value(text, row)), fold(_value(part, row))
            if whole is None or piece is None:
                return None
            return bool(
                piece in whole if function == "contains" else getattr(whole, function)(piece)
            )


def build_sort_key(order: Sequence[Order], key: str) -> Callable[[EntityValues], tuple[Any, ...]]:
    """A key to sort rows by: null first (last in descending order), ties by the entity's key."""

    def place(row: EntityValues) -> tuple[Any, ...]:
        return (*(_rank(row[each.property.name], each) for each in order), row[key])

    return place


class _Down:
    """What is greater comes first."""

    __slots__ = ("rank",)

    def __init__(self, rank: tuple[bool, Any]) -> None:
        self.rank = rank

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Down) and self.rank == other.rank

    def __lt__(self, other: _Down) -> bool:
        return other.rank < self.rank


def _rank(value: Value, by: Order) -> Any:
    fold = _kept if by.property.case_sensitive else _folded
    rank = (value is not None, fold(value))
    return _Down(rank) if by.descending else rank


def _all(parts: Any) -> bool | None:
    """False if one is, else null if one is."""
    null = False
    for part in parts:
        if part is False:
            return False
        null = null or part is None
    return None if null else True


def _negated(value: bool | None) -> bool | None:
    return None if value is None else not value


def _compared(operator: Operator, left: Any, right: Any) -> bool:
    if left is None or right is None:
        both = left is None and right is None
        return both if operator == "eq" else not both if operator == "ne" else False
    return _HOLDS[operator](left, right)


def _value(operand: Operand, row: EntityValues) -> Value:
    if isinstance(operand, Constant):
        return operand.value
    value = row[operand.property.name]
    if operand.case == "as is" or not isinstance(value, str):
        return value
    return value.lower() if operand.case == "lower" else value.upper()


def _folding(*operands: Operand) -> Callable[[Value], Any]:
    fields = (each.property for each in operands if isinstance(each, Field))
    return _kept if any(each.case_sensitive for each in fields) else _folded


def _kept(value: Value) -> Value:
    return value


def _folded(value: Value) -> Value:
    return value.lower() if isinstance(value, str) else value
