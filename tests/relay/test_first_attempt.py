"""A small delivery begins by its first work item, without its row being read, and still only once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from integration.core.errors import Unavailable
from integration.core.model import Status
from integration.journal.store import MemoryJournal
from integration.operations import deliveries
from tests.builders import Body, bundle, entry, observation, patient
from tests.conftest import LEASE, Route

NEW = "urn:uuid:00000000-0000-4000-8000-000000000001"


class Killed(BaseException):
    """The worker has ended."""


@dataclass(slots=True)
class WatchedJournal(MemoryJournal):
    """Notes what is asked of it. A worker that calls `ends_at` ends: `before` or after that."""

    asked: list[str] = field(default_factory=list)
    ends_at: str = ""
    before: bool = False

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name.startswith("_") or not callable(found):
            return found

        async def call(*args: Any, **options: Any) -> Any:
            self.asked.append(name)
            is_end = self.ends_at == name
            if is_end and self.before:
                raise Killed
            answer = await found(*args, **options)
            if is_end:
                raise Killed
            return answer

        return found if name.startswith("scan") else call


@pytest.fixture
def watched(route: Route) -> WatchedJournal:
    route.journal = WatchedJournal()
    return route.journal


def update(**elements: Any) -> Body:
    return entry(patient(id="p1", **elements), method="PUT", url="Patient/p1")


async def test_a_small_delivery_takes_three_operations_besides_its_bytes_and_the_queues(
    route: Route, watched: WatchedJournal
) -> None:
    delivery = await route.deliver(bundle(entry(patient(), NEW), update()))
    assert watched.asked == ["claim_key", "add_delivery"]
    watched.asked.clear()
    await route.process(delivery)
    assert watched.asked == [
        "get_payload",
        "begin_delivery",
        "save_entry_results",
        "update_delivery",
    ]
    assert (await route.known(delivery)).status is Status.DONE


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    "step", ["get_payload", "begin_delivery", "save_entry_results", "update_delivery"]
)
async def test_a_worker_may_end_at_any_step_and_nothing_is_written_twice(
    route: Route, watched: WatchedJournal, step: str, before: bool
) -> None:
    delivery = await route.deliver(bundle(entry(patient(), NEW), update()))
    watched.ends_at, watched.before = step, before
    with pytest.raises(Killed):
        await route.process(delivery)
    watched.ends_at = ""
    # Its claim of the first write ends, and reads show what was written until then.
    route.clock.later(LEASE + route.order.read_lag + 1)
    await route.process(delivery)
    known = await route.known(delivery)
    assert (known.status, known.written) == (Status.DONE, 2)
    assert set(route.fhir_double.writes_of_each.values()) == {1}
    assert {result.status for result in await route.outcomes(delivery)} <= {200, 201}


async def test_who_has_changed_a_resource_after_a_lost_answer_is_left_alone(
    route: Route, watched: WatchedJournal
) -> None:
    """The versions that were found are in the row that says that the delivery begins."""
    await route.process(await route.deliver(bundle(update())))
    delivery = await route.deliver(bundle(update(gender="male")))
    watched.ends_at = "begin_delivery"
    with pytest.raises(Killed):
        await route.process(delivery)
    watched.ends_at = ""
    route.fhir_double.add(patient(id="p1", gender="other"))
    await route.process(delivery)
    assert route.fhir_double.stored["Patient/p1"]["gender"] == "other"


async def test_two_workers_with_the_same_work_item_write_once(
    route: Route, watched: WatchedJournal
) -> None:
    delivery = await route.deliver(bundle(entry(patient(), NEW), update()))
    await asyncio.gather(route.process(delivery), route.process(delivery), return_exceptions=True)
    await route.process_all(delivery)
    assert (await route.known(delivery)).status is Status.DONE
    assert set(route.fhir_double.writes_of_each.values()) == {1}


async def test_a_delivery_that_was_cancelled_before_it_began_is_not_sent(
    route: Route, watched: WatchedJournal
) -> None:
    delivery = await route.deliver(bundle(entry(patient(), NEW), update()))
    await deliveries.cancel(route.journal, delivery, route.clock.now)
    await route.process(delivery)
    assert (await route.known(delivery)).status is Status.CANCELLED
    assert route.fhir_double.writes == []
    assert "get_delivery" in watched.asked


async def test_the_first_work_item_of_a_delivery_that_is_done_does_nothing(
    route: Route, watched: WatchedJournal
) -> None:
    delivery = await route.deliver(bundle(entry(patient(), NEW), update()))
    await route.process(delivery)
    before = await route.known(delivery), await route.outcomes(delivery)
    await route.process(delivery)
    assert (await route.known(delivery), await route.outcomes(delivery)) == before
    assert set(route.fhir_double.writes_of_each.values()) == {1}


async def test_an_attempt_after_a_failure_reads_the_row(
    route: Route, watched: WatchedJournal
) -> None:
    delivery = await route.deliver(bundle(update()))
    route.fhir_double.will_answer(429, headers={"retry-after": "77"})
    await route.process(delivery)
    ((again, _),) = route.queued()
    assert again.accepted is None
    watched.asked.clear()
    await route.process_all()
    assert watched.asked[0] == "get_delivery"
    assert (await route.known(delivery)).status is Status.DONE


async def test_a_delivery_that_has_waited_long_is_read_before_it_is_planned(
    route: Route, watched: WatchedJournal
) -> None:
    """Housekeeping has looked at it by then, and planning it in vain would make the queue longer."""
    delivery = await route.deliver(bundle(update()))
    route.clock.later(300)
    watched.asked.clear()
    await route.process(delivery)
    assert watched.asked[0] == "get_delivery"
    assert (await route.known(delivery)).status is Status.DONE


async def test_nothing_is_sent_when_the_journal_cannot_say_that_a_delivery_begins(
    route: Route,
) -> None:
    class Closed(MemoryJournal):
        async def begin_delivery(self, *_: Any) -> Any:
            raise Unavailable("journal", "the storage does not answer")

    route.journal = Closed()
    delivery = await route.deliver(bundle(entry(patient(), NEW)))
    await route.process(delivery)
    assert route.fhir_double.writes == []
    assert len(route.queued()) == 1


@pytest.mark.parametrize(
    "body",
    [
        bundle({"request": {"method": "DELETE", "url": "Patient/p1"}}),
        bundle(update(), {"request": {"method": "PUT", "url": "Patient/p2"}}, kind="batch"),
        bundle(entry(patient(), NEW), entry(observation(), f"{NEW[:-1]}2"), kind="batch"),
    ],
)
async def test_other_deliveries_begin_by_their_lanes(
    route: Route, watched: WatchedJournal, body: Any
) -> None:
    """Those with a delete, with an entry that is refused, and with several units."""
    route.limits = type(route.limits)(entries=1)
    delivery = await route.deliver(body)
    await route.process_all(delivery)
    assert "begin_delivery" not in watched.asked
    assert (await route.known(delivery)).status is Status.DONE
