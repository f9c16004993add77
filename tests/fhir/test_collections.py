"""Bundles that bring resources rather than requests, and histories."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Rejected
from integration.core.model import DeliveryRequest, Policy
from integration.fhir import bundle
from integration.fhir.entries import Contents
from integration.fhir.identity import Naming
from integration.fhir.plan import Plan, plan
from integration.fhir.units import Limits
from tests.fhir.bundles import make_urn
from tests.randomness import limit_examples

NAMING = Naming("clinic", "key-1")
MARKER = "Zzyzx"
WHOLE = ["collection", "searchset", "message", "document"]


def read(kind: str, *entries: Any, policy: Policy | None = None, **more: Any) -> Contents:
    """Documents are taken apart, unless a policy says something else."""
    shape = {"resourceType": "Bundle", "type": kind, "entry": list(entries), **more}
    received = DeliveryRequest("POST", policy=policy or Policy(documents="resources"))
    return bundle.read(json.dumps(shape).encode(), received)


def refusal(kind: str, *entries: Any, **more: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        read(kind, *entries, **more)
    return caught.value


def first(kind: str) -> list[dict[str, Any]]:
    """What a bundle of this type has to begin with."""
    types = {"message": "MessageHeader", "document": "Composition"}
    return [{"resource": {"resourceType": types[kind]}}] if kind in types else []


def patient(identifier: str | None = None, **elements: Any) -> dict[str, Any]:
    named = {"id": identifier} if identifier else {}
    return {"resourceType": "Patient", **named, **elements}


def bodies(planned: Plan) -> list[list[dict[str, Any]]]:
    """Of a plan with one lane: what its units hold."""
    (lane,) = planned.lanes
    return [[json.loads(bytes(entry.body)) for entry in unit.entries] for unit in lane.units]


# -- each resource by its own identity ------------------------------------------------------------


@pytest.mark.parametrize("kind", WHOLE)
def test_each_resource_is_written_by_its_own_identity(kind: str) -> None:
    start = first(kind)
    contents = read(kind, *start, {"resource": patient("1")}, {"resource": patient()})
    assert contents.kind == kind
    assert [(item.method, item.id) for item in contents.entries[len(start) :]] == [
        ("PUT", "1"),
        ("POST", None),
    ]


@pytest.mark.parametrize("kind", WHOLE)
def test_its_units_are_batches(kind: str) -> None:
    planned = plan(read(kind, *first(kind), {"resource": patient("1")}), NAMING)
    assert {unit.kind for lane in planned.lanes for unit in lane.units} == {"batch"}


@pytest.mark.parametrize("kind", WHOLE)
def test_links_inside_follow_their_entries(kind: str) -> None:
    links = [{"reference": make_urn(1)}, {"reference": "Patient/theirs"}]
    seen = {"resource": {"resourceType": "Observation", "refers": links}}
    new = {"fullUrl": make_urn(1), "resource": patient()}
    known = {"fullUrl": "https://a.example/fhir/Patient/theirs", "resource": patient("theirs")}
    planned = plan(read(kind, *first(kind), seen, new, known), NAMING)
    sent = [each["resource"] for lane in planned.lanes for each in flat(lane)]
    (created,) = [
        each["id"] for each in sent if each["resourceType"] == "Patient" and each["id"] != "theirs"
    ]
    (observation,) = [each for each in sent if each["resourceType"] == "Observation"]
    assert [link["reference"] for link in observation["refers"]] == [
        f"Patient/{created}",
        "Patient/theirs",
    ]


def flat(lane: Any) -> list[dict[str, Any]]:
    return [json.loads(bytes(entry.body)) for unit in lane.units for entry in unit.entries]


BAD = [
    ("no object", 7, "structure", ""),
    ("no resource", {"fullUrl": make_urn(1)}, "required", ""),
    ("a resource that is text", {"resource": MARKER}, "structure", ".resource"),
    ("a resource of no type", {"resource": {"resourceType": MARKER}}, "value", ".resource.resourceType"),
    ("an id with a space", {"resource": patient(f"{MARKER} b")}, "value", ".resource.id"),
    ("a fullUrl that is no text", {"fullUrl": [MARKER], "resource": patient()}, "value", ".fullUrl"),
    ("a request", {"resource": patient(), "request": {"method": MARKER}}, "invalid", ".request"),
]  # fmt: skip


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize(
    ("bad", "code", "where"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_a_bad_entry_is_refused_by_its_place_and_not_quoted(
    kind: str, bad: Any, code: str, where: str
) -> None:
    (found,) = refusal(kind, *(first(kind) or [{"resource": patient()}]), bad).issues
    assert (found.code, found.expression) == (code, f"Bundle.entry[1]{where}")
    assert MARKER not in repr(found)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_full_url_may_occur_once(kind: str) -> None:
    twice = {"fullUrl": make_urn(1), "resource": patient()}
    assert {each.code for each in refusal(kind, *first(kind), twice, twice).issues} == {"duplicate"}


@pytest.mark.parametrize("kind", [*WHOLE, "history"])
@pytest.mark.parametrize("entries", [None, [], {}, "x"])
def test_a_bundle_without_entries_is_refused(kind: str, entries: Any) -> None:
    (found,) = refusal(kind, entry=entries).issues
    assert (found.code, found.expression) == ("required", "Bundle.entry")


def test_the_same_resource_again_goes_after_the_first() -> None:
    twice = [{"resource": patient("1", note=note)} for note in ("old", "new")]
    units = bodies(plan(read("collection", *twice), NAMING))
    assert [[each["resource"]["note"] for each in unit] for unit in units] == [["old"], ["new"]]


# -- searches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        {"resource": {"resourceType": "OperationOutcome"}},
        {"resource": {"resourceType": "OperationOutcome"}, "search": {"mode": "outcome"}},
        {"resource": {"resourceType": "Basic"}, "search": {"mode": "outcome"}},
    ],
)
def test_what_a_search_says_of_itself_is_left_out(said: dict[str, Any]) -> None:
    match = {"resource": patient("1"), "search": {"mode": "match"}}
    planned = plan(read("searchset", said, match), NAMING)
    ((entry, issue),) = planned.refused
    assert (entry.position, issue.severity) == (0, "information")
    assert [each["request"]["url"] for unit in bodies(planned) for each in unit] == ["Patient/1"]


@pytest.mark.parametrize("kind", ["collection", "message"])
def test_an_outcome_that_no_search_told_is_sent_as_any_resource(kind: str) -> None:
    told = {"resource": {"resourceType": "OperationOutcome", "id": "o"}}
    assert plan(read(kind, *first(kind), told), NAMING).refused == ()


@pytest.mark.parametrize(
    ("link", "more"),
    [
        ([{"relation": "self"}, {"relation": "next", "url": "https://a.example/?p=2"}], True),
        ([{"relation": "self"}], False),
        ("next", False),
        ([7], False),
    ],
)
def test_a_next_page_is_noted_and_not_followed(link: Any, more: bool) -> None:
    assert read("searchset", {"resource": patient("1")}, link=link).has_next_page is more


# -- messages and documents -----------------------------------------------------------------------


@pytest.mark.parametrize("documents", ["bundle", "resources", "both"])
@pytest.mark.parametrize("start", [patient(), None, 7])
@pytest.mark.parametrize("kind", ["message", "document"])
def test_a_message_and_a_document_begin_with_their_header(
    kind: str, start: Any, documents: str
) -> None:
    policy = Policy(documents=documents)
    (found,) = refusal(kind, {"resource": start}, *first(kind), policy=policy).issues
    assert (found.code, found.expression) == ("invalid", "Bundle.entry[0].resource")


def test_messages_can_be_refused() -> None:
    error = refusal("message", *first("message"), policy=Policy(messages="refuse"))
    assert error.status == 422
    assert "MESSAGES" in error.issues[0].text


@pytest.mark.parametrize("kind", ["collection", "document"])
def test_refusing_messages_refuses_nothing_else(kind: str) -> None:
    entries = first(kind) or [{"resource": patient()}]
    assert read(kind, *entries, policy=Policy(messages="refuse")).entries


@pytest.mark.parametrize("identifier", ["d1", None])
def test_a_document_is_kept_whole_and_unchanged(identifier: str | None) -> None:
    """Even what its entries say of each other, and of nothing that is there."""
    start = first("document")[0]["resource"] | {"subject": {"reference": make_urn(1)}}
    entries = [{"resource": start}, {"fullUrl": make_urn(1), "resource": patient()}]
    lost = {"resource": {"resourceType": "Basic", "subject": {"reference": make_urn(9)}}}
    named = {"id": identifier} if identifier else {}
    contents = read("document", *entries, lost, policy=Policy(), **named)
    ((sent,),) = bodies(plan(contents, NAMING))
    assert sent["resource"]["entry"] == [*entries, lost]
    assert sent["request"] == {"method": "PUT", "url": f"Bundle/{sent['resource']['id']}"}
    if identifier:
        assert sent["resource"]["id"] == identifier


def test_a_document_can_be_kept_both_ways_and_then_the_bundle_comes_last() -> None:
    entries = [*first("document"), {"resource": patient("1")}]
    found = read("document", *entries, policy=Policy(documents="both")).entries
    assert [(item.position, item.type) for item in found] == [
        (0, "Composition"),
        (1, "Patient"),
        (2, "Bundle"),
    ]
    assert found[2].where == found[2].resource_path == "Bundle"


# -- histories ------------------------------------------------------------------------------------


def version(
    number: Any = None, time: str | None = None, method: str = "PUT", **more: Any
) -> dict[str, Any]:
    meta = {"versionId": number, "lastUpdated": time}
    meta = {name: value for name, value in meta.items() if value is not None}
    url = "Patient" if method == "POST" else "Patient/1"
    return {"resource": patient("1", meta=meta), "request": {"method": method, "url": url}, **more}


def positions(*entries: dict[str, Any], limits: Limits = Limits()) -> list[list[int]]:
    """Which entries each unit of the one lane holds."""
    (lane,) = plan(read("history", *entries), NAMING, limits).lanes
    return [[entry.position for entry in unit.entries] for unit in lane.units]


@limit_examples(60)
@given(st.permutations(range(1, 13)), st.sampled_from([Limits(), Limits(entries=1)]))
def test_versions_go_oldest_first_whatever_their_order(numbers: list[int], limits: Limits) -> None:
    units = positions(*(version(str(number)) for number in numbers), limits=limits)
    assert [[numbers[n] for n in unit] for unit in units] == [[n] for n in range(1, 13)]


def test_without_versions_the_time_counts_wherever_its_zone() -> None:
    later, earlier = "2024-05-06T07:00:00Z", "2024-05-06T08:30:00+02:00"
    assert positions(version("b", earlier), version("a", later)) == [[0], [1]]


@pytest.mark.parametrize("time", [None, "yesterday", "2024-05-06T07:00:00"])
def test_without_either_the_bundle_is_read_from_its_end(time: str | None) -> None:
    assert positions(version(None, time), version(), version()) == [[2], [1], [0]]


def test_a_delete_takes_its_turn_by_what_was_answered() -> None:
    gone = {
        "request": {"method": "DELETE", "url": "Patient/1"},
        "response": {"status": "204", "etag": 'W/"2"', "lastModified": "2024-05-06T07:00:00Z"},
    }
    assert positions(version("3"), gone, version("1")) == [[2], [1], [0]]
    assert positions(version("1"), gone, version("3")) == [[0], [1], [2]]


def test_a_version_that_cannot_be_sent_does_not_mix_up_the_others() -> None:
    lost = version("2")
    lost["resource"]["link"] = [{"other": {"reference": make_urn(9)}}]
    assert positions(version("3"), lost, version("1")) == [[2], [0]]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_every_write_of_a_history_keeps_its_id(method: str) -> None:
    (found,) = read("history", version("1", method=method)).entries
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
    (found,) = read("history", entry | ({"resource": patient()} if method == "PUT" else {})).entries
    assert (found.method, found.type, found.id) == (method, "Patient", "1")


def test_a_full_url_may_occur_again_and_links_to_it_stay_right() -> None:
    url = "https://a.example/fhir/Patient/1"
    about = {"resourceType": "Observation", "id": "o", "subject": {"reference": url}}
    seen = {"resource": about, "request": {"method": "POST", "url": "Observation"}}
    units = bodies(
        plan(read("history", version("2", fullUrl=url), version("1", fullUrl=url), seen), NAMING)
    )
    (sent,) = [each for unit in units for each in unit if each["resource"]["id"] == "o"]
    assert sent["resource"]["subject"]["reference"] == "Patient/1"


def test_the_conditions_of_the_sender_s_own_server_stay_behind() -> None:
    entry = version("2")
    entry["request"] |= {"ifMatch": 'W/"1"', "ifNoneExist": "identifier=1"}
    ((sent,),) = bodies(plan(read("history", entry), NAMING))
    assert sent["request"] == {"method": "PUT", "url": "Patient/1"}


BAD_VERSIONS = [
    ("no request", {"resource": patient("1")}, "required"),
    ("a read", {"request": {"method": "GET", "url": "Patient/1"}}, "value"),
    ("no resource", {"request": {"method": "PUT", "url": "Patient/1"}}, "required"),
    ("no id anywhere", {"resource": patient(), "request": {"method": "POST", "url": "Patient"}}, "required"),
    ("a delete of a type", {"request": {"method": "DELETE", "url": "Patient"}}, "required"),
    ("no url", {"resource": patient("1"), "request": {"method": "PUT"}}, "required"),
    ("a url of nothing", {"resource": patient("1"), "request": {"method": "PUT", "url": MARKER}}, "value"),
    ("another type", {"resource": patient("1"), "request": {"method": "PUT", "url": "Group/1"}}, "invalid"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "code"), [case[1:] for case in BAD_VERSIONS], ids=[case[0] for case in BAD_VERSIONS]
)
def test_a_bad_version_is_refused_by_its_place(bad: dict[str, Any], code: str) -> None:
    (found,) = refusal("history", version("1"), bad).issues
    assert found.code == code
    assert (found.expression or "").startswith("Bundle.entry[1]")
    assert MARKER not in repr(found)
