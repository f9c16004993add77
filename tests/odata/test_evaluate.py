"""Conditions on rows with nulls and letters of either case; the order of rows."""

from __future__ import annotations

from functools import cmp_to_key
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.odata.evaluate import build_evaluator, build_sort_key, build_test
from integration.odata.expressions import Order
from integration.odata.filter import parse
from tests.odata.sets import OBSERVATIONS, ROW, ROWS, plain

KEY = OBSERVATIONS.key


def value(text: str, **changed: Any) -> bool | None:
    return build_evaluator(parse(text, OBSERVATIONS))({**ROW, **changed})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("allergy eq null", True),
        ("null eq allergy", True),
        ("allergy ne null", False),
        ("description ne null", True),
        ("allergy ne 'x'", True),
        ("allergy eq 'x'", False),
        ("not (allergy eq 'x')", True),
        ("ratio lt 1", False),
        ("not (ratio lt 1)", True),
        ("ratio ge null", False),
        ("ratio le null", False),
        ("ratio eq value", False),
        ("allergy in ('x')", False),
        ("allergy in ('x',null)", True),
        ("description in ()", False),
        ("contains(allergy,'x')", None),
        ("not contains(allergy,'x')", None),
        ("contains(description,null)", None),
        ("contains(allergy,'x') eq null", True),
        ("contains(allergy,'x') ne false", True),
        ("contains(allergy,'x') or final", True),
        ("contains(allergy,'x') and final", None),
        ("contains(allergy,'x') and not final", False),
        ("tolower(allergy) eq null", True),
        ("null", None),
        ("true", True),
        ("not false", True),
    ],
)
def test_null_is_equal_to_null_less_than_nothing_and_unknown_to_functions(
    text: str, expected: bool | None
) -> None:
    assert value(text) is expected


def test_an_unknown_row_is_not_in_the_result_nor_in_its_opposite() -> None:
    for text in ("contains(allergy,'x')", "not contains(allergy,'x')"):
        assert not build_test(parse(text, OBSERVATIONS))(ROW)


def test_a_boolean_column_that_is_null_is_neither_true_nor_false() -> None:
    assert value("final", final=None) is None
    assert value("not final", final=None) is None
    assert value("final eq false", final=None) is False


def test_without_a_filter_every_row_matches() -> None:
    assert build_test(None)(ROW)


@pytest.mark.parametrize(
    "text",
    [
        "description eq 'BODY WEIGHT'",
        "description in ('x','body weight')",
        "contains(description,'WEIGHT')",
        "startswith(description,'bODY')",
        "endswith(description,'wEIGHT')",
        "description gt 'BODY'",
        "description lt 'BODZ'",
        "tolower(description) eq 'Body Weight'",
        "code eq 'kg'",
        "toupper(code) eq 'KG'",
        "contains(tolower(code),'k')",
        "contains(description,allergy)",
        "'a' eq 'A'",
    ],
)
def test_text_is_compared_without_case(text: str) -> None:
    assert value(text, allergy="BODY") is True


def test_a_letter_is_equal_to_its_lower_case_and_to_no_other_spelling() -> None:
    assert value("description eq 'ÄRZTE'", description="Ärzte") is True
    assert value("description eq 'STRASSE'", description="Straße") is False


@pytest.mark.parametrize(
    "text", ["code eq 'KG'", "contains(code,'K')", "code in ('Kg')", "tolower(code) eq 'KG'"]
)
def test_codes_are_compared_with_case(text: str) -> None:
    assert value(text) is False


def test_a_code_and_a_text_are_compared_with_case() -> None:
    assert value("code eq description", description="KG") is False
    assert value("code eq description", description="kg") is True


def test_numbers_are_exact() -> None:
    assert value("value eq 81.1") is True
    assert value("value eq 81.10000000000000000000001") is False
    assert value("big eq 9007199254740992") is False
    assert value("big gt 9007199254740992.5") is True
    assert value("status lt 1e300") is True


# -- order ---------------------------------------------------------------------------------------

ORDERS = st.lists(
    st.builds(Order, st.sampled_from(OBSERVATIONS.properties), st.booleans()), max_size=3
)


def compared(order: list[Order], entry: dict[str, Any], other: dict[str, Any]) -> int:
    """As the standard says it: property by property, null lower than anything else."""
    for item in [*order, Order(OBSERVATIONS.by_name[KEY])]:
        a, b = entry[item.property.name], other[item.property.name]
        a, b = (plain(item.property.name, x) for x in (a, b))
        if a == b:
            continue
        less = a is None or (b is not None and a < b)
        return -1 if less != item.descending else 1
    return 0


@given(ORDERS, st.lists(ROWS, max_size=6))
def test_rows_are_ordered_as_a_comparison_of_two_says(
    order: list[Order], rows: list[dict[str, Any]]
) -> None:
    expected = sorted(rows, key=cmp_to_key(lambda entry, other: compared(order, entry, other)))
    assert sorted(rows, key=build_sort_key(order, KEY)) == expected


def names(*order: Order) -> list[str | None]:
    texts = ["b", None, "A", "a", "C"]
    rows: list[dict[str, Any]] = [
        {KEY: UUID(int=number), "description": text, "code": text}
        for number, text in enumerate(texts)
    ]
    return [row["code"] for row in sorted(rows, key=build_sort_key(order, KEY))]


def test_null_comes_first_and_in_descending_order_last() -> None:
    description = OBSERVATIONS.by_name["description"]
    assert names(Order(description)) == [None, "A", "a", "b", "C"]
    assert names(Order(description, descending=True)) == ["C", "b", "A", "a", None]
    assert names() == ["b", None, "A", "a", "C"]


def test_codes_are_ordered_with_case() -> None:
    assert names(Order(OBSERVATIONS.by_name["code"])) == [None, "A", "C", "a", "b"]
