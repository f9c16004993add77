"""A sender that tells of changes: notifications with and without resources, and pages of a search."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from local.services import ADDRESS, Ports, run_services
from tests.fhir.notices import (
    VERSIONS,
    make_deletion,
    make_full_entry,
    make_named_entry,
    make_notification,
)
from tests.journeys.route import Route, locations, patient, statuses

pytestmark = [pytest.mark.live, pytest.mark.azurite]


@pytest.fixture(scope="module")
def source(source_ports: Ports, folder: Path) -> Iterator[str]:
    """The FHIR server of a sender: its base address, which the relay may fetch from."""
    if "FHIR_URL" in os.environ:
        pytest.skip("FHIR_URL names the server, and no second one is started")
    with run_services(source_ports, folder / "source", parts=("fhir",)):
        yield f"http://{ADDRESS}:{source_ports.fhir}/fhir"


def new_id() -> str:
    return str(uuid4())


async def has(route: Route, source: str, *ids: str, name: str = "Lind") -> None:
    """Give the sender's server these patients."""
    for id_ in ids:
        answer = await route.http.put(f"{source}/Patient/{id_}", json=patient(name, id=id_))
        assert answer.status_code == 201, answer.text


def subscription() -> str:
    """One that no other journey has."""
    return f"https://home.example/fhir/Subscription/{new_id()}"


def issues(entry: dict[str, Any]) -> str:
    """What is told of an entry."""
    outcome = entry["response"].get("outcome", {"issue": []})
    return " ".join(issue.get("diagnostics", "") for issue in outcome["issue"])


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_handshake_is_answered_at_once_and_leaves_nothing(
    route: Route, version: str
) -> None:
    listed = f"{route.host.url}/api/deliveries?_count=1"
    before = (await route.http.get(listed)).json()["deliveries"]
    for kind in ("handshake", "heartbeat"):
        answer = await route.send(make_notification(version=version, kind=kind, since=0))
        assert (answer.status_code, answer.json()["resourceType"]) == (200, "OperationOutcome")
    assert (await route.http.get(listed)).json()["deliveries"] == before


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_a_notification_brings_is_written_shown_and_deleted(
    route: Route, version: str
) -> None:
    anna, about = new_id(), subscription()
    first = make_notification(
        make_full_entry(patient("Lind", id=anna)),
        version=version,
        events=((1, None),),
        subscription=about,
    )
    status, written = await route.deliver(first)
    assert (status["response"]["status"], written["response"]["status"]) == ("204", "201")
    assert (await route.contact(anna))["lastname"] == "Lind"

    second = make_notification(
        make_deletion(f"Patient/{anna}"), version=version, events=((2, None),), subscription=about
    )
    entries = await route.deliver(second)
    assert statuses(entries) == {"204"}
    assert (await route.fhir(f"Patient/{anna}")).status_code == 410


async def test_what_a_notification_names_is_fetched_from_its_server(
    route: Route, source: str
) -> None:
    anna, bert, gone = new_id(), new_id(), new_id()
    await has(route, source, anna, bert, name="Berg")
    made = make_notification(
        make_named_entry(f"Patient/{anna}", home=source),
        make_named_entry(f"Patient/{gone}", home=source),
        events=((1, f"{source}/Patient/{bert}"),),
        subscription=subscription(),
    )
    entries = await route.deliver(made)
    assert [entry["response"]["status"] for entry in entries] == ["204", "201", "204", "201"]
    assert entries[1]["fullUrl"] == f"{source}/Patient/{anna}"
    assert locations(entries)[3] == f"Patient/{bert}"
    for id_ in (anna, bert):
        assert (await route.contact(id_))["lastname"] == "Berg"


async def test_a_server_that_nobody_named_is_not_asked_and_the_sender_is_told(
    route: Route, source: str
) -> None:
    anna = new_id()
    await has(route, source, anna)
    base = source.removesuffix("/fhir")
    before = (await route.http.get(f"{base}/control/stats")).json()["requests"]
    hostile = [
        f"{base}/elsewhere",
        f"{source}/../fhir",
        source.replace("http://", "https://"),
        source.replace("127.0.0.1", "localhost"),
        source.replace("http://", "http://user@"),
    ]
    made = make_notification(*(make_named_entry(f"Patient/{anna}", home=home) for home in hostile))
    _, *entries = await route.deliver(made)
    assert statuses(entries) == {"422"}
    assert all("FETCH_FROM" in issues(entry) for entry in entries)
    assert (await route.http.get(f"{base}/control/stats")).json()["requests"] == before


async def test_a_server_in_trouble_is_asked_again_later(route: Route, source: str) -> None:
    anna = new_id()
    await has(route, source, anna)
    fault = {"method": "GET", "path": f"Patient/{anna}", "kind": "status", "status": 500, "next": 2}
    base = source.removesuffix("/fhir")
    answer = await route.http.post(f"{base}/control/faults", json=fault)
    assert answer.status_code == 200, answer.text
    made = make_notification(
        make_named_entry(f"Patient/{anna}", home=source), subscription=subscription()
    )
    entries = await route.deliver(made)
    assert [entry["response"]["status"] for entry in entries] == ["204", "201"]


async def test_missed_events_are_told(route: Route) -> None:
    about, anna = subscription(), make_full_entry(patient("Lind", id=new_id()))
    for number, told in ((1, ""), (4, "events 2 to 3"), (5, ""), (2, "")):
        made = make_notification(anna, events=((number, None),), subscription=about)
        first, _ = await route.deliver(made)
        assert told in issues(first)
        assert ("not received" in issues(first)) is bool(told)


async def test_all_pages_of_a_search_arrive(route: Route, source: str) -> None:
    name = f"Page{new_id()[:8]}"
    ids = sorted(new_id() for _ in range(25))
    await has(route, source, *ids, name=name)
    page = await route.http.get(f"{source}/Patient", params={"family": name, "_count": "10"})
    assert len(page.json()["entry"]) == 10
    entries = await route.deliver(page.json())
    assert sorted(locations(entries)) == [f"Patient/{id_}" for id_ in ids]
    sent = [entry["fullUrl"] for entry in page.json()["entry"]]
    assert [entry["fullUrl"] for entry in entries[:10]] == sent
    assert "not followed" not in issues(entries[0])
