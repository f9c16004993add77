"""A delivery may be planned more than once. Lanes belong to a plan, and results to entries."""

from __future__ import annotations

import logging

import pytest

from integration.core.model import Status, WorkItem
from integration.fhir.units import Limits
from integration.journal.lane_bits import list_open_lanes
from integration.operations import deliveries
from integration.relay import process as relaying
from tests.builders import Body, batch, bundle, entry, observation, patient
from tests.conftest import Route

ANOTHER_PLANNER = 99


def people(number: int) -> Body:
    """A batch of updates, each of which may go alone."""
    return batch(
        *(entry(patient(id=f"p{n}"), method="PUT", url=f"Patient/p{n}") for n in range(number))
    )


async def planned(route: Route, number: int, limit: int) -> tuple[str, list[WorkItem]]:
    """A delivery that has fanned out, and the work items of its lanes, taken off the queue."""
    route.limits = Limits(entries=limit)
    delivery = await route.deliver(people(number))
    await route.process(delivery)
    return delivery, take_all(route)


def take_all(route: Route) -> list[WorkItem]:
    taken = []
    while (item := route.take()) is not None:
        taken.append(item)
    return taken


async def replayed(route: Route, delivery: str) -> list[WorkItem]:
    """Replay a delivery, and return the work items of the lanes of its next plan."""
    await deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now)
    item = route.take()
    assert item is not None
    await relaying.process(route.relay, item)
    return take_all(route)


# --- the plan that is kept ---------------------------------------------------------------------


async def test_limits_that_change_between_two_attempts_do_not_change_the_plan(
    route: Route,
) -> None:
    delivery, items = await planned(route, 8, limit=4)
    await relaying.process(route.relay, items[0])
    route.limits = Limits(entries=3)
    await route.process(delivery)  # its message came twice
    await relaying.process(route.relay, items[1])
    await route.process_all()
    known = await route.known(delivery)
    assert (known.status, known.lanes, known.written) == (Status.DONE, 2, 8)
    assert [len(request.asked) for request in route.fhir_double.writes] == [4, 4]


async def test_a_transaction_is_sent_whole_or_refused_as_when_it_was_accepted(
    route: Route,
) -> None:
    route.limits = Limits(entries=2)
    delivery = await route.deliver(bundle(entry(patient()), entry(observation())))
    route.fhir_double.will_answer(500)
    await route.process(delivery)
    route.limits = Limits(entries=1, over="reject")
    await route.process_all()
    assert await route.statuses(delivery) == [201, 201]


async def test_the_kept_limits_are_in_the_journal_and_not_in_the_queue(route: Route) -> None:
    delivery, items = await planned(route, 2, limit=1)
    known = await route.known(delivery)
    assert (known.unit_max_entries, known.over_limit, known.plan) == (1, "split", 1)
    assert items == [WorkItem(delivery, lane=0), WorkItem(delivery, lane=1)]


# --- another plan ------------------------------------------------------------------------------


async def test_a_replay_with_larger_limits_sends_every_entry(route: Route) -> None:
    delivery, items = await planned(route, 8, limit=2)
    for item in items[:3]:
        await relaying.process(route.relay, item)
    await relaying.park(route.journal, items[3], "answered 408 again and again", route.clock.now)
    route.limits = Limits(entries=3)

    for item in await replayed(route, delivery):
        await relaying.process(route.relay, item)

    known = await route.known(delivery)
    assert (known.status, known.written, known.plan, known.lanes) == (Status.DONE, 8, 2, 3)
    assert await route.statuses(delivery) == [201] * 8
    assert set(route.fhir_double.writes_of_each.values()) == {1}
    assert len(route.fhir_double.stored) == 8


