"""Every method and condition that a batch or a transaction may hold, from request to answer."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import uuid4

import pytest

from tests.journeys.route import (
    Route,
    bundle,
    clinic,
    entry,
    locations,
    observation,
    patient,
    statuses,
)

pytestmark = [pytest.mark.live, pytest.mark.azurite]

WHO = "urn:uuid:33333333-3333-4333-8333-333333333333"
MRN = "urn:test:mrn"


def asked(method: str, url: str, resource: Any = None, **request: str) -> dict[str, Any]:
    shape: dict[str, Any] = {"request": {"method": method, "url": url, **request}}
    return shape if resource is None else {**shape, "resource": resource}


def json_patch(*operations: dict[str, Any]) -> dict[str, Any]:
    data = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": data}


def fhirpath_patch(path: str, **value: Any) -> dict[str, Any]:
    parts = [
        {"name": "type", "valueCode": "replace"},
        {"name": "path", "valueString": path},
        {"name": "value", **value},
    ]
    return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}


def known(value: str, name: str = "Known", **more: Any) -> dict[str, Any]:
    return patient(name, identifier=[{"system": MRN, "value": value}], **more)


async def put(route: Route, name: str) -> str:
    """A patient that is there already: its identifier, which is its id too."""
    value = f"m-{uuid4()}"
    await route.deliver(known(value, name, id=value))
    return value


async def test_a_batch_is_read_through_and_its_reads_see_its_writes(route: Route) -> None:
    one = await put(route, "Before")
    replaced = json_patch({"op": "replace", "path": "/gender", "value": "other"})
    heard = await route.deliver(
        bundle(
            "batch",
            asked("GET", f"Patient?identifier={MRN}|{one}"),
            asked("GET", f"Patient/{one}"),
            asked("GET", f"Patient/{one}/_history/1"),
            asked("GET", f"Patient/{one}", ifNoneMatch='W/"9"'),
            asked("GET", f"Patient/{uuid4()}"),
            asked("PATCH", f"Patient/{one}", replaced),
        )
    )

    search, read, version, condition, missing, patched = heard
    assert [item["response"]["status"] for item in heard] == [*["200"] * 4, "404", "200"]
    assert search["resource"]["entry"][0]["resource"]["gender"] == "other"
    assert (read["resource"]["gender"], read["resource"]["meta"]["versionId"]) == ("other", "2")
    assert read["response"]["etag"] == 'W/"2"'
    assert version["resource"]["gender"] == "female"
    assert condition["resource"]["id"] == one
    code = missing["response"]["outcome"]["issue"][0]["code"]
    assert code == ("exception" if route.is_hapi else "not-found")
    assert patched["response"]["location"] == f"Patient/{one}/_history/2"
    assert (await route.contact(one, "2"))["lastname"] == "Before"


async def test_a_head_tells_no_resource_and_what_the_server_says_of_it(route: Route) -> None:
    one = await put(route, "Head")
    (heard,) = await route.deliver(bundle("batch", asked("HEAD", f"Patient/{one}")))
    assert heard["response"]["status"] == ("400" if route.is_hapi else "200")
    assert "resource" not in heard


async def test_an_unchanged_resource_is_not_read_again(route: Route) -> None:
    one = await put(route, "Same")
    (heard,) = await route.deliver(
        bundle("batch", asked("GET", f"Patient/{one}", ifNoneMatch='W/"1"'))
    )
    assert heard["response"]["status"] == "304"
    assert "resource" not in heard


async def test_a_transaction_reads_what_it_writes(route: Route) -> None:
    one = await put(route, "Old")
    heard = await route.deliver(
        bundle(
            "transaction",
            asked("GET", f"Patient/{one}"),
            asked("GET", f"Observation?subject={WHO}"),
            asked("PATCH", f"Patient/{one}", fhirpath_patch("Patient.gender", valueCode="unknown")),
            entry(known(f"m-{uuid4()}"), WHO),
            entry(observation(WHO)),
        )
    )

    assert [item["response"]["status"] for item in heard] == ["200", "200", "200", "201", "201"]
    assert heard[0]["resource"]["gender"] == "unknown"
    (found,) = heard[1]["resource"]["entry"]
    assert f"Observation/{found['resource']['id']}" == locations(heard)[4]
    assert found["resource"]["valueQuantity"]["value"] == 60


async def test_a_failed_read_fails_its_transaction(route: Route) -> None:
    """Not at HAPI's server, which writes the others and says so."""
    one = f"m-{uuid4()}"
    heard = await route.deliver(
        bundle(
            "transaction", entry(known(one, id=one), method="PUT"), asked("GET", f"Patient/x-{one}")
        )
    )
    assert statuses(heard) == ({"201", "404"} if route.is_hapi else {"404"})
    assert (await route.fhir(f"Patient/{one}")).status_code == (200 if route.is_hapi else 404)


