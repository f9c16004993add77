"""Evaluate a condition on a row, and sort rows. Pure.

Comparisons are true or false, with null too; functions of null are null; and, or and not have three
values: https://docs.oasis-open.org/odata/odata/v4.01/os/part2-url-conventions/odata-v4.01-os-part2-url-conventions.html#sec_LogicalOperators
Text is compared without regard to case, as Dataverse does, except in columns of codes.
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

_COMPARISONS: dict[Operator, Callable[[Any, Any], bool]] = {
    "eq": lambda left, right: left == right,
    "ne": lambda left, right: left != right,
    "lt": lambda left, right: left < right,
    "le": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "ge": lambda left, right: left >= right,
}


def matches(expression: Expression | None, values: EntityValues) -> bool:
    """Whether the row satisfies the condition. Without a condition every row does."""
    return expression is None or evaluate(expression, values) is True


def evaluate(expression: Expression, row: EntityValues) -> bool | None:
    """Evaluate a condition on a row: True, False, or None for null."""
    match expression:
        case And(parts):
            return _evaluate_all(evaluate(part, row) for part in parts)
        case Or(parts):
            return _negate(_evaluate_all(_negate(evaluate(part, row)) for part in parts))
        case Not(part):
            return _negate(evaluate(part, row))
        case Is(part, value):
            return evaluate(part, row) is value
        case Truth(operand):
            return _get_value(operand, row)  # type: ignore[return-value]  # the parser checked it
        case Compare(operator, left, right):
            fold = _choose_fold(left, right)
            return _compare(operator, fold(_get_value(left, row)), fold(_get_value(right, row)))
        case In(operand, values):
            fold = _choose_fold(operand)
            member = fold(_get_value(operand, row))
            return any(_compare("eq", member, fold(value)) for value in values)
        case Match(function, text, part):
            fold = _choose_fold(text, part)
            whole, piece = fold(_get_value(text, row)), fold(_get_value(part, row))
            if whole is None or piece is None:
                return None
            return bool(
                piece in whole if function == "contains" else getattr(whole, function)(piece)
            )


def build_sort_key(
    order: Sequence[Order], key: str | None
) -> Callable[[EntityValues], tuple[Any, ...]]:
    """Build the key function that sorts rows.

    Null comes first (last in descending order); ties are broken by the entity's key, if it is
    given, else they stay as they are.
    """

    def sort_key(row: EntityValues) -> tuple[Any, ...]:
        ranks = (_build_rank(row[item.property.name], item) for item in order)
        return (*ranks, *(() if key is None else (row[key],)))

    return sort_key


class _Descending:
    """Reverses the order of ranks."""

    __slots__ = ("rank",)

    def __init__(self, rank: tuple[bool, Any]) -> None:
        self.rank = rank

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and self.rank == other.rank

    def __lt__(self, other: _Descending) -> bool:
        return other.rank < self.rank


def _build_rank(value: Value, by: Order) -> Any:
    fold = _keep_case if by.property.case_sensitive else _fold_case
    rank = (value is not None, fold(value))
    return _Descending(rank) if by.descending else rank


def _evaluate_all(parts: Any) -> bool | None:
    """Evaluate `and`: False if one part is False, else None if one is None."""
    null = False
    for part in parts:
        if part is False:
            return False
        null = null or part is None
    return None if null else True


def _negate(value: bool | None) -> bool | None:
    return None if value is None else not value


def _compare(operator: Operator, left: Any, right: Any) -> bool:
    if left is None or right is None:
        both = left is None and right is None
        return both if operator == "eq" else not both if operator == "ne" else False
    return _COMPARISONS[operator](left, right)


def _get_value(operand: Operand, row: EntityValues) -> Value:
    if isinstance(operand, Constant):
        return operand.value
    value = row[operand.property.name]
    if operand.case == "as is" or not isinstance(value, str):
        return value
    return value.lower() if operand.case == "lower" else value.upper()


def _choose_fold(*operands: Operand) -> Callable[[Value], Any]:
    properties = (operand.property for operand in operands if isinstance(operand, Field))
    return _keep_case if any(property_.case_sensitive for property_ in properties) else _fold_case


def _keep_case(value: Value) -> Value:
    return value


def _fold_case(value: Value) -> Value:
    return value.lower() if isinstance(value, str) else value
