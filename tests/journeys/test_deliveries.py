"""Stories of single deliveries, from the request to the row."""

from __future__ import annotations

import asyncio
import gzip
import json
from uuid import uuid4

import pytest

from tests.journeys.route import (
    Route,
    bundle,
    clinic,
    connected,
    entry,
    locations,
    observation,
    patient,
    statuses,
)

pytestmark = [pytest.mark.live, pytest.mark.azurite]

WHO = "urn:uuid:22222222-2222-4222-8222-222222222222"


async def test_a_transaction_arrives_whole_and_its_patient_becomes_a_contact(route: Route) -> None:
    entries = await route.deliver(
        bundle(
            "transaction",
            entry(
                patient("Whole", telecom=[{"system": "phone", "use": "home", "value": "1"}]), WHO
            ),
            entry(observation(WHO)),
        )
    )

    assert statuses(entries) == {"201"}
    who, weight = locations(entries)
    stored = (await route.fhir(weight)).json()
    assert stored["subject"]["reference"] == who
    contact = await route.contact(who.removeprefix("Patient/"))
    assert contact["contactid"] == who.removeprefix("Patient/")
    assert (contact["firstname"], contact["middlename"]) == ("Ada", "Lin")
    assert (contact["lastname"], contact["telephone2"]) == ("Whole", "1")
    assert (contact["gendercode"], contact["birthdate"]) == (2, "1984-05-06")


async def test_the_same_placeholder_in_another_delivery_is_another_patient(route: Route) -> None:
    first = await route.deliver(bundle("transaction", entry(patient("Before"), WHO)))
    second = await route.deliver(
        bundle("transaction", entry(patient("After"), WHO), entry(observation(WHO)))
    )

    one, other = locations(first)[0], locations(second)[0]
    assert one != other
    untouched = (await route.fhir(one)).json()
    assert untouched["name"][0]["family"] == "Before"
    assert untouched["meta"]["versionId"] == "1"
    contacts = [await route.contact(who.removeprefix("Patient/")) for who in (one, other)]
    assert [contact["lastname"] for contact in contacts] == ["Before", "After"]


async def test_the_same_delivery_three_times_at_once_is_one_set_of_resources(route: Route) -> None:
    body = connected(f"Thrice-{uuid4()}", 30)

    answers = await asyncio.gather(*(route.send(body) for _ in range(3)))
    bundles = await asyncio.gather(*(route.arrive(answer) for answer in answers))

    sets = [locations(entries) for entries in bundles]
    assert sets[0] == sets[1] == sets[2]
    for identity in sets[0]:
        assert (await route.fhir(identity)).json()["meta"]["versionId"] == "1"
    who = sets[0][0].removeprefix("Patient/")
    await route.contact(who)
    assert len(await route.contacts(who)) == 1


async def test_an_idempotency_key_answers_with_the_first_delivery(route: Route) -> None:
    key = f"key-{uuid4()}"
    first = await route.send(bundle("batch", entry(patient("Once"))), idempotency_key=key)
    await route.arrive(first)
    again = await route.send(bundle("batch", entry(patient("Once"))), idempotency_key=key)
    other = await route.send(bundle("batch", entry(patient("Not"))), idempotency_key=key)

    assert again.headers["content-location"] == first.headers["content-location"]
    assert other.status_code == 422
    assert other.json()["issue"][0]["code"] == "conflict"


async def test_a_patient_that_changes_and_goes_is_followed_by_its_contact(route: Route) -> None:
    who = str(uuid4())
    await route.deliver(patient("First", id=who), path=f"/Patient/{who}", method="PUT")
    await route.contact(who, version="1")
    await route.deliver(patient("Second", id=who), path=f"/Patient/{who}", method="PUT")
    changed = await route.contact(who, version="2")
    await route.deliver(b"", path=f"/Patient/{who}", method="DELETE")

    assert changed["lastname"] == "Second"
    assert (await route.fhir(f"Patient/{who}")).status_code == 410
    async with asyncio.timeout(30):
        while (await route.contact(who))["statecode"] != 1:
            await asyncio.sleep(0.05)


