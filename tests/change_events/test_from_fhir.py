"""What others change at the FHIR server is mirrored, in whatever order its events arrive."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from integration.change_events.from_fhir import Events, UnreadableEvent, queue_changes
from integration.core.model import Status, WorkItem
from integration.core.state_version import StateVersion
from integration.mirror import mirror as mirroring
from integration.operations import deliveries
from integration.operations.housekeeping import Ages, Step, choose_step
from integration.queues.names import MIRROR_QUEUE
from tests.builders import MARKER, Body, patient
from tests.conftest import Route, patients_followed, told_by

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
OURS = "ward-fhir.fhir.azurehealthcareapis.com"
CREATED = "Microsoft.HealthcareApis.FhirResourceCreated"

Schema = Callable[..., Body]


def data(**changes: Any) -> Body:
    return {
        "resourceType": "Patient",
        "resourceFhirAccount": OURS,
        "resourceFhirId": ANNA,
        "resourceVersionId": 1,
        **changes,
    }


def event_grid(type_: str = CREATED, **changes: Any) -> Body:
    """https://learn.microsoft.com/azure/event-grid/event-schema"""
    return {
        "id": "e4c7f556-d72c-e7f7-1069-1e82ac76ab41",
        "topic": "/subscriptions/s/resourceGroups/g/providers/x/workspaces/ward",
        "subject": f"{OURS}/Patient/{ANNA}",
        "eventType": type_,
        "eventTime": "2026-03-01T20:40:00.0000000Z",
        "dataVersion": "1",
        "metadataVersion": "1",
        "data": data(**changes),
    }


def cloud_event(type_: str = CREATED, **changes: Any) -> Body:
    """https://learn.microsoft.com/azure/event-grid/cloud-event-schema"""
    return {
        "id": "d674b9b7-7d1c-9b0a-8c48-139f3eb86c48",
        "source": "/subscriptions/s/resourceGroups/g/providers/x/workspaces/ward",
        "specversion": "1.0",
        "type": type_,
        "dataschema": "#1",
        "subject": f"{OURS}/Patient/{ANNA}",
        "time": "2026-03-01T20:40:00.0000000Z",
        "data": data(**changes),
    }


def events(route: Route, base: str = f"https://{OURS}") -> Events:
    return Events(
        journal=route.journal,
        queue=route.queue_sender,
        change_queues=patients_followed,
        fhir_url=base,
        now=route.clock,
    )


async def taken(route: Route, *messages: Any, base: str = f"https://{OURS}") -> list[str]:
    """Return what is queued for the mirror after these messages."""
    it = events(route, base)
    for message in messages:
        await queue_changes(
            it, message if isinstance(message, bytes) else json.dumps(message).encode()
        )
    return route.mirrored


# --- which events count -----------------------------------------------------------------------


@pytest.mark.parametrize("schema", [event_grid, cloud_event])
@pytest.mark.parametrize("what", ["Created", "Updated", "Deleted"])
async def test_a_change_of_a_mirrored_type_is_mirrored(
    route: Route, schema: Schema, what: str
) -> None:
    event = schema(f"Microsoft.HealthcareApis.FhirResource{what}")
    assert await taken(route, event) == [f"Patient/{ANNA}"]


@pytest.mark.parametrize("schema", [event_grid, cloud_event])
@pytest.mark.parametrize("version", [7, "7"])
async def test_the_work_item_names_the_version_that_the_event_tells_of(
    route: Route, schema: Schema, version: Any
) -> None:
    kind = "Microsoft.HealthcareApis.FhirResource"
    await taken(route, schema(f"{kind}Deleted", resourceVersionId=version))
    await taken(route, schema(f"{kind}Created", resourceVersionId=version))
    deleted, created = (item for item, _ in route.queued(MIRROR_QUEUE))
    assert deleted.version == StateVersion(id="7", is_deleted=True)
    assert (created.version, created.is_create) == (StateVersion(id="7"), True)


async def test_of_several_events_in_one_message_the_latest_version_counts(route: Route) -> None:
    updated = "Microsoft.HealthcareApis.FhirResourceUpdated"
    await taken(route, [event_grid(updated, resourceVersionId=n) for n in (2, 10, 9)])
    ((item, _),) = route.queued(MIRROR_QUEUE)
    assert item.version == StateVersion(id="10")


async def test_an_event_without_a_version_is_mirrored_all_the_same(route: Route) -> None:
    await taken(route, event_grid(resourceVersionId=None))
    ((item, _),) = route.queued(MIRROR_QUEUE)
    assert item.version == StateVersion()


async def test_a_message_may_hold_several_events(route: Route) -> None:
    several = [event_grid(), cloud_event(resourceFhirId="p2"), event_grid()]
    assert await taken(route, several) == [f"Patient/{ANNA}", "Patient/p2"]


