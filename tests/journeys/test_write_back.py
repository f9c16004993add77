"""Stories of people who correct a contact: the patient in FHIR has it within seconds, in their name,
and what the EHR sends later is decided by a rule that says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from local.dataverse.organization import CALLER, NURSE_USER
from local.processes import PROJECT, Child
from local.services import ADDRESS, Running, find_free_ports, run_services, start_host
from tests.journeys.route import Route, open_route, patient, provision

pytestmark = [pytest.mark.live, pytest.mark.azurite]

PATIENCE = 60.0
SOMEBODY = {CALLER: NURSE_USER}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Child, Path]]:
    """An organisation that has the column of the digest, and an app that writes back."""
    if not (PROJECT / "local/node_modules/azurite").exists():
        pytest.skip("local/node_modules is missing: run make test")
    folder, ports = tmp_path_factory.mktemp("writeback"), find_free_ports()
    with run_services(ports, folder) as running:
        settings = {
            **running.settings(),
            "HOST_USE_FUNC": "0",
            "MAP_PREFIX": "new",
            "MAPS_ENABLED": "map_digest",
            "WRITEBACK": "bell",
            "WRITEBACK_SCHEDULE": "* * * * * *",
            "AzureFunctionsJobHost__extensions__queues__maxPollingInterval": "00:00:00.100",
        }
        provision(settings, f"http://{ADDRESS}:{ports.host}", "the key of the feed")
        with start_host(settings, ports.host, folder) as host:
            yield running, host, folder


@pytest.fixture
async def ward(services: tuple[Running, Child, Path]) -> AsyncIterator[Route]:
    running, host, folder = services
    async with open_route(running, host, folder) as found:
        yield found


def with_phone(id_: str, number: str) -> dict[str, Any]:
    telecom = [{"system": "phone", "use": "home", "value": number}]
    return {**patient("Anna", id=id_), "telecom": telecom}


async def send(route: Route, id_: str, number: str) -> None:
    """As the EHR does: the whole patient."""
    entry = {
        "resource": with_phone(id_, number),
        "request": {"method": "PUT", "url": f"Patient/{id_}"},
    }
    entries = await route.deliver({"resourceType": "Bundle", "type": "batch", "entry": [entry]})
    assert {entry["response"]["status"][:2] for entry in entries} == {"20"}


async def correct(route: Route, id_: str, number: str) -> None:
    """As the nurse does, in a form."""
    answer = await route.http.patch(
        f"{route.running.dataverse_url}/api/data/v9.2/contacts({id_})",
        json={"telephone2": number},
        headers=SOMEBODY,
    )
    assert answer.status_code == 204, answer.text


async def wait_for_phone(route: Route, id_: str, number: str) -> dict[str, Any]:
    """The patient, once FHIR has this number."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        stored: dict[str, Any] = (await route.fhir(f"Patient/{id_}")).json()
        if [each["value"] for each in stored.get("telecom", ())] == [number]:
            return stored
        await asyncio.sleep(0.05)
    raise AssertionError(f"FHIR never had the number: {stored.get('telecom')}")


async def wait_for_row(route: Route, id_: str, version: str) -> dict[str, Any]:
    return await route.contact(id_, version)


async def find_provenances(route: Route, id_: str) -> list[dict[str, Any]]:
    headers = {**route.own, "cache-control": "no-cache"}
    url = f"{route.running.fhir_url}/Provenance?target=Patient/{id_}"
    answer = (await route.http.get(url, headers=headers)).json()
    return [entry["resource"] for entry in answer.get("entry", ())]


@pytest.fixture
async def anna(ward: Route) -> str:
    """Her id. Her row is there, and edits are followed."""
    id_ = str(uuid4())
    await send(ward, id_, "555-0000")
    await ward.contact(id_, "1")
    await asyncio.sleep(0)
    await wait_until_followed(ward)
    return id_


async def wait_until_followed(route: Route) -> None:
    """Edits are taken up from the first look on. An edit of a row of the test's own shows it."""
    probe = str(uuid4())
    await send(route, probe, "0")
    await route.contact(probe, "1")
    until, number = time.monotonic() + PATIENCE, 0
    while time.monotonic() < until:
        number += 1
        await correct(route, probe, f"probe {number}")
        for _ in range(40):
            stored = (await route.fhir(f"Patient/{probe}")).json()
            if stored["telecom"][0]["value"].startswith("probe"):
                return
            await asyncio.sleep(0.05)
    raise AssertionError("edits are not followed")


async def test_a_nurse_corrects_a_number_and_fhir_has_it_in_her_name(
    ward: Route, anna: str, record_property: Any
) -> None:
    begun = time.monotonic()
    await correct(ward, anna, "555-0101")
    stored = await wait_for_phone(ward, anna, "555-0101")
    record_property("seconds from an edit to FHIR", round(time.monotonic() - begun, 2))
    row = await wait_for_row(ward, anna, stored["meta"]["versionId"])
    assert row["telephone2"] == "555-0101"
    (provenance,) = await find_provenances(ward, anna)
    assert provenance["agent"][0]["who"]["display"] == "Nora Nurse"
    assert provenance["agent"][0]["who"]["identifier"]["value"] == NURSE_USER


async def test_the_ehr_sends_the_old_number_and_the_row_says_what_became_of_it(
    ward: Route, anna: str
) -> None:
    await correct(ward, anna, "555-0101")
    first = await wait_for_phone(ward, anna, "555-0101")
    await wait_for_row(ward, anna, first["meta"]["versionId"])
    await send(ward, anna, "555-0000")
    stored = await wait_for_phone(ward, anna, "555-0000")
    row = await wait_for_row(ward, anna, stored["meta"]["versionId"])
    assert row["telephone2"] == "555-0000"
    assert len(await find_provenances(ward, anna)) == 1, "and nothing goes round in circles"


async def test_a_webhook_has_an_edit_looked_at_and_its_message_is_not_kept(
    ward: Route, anna: str
) -> None:
    hook = {"url": f"{ward.host.url}/api/edits", "table": "contact", "key": "any"}
    added = await ward.http.post(f"{ward.running.dataverse_url}/control/webhooks", json=hook)
    assert added.status_code == 200, added.text
    await correct(ward, anna, "555-0202")
    await wait_for_phone(ward, anna, "555-0202")
    told = await ward.http.get(f"{ward.running.dataverse_url}/control/webhooks")
    assert set(told.json()["outcomes"]) == {202}
    log = (ward.folder / "host.log").read_text("utf-8")
    assert "555-0202" not in log
