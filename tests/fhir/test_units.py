"""What one request to the FHIR server carries."""

from __future__ import annotations

import json
from typing import Any

import pytest

from integration.core import decimal_json
from integration.core.model import Request
from integration.fhir.units import (
    Lane,
    Unit,
    UnitEntry,
    build_reads,
    build_request,
    decode_lane,
    encode_lane,
)
from tests.fhir.bundles import make_urn


def entry(position: int, body: dict[str, Any], awaits: tuple[str, ...] = ()) -> UnitEntry:
    raw = decimal_json.Raw(decimal_json.encode(body))
    return UnitEntry(
        position=position,
        where=f"Bundle.entry[{position}]",
        target=f"Patient/{position}",
        full_url=None,
        method="PUT",
        created=True,
        awaits=awaits,
        body=raw,
    )


FIRST = entry(0, {"resource": {"id": "0"}, "request": {"method": "PUT", "url": "Patient/0"}})
SECOND = entry(
    1,
    {"resource": {"a": {"reference": make_urn(5)}, "b": [make_urn(5), make_urn(6)]}},
    (make_urn(5), make_urn(6)),
)
UNIT = Unit("transaction", (FIRST, SECOND))


def parse_body(found: Request) -> dict[str, Any]:
    assert found.body is not None
    bundle: dict[str, Any] = json.loads(found.body)
    return bundle


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_a_unit_is_a_bundle_of_its_kind(kind: str) -> None:
    found = build_request(Unit(kind, (FIRST,)), [FIRST], {})
    assert (found.method, found.path) == ("POST", "")
    assert parse_body(found) == {
        "resourceType": "Bundle",
        "type": kind,
        "entry": [{"resource": {"id": "0"}, "request": {"method": "PUT", "url": "Patient/0"}}],
    }


def test_a_request_always_says_how_it_is_to_be_processed() -> None:
    headers = build_request(UNIT, [FIRST], {}).headers
    assert headers["x-bundle-processing-logic"] == "sequential"
    assert headers["content-type"] == headers["accept"] == "application/fhir+json"


def test_answers_take_the_place_of_placeholders_wherever_they_stand() -> None:
    answers = {make_urn(5): "Patient/five", make_urn(6): "Group/six", make_urn(7): "Group/unasked"}
    (found,) = parse_body(build_request(UNIT, [SECOND], answers))["entry"]
    assert found["resource"] == {
        "a": {"reference": "Patient/five"},
        "b": ["Patient/five", "Group/six"],
    }


def test_only_the_entries_that_are_left_are_sent() -> None:
    answers = {make_urn(5): "Patient/5", make_urn(6): "Patient/6"}
    assert len(parse_body(build_request(UNIT, [SECOND], answers))["entry"]) == 1
    assert len(parse_body(build_request(UNIT, [FIRST, SECOND], answers))["entry"]) == 2


def test_a_missing_answer_is_never_sent_as_a_placeholder() -> None:
    with pytest.raises(KeyError):
        build_request(UNIT, [SECOND], {make_urn(5): "Patient/5"})


def test_reads_are_a_batch_that_writes_nothing() -> None:
    found = build_reads(["Patient/0", "Patient/1"])
    assert parse_body(found) == {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [
            {"request": {"method": "GET", "url": "Patient/0"}},
            {"request": {"method": "GET", "url": "Patient/1"}},
        ],
    }


def test_a_lane_is_kept_and_restored_to_the_byte() -> None:
    raw = decimal_json.Raw(b'{"resource":{"value":1.10,"text":"\xc3\xbc"}}')
    odd = UnitEntry(
        position=7,
        where="Bundle.entry[7]",
        target="Patient/7",
        full_url=make_urn(7),
        method="DELETE",
        created=False,
        awaits=(make_urn(5),),
        body=raw,
    )
    lane = Lane((UNIT, Unit("batch", (odd,))))
    again = decode_lane(encode_lane(lane))
    assert encode_lane(again) == encode_lane(lane)
    assert bytes(again.units[1].entries[0].body) == bytes(raw)
    assert again.units[1].entries[0].awaits == (make_urn(5),)


def test_a_lane_knows_its_entries() -> None:
    assert Lane((Unit("batch", (SECOND,)), Unit("batch", (FIRST,)))).positions == [1, 0]
