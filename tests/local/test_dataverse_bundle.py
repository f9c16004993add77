"""`msind_UpsertBundle`, as the Dataverse healthcare APIs describe it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from local.dataverse.app import create_app

CREATED, UPDATED, EXPANDED = 935000000, 935000001, 935000002
SUCCESS, ERROR = 935000000, 935000002

Json = dict[str, Any]

PATIENT: Json = {
    "resourceType": "Patient",
    "id": "p1",
    "meta": {"versionId": "3", "lastUpdated": "2026-01-02T03:04:05Z"},
    "name": [{"use": "official", "family": "Ahlström"}, {"use": "usual", "family": "Ahl"}],
    "gender": "female",
    "birthDate": "1980-05-17",
    "identifier": [{"system": "urn:a", "value": "1", "type": {"coding": [{"code": "MR"}]}}],
}


@pytest.fixture
async def dataverse() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://dataverse/api/data/v9.2/"
    ) as client:
        yield client
    app.close()


async def post(client: httpx.AsyncClient, *resources: Json, **more: str) -> Json:
    entries = [{"resource": resource} for resource in resources]
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
    answer = await client.post(
        "msind_UpsertBundle", json={"msind_JSON": json.dumps(bundle), **more}
    )
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def rows(client: httpx.AsyncClient, entity_set: str) -> list[Json]:
    found: list[Json] = (await client.get(entity_set)).json()["value"]
    return found


def told(result: Json) -> tuple[str, str, int, int]:
    return (
        result["msind_fhirresourcetype"],
        result["msind_resultingrecordtype"],
        result["msind_requestactionperformed"],
        result["msind_requeststatus"],
    )


async def test_a_patient_becomes_a_contact_and_its_identifiers_rows_of_their_own(
    dataverse: httpx.AsyncClient,
) -> None:
    answer = await post(dataverse, PATIENT, msind_BundleTag="delivery 1")
    assert answer["msind_Status"] is True
    root, child = answer["msind_Results"]
    assert told(root) == ("Patient", "contact", CREATED, SUCCESS)
    assert told(child) == ("Patient", "msemr_medicalidentifier", EXPANDED, SUCCESS)
    (row,) = await rows(dataverse, "contacts")
    assert row["contactid"] == root["msind_resultingrecordid"]
    assert (row["lastname"], row["gendercode"], row["birthdate"]) == ("Ahl", 2, "1980-05-17")
    assert (row["msemr_azurefhirid"], row["msemr_azurefhirversion"]) == ("p1", "3")
    (identifier,) = await rows(dataverse, "msemr_medicalidentifiers")
    assert identifier["_msemr_assignee_value"] == row["contactid"]
    assert (identifier["msemr_value"], identifier["msemr_type"]) == ("1", 935000003)


async def test_a_second_time_updates_the_same_rows(dataverse: httpx.AsyncClient) -> None:
    await post(dataverse, PATIENT)
    root, child = (await post(dataverse, {**PATIENT, "gender": "male"}))["msind_Results"]
    assert (told(root)[2], told(child)[2]) == (UPDATED, EXPANDED)
    (row,) = await rows(dataverse, "contacts")
    assert row["gendercode"] == 1
    assert len(await rows(dataverse, "msemr_medicalidentifiers")) == 1


async def test_references_resolve_to_rows_within_the_bundle_and_from_before(
    dataverse: httpx.AsyncClient,
) -> None:
    organization = {"resourceType": "Organization", "id": "o1", "name": "Ward"}
    doctor = {"resourceType": "Practitioner", "id": "d1", "name": [{"family": "Doc"}]}
    relative = {
        "resourceType": "RelatedPerson",
        "id": "r1",
        "name": [{"given": ["Carl"], "family": "Ahl"}],
        "patient": {"reference": "urn:uuid:1"},
    }
    patient = {
        **PATIENT,
        "managingOrganization": {"reference": "Organization/o1"},
        "generalPractitioner": [{"reference": "Practitioner/d1"}],
    }
    await post(dataverse, organization)
    entries = [
        {"resource": doctor},
        {"fullUrl": "urn:uuid:1", "resource": patient},
        {"resource": relative},
    ]
    bundle = {"resourceType": "Bundle", "type": "batch-response", "entry": entries}
    sent = {"msind_JSON": json.dumps(bundle)}
    answer = (await dataverse.post("msind_UpsertBundle", json=sent)).json()
    assert answer["msind_Status"] is True, answer
    (account,) = await rows(dataverse, "accounts")
    (person,) = await rows(dataverse, "msemr_relatedpersons")
    by_type = {row["msemr_contacttype"]: row for row in await rows(dataverse, "contacts")}
    contact, practitioner = by_type[935000000], by_type[935000001]
    assert contact["_msemr_managingorganization_value"] == account["accountid"]
    assert contact["_msemr_generalpractioner_value"] == practitioner["contactid"]
    assert person["_msemr_patient_value"] == contact["contactid"]
    assert person["msemr_name"] == "Carl Ahl"


async def test_a_resource_is_not_written_while_one_of_its_references_has_no_row(
    dataverse: httpx.AsyncClient,
) -> None:
    patient = {**PATIENT, "managingOrganization": {"reference": "Organization/none"}}
    answer = await post(dataverse, patient, {**PATIENT, "id": "p2"})
    assert answer["msind_Status"] is False
    refused, written, _ = answer["msind_Results"]
    assert told(refused)[3] == ERROR
    assert "msind_resultingrecordid" not in refused
    assert told(written)[3] == SUCCESS, "the others are written all the same"


async def test_a_child_that_fails_leaves_its_parent_written_and_marked(
    dataverse: httpx.AsyncClient,
) -> None:
    link = [{"type": "seealso", "other": {"reference": "Patient/none"}}]
    answer = await post(dataverse, {**PATIENT, "link": link})
    root, identifier, failed = answer["msind_Results"]
    assert (told(root)[2:], told(failed)[2:]) == ((CREATED, ERROR), (EXPANDED, ERROR))
    assert told(identifier)[3] == SUCCESS
    assert "was written.\r\nPatient.link" in root["msind_requeststatusdetail"]
    assert "msind_resultingrecordid" in root
    assert "msind_resultingrecordid" not in failed
    assert await rows(dataverse, "msemr_contactlinks") == []
    assert await rows(dataverse, "msemr_codeableconcepts") == []


async def test_a_link_to_another_patient_makes_the_concept_that_it_lacks(
    dataverse: httpx.AsyncClient,
) -> None:
    await post(dataverse, {**PATIENT, "id": "p2"})
    link = [{"type": "replaced-by", "other": {"reference": "Patient/p2"}}]
    for _ in range(2):
        assert (await post(dataverse, {**PATIENT, "link": link}))["msind_Status"] is True
    (concept,) = await rows(dataverse, "msemr_codeableconcepts")
    (row,) = await rows(dataverse, "msemr_contactlinks")
    assert row["_msemr_linktype_value"] == concept["msemr_codeableconceptid"]
    assert (concept["msemr_code"], concept["msemr_type"]) == ("replaced-by", 935000071)


@pytest.mark.parametrize(
    "resource",
    [
        {**PATIENT, "id": None},
        {"resourceType": "Observation", "id": "1"},
        {**PATIENT, "name": "Ahl"},
        {**PATIENT, "id": "x" * 39},
    ],
)
async def test_an_entry_that_cannot_be_written_is_an_error_of_its_own(
    dataverse: httpx.AsyncClient, resource: Json
) -> None:
    answer = await post(dataverse, resource)
    assert answer["msind_Status"] is False
    assert [told(result)[3] for result in answer["msind_Results"]] == [ERROR]
    assert await rows(dataverse, "contacts") == []


@pytest.mark.parametrize("kind", ["transaction", "collection", "searchset", "message", None])
async def test_only_batches_and_their_responses_are_taken(
    dataverse: httpx.AsyncClient, kind: str | None
) -> None:
    bundle = {"resourceType": "Bundle", "type": kind, "entry": [{"resource": PATIENT}]}
    answer = await dataverse.post("msind_UpsertBundle", json={"msind_JSON": json.dumps(bundle)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "0x80040265")
    assert await rows(dataverse, "contacts") == []


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({}, "0x80040203"),
        ({"msind_BundleTag": "x"}, "0x80040203"),
        ({"msind_JSON": {"resourceType": "Bundle"}}, "0x80048d19"),
        ({"msind_JSON": "{}", "Tag": "x"}, "0x80048d19"),
        ({"msind_JSON": "{"}, "0x80040265"),
        ({"msind_JSON": "[]"}, "0x80040265"),
        ({"msind_JSON": json.dumps(PATIENT)}, "0x80040265"),
        ({"msind_JSON": '{"resourceType":"Bundle","type":"batch","entry":[{}]}'}, "0x80040265"),
    ],
)
async def test_what_is_no_bundle_is_refused_whole(
    dataverse: httpx.AsyncClient, payload: Json, code: str
) -> None:
    answer = await dataverse.post("msind_UpsertBundle", json=payload)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


async def test_the_other_healthcare_api_is_not_here(dataverse: httpx.AsyncClient) -> None:
    sent = {"msind_FHIRQuery": "Patient/p1"}
    assert (await dataverse.post("msind_RetrieveBundle", json=sent)).status_code == 501
    assert (await dataverse.get("msind_UpsertBundle")).status_code == 404
