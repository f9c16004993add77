"""Clinical data stays in FHIR, and staff work with it in Dataverse as if it were there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.processes import PROJECT
from local.services import find_free_ports, run_services, start_host
from tests.journeys.route import PATIENCE, Route, open_route, provision

PATIENT = "7b1f0000-0000-4000-8000-000000000001"
CONDITION = "7b1f0000-0000-4000-8000-0000000000c1"
HEART_RATE = "7b1f0000-0000-4000-8000-0000000000f1"
WEIGHT = "weight-of-monday"  # no GUID: its row has a key of its own
SUBJECT = {"reference": f"Patient/{PATIENT}"}
CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"

ANNA: dict[str, Any] = {
    "resourceType": "Patient",
    "id": PATIENT,
    "name": [{"family": "Sampleton", "given": ["Anna"]}],
}
COUGH: dict[str, Any] = {
    "resourceType": "Condition",
    "id": CONDITION,
    "clinicalStatus": {"coding": [{"system": CLINICAL, "code": "active"}]},
    "code": {"text": "Cough"},
    "subject": SUBJECT,
    "onsetDateTime": "2026-02",
    "extension": [{"url": "http://hospital.example/ward", "valueString": "7a"}],
}


def measured(id_: str, text: str, value: float, unit: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": id_,
        "status": "final",
        "code": {"text": text},
        "subject": SUBJECT,
        "valueQuantity": {"value": value, "unit": unit},
    }


MORNING = [
    ANNA,
    COUGH,
    measured(HEART_RATE, "Heart rate", 72, "/min"),
    measured(WEIGHT, "Weight", 64.5, "kg"),
]


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any, Path]]:
    """The route with a Dataverse that has been told of the feed by the command."""
    if not (PROJECT / "local/node_modules/azurite").exists():
        pytest.skip("local/node_modules is missing: run make test")
    folder, ports = tmp_path_factory.mktemp("virtual"), find_free_ports()
    with run_services(ports, folder) as running:
        settings = {
            **running.settings(),
            "HOST_USE_FUNC": "0",
            "MAP_PREFIX": "new",
            "EXTERNAL_EVENTS": "AllergyIntolerance, Condition, Observation",
            "AzureFunctionsJobHost__extensions__queues__maxPollingInterval": "00:00:00.100",
        }
        with start_host(settings, ports.host, folder) as host:
            provision(settings, host.url, "the key of the feed")
            yield running, host, folder


@pytest.fixture
async def ward(provisioned: tuple[Any, Any, Path]) -> AsyncIterator[Route]:
    running, host, folder = provisioned
    async with open_route(running, host, folder) as found:
        yield found


class Staff:
    """Somebody at a form in Dataverse."""

    def __init__(self, route: Route) -> None:
        self.http, self.base = route.http, f"{route.running.dataverse_url}/api/data/v9.2/"
        self.control = f"{route.running.dataverse_url}/control/events"

    async def reads(self, path: str) -> Any:
        answer = await self.http.get(f"{self.base}{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def lists(self, table: str, lookup: str, *columns: str) -> list[dict[str, Any]]:
        """The related rows on Anna's form."""
        asked = f"$filter={lookup} eq {PATIENT}&$select={','.join(columns)}"
        return list((await self.reads(f"{table}?{asked}"))["value"])

    async def adds(self, table: str, row: dict[str, Any]) -> None:
        answer = await self.http.post(f"{self.base}{table}", json=row)
        assert answer.status_code == 204, answer.text

    async def corrects(self, row: str, columns: dict[str, Any]) -> None:
        answer = await self.http.patch(f"{self.base}{row}", json=columns)
        assert answer.status_code == 204, answer.text

    async def hears(self, *wanted: tuple[str, str]) -> None:
        """Wait until flows have heard of these: the action, and the key of the row."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            events = (await self.http.get(self.control)).json()
            if set(wanted) <= {(one["action"], one["id"]) for one in events}:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"not heard: {set(wanted)} among {events}")


async def test_staff_see_and_change_what_the_hospital_sends_and_it_stays_in_fhir(
    ward: Route,
) -> None:
    staff = Staff(ward)
    entries = [
        {
            "resource": each,
            "request": {"method": "PUT", "url": f"{each['resourceType']}/{each['id']}"},
        }
        for each in MORNING
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    answers = await ward.deliver(bundle)
    assert {each["response"]["status"] for each in answers} == {"201"}

    # The contact appears; its conditions and observations are listed as they are in FHIR.
    contact = await _appears(staff, f"contacts({PATIENT})?$select=lastname")
    assert contact["lastname"] == "Sampleton"
    listed = await staff.lists(
        "new_ve_observations", "_new_subjectpatient_value", "new_description"
    )
    assert sorted(each["new_description"] for each in listed) == ["Heart rate", "Weight"]
    (cough,) = await staff.lists(
        "new_ve_conditions", "_new_subjecttypepatient_value", "new_name", "new_clinicalstatus"
    )
    assert cough["new_name"] == "Cough"
    await staff.hears(("OnExternalCreated", CONDITION), ("OnExternalCreated", HEART_RATE))

    # A nurse adds an allergy and corrects the condition.
    await staff.adds(
        "new_ve_allergyintolerances",
        {"new_codetext": "Peanuts", "new_patient@odata.bind": f"/contacts({PATIENT})"},
    )
    await staff.corrects(f"new_ve_conditions({CONDITION})", {"new_clinicalstatus": 935000004})
    stored = (await ward.fhir(f"Condition/{CONDITION}")).json()
    assert stored["meta"]["versionId"] == "2"
    assert stored["clinicalStatus"]["coding"][0]["code"] == "resolved"
    unchanged = {name: COUGH[name] for name in ("code", "subject", "onsetDateTime", "extension")}
    assert {name: stored[name] for name in unchanged} == unchanged
    found = (await ward.fhir(f"AllergyIntolerance?patient={PATIENT}")).json()["entry"]
    assert [each["resource"]["code"]["text"] for each in found] == ["Peanuts"]

    # The hospital withdraws a measurement, and it is gone from the list.
    answer = await ward.send(b"", f"/Observation/{HEART_RATE}", "DELETE")
    (gone,) = await ward.arrive(answer)
    assert gone["response"]["status"] == "204"
    left = await staff.lists("new_ve_observations", "_new_subjectpatient_value", "new_description")
    assert [each["new_description"] for each in left] == ["Weight"]
    await staff.hears(("OnExternalDeleted", HEART_RATE))


async def _appears(staff: Staff, path: str) -> Any:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        answer = await staff.http.get(f"{staff.base}{path}")
        if answer.status_code == 200:
            return answer.json()
        await asyncio.sleep(0.1)
    raise AssertionError(f"{path} did not appear")


# --- another data route, while people work --------------------------------------------------------


class View:
    """Somebody who keeps the list of Anna's observations open, and notes what it shows."""

    def __init__(self, staff: Staff) -> None:
        self.staff = staff
        self.seen: list[list[tuple[str, str]]] = []

    async def refresh(self) -> list[tuple[str, str]]:
        """Return key and FHIR id of each row that the list shows."""
        rows = await self.staff.lists(
            "new_ve_observations",
            "_new_subjectpatient_value",
            *("new_ve_observationid", "new_azurefhirid"),
        )
        shown = [(row["new_ve_observationid"], row["new_azurefhirid"]) for row in rows]
        assert len(dict(shown)) == len(shown), "a row is there twice"
        self.seen.append(shown)
        return shown

    async def stay(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.refresh()


async def switch(ward: Route, route: str) -> str:
    answer = await ward.http.patch(
        f"{ward.host.url}/api/data-routes", json={"Observation": route}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["routes"]["Observation"])


async def _until_answered_from(ward: Route, route: str) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        listed = (await ward.http.get(f"{ward.host.url}/api/data-routes")).json()["routes"]
        (found,) = [item for item in listed if item["resource"] == "Observation"]
        if found["route"] == route and not found.get("bringing"):
            return
        await asyncio.sleep(0.5)
    raise AssertionError(f"the route is {found}, not {route}")


@pytest.mark.slow  # a switch takes 20 seconds
async def test_a_table_is_switched_to_dataverse_and_back_while_people_work_with_it(
    ward: Route,
) -> None:
    staff = Staff(ward)
    view = View(staff)
    ids = [HEART_RATE, WEIGHT, *(f"vital-{n}" for n in range(8))]
    await deliver_all(ward, [ANNA, *(measured(id_, "Vital", 60, "kg") for id_ in ids)])
    await _appears(staff, f"contacts({PATIENT})?$select=lastname")
    keys = {id_: key for key, id_ in await view.refresh()}
    assert keys.keys() == {*ids}

    planned = await ward.http.patch(
        f"{ward.host.url}/api/data-routes?dry-run=true", json={"Observation": "dataverse"}
    )
    counts = planned.json()["counts"]["Observation"]
    assert [counts[name]["number"] for name in ("resources", "rows", "others")] == [len(ids), 0, 0]

    stop = asyncio.Event()
    watching = asyncio.create_task(view.stay(stop))
    meant = await switch(ward, "dataverse")
    assert "a job brings what was there before" in meant
    # While the rows are brought, FHIR answers, and what is sent is there at once.
    await deliver_all(ward, [measured("during", "Vital", 61, "kg")])
    await _until_answered_from(ward, "dataverse")

    # What is delivered now reaches the row, and so does what somebody changes.
    await deliver_all(ward, [measured("after", "Vital", 62, "kg")])
    await _shows(view, {*ids, "during", "after"})
    await staff.corrects(f"new_ve_observations({HEART_RATE})", {"new_status": 935000004})
    row = await staff.reads(f"msemr_observations({HEART_RATE})?$select=msemr_status")
    assert row["msemr_status"] == 935000004
    assert (await ward.fhir(f"Observation/{HEART_RATE}")).json()["status"] == "final"
    await staff.hears(("OnExternalCreated", dict_of(await view.refresh())["after"]))

    await switch(ward, "virtual")
    await _shows(view, {*ids, "during", "after"})
    stop.set()
    await watching
    assert {id_: key for key, id_ in await view.refresh()}.items() >= keys.items(), "the same keys"
    grown: set[str] = {*ids}
    for shown in view.seen:
        now = {id_ for _, id_ in shown}
        assert now >= grown, "a row was missing for a moment"
        grown = now
    assert len(view.seen) > 20


def dict_of(shown: list[tuple[str, str]]) -> dict[str, str]:
    """Keys by FHIR id."""
    return {id_: key for key, id_ in shown}


async def deliver_all(ward: Route, resources: list[dict[str, Any]]) -> None:
    entries = [
        {
            "resource": each,
            "request": {"method": "PUT", "url": f"{each['resourceType']}/{each['id']}"},
        }
        for each in resources
    ]
    answers = await ward.deliver({"resourceType": "Bundle", "type": "batch", "entry": entries})
    assert all(each["response"]["status"][:2] == "20" for each in answers), answers


async def _shows(view: View, ids: set[str]) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if {id_ for _, id_ in await view.refresh()} == ids:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{ids} are not shown, but {view.seen[-1]}")


# --- the training exercise, step by step ----------------------------------------------------------

PATIENT_ONE = "7b1f0000-0000-4000-8000-000000000011"
ONE = {"reference": f"Patient/{PATIENT_ONE}"}


@pytest.mark.slow  # a switch takes 20 seconds
async def test_a_maker_builds_an_app_with_virtual_tables_and_their_route_is_switched(
    ward: Route,
) -> None:
    """What Microsoft's module "build an application with virtual health data tables" has a maker do."""
    staff = Staff(ward)
    types = ("Encounter", "Observation", "AllergyIntolerance")
    await _choose_routes(ward, dict.fromkeys(types, "dataverse"))

    # The patient comes through the relay, and is a contact that holds the FHIR id.
    patient = {"resourceType": "Patient", "id": PATIENT_ONE, "name": [{"text": "Patient One"}]}
    await deliver_all(ward, [{**patient, "name": [{"family": "One", "given": ["Patient"]}]}])
    contact = await _appears(staff, f"contacts({PATIENT_ONE})?$select=fullname,msemr_azurefhirid")
    assert contact["msemr_azurefhirid"] == PATIENT_ONE

    async def read_subgrid(table: str, lookup: str) -> list[dict[str, Any]]:
        found = await staff.reads(f"{table}?$filter={lookup} eq {PATIENT_ONE}")
        return list(found["value"])

    async def read_subgrids() -> list[int]:
        encounters = await read_subgrid("new_ve_encounters", "_new_subjectpatient_value")
        observations = await read_subgrid("new_ve_observations", "_new_subjectpatient_value")
        return [len(encounters), len(observations)]

    assert await read_subgrids() == [0, 0]

    # Clinical data goes straight to the FHIR server: the route says Dataverse, so nothing shows.
    encounter = {
        "resourceType": "Encounter",
        "id": "7b1f0000-0000-4000-8000-0000000000e1",
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": ONE,
    }
    pulse = {
        **measured("7b1f0000-0000-4000-8000-0000000000d1", "Pulse", 70, "/min"),
        "subject": ONE,
    }
    for resource in (encounter, pulse):
        name = f"{resource['resourceType']}/{resource['id']}"
        answer = await ward.http.put(f"{ward.running.fhir_url}/{name}", json=resource)
        assert answer.status_code == 201, answer.text
    assert await read_subgrids() == [0, 0]

    # The routes are switched; tables, views and forms are the same.
    await _choose_routes(ward, dict.fromkeys(types, "virtual"))
    assert await read_subgrids() == [1, 1]

    # An allergy is created, changed and deleted in Dataverse.
    answer = await staff.http.post(
        f"{staff.base}new_ve_allergyintolerances",
        json={
            "new_name": "Allergy: Patient One",
            "new_verificationstatus": 935000001,
            "new_code": "ABC123",
            "new_criticality": 935000000,
            "new_type": 935000000,
            "new_patient@odata.bind": f"/contacts({PATIENT_ONE})",
        },
    )
    assert answer.status_code == 204, answer.text
    key = answer.headers["odata-entityid"].rpartition("(")[2].removesuffix(")")
    row = f"new_ve_allergyintolerances({key})"
    assert (await staff.reads(row))["new_name"] == "Allergy: Patient One"
    stored = (await ward.fhir(f"AllergyIntolerance/{key}")).json()
    assert stored["meta"]["versionId"] == "1"
    assert stored["code"]["text"] == "Allergy: Patient One"
    assert [coding["code"] for coding in stored["code"]["coding"]] == ["ABC123"]
    assert (stored["criticality"], stored["type"]) == ("low", "allergy")
    assert stored["verificationStatus"]["coding"][0]["code"] == "confirmed"
    await staff.corrects(row, {"new_code": "XYZ456", "new_criticality": 935000001})
    changed = (await ward.fhir(f"AllergyIntolerance/{key}")).json()
    assert changed["meta"]["versionId"] == "2"
    assert [coding["code"] for coding in changed["code"]["coding"]] == ["XYZ456"]
    assert changed["criticality"] == "high"
    assert (await staff.http.delete(f"{staff.base}{row}")).status_code == 204
    gone = await ward.http.get(f"{ward.running.fhir_url}/AllergyIntolerance/{key}")
    assert (gone.status_code, gone.json()["resourceType"]) == (410, "OperationOutcome")


async def _choose_routes(ward: Route, routes: dict[str, str]) -> None:
    """Choose routes at once: there is nothing to bring."""
    answer = await ward.http.patch(
        f"{ward.host.url}/api/data-routes?bring=false", json=routes, timeout=60
    )
    assert answer.status_code == 200, answer.text
