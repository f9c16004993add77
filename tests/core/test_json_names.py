"""A name that occurs twice in one JSON object is found, and its place told without any value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core import decimal_json
from integration.core.json_names import find_duplicate
from tests.randomness import limit_examples


def find(text: str | bytes) -> str | None:
    data = text.encode() if isinstance(text, str) else text
    names = decimal_json.count_names(decimal_json.decode(data))
    assert names is not None
    return find_duplicate(data, names)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": 1, "a": 2}', "a"),
        ('{"a": 1, "b": 2, "a" : 3}', "a"),
        ('{"a"\n\t:1,"a":1}', "a"),
        ('{"id": 1, "\\u0069d": 2}', "id"),
        ('{"a": {"b": 1, "b": 1}}', "a.b"),
        ('{"a": [{"c": 1}, {"b": 1, "b": 1}]}', "a[1].b"),
        ('[[{"b": 1, "b": 1}]]', "[0][0].b"),
        ('{"a": {"b": 1}, "a": {}}', "a"),
        ('{"_a": 1, "_a": 1}', "_a"),
        # One name with a blank before its colon, which would hide one that occurs twice.
        ('{"a" : ":", "b": 1, "b": 1}', "b"),
        ('{"a": "\\":", "b": "\\":", "c": 1, "c": 1}', "c"),
    ],
)
def test_a_name_that_occurs_twice_is_named_by_its_place(text: str, place: str) -> None:
    assert find(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "7",
        '{"a": {"a": 1}, "b": [{"a": 1}, {"a": 1}]}',
        '{"a": ":", "b": " :x", "c": "\\":\\":", "d": "{\\"a\\": 1, \\"a\\": 2}"}',
        '{"a" : 1, "b"\t:\n2}',
        '{"a": "a", "A": "a"}',
        f'{{"a": ":", "b": {"9" * 400}}}',
    ],
)
def test_what_only_looks_like_it_is_no_duplicate(text: str) -> None:
    assert find(text) is None


def test_a_name_that_no_element_has_is_not_told() -> None:
    assert find('{"a": {"Zzyzx Anna": 1, "Zzyzx Anna": 2}}') == "a"
    assert find('{"Zzyzx Anna": 1, "Zzyzx Anna": 2}') == ""


NAMES = st.text(alphabet='ab":\\ \t', max_size=4)
JSON = st.recursive(
    st.one_of(st.none(), st.integers(), NAMES),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=12,
)


@limit_examples(200)
@given(JSON, st.sampled_from([(",", ":"), (", ", ": "), (" ,", " : "), (",\n", "\n:")]))
def test_json_without_duplicates_never_has_one(value: Any, separators: tuple[str, str]) -> None:
    assert find(json.dumps(value, separators=separators)) is None


def dump_pairs(pairs: list[tuple[str, Any]], separators: tuple[str, str]) -> str:
    comma, colon = separators
    members = (f"{json.dumps(name)}{colon}{json.dumps(value)}" for name, value in pairs)
    return f'{{"z"{colon}{{{comma.join(members)}}}}}'


@limit_examples(200)
@given(
    st.lists(st.tuples(NAMES, JSON), max_size=5),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,", " : "), (",\n", "\n:")]),
)
def test_any_object_is_judged_by_its_names(
    pairs: list[tuple[str, Any]], separators: tuple[str, str]
) -> None:
    names = [name for name, _ in pairs]
    found = find(dump_pairs(pairs, separators))
    assert (found is not None) is (len(set(names)) < len(names))


def test_depth_is_bounded_while_names_are_counted() -> None:
    assert decimal_json.count_names([{"a": {"b": [1]}}, {}]) == 2
    assert decimal_json.count_names([[[]]], 3) == 0
    assert decimal_json.count_names([[[]]], 2) is None