async def test_ndjson_is_carried_line_by_line_and_a_bad_line_costs_only_itself(
    route: Route,
) -> None:
    mother, child = str(uuid4()), str(uuid4())
    lines = [
        json.dumps(patient("Mother", id=mother)),
        '{"resourceType": "Patient", "name": [',
        json.dumps(patient("Child", id=child)),
        json.dumps(observation(f"Patient/{mother}")),
    ]
    answer = await route.send("\n".join(lines).encode(), content_type="application/fhir+ndjson")
    entries = await route.arrive(answer)

    assert [item["response"]["status"] for item in entries] == ["201", "422", "201", "201"]
    assert "line 2" in entries[1]["response"]["outcome"]["issue"][0]["diagnostics"]
    assert "line 2" in answer.text
    assert (await route.contact(mother))["lastname"] == "Mother"
    assert (await route.contact(child))["lastname"] == "Child"


async def test_a_gzipped_transaction_above_the_limits_is_split_and_says_so(route: Route) -> None:
    body = gzip.compress(json.dumps(connected("Large", 600)).encode())

    entries = await route.deliver(body, content_encoding="gzip")

    assert statuses(entries) == {"201"}
    assert len(set(locations(entries))) == 600
    # Besides what the FHIR server itself may say of a success.
    said = entries[0]["response"]["outcome"]["issue"]
    assert [issue["severity"] for issue in said if "2 units" in issue["diagnostics"]] == [
        "information"
    ]


async def test_a_conditional_create_finds_what_is_there_and_references_follow_it(
    route: Route,
) -> None:
    organization, condition = clinic(str(uuid4()))

    def visit(name: str) -> dict[str, object]:
        here = {"managingOrganization": {"reference": WHO}}
        return bundle(
            "transaction", entry(organization, WHO, **condition), entry(patient(name, **here))
        )

    first = await route.deliver(visit("New"))
    second = await route.deliver(visit("Next"))

    assert [item["response"]["status"] for item in second] == ["200", "201"]
    assert locations(first)[0] == locations(second)[0]
    stored = (await route.fhir(locations(second)[1])).json()
    assert stored["managingOrganization"]["reference"] == locations(first)[0]


@pytest.mark.parametrize("kind", ["transaction", "batch"])
async def test_the_same_conditional_create_twice_is_one_resource(route: Route, kind: str) -> None:
    organization, condition = clinic(str(uuid4()))
    other = "urn:uuid:33333333-3333-4333-8333-333333333333"
    here = {"managingOrganization": {"reference": other}}

    entries = await route.deliver(
        bundle(
            kind,
            entry(organization, WHO, **condition),
            entry(organization, other, **condition),
            entry(patient("Twice", **here)),
        )
    )

    assert [item["response"]["status"] for item in entries] == ["201", "200", "201"]
    first, second, who = locations(entries)
    assert first == second
    stored = (await route.fhir(who)).json()
    assert stored["managingOrganization"]["reference"] == first


async def test_a_batch_resolves_conditional_creates_before_what_refers_to_them(
    route: Route,
) -> None:
    organization, condition = clinic(str(uuid4()))
    here = {"managingOrganization": {"reference": WHO}}

    entries = await route.deliver(
        bundle(
            "batch",
            entry(patient("Referring", **here)),
            entry(organization, WHO, **condition),
        )
    )

    assert statuses(entries) == {"201"}
    stored = (await route.fhir(locations(entries)[0])).json()
    assert stored["managingOrganization"]["reference"] == locations(entries)[1]


async def test_a_cancelled_delivery_is_gone_and_a_done_one_cannot_be_cancelled(
    faulty: Route,
) -> None:
    await faulty.fault("fhir", next=1, kind="slow", delayMs=800, method="POST")
    answer = await faulty.send(connected("Cancelled", 600))
    where = answer.headers["content-location"]
    gone = await faulty.http.delete(where)

    assert gone.status_code == 202
    assert (await faulty.http.get(where)).status_code == 404
    done = await faulty.send(bundle("batch", entry(patient("Done"))))
    await faulty.arrive(done)
    refused = await faulty.http.delete(done.headers["content-location"])
    assert refused.status_code == 409


async def test_the_list_of_deliveries_is_newest_first_and_paged(route: Route) -> None:
    for name in ("One", "Two", "Three"):
        await route.deliver(bundle("batch", entry(patient(name))))

    base = f"{route.host.url}/api/deliveries"
    page = (await route.http.get(base, params={"_count": 2, "status": "done"})).json()
    rest = (await route.http.get(page["next"])).json()

    accepted = [item["accepted"] for item in page["deliveries"] + rest["deliveries"]]
    assert accepted == sorted(accepted, reverse=True)
    assert len(page["deliveries"]) == 2
    assert not {d["id"] for d in page["deliveries"]} & {d["id"] for d in rest["deliveries"]}
