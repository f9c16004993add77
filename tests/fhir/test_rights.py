"""What a sender may do: nothing outside of its rights reaches the FHIR server."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from integration.core.errors import Rejected
from integration.core.model import ALL_RIGHTS, DeliveryRequest, Rights
from integration.fhir import bundle
from integration.fhir.entries import Contents
from integration.fhir.rights import collect_needed_rights
from tests.builders import Body, batch, entry, observation, patient
from tests.builders import bundle as transaction

MRN = "https://north.example/mrn"
SSN = "http://hl7.org/fhir/sid/us-ssn"
OTHER_MRN = "https://south.example/mrn"

NORTH = Rights(
    methods=("POST", "PUT", "DELETE"),
    types=("Patient", "Observation"),
    conditional_deletes=True,
    identifier_systems=(MRN, SSN),
    id_prefixes=("north-",),
)


def read(body: Body, rights: Rights, **request: Any) -> Contents:
    received = DeliveryRequest("POST", rights=rights)
    return bundle.read(json.dumps(body).encode(), replace(received, **request))


def identified(*systems: str, **elements: Any) -> Body:
    return patient(identifier=[{"system": system, "value": "1"} for system in systems], **elements)


SOUND = entry(patient())

FORBIDDEN: dict[str, tuple[Rights, Body]] = {
    "a search": (Rights(), entry(method="GET", url="Patient?family=Smith")),
    "a read": (Rights(), entry(method="GET", url="Patient/south-1")),
    "a history": (Rights(), entry(method="HEAD", url="Patient/south-1/_history")),
    "a delete": (Rights(), entry(method="DELETE", url="Patient/south-1")),
    "a method": (Rights(methods=("POST",)), entry(patient(id="p1"), method="PUT")),
    "a conditional delete": (
        Rights(methods=("POST", "DELETE")),
        entry(method="DELETE", url=f"Patient?identifier={MRN}|1"),
    ),
    "a type": (
        Rights(types=("Patient",)),
        entry({"resourceType": "Condition", "subject": {"display": "x"}}),
    ),
    "a subscription, by which a server sends what cannot be read": (
        Rights(),
        entry({"resourceType": "Subscription", "criteria": "Patient?", "status": "requested"}),
    ),
    "a parameter by which all search": (Rights(), entry({"resourceType": "SearchParameter"})),
    "a type that is read": (
        Rights(types=("Patient",), reads=True),
        entry(method="GET", url="Observation?code=1"),
    ),
    "a search that includes another type": (
        Rights(types=("Patient",), reads=True),
        entry(method="GET", url="Patient?_id=1&_revinclude=Observation:subject"),
    ),
    "a search through another type": (
        Rights(types=("Patient",), reads=True),
        entry(method="GET", url="Patient?organization.name=x"),
    ),
    "a search that includes another type, in capitals": (
        Rights(types=("Patient",), reads=True),
        entry(method="GET", url="Patient?_id=1&_RevInclude=Observation:subject"),
    ),
    "a search through another type, with a line end": (
        Rights(types=("Patient",), reads=True),
        entry(method="GET", url="Patient?organization.name%0A=x"),
    ),
    "a search for what is contained in another type": (
        Rights(types=("Patient",), reads=True),
        entry(method="GET", url="Patient?_contained=true"),
    ),
    "a search by an expression": (
        Rights(types=("Patient",), reads=True),
        entry(method="GET", url="Patient?_filter=organization.name%20eq%20x"),
    ),
    "an update of another's id": (NORTH, entry(patient(id="south-1"), method="PUT")),
    "a delete of another's id": (NORTH, entry(method="DELETE", url="Patient/south-1")),
    "an id that only begins alike": (NORTH, entry(patient(id="northern"), method="PUT")),
    "a conditional update to another's id": (
        NORTH,
        entry(identified(MRN, id="south-1"), method="PUT", url=f"Patient?identifier={MRN}|1"),
    ),
    "an identifier of another": (NORTH, entry(identified(MRN, OTHER_MRN))),
    "a single identifier of another": (
        replace(NORTH, types=()),
        entry(
            {
                "resourceType": "QuestionnaireResponse",
                "status": "completed",
                "identifier": {"system": OTHER_MRN, "value": "1"},
            }
        ),
    ),
    "a system that is no text": (NORTH, entry(patient(identifier=[{"system": 1}]))),
    "a condition on another's identifier": (
        NORTH,
        entry(patient(), ifNoneExist=f"identifier={OTHER_MRN}|1"),
    ),
    "a condition on one of two": (
        NORTH,
        entry(patient(), ifNoneExist=f"identifier={MRN}|1,{OTHER_MRN}|1"),
    ),
    "a condition without a system": (NORTH, entry(patient(), ifNoneExist="identifier=1")),
    "a condition on any system": (NORTH, entry(patient(), ifNoneExist="identifier=|1")),
    "a condition on a whole system": (NORTH, entry(patient(), ifNoneExist=f"identifier={MRN}|")),
    "a condition on one of two after an escaped backslash": (
        NORTH,
        entry(patient(), ifNoneExist=f"identifier={MRN}|1\\\\,{OTHER_MRN}|1"),
    ),
    "a condition through another type": (
        NORTH,
        entry(patient(), ifNoneExist=f"identifier={MRN}|1&organization.name=x"),
    ),
    "a condition on what the server would pass over": (
        replace(NORTH, types=()),
        entry(
            {"resourceType": "Provenance"},
            method="PUT",
            url=f"Provenance?identifier={MRN}|1&target=Patient/south-1",
        ),
    ),
    "a reference by another's identifier": (
        NORTH,
        entry(observation(f"Patient?identifier={OTHER_MRN}|1")),
    ),
    "a reference by a name": (
        NORTH,
        entry(observation("/Patient?family=Smith")),
    ),
    "a reference by a name in what is contained": (
        NORTH,
        entry(
            observation(
                contained=[
                    {
                        "resourceType": "Encounter",
                        "id": "e",
                        "subject": {"reference": "Patient?family=Smith"},
                    }
                ]
            )
        ),
    ),
    "a master identifier of another": (
        replace(NORTH, types=()),
        entry(
            {
                "resourceType": "DocumentReference",
                "status": "current",
                "masterIdentifier": {"system": OTHER_MRN, "value": "1"},
            }
        ),
    ),
    "a condition that negates": (NORTH, entry(patient(), ifNoneExist=f"identifier:not={MRN}|1")),
    "a condition on a name": (NORTH, entry(method="DELETE", url="Patient?family=Smith")),
    "a conditional create where ids tell senders apart": (
        Rights(id_prefixes=("north-",)),
        entry(patient(), ifNoneExist="family=Smith"),
    ),
    "a condition where ids tell senders apart": (
        Rights(id_prefixes=("north-",)),
        entry(patient(), method="PUT", url=f"Patient?identifier={MRN}|1"),
    ),
}


@pytest.mark.parametrize("case", FORBIDDEN)
def test_an_entry_outside_of_the_rights_is_refused_alone_in_a_batch(case: str) -> None:
    rights, forbidden = FORBIDDEN[case]
    first, second = read(batch(SOUND, forbidden), rights).entries
    assert first.refusal is None
    assert second.refusal is not None
    assert second.refusal.code == "forbidden"


@pytest.mark.parametrize("case", FORBIDDEN)
def test_an_entry_outside_of_the_rights_refuses_its_transaction(case: str) -> None:
    rights, forbidden = FORBIDDEN[case]
    with pytest.raises(Rejected) as caught:
        read(transaction(SOUND, forbidden), rights)
    if forbidden["request"]["method"] == "DELETE" and "?" in forbidden["request"]["url"]:
        assert caught.value.status == 400  # which a transaction holds for nobody
        return
    assert caught.value.status == 403
    assert all(issue.code == "forbidden" for issue in caught.value.issues)


@pytest.mark.parametrize("case", FORBIDDEN)
def test_who_has_all_rights_may_do_it(case: str) -> None:
    first, second = read(batch(SOUND, FORBIDDEN[case][1]), ALL_RIGHTS).entries
    assert (first.refusal, second.refusal) == (None, None)


@pytest.mark.parametrize(
    "allowed",
    [
        entry(identified(MRN, SSN)),
        entry(identified(MRN, id="north-1"), method="PUT"),
        entry(patient(identifier=[{"value": "1"}])),
        entry(patient(), method="PUT", url=f"Patient?identifier={MRN}|1"),
        entry(
            patient(), method="PUT", url="Patient?identifier=https%3A%2F%2Fnorth.example%2Fmrn%7C1"
        ),
        entry(patient(), ifNoneExist=f"identifier={MRN}|1,{SSN}|2&active=true"),
        entry(method="DELETE", url="Patient/north-1"),
        entry(method="DELETE", url=f"Patient?identifier={SSN}|1"),
        entry({"resourceType": "Observation", "status": "final", "code": {"text": "x"}}),
        entry(observation(f"Patient?identifier={MRN}|1")),
        entry(observation("Patient/south-1")),
    ],
    ids=lambda allowed: f"{allowed['request']['method']} {allowed['request']['url']}",
)
def test_what_the_rights_cover_is_sent(allowed: Body) -> None:
    (read_entry,) = read(batch(allowed), NORTH).entries
    assert read_entry.refusal is None


def test_a_type_that_changes_the_server_is_sent_by_whom_it_is_named_for() -> None:
    sent = entry({"resourceType": "Subscription", "criteria": "Patient?", "status": "requested"})
    (read_entry,) = read(batch(sent), Rights(types=("Subscription",))).entries
    assert read_entry.refusal is None


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("Patient/north-1", True),
        ("Patient/north-1/_history", True),
        (f"Patient?identifier={MRN}|1", True),
        ("Patient/south-1", False),
        ("Patient/south-1/_history/1", False),
        (f"Patient?identifier={OTHER_MRN}|1", False),
        ("Patient?family=Smith", False),
        (f"Patient?identifier={MRN}|1&_revinclude=Observation:subject", False),
    ],
)
def test_a_read_is_held_to_ids_and_systems_too(url: str, is_allowed: bool) -> None:
    found = read(batch(SOUND, entry(method="GET", url=url)), replace(NORTH, reads=True))
    assert (found.entries[1].refusal is None) == is_allowed


def test_an_identifier_cannot_be_hidden_by_an_escape() -> None:
    own = json.dumps([{"system": MRN, "value": "1"}])
    foreign = json.dumps([{"system": OTHER_MRN, "value": "1"}])
    for names in (("identifier", "identi\\u0066ier"), ("identi\\u0066ier", "identifier")):
        hidden = f'{{"resourceType": "Patient", "{names[0]}": {foreign}, "{names[1]}": {own}}}'
        second = json.dumps(entry(patient())).replace(json.dumps(patient()), hidden)
        entries = f"[{json.dumps(SOUND)}, {second}]"
        body = f'{{"resourceType": "Bundle", "type": "batch", "entry": {entries}}}'
        assert hidden in body
        with pytest.raises(Rejected):
            bundle.read(body.encode(), DeliveryRequest("POST", rights=NORTH))


def test_a_batch_of_which_nothing_is_allowed_is_refused_whole() -> None:
    with pytest.raises(Rejected) as caught:
        read(batch(entry(method="GET", url="Patient?family=Smith")), Rights())
    assert caught.value.status == 403


@pytest.mark.parametrize("kind", ["collection", "history", "message", "document", "searchset"])
def test_bundles_of_every_type_are_held_to_the_rights(kind: str) -> None:
    other = {"resource": patient(id="south-1"), "fullUrl": "http://a.example/Patient/south-1"}
    mine = {"resource": patient(id="north-1"), "fullUrl": "http://a.example/Patient/north-1"}
    values: list[Body] = [mine, other]
    if kind == "history":
        for value in values:
            url = f"Patient/{value['resource']['id']}"
            value["request"] = {"method": "PUT", "url": url}
            value["response"] = {"status": "200"}
    if kind == "document":
        values.insert(0, {"resource": {"resourceType": "Composition", "id": "north-c"}})
    if kind == "message":
        values.insert(0, {"resource": {"resourceType": "MessageHeader", "id": "north-m"}})
    rights = replace(NORTH, types=())
    policy = replace(DeliveryRequest("POST").policy, documents="resources")
    found = read(transaction(*values, kind=kind), rights, policy=policy)
    refused = [item.identity for item in found.entries if item.refusal]
    assert refused == ["Patient/south-1"]


def test_a_line_of_ndjson_is_refused_alone() -> None:
    lines = [patient(id="north-1"), patient(id="south-1")]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    received = DeliveryRequest("POST", format="ndjson", rights=NORTH)
    mine, other = bundle.read(body, received).entries
    assert (mine.refusal, other.refusal is None) == (None, False)


@pytest.mark.parametrize(
    "request_",
    [
        {"method": "DELETE", "id": "south-1"},
        {"method": "DELETE", "query": "family=Smith"},
        {"method": "PUT", "query": f"identifier={OTHER_MRN}|1"},
        {"method": "PUT", "id": "south-1"},
        {"method": "PATCH", "id": "north-1"},
    ],
    ids=str,
)
def test_an_address_is_held_to_the_rights(request_: dict[str, str]) -> None:
    body: Body = patient() if request_["method"] == "PUT" else {"resourceType": "Parameters"}
    if request_["method"] == "PATCH":
        body["parameter"] = [{"name": "operation"}]
    with pytest.raises(Rejected) as caught:
        read(body, NORTH, type="Patient", **request_)
    assert caught.value.status == 403


def test_no_issue_quotes_what_was_sent() -> None:
    secret = "Zaphkiel-7731"
    sent = [
        entry(method="GET", url=f"Patient?family={secret}"),
        entry(patient(id=secret), method="PUT"),
        entry(patient(identifier=[{"system": secret}])),
        entry(patient(), ifNoneExist=f"identifier={secret}|{secret}"),
    ]
    found = read(batch(SOUND, *sent), NORTH)
    issues = [item.refusal for item in found.entries if item.refusal]
    assert len(issues) == len(sent)
    assert not any(secret in issue.text for issue in issues)


def test_the_rights_that_a_delivery_needs_cover_it_and_none_can_be_left_out() -> None:
    body = batch(
        entry(patient()),
        entry(method="DELETE", url="Observation?code=1"),
        entry(method="GET", url="Encounter?date=2026"),
    )
    needed = collect_needed_rights(read(body, ALL_RIGHTS).entries)
    assert needed == Rights(
        methods=("POST", "DELETE"),
        types=("Encounter", "Observation", "Patient"),
        reads=True,
        conditional_deletes=True,
    )
    assert [item.refusal for item in read(body, needed).entries] == [None] * 3
    for less in (
        replace(needed, methods=("POST",)),
        replace(needed, types=("Encounter", "Patient")),
        replace(needed, reads=False),
        replace(needed, conditional_deletes=False),
    ):
        assert any(item.refusal for item in read(body, less).entries)


def test_what_is_refused_needs_no_right_and_what_is_to_be_fetched_needs_an_update() -> None:
    contents = read(batch(entry(patient()), {"request": {"method": "GET"}}), ALL_RIGHTS)
    assert collect_needed_rights(contents.entries).methods == ("POST",)
    assert collect_needed_rights(contents.entries, {0, 1}).methods == ("PUT",)
