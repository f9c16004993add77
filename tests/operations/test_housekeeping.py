"""Lost work is queued again, what takes too long is parked, what is over is deleted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integration.core.errors import Rejected, Unavailable
from integration.core.flow import HourFlow, find_hour
from integration.core.model import Activity, Category, EntryResult, RowResult, Status, WorkItem
from integration.fhir.units import Limits
from integration.journal.audit_entry import AccessKind, Reader, build_access
from integration.journal.audit_recorder import record
from integration.journal.flow_log import MemoryFlowLog
from integration.journal.housekeeping_runs import HousekeepingRun, MemoryHousekeepingRuns
from integration.journal.store import MemoryJournal, never
from integration.journal.synthetic_deliveries import add_synthetic_delivery
from integration.journal.table_keys import make_delivery_id
from integration.mirror import mirror as mirroring
from integration.operations import deliveries, housekeeping
from integration.operations.housekeeping import Step, choose_step, sweep
from integration.queues.names import MIRROR_QUEUE
from integration.relay import process as relaying
from tests.audits import make_recorder
from tests.builders import MARKER, bundle, entry, patient
from tests.conftest import DAY, Route, told_by
from tests.operations.housekeeping_parts import AGES, DELIVERY, START, keeping

MINUTE, HOUR = 60.0, 3600.0


async def swept(route: Route) -> None:
    await sweep(keeping(route, route.queue_sender))


async def of_lanes(route: Route, number: int = 4) -> str:
    """Return a delivery that has fanned out, and whose work items are lost."""
    route.limits = Limits(entries=1)
    people = [entry(patient(id=f"p{n}"), method="PUT", url=f"Patient/p{n}") for n in range(number)]
    delivery = await route.deliver(bundle(*people, kind="batch"))
    await route.process(delivery)
    assert (await route.known(delivery)).status is Status.PROCESSING
    route.queue_sender.sent.clear()
    return delivery


# --- what is due -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "fields", "age", "step"),
    [
        (Status.ACCEPTED, {}, timedelta(minutes=9), None),
        (Status.ACCEPTED, {}, timedelta(minutes=10), Step.QUEUE),
        (Status.ACCEPTED, {}, timedelta(days=3, hours=1), Step.QUEUE),
        (Status.ACCEPTED, {}, timedelta(days=3, hours=1, seconds=1), Step.PARK),
        (Status.PROCESSING, {}, timedelta(minutes=59), None),
        (Status.PROCESSING, {}, timedelta(hours=1), Step.QUEUE),
        (Status.PROCESSING, {}, timedelta(days=4), Step.PARK),
        (Status.PARKED, {}, timedelta(days=4000), None),
        (Status.DONE, {"finished": START}, timedelta(days=29, hours=23), None),
        (Status.DONE, {"finished": START}, timedelta(days=30), Step.FORGET),
        (Status.DONE, {"finished": START + timedelta(days=9)}, timedelta(days=38), None),
        (Status.CANCELLED, {"finished": START}, timedelta(days=30), Step.FORGET),
        (Status.CANCELLED, {"finished": START + timedelta(days=9)}, timedelta(days=38), None),
    ],
)
def test_what_is_due_follows_from_state_and_age(
    status: Status, fields: dict[str, Any], age: timedelta, step: Step | None
) -> None:
    assert choose_step(replace(DELIVERY, status=status, **fields), START + age, AGES) is step


def test_the_age_of_a_replayed_delivery_counts_from_its_replay() -> None:
    replayed = replace(DELIVERY, replayed=START + timedelta(days=20), checked=START)
    assert choose_step(replayed, START + timedelta(days=20, minutes=9), AGES) is None
    assert choose_step(replayed, START + timedelta(days=20, minutes=10), AGES) is Step.QUEUE
    assert choose_step(replayed, START + timedelta(days=24), AGES) is Step.PARK


def test_the_time_between_two_checks_doubles() -> None:
    """A long queue, or an upstream that is down for days, causes few needless work items."""
    delivery, looks, moment = DELIVERY, [], START
    while choose_step(delivery, moment, AGES) is not Step.PARK:
        moment += timedelta(minutes=10)
        if choose_step(delivery, moment, AGES) is Step.QUEUE:
            delivery = replace(delivery, checked=moment)
            looks.append(moment - START)
    assert [look / timedelta(minutes=10) for look in looks] == [1, 2, 4, 8, 16, 32, 64, 128, 256]


# --- lost work --------------------------------------------------------------------------------


async def test_a_delivery_that_was_kept_and_never_queued_is_queued(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    await swept(route)
    assert route.queued() == []
    route.clock.later(10 * MINUTE)
    await swept(route)
    await swept(route)
    assert route.queued() == [(WorkItem(delivery), 0)]
    await route.process_all()
    assert (await route.known(delivery)).status is Status.DONE


async def test_a_delivery_that_was_begun_is_left_to_its_worker(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    route.fhir_double.down = 500
    await route.process(delivery)
    route.queue_sender.sent.clear()
    route.clock.later(HOUR)
    await swept(route)
    assert route.queued() == []
    assert (await route.known(delivery)).checked == route.clock.now


async def test_lanes_whose_work_items_were_lost_are_queued_again(route: Route) -> None:
    delivery = await of_lanes(route, 4)
    route.clock.later(HOUR)
    await route.process(delivery, lane=1)
    await swept(route)
    assert route.queued() == []  # one was done since
    route.clock.later(HOUR)
    await swept(route)
    assert [claim.lane for claim, _ in route.queued()] == [0, 2, 3]
    await route.process_all()
    known = await route.known(delivery)
    assert (known.status, known.written) == (Status.DONE, 4)
    assert set(route.fhir_double.writes_of_each.values()) == {1}


async def test_a_delivery_whose_lanes_are_all_done_is_finished(route: Route) -> None:
    delivery = await of_lanes(route, 2)
    for lane in range(2):
        await route.journal.finish_lane(delivery, 1, lane)
    await route.journal.update_delivery(delivery, checked=route.clock.now, lanes_done_at_check=2)
    route.clock.later(2 * HOUR)
    await swept(route)
    assert [claim.lane for claim, _ in route.queued()] == [0]


async def test_a_queue_that_fails_is_tried_again_in_the_next_run(route: Route) -> None:
    class Full:
        async def send(self, *_: object) -> None:
            raise Unavailable("storage", "queue: ServiceRequestError")

    delivery = await route.deliver(bundle(entry(patient())))
    route.clock.later(HOUR)
    with pytest.raises(Unavailable):
        await sweep(keeping(route, Full()))
    assert (await route.known(delivery)).checked is None
    await swept(route)
    assert route.queued() == [(WorkItem(delivery), 0)]


async def test_a_replay_that_broke_off_is_queued_within_minutes(route: Route) -> None:
    class Full:
        async def send(self, *_: object) -> None:
            raise Unavailable("storage", "queue: ServiceRequestError")

    delivery = await of_lanes(route, 2)  # begun: its lanes are stored
    await route.process(delivery, lane=0)
    await relaying.park(
        route.journal, WorkItem(delivery), "the FHIR server was away", route.clock.now
    )
    route.clock.later(10 * DAY)
    with pytest.raises(Unavailable):
        await deliveries.replay(route.journal, Full(), delivery, route.clock.now)
    route.clock.later(10 * MINUTE)
    for _ in range(2):
        await swept(route)
    assert route.queued() == [(WorkItem(delivery), 0)]
    await route.process_all()
    assert (await route.known(delivery)).status is Status.DONE
    assert await route.statuses(delivery) == [201, 201]


# --- what takes too long -----------------------------------------------------------------------


async def test_what_takes_longer_than_max_age_is_parked_with_an_error(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    accepted, carrying = await route.deliver(patient(active=True)), await of_lanes(route)
    route.clock.later(3 * DAY + HOUR + 1)
    await swept(route)
    for delivery in (accepted, carrying):
        known = await route.known(delivery)
        assert known.status is Status.PARKED
        assert "MAX_AGE" in str(known.reason)
    parked = [record for record in caplog.records if record.message == "delivery.parked"]
    assert [record.levelno for record in parked] == [logging.ERROR] * 2
    assert route.queued() == []


async def test_a_replayed_delivery_has_its_whole_time_again(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    await relaying.park(
        route.journal, WorkItem(delivery), "the FHIR server was away", route.clock.now
    )
    route.clock.later(20 * DAY)
    await deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now)
    await swept(route)
    assert (await route.known(delivery)).status is Status.ACCEPTED


# --- what is over ------------------------------------------------------------------------------


async def test_a_delivery_that_is_over_is_deleted_with_all_that_was_kept_of_it(
    route: Route,
) -> None:
    delivery = await route.deliver(bundle(entry(patient(id="p1"), method="PUT", url="Patient/p1")))
    await route.process(delivery)
    await mirroring.mirror_resource(route.mirror, WorkItem(delivery, resource="Patient/p1"))
    stopped = await route.deliver(patient(active=True))
    await deliveries.cancel(route.journal, stopped, route.clock.now)
    route.clock.later(30 * DAY - 1)
    await swept(route)
    assert await route.outcomes(delivery)
    route.clock.later(1)
    await swept(route)
    for id_ in (delivery, stopped):
        with pytest.raises(Rejected) as caught:
            await deliveries.get_status(route.journal, id_)
        assert caught.value.status == 404
        with pytest.raises(KeyError):
            await route.journal.get_payload(id_)
    assert await route.outcomes(delivery) == []
    assert await route.journal.list_row_results(delivery) == []
    assert "Patient/p1" in route.fhir_double.stored


async def test_rows_whose_work_items_were_lost_are_queued_again_and_the_delivery_is_kept(
    route: Route,
) -> None:
    delivery = await route.deliver(bundle(entry(patient(id="p1"), method="PUT", url="Patient/p1")))
    await route.process(delivery)
    route.queue_sender.sent.clear()
    route.clock.later(30 * DAY)
    for _ in range(2):  # the second one finds that they have a day
        await swept(route)
    ((item, delay),) = route.queued(MIRROR_QUEUE)
    assert (item, delay) == (WorkItem(delivery, resource="Patient/p1"), 0)
    assert (await route.journal.get_payload(delivery)).body
    await route.mirror_all()
    route.clock.later(DAY)
    await swept(route)
    assert await route.journal.get_delivery(delivery) is None
    assert (await route.dataverse_double.contact())["msemr_azurefhirid"] == "p1"


async def test_a_delivery_whose_rows_are_all_mirrored_costs_no_look_at_its_results(
    route: Route,
) -> None:
    class Counting(MemoryJournal):
        looks = 0

        async def list_entry_results(self, *args: Any) -> list[EntryResult]:
            self.looks += 1
            return await super().list_entry_results(*args)

    route.journal = Counting()
    await route.process(await route.deliver(bundle(entry(patient()))))
    await route.mirror_all()
    route.journal.looks = 0
    route.clock.later(30 * DAY)
    await swept(route)
    assert (route.journal.deliveries, route.journal.looks) == ({}, 0)


async def test_a_parked_delivery_is_never_deleted(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    await relaying.park(
        route.journal, WorkItem(delivery), "the FHIR server was away", route.clock.now
    )
    route.clock.later(3000 * DAY)
    await swept(route)
    assert (await route.journal.get_payload(delivery)).body
    await deliveries.cancel(route.journal, delivery, route.clock.now)
    await swept(route)
    assert (await route.known(delivery)).status is Status.CANCELLED
    route.clock.later(30 * DAY)
    await swept(route)
    assert await route.journal.get_delivery(delivery) is None


@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "k1"}], ids=["bytes", "key"])
async def test_a_repeat_of_a_deleted_delivery_overwrites_nothing(
    route: Route, headers: dict[str, str]
) -> None:
    """It is a new delivery, later than all others, that looks before it writes."""
    first = await route.deliver(bundle(entry(patient())), headers=headers)
    await route.process(first)
    (person,) = route.fhir_double.of("Patient")
    route.fhir_double.add({**person, "active": False})  # somebody else, since
    await route.mirror_all()
    route.clock.later(31 * DAY)
    await swept(route)

    again = await route.deliver(bundle(entry(patient())), headers=headers)
    assert again > first
    await route.process(again)

    assert (await route.known(again)).status is Status.DONE
    (person,) = route.fhir_double.of("Patient")
    assert person["active"] is False


async def test_a_delivery_that_a_repeat_finished_late_is_found(route: Route) -> None:
    """Its id is from the first request, a long time before."""
    headers = {"idempotency-key": "k1"}

    class Full:
        async def send(self, *_: object) -> None:
            raise Unavailable("storage", "queue: ServiceRequestError")

    class Lost(MemoryJournal):
        is_lost = True

        async def add_delivery(self, *args: Any) -> bool:
            if self.is_lost:
                raise Unavailable("storage", "ServiceRequestError")
            return await super().add_delivery(*args)

    route.journal = Lost()
    with pytest.raises(Unavailable):
        await route.ask(patient(), headers=headers)
    route.clock.later(5 * HOUR)
    await swept(route)
    route.journal.is_lost = False
    queue_sender, route.queue_sender = route.queue_sender, Full()
    with pytest.raises(Unavailable):
        await route.ask(patient(), headers=headers)
    route.queue_sender = queue_sender
    route.clock.later(10 * MINUTE)
    await swept(route)
    assert [item.delivery for item, _ in route.queued()] == list(route.journal.deliveries)


async def test_what_has_ended_leaves_the_index_of_open_deliveries(route: Route) -> None:
    accepted = await route.deliver(patient(active=True))
    stopped = await route.deliver(patient(active=False))
    await relaying.park(route.journal, WorkItem(stopped), "the cause", route.clock.now)
    route.clock.later(10 * MINUTE)
    await swept(route)
    assert {*route.journal.index.values()} == {accepted, stopped}
    await route.process_all()
    await deliveries.cancel(route.journal, stopped, route.clock.now)
    route.clock.later(2 * DAY)
    await swept(route)
    assert route.journal.index == {}


# --- a run -------------------------------------------------------------------------------------


async def test_a_run_is_limited_and_the_next_one_continues(
    route: Route, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(housekeeping, "MAX_DELIVERIES", 2)
    for number in range(5):
        await route.process(await route.deliver(patient(multipleBirthInteger=number)))
    await route.mirror_all()
    route.clock.later(30 * DAY)
    caplog.set_level(logging.INFO)
    left = []
    for _ in range(3):
        await swept(route)
        left.append(len(route.journal.deliveries))
    assert left == [3, 1, 0]
    runs = [record for record in caplog.records if record.message == "housekeeping.done"]
    assert [(run.forgotten, run.more) for run in runs] == [(2, True), (2, True), (1, False)]


async def test_a_failing_delivery_does_not_hold_up_the_others(route: Route) -> None:
    class Fragile(MemoryJournal):
        broken = ""

        async def delete_delivery(self, id_: str, is_over: Callable[[], bool] = never) -> bool:
            if id_ == self.broken:
                raise Unavailable("storage", "HttpResponseError")
            return await super().delete_delivery(id_, is_over)

    route.journal = Fragile()
    made = [await route.deliver(patient(multipleBirthInteger=number)) for number in range(3)]
    for delivery in made:
        await route.process(delivery)
    route.journal.broken = made[1]
    await route.mirror_all()
    route.clock.later(30 * DAY)
    with pytest.raises(Unavailable):
        await swept(route)
    assert list(route.journal.deliveries) == [made[1]]


async def test_a_delivery_with_very_many_rows_is_deleted_in_several_runs(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    """A run of reconcile may have a row for each of a hundred thousand patients."""
    caplog.set_level(logging.INFO)
    now = route.clock()
    run_id = make_delivery_id(now, 1)
    await add_synthetic_delivery(route.journal, run_id, "reconcile", now, now)
    for number in range(1000):
        result = RowResult(
            delivery=run_id,
            resource=f"Patient/p{number}",
            table="contact",
            row=None,
            action="updated",
        )
        await route.journal.record_row_result(result)
    route.clock.later(31 * DAY)
    seconds = iter(range(10_000))

    def tick() -> datetime:
        return START + timedelta(days=40, seconds=next(seconds))

    left = []
    while route.journal.deliveries:
        await sweep(replace(keeping(route, route.queue_sender), now=tick, max_duration=4.0))
        left.append(len(await route.journal.list_row_results(run_id)))
    assert len(left) > 2
    assert left == sorted(left, reverse=True)
    runs = [record for record in caplog.records if record.message == "housekeeping.done"]
    assert [run.forgotten for run in runs] == [0] * (len(left) - 1) + [1]
    assert [run.more for run in runs] == [True] * (len(left) - 1) + [False]


async def test_a_run_logs_what_it_did_and_names_nobody(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await route.deliver(bundle(entry(patient())))
    route.clock.later(10 * MINUTE)
    await swept(route)
    run = caplog.records[-1]
    assert run.message == "housekeeping.done"
    assert (run.queued, run.parked, run.forgotten, run.failed, run.more) == (1, 0, 0, 0, False)
    assert MARKER not in told_by(caplog.records)


# --- write locks ---------------------------------------------------------------------------------


async def updated(route: Route, name: str) -> str:
    body = bundle(entry(patient(id=name), method="PUT", url=f"Patient/{name}"), kind="batch")
    delivery = await route.deliver(body)
    await route.process(delivery)
    return delivery


async def test_write_locks_that_no_kept_delivery_needs_are_deleted(route: Route) -> None:
    for name in ("old", "young"):
        if name == "young":
            route.clock.later(31 * DAY)
        body = bundle(
            entry(patient(), method="PUT", url=f"Patient?identifier={name}"), kind="batch"
        )
        await route.process(await route.deliver(body))
    assert len(route.guard_store.locks) == 2
    await swept(route)
    assert len(route.guard_store.locks) == 1


async def test_write_locks_that_a_parked_delivery_may_need_are_kept(route: Route) -> None:
    late = await route.deliver(
        bundle(entry(patient(id="p"), method="PUT", url="Patient/p"), kind="batch")
    )
    await relaying.park(route.journal, WorkItem(late), "the cause", route.clock.now)
    route.clock.later(1)
    await updated(route, "p")
    route.clock.later(31 * DAY)
    await swept(route)
    await deliveries.replay(route.journal, route.queue_sender, late, route.clock.now)
    await route.process_all()
    assert await route.statuses(late) == [409]


async def test_activity_is_deleted_by_whole_days_after_its_time(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    now = route.clock.now.astimezone(UTC)
    kept = [now, now - timedelta(days=7), now.replace(hour=0, minute=0) - timedelta(days=7)]
    entries = [
        Activity(
            time=entry, category=Category.ERROR, upstream="FHIR server", action="read", status="500"
        )
        for entry in kept
    ]
    old = [replace(entry, time=entry.time - timedelta(days=1)) for entry in entries[1:]]
    await route.activity.add([*entries, *old])

    with caplog.at_level(logging.INFO):
        await swept(route)

    assert {entry.time for entry in route.activity.entries} == set(kept)
    assert caplog.records[-1].__dict__["activity"] == 2


async def test_counts_of_the_flow_are_kept_as_long_as_they_can_be_asked_for(route: Route) -> None:
    log, hour = MemoryFlowLog(), find_hour(route.clock())
    hours = [hour - timedelta(hours=number) for number in range(24 * 10)]
    await log.save_flows([HourFlow(hour=each, worker="w") for each in hours])
    await sweep(keeping(route, route.queue_sender, flow=log))
    kept = {flow.hour for flow in log.flows.values()}
    assert set(hours[: 24 * 7]) <= kept
    assert len(kept) < 24 * 9


async def test_audit_entries_are_deleted_by_whole_days_after_their_own_time(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    now = route.clock.now.astimezone(UTC)
    kept = [now, now.replace(hour=0, minute=0) - timedelta(days=9)]
    old = [now.replace(hour=23) - timedelta(days=10), now - timedelta(days=400)]
    for time in kept + old:
        recorder = make_recorder(route.audit, lambda time=time: time)
        await record(recorder, Reader(), build_access(AccessKind.ROW, ["Patient/p1"]))

    with caplog.at_level(logging.INFO):
        await swept(route)

    assert {entry.time for entry in route.audit.entries} == set(kept)
    assert caplog.records[-1].__dict__["audit"] == 2
    assert caplog.records[-1].__dict__["more"] is False


# --- what a run leaves behind ------------------------------------------------------------------


async def test_a_run_records_when_it_was_and_what_it_did(route: Route) -> None:
    await route.deliver(bundle(entry(patient())))
    route.queue_sender.sent.clear()
    route.clock.later(11 * MINUTE)
    runs = MemoryHousekeepingRuns()
    await sweep(keeping(route, route.queue_sender, runs))
    assert runs.last == HousekeepingRun(began=route.clock(), ended=route.clock(), queued=1)


async def test_a_run_with_a_failed_step_is_recorded_as_such(route: Route) -> None:
    class Full:
        async def send(self, *_: object) -> None:
            raise Unavailable("storage", "busy")

    await route.deliver(bundle(entry(patient())))
    route.clock.later(11 * MINUTE)
    runs = MemoryHousekeepingRuns()
    with pytest.raises(Unavailable, match="busy"):
        await sweep(keeping(route, Full(), runs))
    assert runs.last is not None
    assert (runs.last.queued, runs.last.failed) == (0, 1)


async def test_a_run_that_cannot_be_recorded_has_done_its_work_and_fails(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    class Lost(MemoryHousekeepingRuns):
        async def save_last_run(self, run: HousekeepingRun) -> None:
            raise Unavailable("storage", "no such table")

    caplog.set_level(logging.INFO)
    await route.deliver(bundle(entry(patient())))
    route.queue_sender.sent.clear()
    route.clock.later(11 * MINUTE)
    with pytest.raises(Unavailable, match="no such table"):
        await sweep(keeping(route, route.queue_sender, Lost()))
    assert len(route.queued()) == 1
    assert "housekeeping.done" in [record.message for record in caplog.records]
