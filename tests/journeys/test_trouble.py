"""Stories in which something goes wrong on the way, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import pytest
from azure.data.tables.aio import TableServiceClient
from azure.storage.queue.aio import QueueServiceClient

from tests.journeys.route import (
    Route,
    bundle,
    connected,
    entry,
    locations,
    observation,
    patient,
    statuses,
)

pytestmark = [pytest.mark.live, pytest.mark.azurite]


@pytest.mark.parametrize("kind", [pytest.param("slow", marks=pytest.mark.slow), "lost-reply"])
async def test_a_host_killed_in_the_middle_carries_on_where_it_was(
    faulty: Route, kind: str
) -> None:
    """The second of two units is under way when the host dies."""
    before = await faulty.held("Observation")
    await faulty.fault("fhir", next=1, kind="slow", delayMs=1, method="POST")
    await faulty.fault("fhir", next=1, kind="slow", delayMs=1500, method="POST")
    if kind == "lost-reply":
        await faulty.fault("fhir", next=1, kind="lost-reply", method="POST")
    answer = await faulty.send(connected(f"Killed-{uuid4()}", 1000))
    async with asyncio.timeout(30):
        while await faulty.held("Observation") == before:
            await asyncio.sleep(0.02)
    faulty.host.kill()
    assert await faulty.held("Observation") - before < 999, "the host was killed too late"
    faulty.host.start()
    entries = await faulty.arrive(answer)

    found = locations(entries)
    assert statuses(entries) <= {"200", "201"}
    assert len(set(found)) == 1000
    # Every entry has the id that was planned at first, and was written once.
    stored = await asyncio.gather(*(faulty.fhir(identity) for identity in found[::10]))
    assert {item.json()["meta"]["versionId"] for item in stored} == {"1"}
    who = found[0].removeprefix("Patient/")
    search = await faulty.http.get(
        f"{faulty.running.fhir_url}/Observation",
        params={"subject": f"Patient/{who}", "_summary": "count"},
    )
    assert search.json()["total"] == 999
    await faulty.contact(who)


async def test_a_throttling_fhir_server_costs_time_and_no_entry(faulty: Route) -> None:
    await faulty.fault("fhir", next=5, kind="status", status=429, retryAfter=1)

    entries = await faulty.deliver(connected(f"Throttled-{uuid4()}", 20))

    assert statuses(entries) == {"201"}


async def test_entries_throttled_inside_a_success_are_sent_again_alone(faulty: Route) -> None:
    await faulty.fault(
        "fhir", next=1, kind="status", status=429, retryAfter=1, scope="entry", entries=[3]
    )
    ids = [str(uuid4()) for _ in range(6)]

    entries = await faulty.deliver(
        bundle("batch", *(entry(patient(f"P{i}", id=i), method="PUT") for i in ids))
    )

    assert statuses(entries) == {"201"}
    stored = [(await faulty.fhir(f"Patient/{i}")).json()["meta"]["versionId"] for i in ids]
    assert stored == ["1"] * 6


@pytest.mark.parametrize("kind", ["cutoff", "broken", "reset", "lost-reply"])
async def test_a_broken_answer_proves_nothing_and_the_unit_is_looked_for(
    faulty: Route, kind: str
) -> None:
    await faulty.fault("fhir", next=1, kind=kind, method="POST")

    entries = await faulty.deliver(connected(f"Broken-{uuid4()}", 10))

    assert statuses(entries) <= {"200", "201"}
    stored = [(await faulty.fhir(identity)).json() for identity in locations(entries)]
    assert {item["meta"]["versionId"] for item in stored} == {"1"}


async def test_a_throttling_dataverse_costs_time_and_no_contact(route: Route) -> None:
    await route.fault("dataverse", next=6, kind="throttle", retryAfter=1, method="PATCH")

    entries = await route.deliver(
        bundle("batch", *(entry(patient(f"Slow{n}-{uuid4()}")) for n in range(5)))
    )

    for identity in locations(entries):
        await route.contact(identity.removeprefix("Patient/"))


async def test_reads_from_a_copy_that_lags_cost_time_and_no_contact(faulty: Route) -> None:
    """A patient that the copy does not know yet is neither absent nor forgotten."""
    base = faulty.running.fhir_url.removesuffix("/fhir")
    await faulty.http.post(f"{base}/control/settings", json={"holdReads": True})
    try:
        entries = await faulty.deliver(bundle("batch", entry(patient(f"Lag-{uuid4()}"))))
        (identity,) = locations(entries)
        assert (await faulty.fhir(identity)).status_code == 404
        async with asyncio.timeout(30):
            while not await _is_requeued(faulty, identity):
                await asyncio.sleep(0.05)
        assert await faulty.contacts(identity.removeprefix("Patient/")) == []
    finally:
        await faulty.http.post(f"{base}/control/settings", json={"holdReads": False})
    await faulty.contact(identity.removeprefix("Patient/"), "1")


async def _is_requeued(route: Route, identity: str) -> bool:
    """Whether the activity log says that mirroring the resource has failed so far."""
    found = await route.http.get(f"{route.host.url}/api/activity", params={"resource": identity})
    assert found.status_code == 200, found.text
    return '"requeued"' in found.text


async def test_no_name_reaches_a_log_a_queue_or_a_table(route: Route) -> None:
    name = f"Zzyzx{uuid4().hex}"
    record = {"identifier": [{"system": "urn:test:mrn", "value": name}]}
    query = {"ifNoneExist": f"identifier=urn:test:mrn|{name}"}
    await route.deliver(bundle("transaction", entry(patient(name, **record), **query)))
    refused = await route.deliver(bundle("batch", entry(patient(name, gender=name))))
    assert statuses(refused) == {"400"}
    broken = json.dumps(patient(name)).encode()[:-1]
    assert name not in (await route.send(broken)).text

    places = [(route.folder / "host.log").read_text("utf-8")]
    async with TableServiceClient.from_connection_string(route.running.storage) as tables:
        async for table in tables.list_tables():
            async with tables.get_table_client(table.name) as client:
                places += [str(entity) async for entity in client.list_entities()]
    async with QueueServiceClient.from_connection_string(route.running.storage) as queues:
        async for queue in queues.list_queues():
            async with queues.get_queue_client(queue.name) as client:
                places += [message.content for message in await client.peek_messages(32)]

    assert len(places) > 3
    assert [place for place in places if name in place] == []


BAD: list[tuple[str, bytes, dict[str, str], int, str]] = [
    ("not JSON", b"<Patient/>", {}, 400, "invalid"),
    ("not FHIR", b"{}", {}, 400, "required"),
    ("an unknown type", b'{"resourceType": "Patent"}', {}, 400, "value"),
    (
        "an answer",
        b'{"resourceType": "Bundle", "type": "batch-response"}',
        {},
        422,
        "not-supported",
    ),
    (
        "an entry without a request",
        json.dumps(bundle("batch", {"resource": patient("X")})).encode(),
        {},
        400,
        "required",
    ),
    (
        "an absolute address",
        json.dumps(bundle("batch", entry(patient("X"), url="https://x.example/Patient"))).encode(),
        {},
        400,
        "value",
    ),
    (
        "a climbing address",
        json.dumps(bundle("batch", entry(patient("X"), url="Patient/../x"))).encode(),
        {},
        400,
        "value",
    ),
    (
        "a duplicate fullUrl",
        json.dumps(
            bundle("transaction", *(entry(observation("Patient/x"), "urn:uuid:1") for _ in "ab"))
        ).encode(),
        {},
        400,
        "duplicate",
    ),
    ("a byte order mark and no resource", b"\xef\xbb\xbf{}", {}, 400, "required"),
    ("Latin-1", '{"resourceType": "Patient", "id": "ü"}'.encode("latin-1"), {}, 400, "invalid"),
    (
        "deep nesting",
        b'{"resourceType":"Basic","a":' + b"[" * 200 + b"]" * 200 + b"}",
        {},
        400,
        "too-long",
    ),
    ("nothing", b"", {}, 400, "required"),
    ("another content type", b"{}", {"content_type": "text/plain"}, 415, "not-supported"),
    ("too much", b" " * 50_000_001, {}, 413, "too-long"),
]


@pytest.mark.parametrize(
    ("what", "body", "headers", "status", "code"), BAD, ids=[b[0] for b in BAD]
)
async def test_bad_input_gets_an_outcome_that_helps_and_nothing_is_queued(
    *, route: Route, what: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    base = f"{route.host.url}/api/deliveries?_count=1"
    newest = (await route.http.get(base)).json()["deliveries"]
    answer = await route.send(body, **headers)

    assert answer.status_code == status, (what, answer.text)
    outcome = answer.json()
    assert outcome["resourceType"] == "OperationOutcome"
    assert outcome["issue"][0]["code"] == code
    assert len(outcome["issue"][0]["diagnostics"]) > 15
    assert (await route.http.get(base)).json()["deliveries"] == newest


async def test_unknown_deliveries_ids_types_and_methods_are_told_so(route: Route) -> None:
    base = f"{route.host.url}/api"
    answers = {
        404: await route.http.get(f"{base}/deliveries/{uuid4()}"),
        405: await route.http.get(f"{base}/fhir/Patient/1"),
        400: await route.send(patient("X"), path="/Patient/not_an_id", method="PUT"),
    }
    unknown = await route.send(patient("X"), path="/Patent")

    for status, answer in answers.items():
        assert answer.status_code == status, answer.text
        assert answer.json()["resourceType"] == "OperationOutcome"
    assert unknown.status_code == 404
    assert answers[405].headers["allow"] == "PUT, PATCH, DELETE"


async def test_a_refused_entry_is_listed_and_sent_again_once_its_cause_is_mended(
    faulty: Route,
) -> None:
    body = bundle("batch", entry(patient(f"Good-{uuid4()}")), entry(patient(f"Bad-{uuid4()}")))
    await faulty.fault("fhir", next=1, scope="entry", entries=[1], status=422, method="POST")
    answer = await faulty.send(body)
    first = await faulty.arrive(answer)
    assert [each["response"]["status"] for each in first] == ["201", "422"]
    id_ = answer.headers["content-location"].rpartition("/")[2]

    async def list_kinds() -> list[str]:
        found = await faulty.http.get(f"{faulty.host.url}/api/attention?_count=500")
        mine = [each for each in found.json()["attention"] if each["delivery"] == id_]
        assert all(each["positions"] == [1] and each["todo"] for each in mine)
        return [each["kind"] for each in mine]

    assert await list_kinds() == ["entries"]
    listed = await faulty.http.get(f"{faulty.host.url}/api/deliveries?attention=entries&_count=500")
    assert id_ in [each["id"] for each in listed.json()["deliveries"]]

    replayed = await faulty.http.post(f"{faulty.host.url}/api/deliveries/{id_}/replay")

    assert replayed.status_code == 202
    again = await faulty.arrive(answer)
    assert [each["response"]["status"] for each in again] == ["201", "201"]
    assert again[0]["response"]["location"] == first[0]["response"]["location"]
    assert await list_kinds() == []
    await faulty.contact(again[1]["response"]["location"].split("/")[1])
