"""Histories: which version is written when, and by which id."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.model import DeliveryRequest
from integration.fhir import bundle
from integration.fhir.entries import Contents
from integration.fhir.plan import Plan, plan
from integration.fhir.resource_ids import Naming
from integration.fhir.units import Limits
from tests.fhir.bundles import make_urn
from tests.randomness import limit_examples

NAMING = Naming("clinic", "key-1")
MARKER = "Zzyzx"


def read(*entries: Any) -> Contents:
    history = {"resourceType": "Bundle", "type": "history", "entry": list(entries)}
    return bundle.read(json.dumps(history).encode(), DeliveryRequest("POST"))


def make_patient(identifier: str | None = None, **elements: Any) -> dict[str, Any]:
    stated = {"id": identifier} if identifier else {}
    return {"resourceType": "Patient", **stated, **elements}


def list_bodies(planned: Plan) -> list[list[dict[str, Any]]]:
    """What the units of the one lane hold."""
    (lane,) = planned.lanes
    return [[json.loads(bytes(entry.body)) for entry in unit.entries] for unit in lane.units]


def make_version(
    number: Any = None, time: str | None = None, method: str = "PUT", **more: Any
) -> dict[str, Any]:
    meta = {"versionId": number, "lastUpdated": time}
    meta = {name: value for name, value in meta.items() if value is not None}
    url = "Patient" if method == "POST" else "Patient/1"
    return {
        "resource": make_patient("1", meta=meta),
        "request": {"method": method, "url": url},
        **more,
    }


def plan_positions(*entries: dict[str, Any], limits: Limits = Limits()) -> list[list[int]]:
    """Which entries each unit of the one lane holds."""
    (lane,) = plan(read(*entries), NAMING, limits).lanes
    return [[entry.position for entry in unit.entries] for unit in lane.units]


@limit_examples(60)
@given(st.permutations(range(1, 13)), st.sampled_from([Limits(), Limits(entries=1)]))
def test_versions_go_oldest_first_whatever_their_order(numbers: list[int], limits: Limits) -> None:
    units = plan_positions(*(make_version(str(number)) for number in numbers), limits=limits)
    assert [[numbers[n] for n in unit] for unit in units] == [[n] for n in range(1, 13)]


def test_without_versions_the_time_counts_wherever_its_zone() -> None:
    later, earlier = "2024-05-06T07:00:00Z", "2024-05-06T08:30:00+02:00"
    assert plan_positions(make_version("b", earlier), make_version("a", later)) == [[0], [1]]


@pytest.mark.parametrize("time", [None, "yesterday", "2024-05-06T07:00:00"])
def test_without_either_the_bundle_is_read_from_its_end(time: str | None) -> None:
    assert plan_positions(make_version(None, time), make_version(), make_version()) == [
        [2],
        [1],
        [0],
    ]


def test_a_delete_is_ordered_by_its_response() -> None:
    gone = {
        "request": {"method": "DELETE", "url": "Patient/1"},
        "response": {"status": "204", "etag": 'W/"2"', "lastModified": "2024-05-06T07:00:00Z"},
    }
    assert plan_positions(make_version("3"), gone, make_version("1")) == [[2], [1], [0]]
    assert plan_positions(make_version("1"), gone, make_version("3")) == [[0], [1], [2]]


def test_a_version_that_cannot_be_sent_does_not_mix_up_the_others() -> None:
    lost = make_version("2")
    lost["resource"]["link"] = [{"other": {"reference": make_urn(9)}}]
    assert plan_positions(make_version("3"), lost, make_version("1")) == [[2], [0]]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_every_write_of_a_history_keeps_its_id(method: str) -> None:
    (found,) = read(make_version("1", method=method)).entries
    assert (found.method, found.type, found.id) == ("PUT", "Patient", "1")


@pytest.mark.parametrize(
    ("url", "full_url"),
    [
        ("Patient/1", None),
        ("/Patient/1", None),
        ("https://a.example/fhir/Patient/1", None),
        ("Patient/1/_history/2", None),
        ("Patient", "https://a.example/fhir/Patient/1"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_the_id_is_in_the_address_where_the_resource_has_none(
    url: str, full_url: str | None, method: str
) -> None:
    entry = {"request": {"method": method, "url": url}, "fullUrl": full_url}
    (found,) = read(entry | ({"resource": make_patient()} if method == "PUT" else {})).entries
    assert (found.method, found.type, found.id) == (method, "Patient", "1")


def test_a_full_url_may_occur_again_and_links_to_it_stay_right() -> None:
    url = "https://a.example/fhir/Patient/1"
    about = {"resourceType": "Observation", "id": "o", "subject": {"reference": url}}
    seen = {"resource": about, "request": {"method": "POST", "url": "Observation"}}
    units = list_bodies(
        plan(
            read(make_version("2", fullUrl=url), make_version("1", fullUrl=url), seen),
            NAMING,
        )
    )
    (sent,) = [item for unit in units for item in unit if item["resource"]["id"] == "o"]
    assert sent["resource"]["subject"]["reference"] == "Patient/1"


def test_the_conditions_of_the_sender_s_own_server_stay_behind() -> None:
    entry = make_version("2")
    entry["request"] |= {"ifMatch": 'W/"1"', "ifNoneExist": "identifier=1"}
    ((sent,),) = list_bodies(plan(read(entry), NAMING))
    assert sent["request"] == {"method": "PUT", "url": "Patient/1"}


BAD_VERSIONS = [
    ("no request", {"resource": make_patient("1")}, "required"),
    ("a read", {"request": {"method": "GET", "url": "Patient/1"}}, "value"),
    ("no resource", {"request": {"method": "PUT", "url": "Patient/1"}}, "required"),
    ("no id anywhere", {"resource": make_patient(), "request": {"method": "POST", "url": "Patient"}}, "required"),
    ("a delete of a type", {"request": {"method": "DELETE", "url": "Patient"}}, "required"),
    ("no url", {"resource": make_patient("1"), "request": {"method": "PUT"}}, "required"),
    ("a url of nothing", {"resource": make_patient("1"), "request": {"method": "PUT", "url": MARKER}}, "value"),
    ("another type", {"resource": make_patient("1"), "request": {"method": "PUT", "url": "Group/1"}}, "invalid"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "code"), [case[1:] for case in BAD_VERSIONS], ids=[case[0] for case in BAD_VERSIONS]
)
def test_a_bad_version_is_refused_by_its_place(bad: dict[str, Any], code: str) -> None:
    good, other = read(make_version("1"), bad).entries
    found = other.refusal
    assert found is not None
    assert good.refusal is None
    assert found.code == code
    assert (found.expression or "").startswith("Bundle.entry[1]")
    assert MARKER not in repr(found)
