"""NDJSON: each line is read, or refused, by itself."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Rejected
from integration.core.model import DeliveryRequest
from integration.fhir.bundle import read
from integration.fhir.entries import MAX_ISSUES, Contents
from tests.randomness import limit_examples

NDJSON = DeliveryRequest("POST", format="ndjson")
MARKER = "Zzyzx"


def make_line(identifier: str | None = None, **elements: object) -> bytes:
    resource = {"resourceType": "Patient", **elements}
    return json.dumps({**resource, "id": identifier} if identifier else resource).encode()


def read_lines(*parts: bytes, end: bytes = b"\n") -> Contents:
    return read(end.join(parts), NDJSON)


def test_each_line_is_a_resource_by_its_own_identity() -> None:
    contents = read_lines(make_line("a"), make_line("b"), make_line())
    assert contents.kind == "ndjson"
    assert [(item.method, item.id) for item in contents.entries] == [
        ("PUT", "a"),
        ("PUT", "b"),
        ("POST", None),
    ]


def test_a_bad_line_is_refused_by_its_number_and_spares_the_other_lines() -> None:
    first, bad, last = read_lines(make_line("a"), b'{"resourceType":', make_line("b")).entries
    assert (first.refusal, last.refusal) == (None, None)
    assert bad.refusal is not None
    assert bad.refusal.text.startswith("line 2")
    assert bad.position == 1


BAD_LINES = [
    (b"no JSON", "invalid"),
    (b'{"resourceType": "Patient"', "invalid"),
    (b'{"resourceType": "Patient", "id": "\xff"}', "invalid"),
    (b'{"resourceType":"Patient","id":"a","id":"b"}', "invalid"),
    (b"[1]", "structure"),
    (b'{"id": "a"}', "required"),
    (b'{"resourceType": "Patiant"}', "value"),
    (make_line("a b"), "value"),
    (make_line(".."), "value"),
    (make_line("a" * 65), "value"),
    (b'{"resourceType":"Patient","id":7}', "value"),
    (b'{"resourceType":"Patient","a":' + b"[" * 120 + b"]" * 120 + b"}", "too-long"),
    (b'{"resourceType":"Patient","a":' + b"[" * 100_000, "invalid"),
]


@pytest.mark.parametrize(("bad", "code"), BAD_LINES)
def test_a_bad_line_says_what_is_wrong(bad: bytes, code: str) -> None:
    refused = read_lines(make_line("a"), bad).entries[1].refusal
    assert refused is not None
    assert refused.code == code
    assert refused.text.startswith("line 2")
    assert "is the " not in refused.text


def test_a_name_that_occurs_twice_is_named_with_its_line() -> None:
    twice = b'{"resourceType":"Patient","name":[{"text":"a","text":"b"}]}'
    refused = read_lines(make_line("a"), twice).entries[1].refusal
    assert refused is not None
    assert refused.expression == "line 2.name[0].text"


def test_byte_order_marks_are_ignored() -> None:
    mark = b"\xef\xbb\xbf"
    entries = read_lines(mark + make_line("a"), mark + make_line("b")).entries
    assert [(item.id, item.refusal) for item in entries] == [("a", None), ("b", None)]


@pytest.mark.parametrize("body", [make_line("a") + b"\n" + make_line("b"), b"\n\n", b"x\nx\nx"])
def test_more_lines_than_a_delivery_may_have_are_refused(body: bytes) -> None:
    with pytest.raises(Rejected, match="more than 1 entries") as caught:
        read(body, NDJSON, 1)
    assert caught.value.status == 413
    assert len(caught.value.issues) == 1


def test_the_last_line_end_is_no_line() -> None:
    assert len(read(make_line("a") + b"\n", NDJSON, 1).entries) == 1


def test_a_place_inside_a_line_is_its_column() -> None:
    refused = read_lines(make_line("a"), b'{"resourceType": }').entries[1].refusal
    assert refused is not None
    assert refused.text == "line 2 is not JSON: column 18"


def test_blank_lines_are_skipped_but_counted() -> None:
    entries = read_lines(b"", make_line("a"), b"  ", b"no JSON", b"").entries
    assert [item.position for item in entries] == [0, 1]
    assert entries[1].refusal is not None
    assert entries[1].refusal.text.startswith("line 4")


def test_lines_may_end_as_on_windows() -> None:
    entries = read_lines(make_line("a"), make_line("b"), b"", end=b"\r\n").entries
    assert [item.id for item in entries] == ["a", "b"]


def test_the_last_line_needs_no_end() -> None:
    assert len(read_lines(make_line("a"), make_line("b")).entries) == 2


@pytest.mark.parametrize("body", [b"", b"\n\n", b" \r\n"])
def test_ndjson_without_a_resource_is_refused(body: bytes) -> None:
    with pytest.raises(Rejected, match="holds no resource"):
        read(body, NDJSON)


def test_ndjson_with_nothing_but_bad_lines_is_refused_whole() -> None:
    with pytest.raises(Rejected) as caught:
        read_lines(*[b"no JSON"] * 50)
    assert len(caught.value.issues) == MAX_ISSUES
    assert [issue.text[:7].strip() for issue in caught.value.issues[:2]] == ["line 1", "line 2"]


@limit_examples(100)
@given(st.lists(st.binary(max_size=12), min_size=1, max_size=4))
def test_a_refused_line_is_never_quoted(parts: list[bytes]) -> None:
    bad = [part.replace(b"\n", b"") + MARKER.encode() for part in parts]
    entries = read_lines(make_line("a"), *bad).entries
    assert len(entries) == len(bad) + 1
    assert all(item.refusal and MARKER not in repr(item.refusal) for item in entries[1:])