async def test_a_patch_finds_its_resource_by_a_search(route: Route) -> None:
    one = await put(route, "Sought")
    female = fhirpath_patch("Patient.gender", valueCode="other")
    heard = await route.deliver(
        bundle("transaction", asked("PATCH", f"Patient?identifier={MRN}|{one}", female))
    )
    assert statuses(heard) == {"200"}
    assert locations(heard) == [f"Patient/{one}"]
    await route.contact(one, "2")


async def test_a_batch_deletes_by_a_search_before_it_writes(route: Route) -> None:
    one = await put(route, "Gone")
    heard = await route.deliver(
        bundle(
            "batch",
            entry(known(one, "New"), WHO),
            asked("DELETE", f"Patient?identifier={MRN}|{one}"),
            asked("GET", f"Patient/{one}"),
        )
    )
    assert [item["response"]["status"] for item in heard] == ["201", "204", "410"]
    (new, *_) = locations(heard)
    assert (await route.fhir(new)).status_code == 200


async def test_a_transaction_takes_no_conditional_delete(route: Route) -> None:
    answer = await route.send(bundle("transaction", asked("DELETE", "Patient?identifier=1")))
    assert answer.status_code == 400
    assert answer.json()["issue"][0]["expression"] == ["Bundle.entry[0].request.url"]


@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_a_conditional_reference_means_the_entry_that_it_finds(
    route: Route, kind: str
) -> None:
    mrn, place = f"m-{uuid4()}", f"c-{uuid4()}"
    organization, condition = clinic(place)
    there = {"reference": f"Organization?{condition['ifNoneExist'].replace('|', '%7C')}"}
    heard = await route.deliver(
        bundle(
            kind,
            entry(observation(f"Patient?identifier={MRN}%7C{mrn}")),
            entry(known(mrn, managingOrganization=there)),
            entry(organization, **condition),
        )
    )

    assert statuses(heard) == {"201"}
    weight, who, where = locations(heard)
    assert (await route.fhir(weight)).json()["subject"]["reference"] == who
    assert (await route.fhir(who)).json()["managingOrganization"]["reference"] == where


async def test_a_conditional_reference_to_what_is_there_is_left_to_the_server(route: Route) -> None:
    one = await put(route, "There")
    heard = await route.deliver(
        bundle("transaction", entry(observation(f"Patient?identifier={MRN}|{one}")))
    )
    (weight,) = locations(heard)
    assert (await route.fhir(weight)).json()["subject"]["reference"] == f"Patient/{one}"


async def test_a_patch_comes_by_itself_too(route: Route) -> None:
    one = await put(route, "Alone")
    body = [{"op": "replace", "path": "/gender", "value": "other"}]
    heard = await route.deliver(
        body, path=f"/Patient/{one}", method="PATCH", content_type="application/json-patch+json"
    )
    assert statuses(heard) == {"200"}
    second = fhirpath_patch("Patient.gender", valueCode="male")
    await route.deliver(second, path=f"/Patient/{one}", method="PATCH")
    stored = (await route.fhir(f"Patient/{one}")).json()
    assert (stored["gender"], stored["meta"]["versionId"]) == ("male", "3")
