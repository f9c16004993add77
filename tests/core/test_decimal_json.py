"""JSON that keeps every digit, and refuses what is not JSON without quoting it."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core import decimal_json
from tests.randomness import limit_examples

NUMBERS = [
    "1.10",
    "0.00",
    "-0.0",
    "1.0",
    "100.000",
    "1E+2",
    "3.14159265358979323846264338327950288",
]

MALFORMED = [
    (b'{"a": }', "not JSON: line 1, column 7"),
    (b'{\n  "a": 1,\n  b: 2}', "not JSON: line 3, column 3"),
    (b"01", "not JSON: line 1, column 2"),
    (b"{} x", "not JSON: line 1"),
    (b"NaN", "not JSON"),
    (b"Infinity", "not JSON"),
    (b"{'a': 1}", "not JSON"),
    (b'{"a": "\xff"}', "not UTF-8"),
    (b'{"a": [1, 2', "early"),
    (b"", "early"),
]

MARKER = "Zzyzx"

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False).map(lambda n: Decimal(f"{n:f}"))
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_decimal_keeps_every_digit(number: str) -> None:
    assert decimal_json.encode(decimal_json.decode(number.encode())) == number.encode()


@pytest.mark.parametrize("number", ["0", "-7", "18446744073709551616", "123456789012345678901234"])
def test_a_whole_number_stays_whole_however_large(number: str) -> None:
    value = decimal_json.decode(number.encode())
    assert type(value) is int
    assert decimal_json.encode(value) == number.encode()


def test_a_decimal_is_no_float() -> None:
    assert decimal_json.decode(b'{"value": 0.1}') == {"value": Decimal("0.1")}


@limit_examples(40)
@given(JSON)
def test_what_is_written_can_be_read_again(value: Any) -> None:
    assert decimal_json.decode(decimal_json.encode(value)) == value


@pytest.mark.parametrize(("data", "why"), MALFORMED)
def test_what_is_not_json_is_refused_with_its_place(data: bytes, why: str) -> None:
    with pytest.raises(decimal_json.Malformed, match=why):
        decimal_json.decode(data)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{\n "a": 1\n\n "b": 2\n}', 2),
        ("[\n 1\n 2\n]", 2),
        ('{\n "a": 1,\n}', 2),
        ("[\n 1,\n\n]", 2),
        ('{\n "a"\n 1\n}', 2),
        ('{\n "a"\n}', 2),
        ('{\n "a":\n}', 2),
        ('{\n "a":\n, "b": 1}', 2),
        ('{\n "a":\n abc\n}', 3),
        ('{\n "a": "abc,\n "b": 1\n}', 2),
        ('{\n "a": [1, 2\n },\n "b": 1\n}', 3),
        ('{\n "a": 1}\n}\n', 3),
        ('{\n "a": 1,\n ,"b": 1\n}', 3),
    ],
)
def test_the_line_is_that_of_the_fault_not_the_one_after_it(text: str, line: int) -> None:
    """A parser notices what is missing at the token behind it."""
    with pytest.raises(decimal_json.Malformed, match=f"line {line},") as refused:
        decimal_json.decode(text.encode())
    assert refused.value.line == line


def test_a_number_beyond_any_decimal_is_refused_like_all_that_is_not_json() -> None:
    with pytest.raises(decimal_json.Malformed):
        decimal_json.decode(b'{"value": 1e99999999999999999999}')


@limit_examples(100)
@given(st.binary(max_size=20), st.binary(max_size=20))
def test_bytes_of_any_kind_are_read_or_refused_without_a_quote(before: bytes, after: bytes) -> None:
    refusal = None
    try:
        decimal_json.decode(before + MARKER.encode() + after)
    except decimal_json.Malformed as error:
        refusal = error
    if refusal is not None:
        assert MARKER not in str(refusal)
        assert refusal.__suppress_context__, "the parser's own text may quote"


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 5000 + b"]" * 5000])
def test_brackets_without_end_are_refused_at_once(data: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(decimal_json.Malformed, match="100 levels"):
        decimal_json.decode(data)
    assert time.perf_counter() - began < 1


def nested(levels: int) -> Any:
    value: Any = "the innermost"
    for level in range(levels):
        value = {"a": value} if level % 2 else [value]
    return value


@pytest.mark.parametrize(("levels", "deep"), [(0, False), (1, False), (100, False), (101, True)])
def test_depth_is_counted_in_containers(levels: int, deep: bool) -> None:
    assert decimal_json.is_too_deep(nested(levels)) is deep


def test_depth_is_that_of_the_deepest_branch() -> None:
    assert decimal_json.is_too_deep({"flat": 1, "list": [1, nested(99)]}) is True
    assert decimal_json.is_too_deep({"flat": 1, "list": [1, nested(98)]}) is False


def test_raw_json_is_written_as_it_is() -> None:
    raw = decimal_json.Raw(b'{"value":1.10}')
    assert decimal_json.encode({"entry": [raw]}) == b'{"entry":[{"value":1.10}]}'
