"""Work that takes long is handed on, a fan-out that fails is repeated, a cancelled delivery ends."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from integration.core.errors import Unavailable
from integration.core.model import Status, WorkItem
from integration.fhir.units import Limits
from integration.operations import deliveries
from integration.relay import process as relaying
from tests.builders import Body, batch, entry, patient
from tests.conftest import Route
from tests.doubles import Handler


def history(number: int) -> Body:
    """Updates of one resource: a lane of so many units."""
    return batch(
        *(
            entry(patient(id="p1", multipleBirthInteger=n), method="PUT", url="Patient/p1")
            for n in range(number)
        )
    )


def people(number: int) -> Body:
    return batch(
        *(entry(patient(id=f"p{n}"), method="PUT", url=f"Patient/p{n}") for n in range(number))
    )


def take_a_minute(route: Route) -> None:
    async def step(work: Handler, request: httpx.Request) -> httpx.Response:
        route.clock.later(60)
        return await work(request)

    route.fhir_double.script += [step] * 100


# --- time --------------------------------------------------------------------------------------


async def test_healthy_work_that_takes_long_is_handed_on_between_units(route: Route) -> None:
    route.max_duration = 150
    delivery = await route.deliver(history(7))
    take_a_minute(route)
    item, units = WorkItem(delivery), []
    while True:
        before = len(route.fhir_double.writes)
        await relaying.process(route.relay, item)
        units.append(len(route.fhir_double.writes) - before)
        if (await route.known(delivery)).status is Status.DONE:
            break
        ((again, delay),) = route.queued()
        route.queue_sender.sent.clear()
        assert (again, delay) == (WorkItem(delivery), 0)  # no attempt, no failure, at once
        item = again
    assert max(units) == 3
    assert sum(units) == 7
    assert route.fhir_double.writes_of_each == {"Patient/p1": 7}
    assert await route.statuses(delivery) == [201, 200, 200, 200, 200, 200, 200]


async def test_a_unit_is_sent_however_little_time_is_left(route: Route) -> None:
    route.max_duration = 0
    delivery = await route.deliver(history(3))
    await route.process_all(delivery)
    assert (await route.known(delivery)).status is Status.DONE
    assert len(route.fhir_double.writes) == 3


async def test_a_lane_of_several_is_handed_on_as_that_lane(route: Route) -> None:
    route.max_duration = 30
    route.limits = Limits(entries=1)
    first = history(2)["entry"]
    delivery = await route.deliver(batch(*first, *people(3)["entry"][2:]))
    await route.process(delivery)
    items = [item for item, _ in route.queued()]
    route.queue_sender.sent.clear()
    take_a_minute(route)
    for item in items:
        await relaying.process(route.relay, item)
    ((again, _),) = route.queued()
    assert again.lane is not None
    assert again.attempt == 0
    await route.process_all()
    assert (await route.known(delivery)).status is Status.DONE


async def cancelled(route: Route, delivery: str, *, at_look_up: bool = False) -> None:
    """Process the delivery until it has sent a request, then cancel the invocation, as when the
    host shuts down."""
    arrived, never = asyncio.Event(), asyncio.Event()

    async def step(_work: Handler, _request: httpx.Request) -> httpx.Response:
        arrived.set()
        await never.wait()
        raise AssertionError("nothing waits so long")

    double = route.fhir_double
    (double.look_up_script if at_look_up else double.script).append(step)
    worker = asyncio.create_task(route.process(delivery))
    await arrived.wait()
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker


async def test_an_invocation_that_is_cancelled_leaves_its_locks_to_the_next_attempt(
    route: Route,
) -> None:
    delivery = await route.deliver(history(1))
    await cancelled(route, delivery)
    route.clock.later(11)  # reads show by then whether the request has done something
    await route.process(delivery)
    assert await route.statuses(delivery) == [201]
    assert route.waits == []


async def test_an_invocation_that_is_cancelled_before_it_writes_holds_up_nobody(
    route: Route,
) -> None:
    search = "Patient?identifier=urn:mrn|7"
    person = patient(identifier=[{"system": "urn:mrn", "value": "7"}])
    delivery = await route.deliver(batch(entry(person, method="PUT", url=search)))
    await cancelled(route, delivery, at_look_up=True)

    later = await route.deliver(batch(entry(person, method="PUT", url=search)))
    await route.process(later)

    assert await route.statuses(later) == [201]
    assert route.waits == []


# --- a fan-out ---------------------------------------------------------------------------------


class Hiccup:
    """A queue that does not take one message."""

    def __init__(self, route: Route, at: int) -> None:
        self.inner, self.at, self.sends = route.queue_sender, at, 0

    async def send(self, queue: str, item: WorkItem, delay: float = 0) -> None:
        self.sends += 1
        if self.sends == self.at:
            raise Unavailable("storage", "ServiceRequestError")
        await self.inner.send(queue, item, delay)


async def test_a_fan_out_in_which_a_message_fails_queues_each_lane_once(route: Route) -> None:
    route.limits = Limits(entries=1)
    delivery = await route.deliver(people(6))
    queue_sender = route.queue_sender
    route.queue_sender = Hiccup(route, at=4)
    await route.process(delivery)
    route.queue_sender = queue_sender
    (repeat,) = [item for item, _ in route.queued() if item.lane is None]
    queue_sender.sent = [sent for sent in queue_sender.sent if sent[1].lane is not None]

    await relaying.process(route.relay, repeat)

    lanes = [item.lane for item, _ in route.queued() if item.lane is not None]
    assert sorted(lanes) == list(range(6))
    await route.process_all()
    assert await route.statuses(delivery) == [201] * 6


async def test_a_message_that_comes_twice_queues_no_lane_twice(route: Route) -> None:
    route.limits = Limits(entries=1)
    delivery = await route.deliver(people(4))
    for _ in range(3):
        await route.process(delivery)
    assert sorted(item.lane or 0 for item, _ in route.queued()) == list(range(4))


async def test_a_second_work_item_of_a_lane_that_is_done_costs_one_read(route: Route) -> None:
    route.limits = Limits(entries=1)
    delivery = await route.deliver(people(2))
    await route.process(delivery)
    await route.process(delivery, lane=0)
    heard, journal = len(route.fhir_double.received), route.journal

    class OneRead:
        get_delivery = journal.get_delivery

    route.journal = OneRead()
    await route.process(delivery, lane=0)
    assert len(route.fhir_double.received) == heard


# --- a cancelled delivery ----------------------------------------------------------------------


async def test_a_delivery_that_is_cancelled_during_its_last_unit_stays_cancelled(
    route: Route,
) -> None:
    delivery = await route.deliver(people(2))

    async def cancel() -> None:
        await deliveries.cancel(route.journal, delivery, route.clock.now)

    route.fhir_double.will_wait_for(cancel)
    await route.process(delivery)

    known = await route.known(delivery)
    assert (known.status, known.written) == (Status.CANCELLED, 2)
    report = await deliveries.get_status(route.journal, delivery)
    assert [result.status for result in report.results] == [201, 201]


async def test_a_cancelled_delivery_tells_what_was_written_before(route: Route) -> None:
    delivery = await route.deliver(history(3))

    async def cancel() -> None:
        await deliveries.cancel(route.journal, delivery, route.clock.now)

    route.fhir_double.will_do_as_asked()
    route.fhir_double.will_wait_for(cancel)
    await route.process_all(delivery)

    known = await route.known(delivery)
    assert (known.status, known.written, known.refused) == (Status.CANCELLED, 2, 0)
    report = await deliveries.get_status(route.journal, delivery)
    assert (report.delivery.written, report.delivery.entries) == (2, 3)


async def test_the_last_lane_of_a_cancelled_delivery_does_not_make_it_done(route: Route) -> None:
    route.limits = Limits(entries=1)
    delivery = await route.deliver(people(2))
    await route.process(delivery)
    await route.process(delivery, lane=0)

    async def cancel() -> None:
        await deliveries.cancel(route.journal, delivery, route.clock.now)

    route.fhir_double.will_wait_for(cancel)
    await route.process(delivery, lane=1)
    known = await route.known(delivery)
    assert (known.status, known.written) == (Status.CANCELLED, 2)
