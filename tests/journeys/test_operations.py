"""Stories of an operator's: what is lost is mended, what is parked comes back, what is old goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from secrets import randbits
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient

from integration.core.model import Delivery, DeliveryRequest, Status
from integration.journal.azure_store import AzureJournal, open_journal
from integration.journal.store import Payload
from integration.journal.table_keys import make_delivery_id
from tests.journeys.route import PATIENCE, Route, bundle, entry, locations, patient, statuses

pytestmark = [pytest.mark.live, pytest.mark.azurite]


@pytest.fixture
async def journal(route: Route) -> AsyncIterator[AzureJournal]:
    """The one that the host works with."""
    storage = route.running.storage
    async with (
        BlobServiceClient.from_connection_string(storage) as blobs,
        TableServiceClient.from_connection_string(storage) as tables,
    ):
        yield await open_journal(blobs, tables)


async def kept(journal: AzureJournal, body: Any, **fields: Any) -> str:
    """As a worker leaves it that dies after noting a delivery, before queueing it."""
    accepted = fields.pop("accepted")
    id_, data = make_delivery_id(accepted, randbits(74)), msgspec.json.encode(body)
    values = {"status": Status.ACCEPTED, "kind": body["type"], "entries": len(body["entry"])}
    delivery = Delivery(
        id=id_,
        sender="default",
        key=uuid4().hex,
        digest="d",
        accepted=accepted,
        **values | fields,
        bytes=len(data),
    )
    await journal.add_delivery(delivery, Payload(DeliveryRequest("POST"), data))
    # Housekeeping has looked at that time already.
    await journal.index_delivery(id_, accepted)
    return id_


async def followed(route: Route, id_: str, status: int) -> httpx.Response:
    """Wait until a delivery is answered with this status."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        answer = await route.http.get(f"{route.host.url}/api/deliveries/{id_}")
        if answer.status_code == status:
            return answer
        await asyncio.sleep(0.05)
    raise AssertionError(f"{answer.status_code} {answer.text}")


async def test_a_delivery_that_was_kept_and_never_queued_arrives(
    route: Route, journal: AzureJournal
) -> None:
    body = bundle("transaction", entry(patient(f"Lost-{uuid4()}")))
    early = datetime.now(UTC) - timedelta(minutes=11)

    answer = await followed(route, await kept(journal, body, accepted=early), 200)

    entries = answer.json()["entry"]
    assert statuses(entries) == {"201"}
    await route.contact(locations(entries)[0].removeprefix("Patient/"))


async def test_a_delivery_that_is_over_is_forgotten_after_its_time(
    route: Route, journal: AzureJournal
) -> None:
    body = bundle("batch", entry(patient(f"Old-{uuid4()}")))
    old = datetime.now(UTC) - timedelta(days=31)

    id_ = await kept(journal, body, accepted=old, status=Status.DONE, finished=old)

    await followed(route, id_, 404)
    with pytest.raises(KeyError):
        await journal.get_payload(id_)


async def test_what_has_taken_too_long_is_parked_and_replayed_by_its_reason(
    route: Route, journal: AzureJournal
) -> None:
    body = bundle("transaction", entry(patient(f"Late-{uuid4()}")))
    early = datetime.now(UTC) - timedelta(days=4)
    id_ = await kept(journal, body, accepted=early)
    async with asyncio.timeout(PATIENCE):
        while (found := await journal.get_delivery(id_)) and found.status is not Status.PARKED:
            await asyncio.sleep(0.05)
    address = f"{route.host.url}/api/deliveries/replay"
    params = {"reason": "MAX_AGE", "until": (early + timedelta(days=1)).isoformat()}

    listed = await route.http.post(address, params={**params, "dry-run": "true"})
    replayed = await route.http.post(address, params=params)

    assert listed.status_code == replayed.status_code == 200
    assert [each["id"] for each in replayed.json()["deliveries"]] == [id_]
    assert listed.json()["deliveries"] == replayed.json()["deliveries"]
    assert statuses((await followed(route, id_, 200)).json()["entry"]) == {"201"}


async def test_a_parked_delivery_shows_up_in_the_status(
    route: Route, journal: AzureJournal
) -> None:
    body = bundle("transaction", entry(patient(f"Late-{uuid4()}")))
    early = datetime.now(UTC) - timedelta(days=200)
    id_ = await kept(journal, body, accepted=early)
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await route.http.get(f"{route.host.url}/api/status")
            assert answer.status_code == 200, answer.text
            found = answer.json()
            oldest = found["deliveries"]["oldest"] or {}
            if (oldest.get("id"), oldest.get("status")) == (id_, "parked"):
                break
            await asyncio.sleep(0.5)  # what is answered is kept for five seconds

    assert found["deliveries"]["parked"] >= 1
    assert "MAX_AGE" in oldest["reason"]
    assert "unavailable" not in answer.text
    assert found["housekeeping"]["last"]["ended"]
    assert not found["housekeeping"]["overdue"]
    assert {"default", "north"} <= {each["sender"] for each in found["senders"]["last"]}
    cancelled = await route.http.delete(f"{route.host.url}/api/deliveries/{id_}")
    assert cancelled.status_code == 202


async def test_a_dry_run_tells_the_ids_that_the_delivery_then_gets(route: Route) -> None:
    who = f"urn:uuid:{uuid4()}"
    body = bundle("transaction", entry(patient(f"Dry-{uuid4()}"), who))
    before = await route.held("Patient")

    plan = await route.send(body, "?dry-run=true")

    assert plan.status_code == 200
    assert await route.held("Patient") == before
    (planned,) = plan.json()["lanes"][0]["units"][0]["entries"]
    assert locations(await route.deliver(body)) == [planned["request"]["url"]]
