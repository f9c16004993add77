"""What passed is shown by hour and sender, each thing once, and nothing of a patient."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from integration.core.errors import Rejected, Unavailable
from integration.core.flow import (
    NO_SENDER,
    OTHER_ELEMENTS,
    OTHER_SENDERS,
    FlowCounts,
    HourFlow,
    UnmappedElement,
    find_hour,
)
from integration.core.flow_recorder import FlowRecorder
from integration.core.model import Status, WorkItem
from integration.journal.flow_log import FlowPage, LiveFlow, MemoryFlowLog
from integration.mirror.mirror import park
from integration.operations.deliveries import cancel, replay
from integration.operations.flow import MAX_HOURS, FlowReport, find_flow, report_flow
from integration.operations.flow_views import describe_flow
from integration.queues.names import MIRROR_QUEUE
from integration.senders.model import SenderPolicy, make_unlisted_sender
from tests.builders import MARKER, bundle, put_patient
from tests.conftest import Route

NOW = datetime(2026, 3, 2, 12, 34, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOON = find_hour(NOW)


def made(hours: int, worker: str = "a", **fields: Any) -> HourFlow:
    return HourFlow(hour=NOON - hours * HOUR, worker=worker, **fields)


async def stored(*flows: HourFlow) -> MemoryFlowLog:
    log = MemoryFlowLog()
    await log.save_flows(flows)
    return log


# --- the report --------------------------------------------------------------------------------


async def test_every_hour_is_shown_also_those_without_anything() -> None:
    log = await stored(
        made(0, senders={"lab": FlowCounts(accepted=1), "west": FlowCounts(accepted=2)}),
        made(0, "b", senders={"lab": FlowCounts(accepted=4)}),
        made(23, senders={"lab": FlowCounts(written=3)}),
        made(24, senders={"lab": FlowCounts(accepted=99)}),
        made(-1, senders={"lab": FlowCounts(accepted=99)}),  # of a clock that is ahead
    )
    report = await report_flow(log, 24, NOW)
    assert [each.hour for each in report.by_hour] == [NOON - n * HOUR for n in range(23, -1, -1)]
    assert report.by_hour[-1].counts == FlowCounts(accepted=7)
    assert report.by_hour[0].counts == FlowCounts(written=3)
    assert {each.counts for each in report.by_hour[1:-1]} == {FlowCounts()}
    assert report.since == NOON - 23 * HOUR


async def test_a_sender_is_seen_when_it_is_certain_that_it_was_there() -> None:
    log = await stored(
        made(1, senders={"lab": FlowCounts(unproven=1), "west": FlowCounts(unproven=1)}),
        made(2, senders={"lab": FlowCounts(written=1)}),
        made(3, senders={"lab": FlowCounts(forbidden=1)}),
        made(4, senders={"lab": FlowCounts(accepted=1)}),
    )
    found = {each.name: each for each in (await report_flow(log, 24, NOW)).by_sender}
    assert found["lab"].last_seen == NOON - 3 * HOUR
    assert found["west"].last_seen is None
    assert found["lab"].counts == FlowCounts(accepted=1, written=1, unproven=1, forbidden=1)


async def test_what_was_not_mapped_most_often_comes_first_and_the_rest_is_one() -> None:
    elements = {UnmappedElement("Patient", f"p{n:03}", "x"): 300 - n for n in range(250)}
    log = await stored(
        made(0, unmapped={**elements, OTHER_ELEMENTS: 7}),
        made(1, unmapped={UnmappedElement("Patient", "p009", "x"): 100}),
    )
    unmapped = (await report_flow(log, 24, NOW)).unmapped
    assert len(unmapped) == 201
    assert next(iter(unmapped)) == UnmappedElement("Patient", "p009", "x")
    assert list(unmapped)[-1] == OTHER_ELEMENTS
    assert sum(unmapped.values()) == sum(elements.values()) + 107


async def test_the_hours_are_chosen_within_what_is_kept() -> None:
    log = await stored()
    assert len((await find_flow(log, {}, NOW)).by_hour) == 24
    assert len((await find_flow(log, {"hours": "168"}, NOW)).by_hour) == MAX_HOURS
    assert len((await find_flow(log, {"hours": "1"}, NOW)).by_hour) == 1
    for text in ("0", "169", "1e2", "-1", "٣", "9" * 5000):
        with pytest.raises(Rejected):
            await find_flow(log, {"hours": text}, NOW)


async def test_what_was_not_read_is_told() -> None:
    class Full(MemoryFlowLog):
        async def list_flows(self, since: datetime) -> FlowPage:
            return FlowPage((made(0, senders={"lab": FlowCounts(accepted=1)}),), is_cut=True)

    assert describe_flow(await report_flow(Full(), 24, NOW))["more"] is True
    assert describe_flow(await report_flow(await stored(), 24, NOW))["more"] is False


async def test_the_report_as_json_names_what_is_no_sender_and_no_element() -> None:
    log = await stored(
        made(
            0,
            senders={
                NO_SENDER: FlowCounts(unproven=1),
                OTHER_SENDERS: FlowCounts(accepted=2),
                "lab": FlowCounts(accepted=3),
            },
            unmapped={
                UnmappedElement("Patient", "gender", "gendercode: no option"): 2,
                UnmappedElement("Patient", "", "answered 400"): 1,
                OTHER_ELEMENTS: 4,
            },
        )
    )
    found = json.loads(msgspec.json.encode(describe_flow(await report_flow(log, 2, NOW))))
    assert found["since"] == "2026-03-02T11:00:00Z"
    assert [(each["hour"], each["accepted"]) for each in found["hours"]] == [
        ("2026-03-02T11:00:00Z", 0),
        ("2026-03-02T12:00:00Z", 5),
    ]
    nobody, others, lab = found["senders"]
    assert (nobody["sender"], nobody["unproven"], nobody["last_seen"]) == (None, 1, None)
    assert (others["others"], others["accepted"]) == (True, 2)
    assert (lab["sender"], lab["last_seen"]) == ("lab", "2026-03-02T12:00:00Z")
    assert found["unmapped"] == [
        {"type": "Patient", "path": "gender", "note": "gendercode: no option", "count": 2},
        {"type": "Patient", "note": "answered 400", "count": 1},
        {"others": True, "count": 4},
    ]


# --- what is counted ---------------------------------------------------------------------------


@pytest.fixture
def counted(route: Route) -> Route:
    """A route that counts what passes."""
    log = MemoryFlowLog()
    route.flow = FlowRecorder(
        store=log.save_flows, worker="w", now=route.clock, call_later=lambda *_: None
    )
    return route


async def flow_of(route: Route) -> FlowReport:
    return await report_flow(LiveFlow(MemoryFlowLog(), route.flow), MAX_HOURS, route.clock())


async def counts_of(route: Route, sender: str = "lab") -> FlowCounts:
    found = {each.name: each.counts for each in (await flow_of(route)).by_sender}
    return found.get(sender, FlowCounts())


BAD = {"resource": {"resourceType": MARKER}, "fullUrl": "urn:x", "request": {"method": "PUT"}}


async def test_a_delivery_its_entries_and_its_rows_are_counted_once(counted: Route) -> None:
    body = bundle(put_patient("p1"), put_patient("p2"), BAD, kind="batch")
    delivery = await counted.deliver(body, sender="lab", headers={"idempotency-key": "k"})
    await counted.ask(body, sender="lab", headers={"idempotency-key": "k"})  # a repeat
    assert await counts_of(counted) == FlowCounts(accepted=1)
    await counted.process_all(delivery)
    await counted.process(delivery, attempt=1)  # a work item that comes again
    await counted.mirror_all()
    assert await counts_of(counted) == FlowCounts(accepted=1, written=2, refused=1, rows_created=2)


async def test_an_attempt_that_fails_counts_nothing(counted: Route) -> None:
    counted.fhir_double.down = 503
    delivery = await counted.deliver(bundle(put_patient("p1"), kind="batch"), sender="lab")
    await counted.process(delivery)
    assert await counts_of(counted) == FlowCounts(accepted=1)


async def test_a_replayed_entry_that_is_refused_again_is_counted_once(counted: Route) -> None:
    delivery = await counted.deliver(bundle(put_patient("p1"), BAD, kind="batch"), sender="lab")
    await counted.process_all(delivery)
    once = await counts_of(counted)
    assert (once.written, once.refused) == (1, 1)
    await replay(counted.journal, counted.queue_sender, delivery, counted.clock())
    await counted.process_all()
    assert (await counted.known(delivery)).round == 1
    assert await counts_of(counted) == once


async def test_what_is_held_when_it_comes_is_counted_as_accepted(counted: Route) -> None:
    sender = make_unlisted_sender("feed")
    policy = SenderPolicy(refused_deliveries="hold")
    held = replace(sender, sender=replace(sender.sender, policy=policy))
    accepted = await counted.ask(b"{", sender=held)
    assert (await counted.known(accepted.delivery)).status is Status.PARKED
    assert await counts_of(counted, "feed") == FlowCounts(accepted=1)


async def test_of_a_cancelled_delivery_what_was_written_is_counted(counted: Route) -> None:
    delivery = await counted.deliver(bundle(put_patient("p1"), kind="batch"), sender="lab")

    async def cancel_meanwhile(work: Any, request: httpx.Request) -> httpx.Response:
        answer: httpx.Response = await work(request)
        await cancel(counted.journal, delivery, counted.clock())
        return answer

    counted.fhir_double.script.append(cancel_meanwhile)
    await counted.process(delivery)
    await counted.process(delivery, attempt=1)  # it comes again
    known = await counted.known(delivery)
    assert (known.status, known.written) == (Status.CANCELLED, 1)
    assert await counts_of(counted) == FlowCounts(accepted=1, written=1)


async def test_rows_are_counted_by_what_became_of_them(counted: Route) -> None:
    for body in (put_patient("p1"), put_patient("p1", gender="male")):
        await counted.process_all(await counted.deliver(bundle(body), sender="lab"))
        await counted.mirror_all()
    await park(counted.mirror, WorkItem("d", resource="Patient/p1", sender="lab"), "failed")
    found = await counts_of(counted)
    assert (found.rows_created, found.rows_updated, found.rows_parked) == (1, 1, 1)


async def test_rows_that_no_sender_has_caused_are_counted_for_none(counted: Route) -> None:
    await park(counted.mirror, WorkItem("d", resource="Patient/p1"), "failed")
    assert await counts_of(counted, NO_SENDER) == FlowCounts(rows_parked=1)


async def test_what_was_not_mapped_is_counted_by_element_and_quotes_no_value(
    counted: Route,
) -> None:
    for id_ in ("p1", "p2"):
        body = put_patient(id_, birthDate=MARKER, contact=[{"name": {"family": MARKER}}])
        await counted.process_all(await counted.deliver(bundle(body), sender="lab"))
    await counted.mirror_all()
    found = (await flow_of(counted)).unmapped
    (birthday,) = (each for each in found if each.path == "birthDate")
    assert birthday.type == "Patient"
    assert found[birthday] == 2
    assert MARKER not in repr(found)


async def test_counts_that_storage_does_not_take_fail_no_work(counted: Route) -> None:
    async def fail(_: object) -> None:
        raise Unavailable("storage", "not in time")

    counted.flow.store = fail
    delivery = await counted.deliver(bundle(put_patient("p1")), sender="lab")
    await counted.flow.flush()
    await counted.process_all(delivery)
    await counted.flow.flush()
    assert (await counted.known(delivery)).status is Status.DONE
    assert await counts_of(counted) == FlowCounts(accepted=1, written=1)


async def test_the_work_item_of_a_row_says_who_sent_its_delivery(counted: Route) -> None:
    await counted.process_all(await counted.deliver(bundle(put_patient("p1")), sender="lab"))
    ((item, _),) = counted.queued(MIRROR_QUEUE)
    assert item.sender == "lab"