@pytest.mark.parametrize(
    "event",
    [
        event_grid("Microsoft.HealthcareApis.DicomImageCreated"),
        cloud_event("Microsoft.Storage.BlobCreated"),
        {"type": "Microsoft.Storage.BlobCreated"},
        event_grid(resourceType="Observation"),
        event_grid(resourceFhirAccount="other.fhir.azurehealthcareapis.com"),
    ],
)
async def test_what_is_not_for_the_mirror_is_dropped(route: Route, event: Body) -> None:
    assert await taken(route, event) == []
    assert route.journal.deliveries == {}


@pytest.mark.parametrize(
    ("account", "base"),
    [
        (OURS.upper(), f"https://{OURS}"),
        (OURS, "https://gateway.example/fhir"),
        ("", f"https://{OURS}"),
    ],
    ids=["letter case", "a gateway's address", "no account"],
)
async def test_an_event_counts_unless_it_is_of_another_service(
    route: Route, account: str, base: str
) -> None:
    event = event_grid(resourceFhirAccount=account)
    assert await taken(route, event, base=base) == [f"Patient/{ANNA}"]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps(MARKER).encode(),
        [MARKER],
        {"id": MARKER},
        [event_grid(), {"id": MARKER}],
        {**event_grid(), "data": MARKER},
        {**event_grid(), "data": {"resourceType": "Patient"}},
        event_grid(resourceFhirId=f"{MARKER}/_history/1"),
        event_grid(resourceFhirId="x" * 65),
        event_grid(resourceFhirId=7),
        event_grid(resourceVersionId=f"{MARKER} 1"),
        event_grid(resourceVersionId=[1]),
    ],
)
async def test_a_message_that_is_no_event_is_refused_as_a_whole_and_not_quoted(
    route: Route, message: Any
) -> None:
    """The host then keeps it in the poison queue."""
    with pytest.raises(UnreadableEvent) as caught:
        await taken(route, message)
    assert route.mirrored == []
    assert MARKER not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


async def test_the_log_names_the_type_of_a_dropped_event_and_nothing_else(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await taken(route, event_grid("Odd.Type", x=MARKER), cloud_event(f"{MARKER} {MARKER}"))
    types = [
        vars(record)["type"] for record in caplog.records if record.message == "fhir_event.dropped"
    ]
    assert types == ["Odd.Type", "?"]
    assert MARKER not in told_by(caplog.records)


# --- what becomes of them ----------------------------------------------------------------------


async def test_events_that_arrive_twice_or_late_leave_the_newest_state(route: Route) -> None:
    route.fhir_double.add(patient(id=ANNA, gender="male"))
    route.fhir_double.add(patient(id=ANNA, gender="female"))
    updated = event_grid("Microsoft.HealthcareApis.FhirResourceUpdated", resourceVersionId=2)
    await taken(route, updated, event_grid(), updated)
    for claim, _ in route.queued(MIRROR_QUEUE):
        await mirroring.mirror_resource(route.mirror, claim)
    row = await route.dataverse_double.contact()
    assert (row["gendercode"], row["msemr_azurefhirversion"]) == (2, "2")
    assert len(route.dataverse_double.writes) == 1


async def test_the_events_of_an_hour_are_one_delivery_for_every_worker(route: Route) -> None:
    await taken(route, event_grid())
    route.clock.later(600)
    await taken(route, event_grid(resourceFhirId="p2"))  # by another worker
    route.clock.later(3600)
    await taken(route, event_grid(resourceFhirId="p3"))
    first, second, third = (claim.delivery for claim, _ in route.queued(MIRROR_QUEUE))
    assert first == second != third
    known = await route.known(first)
    assert (known.kind, known.status, known.entries) == ("events", Status.DONE, 0)


async def test_rows_of_events_that_were_parked_can_be_replayed(route: Route) -> None:
    await taken(route, event_grid())
    claim = route.queue_sender.sent.pop()[1]
    await mirroring.park(route.mirror, claim, "mirroring failed repeatedly")
    await deliveries.replay(route.journal, route.queue_sender, claim.delivery, route.clock())
    assert route.queued(MIRROR_QUEUE) == [(WorkItem(claim.delivery, resource=claim.resource), 0)]


async def test_rows_of_events_are_deleted_after_the_retention(route: Route) -> None:
    route.fhir_double.add(patient(id=ANNA))
    await taken(route, event_grid())
    ((claim, _),) = route.queued(MIRROR_QUEUE)
    await mirroring.mirror_resource(route.mirror, claim)
    month = timedelta(days=30)
    ages = Ages(max_age=month, retention=month, activity=month, audit=month)
    known, now = await route.known(claim.delivery), route.clock()
    assert choose_step(known, now + timedelta(days=29), ages) is None
    assert choose_step(known, now + timedelta(days=31), ages) is Step.FORGET
    await route.journal.delete_delivery(claim.delivery)
    assert await route.journal.list_row_results(claim.delivery) == []
