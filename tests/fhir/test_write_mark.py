"""The mark of a write is in the resource whatever the sender sends, and nothing else is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core import decimal_json
from integration.fhir import write_mark
from integration.fhir.write_mark import URL, Mark
from tests.randomness import limit_examples

MARK = Mark(delivery="d1", position=7, digest="abc", source_version="v:1")

TEXT = st.text(max_size=8)
EXTENSIONS = st.lists(st.fixed_dictionaries({"url": st.sampled_from(["a", URL, "valueString"])}))
METAS = st.fixed_dictionaries({}, optional={"source": TEXT, "extension": EXTENSIONS, "x": TEXT})


@limit_examples(100)
@given(st.dictionaries(TEXT, TEXT, max_size=3), METAS, TEXT)
def test_a_filled_mark_is_read_again_and_the_rest_is_as_it_was(
    elements: dict[str, Any], meta: dict[str, Any], note: str
) -> None:
    resource = {**elements, "meta": meta, "note": note, "resourceType": "Patient"}
    entry = {"resource": write_mark.add_empty_mark(resource), "request": {"method": "PUT"}}
    body = decimal_json.encode(entry)
    filled = json.loads(write_mark.fill_mark(body, write_mark.locate_mark(body), MARK))
    assert write_mark.read_mark(filled["resource"]) == MARK
    rest = filled["resource"].pop("meta")
    others = [each for each in meta.get("extension", []) if each["url"] != URL]
    assert rest.pop("extension")[1:] == others
    assert rest == {name: value for name, value in meta.items() if name != "extension"}
    assert filled["resource"] == {name: each for name, each in resource.items() if name != "meta"}


@pytest.mark.parametrize(
    "mark",
    [
        MARK,
        Mark(delivery="d", position=0),
        Mark(delivery="d", position=12, digest="0f", ordered=False),
    ],
)
def test_each_mark_can_be_read(mark: Mark) -> None:
    value = {"url": URL, "valueString": write_mark.format_mark(mark)}
    assert write_mark.read_mark({"meta": {"extension": [{"url": "x"}, value]}}) == mark


@pytest.mark.parametrize(
    "resource",
    [
        None,
        {},
        {"meta": []},
        {"meta": {"extension": {}}},
        {"meta": {"extension": [None, {"url": "x"}]}},
        {"meta": {"extension": [{"url": URL}]}},
        {"meta": {"extension": [{"url": URL, "valueString": "d x - -"}]}},
        {"meta": {"extension": [{"url": URL, "valueString": "d 1 -"}]}},
    ],
)
def test_what_is_no_mark_is_none(resource: Any) -> None:
    assert write_mark.read_mark(resource) is None


def test_an_unordered_mark_has_no_rank() -> None:
    assert Mark(delivery="d", position=0, ordered=False).rank is None


def test_two_of_the_same_content_have_the_same_digest_and_others_do_not() -> None:
    one, same, other = (
        decimal_json.encode({"resource": write_mark.add_empty_mark({"resourceType": kind})})
        for kind in ("Patient", "Patient", "Group")
    )
    assert write_mark.compute_digest(one) == write_mark.compute_digest(same)
    assert write_mark.compute_digest(one) != write_mark.compute_digest(other)
