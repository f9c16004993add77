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
    Function,
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

Test = Callable[[EntityValues], bool]
Evaluate = Callable[[EntityValues], bool | None]
GetValue = Callable[[EntityValues], Any]
Fold = Callable[[Value], Any]

_COMPARISONS: dict[Operator, Callable[[Any, Any], bool]] = {
    "eq": lambda left, right: left == right,
    "ne": lambda left, right: left != right,
    "lt": lambda left, right: left < right,
    "le": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "ge": lambda left, right: left >= right,
}


def build_test(expression: Expression | None) -> Test:
    """Build what tells whether a row satisfies a condition. Without one every row does."""
    if expression is None:
        return lambda row: True
    evaluate = build_evaluator(expression)
    return lambda row: evaluate(row) is True


def build_evaluator(expression: Expression) -> Evaluate:
    """Build what evaluates a condition on a row: True, False, or None for null."""
    match expression:
        case And(parts):
            return _build_all([build_evaluator(part) for part in parts])
        case Or(parts):
            evaluate_none = _build_all([_build_negation(build_evaluator(part)) for part in parts])
            return _build_negation(evaluate_none)
        case Not(part):
            return _build_negation(build_evaluator(part))
        case Is(part, value):
            evaluate = build_evaluator(part)
            return lambda row: evaluate(row) is value
        case Truth(operand):
            return _build_operand(operand)
        case Compare(operator, left, right):
            fold = _choose_fold(left, right)
            return _build_comparison(
                operator, _build_operand(left, fold), _build_operand(right, fold)
            )
        case In(operand, values):
            fold = _choose_fold(operand)
            get_member, others = _build_operand(operand, fold), [fold(value) for value in values]
            return lambda row: _is_among(get_member(row), others)
        case Match(function, text, part):
            fold = _choose_fold(text, part)
            return _build_match(function, _build_operand(text, fold), _build_operand(part, fold))


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


def _build_all(parts: Sequence[Evaluate]) -> Evaluate:
    """Build `and`: False if one part is False, else None if one is None."""

    def evaluate(row: EntityValues) -> bool | None:
        found: bool | None = True
        for part in parts:
            value = part(row)
            if value is False:
                return False
            if value is None:
                found = None
        return found

    return evaluate


def _build_negation(part: Evaluate) -> Evaluate:
    def evaluate(row: EntityValues) -> bool | None:
        value = part(row)
        return None if value is None else not value

    return evaluate


def _build_comparison(operator: Operator, left: GetValue, right: GetValue) -> Evaluate:
    return lambda row: _compare(operator, left(row), right(row))


def _is_among(member: Any, others: Sequence[Any]) -> bool:
    return any(_compare("eq", member, other) for other in others)


def _build_match(function: Function, get_text: GetValue, get_part: GetValue) -> Evaluate:
    def evaluate(row: EntityValues) -> bool | None:
        text, part = get_text(row), get_part(row)
        if text is None or part is None:
            return None
        return bool(part in text if function == "contains" else getattr(text, function)(part))

    return evaluate


def _compare(operator: Operator, left: Any, right: Any) -> bool:
    if left is None or right is None:
        both = left is None and right is None
        return both if operator == "eq" else not both if operator == "ne" else False
    return _COMPARISONS[operator](left, right)


def _build_operand(operand: Operand, fold: Fold | None = None) -> GetValue:
    """Build what returns the value of an operand, in the case that comparisons need."""
    if isinstance(operand, Constant):
        constant = fold(operand.value) if fold else operand.value
        return lambda row: constant
    name = operand.property.name
    change = {"as is": None, "lower": str.lower, "upper": str.upper}[operand.case]
    if change is None and fold in (None, _keep_case):
        return lambda row: row[name]

    def get_value(row: EntityValues) -> Any:
        value = row[name]
        if isinstance(value, str):
            if change is not None:
                value = change(value)
            if fold is not None:
                value = fold(value)
        return value

    return get_value


def _choose_fold(*operands: Operand) -> Fold:
    properties = (operand.property for operand in operands if isinstance(operand, Field))
    return _keep_case if any(property_.case_sensitive for property_ in properties) else _fold_case


def _keep_case(value: Value) -> Value:
    return value


def _fold_case(value: Value) -> Value:
    return value.lower() if isinstance(value, str) else value
