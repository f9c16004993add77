"""Bundles that hold resources rather than requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from integration.core.errors import Rejected
from integration.core.model import DeliveryRequest, Policy
from integration.fhir import bundle
from integration.fhir.entries import Contents
from integration.fhir.plan import Plan, plan
from integration.fhir.resource_ids import Naming
from tests.fhir.bundles import make_urn

NAMING = Naming("clinic", "key-1")
MARKER = "Zzyzx"
WHOLE = ["collection", "searchset", "message", "document"]


def read(kind: str, *entries: Any, policy: Policy | None = None, **more: Any) -> Contents:
    """Documents are taken apart, unless a policy says something else."""
    shape = {"resourceType": "Bundle", "type": kind, "entry": list(entries), **more}
    received = DeliveryRequest("POST", policy=policy or Policy(documents="resources"))
    return bundle.read(json.dumps(shape).encode(), received)


def catch_refusal(kind: str, *entries: Any, **more: Any) -> Rejected:
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


def list_bodies(planned: Plan) -> list[list[dict[str, Any]]]:
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
    existing = {"fullUrl": "https://a.example/fhir/Patient/theirs", "resource": patient("theirs")}
    planned = plan(read(kind, *first(kind), seen, new, existing), NAMING)
    sent = [item["resource"] for lane in planned.lanes for item in flatten(lane)]
    (created,) = [
        item["id"] for item in sent if item["resourceType"] == "Patient" and item["id"] != "theirs"
    ]
    (observation,) = [item for item in sent if item["resourceType"] == "Observation"]
    assert [link["reference"] for link in observation["refers"]] == [
        f"Patient/{created}",
        "Patient/theirs",
    ]


def flatten(lane: Any) -> list[dict[str, Any]]:
    return [json.loads(bytes(entry.body)) for unit in lane.units for entry in unit.entries]


GOOD = {"resource": {"resourceType": "Patient", "id": "good"}}
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
    good, other, last = read(kind, *(first(kind) or [{"resource": patient()}]), bad, GOOD).entries
    found = other.refusal
    assert found is not None
    assert (found.code, found.expression) == (code, f"Bundle.entry[1]{where}")
    assert (good.refusal, last.refusal) == (None, None)
    assert MARKER not in repr(found)


@pytest.mark.parametrize("kind", ["searchset", "history"])
@pytest.mark.parametrize("nothing", [{}, {"entry": []}])
def test_a_search_that_found_nothing_is_taken(kind: str, nothing: dict[str, Any]) -> None:
    shape = {"resourceType": "Bundle", "type": kind, "total": 0, **nothing}
    contents = bundle.read(json.dumps(shape).encode(), DeliveryRequest("POST"))
    assert (contents.kind, contents.entries) == (kind, ())
    assert plan(contents, NAMING) == Plan(())


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        (kind, entries)
        for kind in (*WHOLE, "history")
        for entries in (None, [], {}, "x")
        if entries or entries == {} or kind not in ("searchset", "history")
    ],
)
def test_a_bundle_without_entries_is_refused(kind: str, entries: Any) -> None:
    (found,) = catch_refusal(kind, entry=entries).issues
    assert (found.code, found.expression) == ("required", "Bundle.entry")


def test_the_same_resource_again_goes_after_the_first() -> None:
    twice = [{"resource": patient("1", note=note)} for note in ("old", "new")]
    units = list_bodies(plan(read("collection", *twice), NAMING))
    assert [[item["resource"]["note"] for item in unit] for unit in units] == [["old"], ["new"]]


# -- searches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stated",
    [
        {"resource": {"resourceType": "OperationOutcome"}},
        {"resource": {"resourceType": "OperationOutcome"}, "search": {"mode": "outcome"}},
        {"resource": {"resourceType": "Basic"}, "search": {"mode": "outcome"}},
    ],
)
def test_what_a_search_says_of_itself_is_left_out(stated: dict[str, Any]) -> None:
    match = {"resource": patient("1"), "search": {"mode": "match"}}
    planned = plan(read("searchset", stated, match), NAMING)
    ((entry, issue),) = planned.refused
    assert (entry.position, issue.severity) == (0, "information")
    assert [item["request"]["url"] for unit in list_bodies(planned) for item in unit] == [
        "Patient/1"
    ]


@pytest.mark.parametrize("kind", ["collection", "message"])
def test_an_outcome_that_no_search_told_is_sent_as_any_resource(kind: str) -> None:
    reported = {"resource": {"resourceType": "OperationOutcome", "id": "o"}}
    assert plan(read(kind, *first(kind), reported), NAMING).refused == ()


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
    (found,) = catch_refusal(kind, {"resource": start}, *first(kind), policy=policy).issues
    assert (found.code, found.expression) == ("invalid", "Bundle.entry[0].resource")


def test_messages_can_be_refused() -> None:
    error = catch_refusal("message", *first("message"), policy=Policy(messages="refuse"))
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
    ((sent,),) = list_bodies(plan(contents, NAMING))
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
