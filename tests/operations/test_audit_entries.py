"""Who got an answer or a plan is recorded, and found; what shows nobody's data is not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from integration.core.errors import Rejected, Unavailable
from integration.core.model import EntryResult, Status
from integration.intake.dry_run import plan_delivery
from integration.intake.http_request import IncomingRequest
from integration.journal.audit_entry import AccessKind, AuditEntry, Reader
from integration.journal.audit_log import AuditPage, MemoryAuditLog
from integration.operations.audit import find_audit_entries, record_answer, record_dry_run
from integration.operations.deliveries import DeliveryStatus, get_status
from tests.audits import NOON, FailingAuditLog, make_recorder
from tests.builders import MARKER, bundle, entry, patient
from tests.conftest import FHIR_JSON, Route
from tests.operations.housekeeping_parts import DELIVERY

READER = Reader(sender="north", user="nurse")
DONE = replace(DELIVERY, status=Status.DONE)


async def answered(*results: EntryResult, **changes: Any) -> list[AuditEntry]:
    """What is recorded of an answer with these results."""
    log = MemoryAuditLog()
    status = DeliveryStatus(replace(DONE, **changes), results)
    await record_answer(make_recorder(log), READER, status)
    return log.entries


async def test_an_answer_is_recorded_with_all_that_it_names_and_holds() -> None:
    searchset = {
        "resourceType": "Bundle",
        "id": "b1",
        "entry": [{"resource": {"resourceType": "Goal", "id": "g1"}}, {"search": {}}],
    }
    (recorded,) = await answered(
        EntryResult(0, 201, location="Patient/p1/_history/1"),
        EntryResult(1, 200, resource=json.dumps(patient(id="p2"))),
        EntryResult(2, 200, resource=json.dumps(searchset)),
        EntryResult(3, 422),
        EntryResult(4, 200, resource="[]"),
        EntryResult(5, 200, resource=json.dumps({"resourceType": MARKER, "id": "x y"})),
        EntryResult(6, 200, resource=json.dumps({"resourceType": "Basic", "id": [MARKER]})),
    )
    assert recorded.reader == READER
    access = recorded.access
    assert (access.kind, access.delivery) == (AccessKind.DELIVERY_ANSWER, DONE.id)
    assert access.resources == ("Patient/p1", "Patient/p2", "Goal/g1")
    assert access.types == ("Basic", "Goal", "Patient", "Resource")
    assert access.number == 6
    assert MARKER not in repr(recorded)


@pytest.mark.parametrize("status", [each for each in Status if each is not Status.DONE])
async def test_progress_is_nobody_s_data(status: Status) -> None:
    assert await answered(EntryResult(0, 201, location="Patient/p1"), status=status) == []


async def test_an_answer_without_entries_is_nobody_s_data() -> None:
    assert await answered() == []


async def test_what_cannot_be_recorded_is_an_error_before_it_is_shown() -> None:
    recorder = make_recorder(FailingAuditLog())
    status = DeliveryStatus(DONE, [EntryResult(0, 201, location="Patient/p1/_history/1")])
    with pytest.raises(Unavailable):
        await record_answer(recorder, READER, status)
    with pytest.raises(Unavailable):
        await record_dry_run(recorder, READER, {"lanes": []})


async def test_a_delivery_that_was_processed_names_what_was_written(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient(id="p1"), method="PUT", url="Patient/p1")))
    await route.process(delivery)
    log = MemoryAuditLog()
    await record_answer(make_recorder(log), READER, await get_status(route.journal, delivery))
    (recorded,) = log.entries
    assert (recorded.access.resources, recorded.access.number) == (("Patient/p1",), 1)
    assert MARKER not in repr(recorded)


async def test_a_plan_is_recorded_with_types_and_ids_and_no_condition(route: Route) -> None:
    condition = {"ifNoneExist": f"identifier={MARKER}"}
    entries = [
        entry(patient(id="p1"), method="PUT", url="Patient/p1"),
        entry(patient(), **condition),
        entry(patient(birthDate="1999-01-01"), method="PUT", url=f"Patient?identifier={MARKER}"),
    ]
    request = IncomingRequest(
        method="POST",
        type=None,
        id=None,
        headers={"content-type": FHIR_JSON},
        body=json.dumps(bundle(*entries, kind="batch")).encode(),
    )
    plan = await plan_delivery(route.intake, route.limits, request)
    log = MemoryAuditLog()
    await record_dry_run(make_recorder(log), READER, plan)
    (recorded,) = log.entries
    assert recorded.access.kind is AccessKind.DRY_RUN
    assert "Patient/p1" in recorded.access.resources
    assert (recorded.access.types, recorded.access.number) == (("Patient",), 3)
    assert MARKER not in repr(recorded)


# --- what is found -----------------------------------------------------------------------------


async def asked(**params: str) -> AuditPage:
    log = MemoryAuditLog()
    for hours in range(3):
        recorder = make_recorder(log, now=lambda hours=hours: NOON - timedelta(hours=hours))
        result = EntryResult(0, 201, location=f"Patient/p{hours}/_history/1")
        await record_answer(recorder, READER, DeliveryStatus(DONE, [result]))
    return await find_audit_entries(log, params)


def named(page: AuditPage) -> list[str]:
    return [name for entry_ in page.entries for name in entry_.access.resources]


async def test_entries_are_found_by_parameters() -> None:
    assert named(await asked()) == ["Patient/p0", "Patient/p1", "Patient/p2"]
    assert named(await asked(sender="north", user="nurse", delivery="id", kind="delivery-answer",
                             resource="Patient/p1")) == ["Patient/p1"]  # fmt: skip
    assert named(await asked(since="2026-03-02T11:00:00Z")) == ["Patient/p0", "Patient/p1"]
    assert named(await asked(until="2026-03-02T10:30:00Z")) == ["Patient/p2"]
    assert named(await asked(sender="south")) == []


async def test_a_page_leads_to_the_next() -> None:
    first = await asked(_count="2")
    assert first.after is not None
    assert named(await asked(_count="2", after=first.after)) == ["Patient/p2"]


@pytest.mark.parametrize(
    "wrong", [{"since": "yesterday"}, {"kind": "peek"}, {"_count": "0"}, {"after": "x"}]
)
async def test_a_wrong_parameter_is_refused_by_its_name(wrong: dict[str, str]) -> None:
    with pytest.raises(Rejected) as caught:
        await asked(**wrong)
    assert caught.value.issues[0].expression == next(iter(wrong))
