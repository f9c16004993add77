"""Where does a write stand among all writes of its resource?"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from integration.core.model import DeliveryRequest
from integration.fhir.bundle import read
from integration.fhir.entries import Entry, keep
from integration.fhir.plan import plan
from integration.fhir.resource_ids import Naming
from integration.fhir.source_version import derive_source_version


def put(**meta: Any) -> Entry:
    return Entry(
        position=0,
        where="",
        method="PUT",
        type="Patient",
        id="1",
        content=keep({"resourceType": "Patient", "meta": meta}),
    )


RISING = [
    "0999-01-01T00:00:00Z",
    "2023-12-31T23:59:59Z",
    "2024-01-01T00:00:00.0Z",
    "2024-01-01T00:00:00.0000001+00:00",
    "2024-01-01T00:00:00.1Z",
    "2024-01-01T01:30:00.25+01:00",
    "2024-01-01T00:30:01Z",
    "2023-12-31T23:30:02-01:00",
]


def test_the_order_of_stamps_is_the_order_of_time() -> None:
    stamps = [
        derive_source_version(put(lastUpdated=moment), "lastUpdated") or "" for moment in RISING
    ]
    assert all(earlier < later for earlier, later in pairwise(stamps))
    assert len({len(item) for item in stamps}) == 1


def test_one_moment_has_one_stamp() -> None:
    same = ["2024-01-01T00:00:00Z", "2024-01-01T01:00:00.000+01:00", "2024-01-01T00:00:00.0+00:00"]
    assert (
        len({derive_source_version(put(lastUpdated=moment), "lastUpdated") for moment in same}) == 1
    )


@pytest.mark.parametrize(
    "bad",
    [None, "", "yesterday", 7, "2024-01-01", "2024-01-01T00:00:00", "0001-01-01T00:00:00+23:00"],
)
def test_a_moment_that_cannot_be_told_is_no_stamp(bad: Any) -> None:
    assert derive_source_version(put(lastUpdated=bad), "lastUpdated") is None


def test_versions_count_as_numbers() -> None:
    stamps = [
        derive_source_version(put(versionId=number), "version") or ""
        for number in ("1", "2", "10", "9" * 20)
    ]
    assert stamps == sorted(stamps)
    assert stamps[0] == "v:00000000000000000001"


@pytest.mark.parametrize("bad", [None, "", "1.0", "a1", "-1", "\u0661", "1" * 21, 1.5])
def test_a_version_that_is_no_whole_number_is_no_stamp(bad: Any) -> None:
    assert derive_source_version(put(versionId=bad), "version") is None


@pytest.mark.parametrize("order", ["arrival", "off"])
def test_where_the_source_is_not_asked_there_is_no_stamp(order: str) -> None:
    assert derive_source_version(put(versionId="1", lastUpdated=RISING[1]), order) is None


@pytest.mark.parametrize("meta", [None, [], "x"])
def test_a_meta_that_is_none_says_nothing(meta: Any) -> None:
    entry = Entry(
        position=0, where="", method="PUT", type="Patient", id="1", content=keep({"meta": meta})
    )
    assert derive_source_version(entry, "version") is None


def test_a_patch_document_says_nothing_of_its_resource() -> None:
    document = {"resourceType": "Parameters", "meta": {"versionId": "1"}}
    assert (
        derive_source_version(
            Entry(
                position=0, where="", method="PATCH", type="Patient", id="1", content=keep(document)
            ),
            "version",
        )
        is None
    )


def test_a_deletion_in_a_history_is_told_by_its_response() -> None:
    gone = {
        "fullUrl": "https://a.example/Patient/1",
        "request": {"method": "DELETE", "url": "Patient/1"},
        "response": {"status": "204", "etag": 'W/"3"', "lastModified": "2024-01-01T00:00:00Z"},
    }
    bundle = {"resourceType": "Bundle", "type": "history", "entry": [gone]}
    contents = read(json.dumps(bundle).encode(), DeliveryRequest("POST"))
    for order, reported in [
        ("version", "v:00000000000000000003"),
        ("lastUpdated", "u:2024-01-01T00:00:00.000000000Z"),
        ("arrival", None),
    ]:
        (lane,) = plan(contents, Naming("s", "k"), write_order=order).lanes
        assert [entry.source_version for unit in lane.units for entry in unit.entries] == [reported]


def test_what_the_relay_names_itself_needs_no_place() -> None:
    body = json.dumps({"resourceType": "Patient", "meta": {"versionId": "4"}}).encode()
    (lane,) = plan(
        read(body, DeliveryRequest("POST", type="Patient")), Naming("s", "k"), write_order="version"
    ).lanes
    assert [entry.source_version for unit in lane.units for entry in unit.entries] == [None]