@pytest.mark.parametrize("order", [[0, 2, 3, 1], [3, 2, 1, 0], [1, 0, 2, 3]])
async def test_a_replay_with_smaller_limits_is_done_with_its_last_lane_only(
    route: Route, order: list[int]
) -> None:
    delivery, items = await planned(route, 8, limit=4)
    await relaying.process(route.relay, items[1])
    await relaying.park(route.journal, items[0], "answered 408", route.clock.now)
    route.limits = Limits(entries=2)

    again = await replayed(route, delivery)
    for number, lane in enumerate(order):
        assert (await route.known(delivery)).status is Status.PROCESSING, number
        await relaying.process(route.relay, again[lane])

    assert (await route.known(delivery)).status is Status.DONE
    assert await route.statuses(delivery) == [201] * 8
    assert set(route.fhir_double.writes_of_each.values()) == {1}


async def test_a_replay_may_make_one_lane_of_several(route: Route) -> None:
    delivery, items = await planned(route, 4, limit=1)
    await relaying.process(route.relay, items[2])
    await relaying.park(route.journal, items[0], "the cause", route.clock.now)
    route.limits = Limits()
    assert await replayed(route, delivery) == []
    assert await route.statuses(delivery) == [201] * 4
    assert set(route.fhir_double.writes_of_each.values()) == {1}
    assert (await route.known(delivery)).status is Status.DONE


async def test_a_late_work_item_of_the_plan_before_sends_nothing(route: Route) -> None:
    delivery, items = await planned(route, 4, limit=2)
    await relaying.park(route.journal, items[0], "the cause", route.clock.now)
    again = await replayed(route, delivery)
    heard = len(route.fhir_double.received)
    for item in items:
        await relaying.process(route.relay, item)
    assert len(route.fhir_double.received) == heard
    assert list_open_lanes(await route.known(delivery)) == [0, 1]
    for item in again:
        await relaying.process(route.relay, item)
    assert (await route.known(delivery)).status is Status.DONE


async def test_what_another_version_has_planned_is_planned_anew(route: Route) -> None:
    """As after a deployment. The lanes may be stored in a form that this version cannot read."""
    delivery, items = await planned(route, 6, limit=2)
    await relaying.process(route.relay, items[1])
    await route.journal.update_delivery(delivery, planner=ANOTHER_PLANNER)
    for lane in (0, 2):
        await route.journal.save_lane(delivery, 1, lane, b"another form")
    route.limits = Limits(entries=1)  # the kept ones count

    for item in (items[0], items[2]):
        await relaying.process(route.relay, item)
    await route.process_all()

    known = await route.known(delivery)
    assert (known.status, known.plan, known.lanes, known.written) == (Status.DONE, 2, 3, 6)
    assert await route.statuses(delivery) == [201] * 6
    assert set(route.fhir_double.writes_of_each.values()) == {1}


async def test_a_delivery_of_one_lane_that_another_version_began_is_finished(
    route: Route,
) -> None:
    delivery = await route.deliver(batch(entry(patient()), entry(observation())))
    route.fhir_double.will_say(
        lambda said: said["entry"].__setitem__(1, {"response": {"status": "503"}})
    )
    await route.process(delivery)
    await route.journal.update_delivery(delivery, planner=ANOTHER_PLANNER)
    await route.process_all()
    assert [status for status in await route.statuses(delivery) if status >= 300] == []
    assert (await route.known(delivery)).status is Status.DONE
    assert set(route.fhir_double.writes_of_each.values()) == {1}


# --- done means answered -----------------------------------------------------------------------


async def test_a_delivery_with_an_unanswered_entry_is_parked_and_says_so(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    delivery, items = await planned(route, 4, limit=2)
    await route.journal.finish_lane(delivery, 1, 0)  # a defect, or storage that was restored
    await relaying.process(route.relay, items[1])
    known = await route.known(delivery)
    assert known.status is Status.PARKED
    assert "2 of 4 entries have no result" in str(known.reason)
    (record,) = [each for each in caplog.records if each.message == "delivery.parked"]
    assert record.levelno == logging.ERROR

    for item in await replayed(route, delivery):
        await relaying.process(route.relay, item)
    assert (await route.known(delivery)).status is Status.DONE
    assert await route.statuses(delivery) == [201] * 4
