"""The answer to a file is written when its delivery has ended: at least once, whoever is killed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from integration.core.errors import Unavailable
from integration.core.model import Delivery, Rights, Status, WorkItem
from integration.operations import deliveries
from integration.operations.answers import write_answer
from integration.operations.housekeeping import Ages, Housekeeping, sweep
from integration.queues.names import ANSWER_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from integration.relay import process as relaying
from integration.senders.model import SenderPolicy
from tests.builders import batch, entry, observation, patient
from tests.conftest import Route
from tests.intake.mailing import Mailing, as_json, make_mailing

HOUR, DAY = 3600, 24 * 3600
CONTENT = as_json(batch(entry(patient())))


@pytest.fixture
def mailing(route: Route) -> Mailing:
    return make_mailing(route)


async def send(mailing: Mailing) -> Delivery:
    """A file becomes a delivery, whose work item is lost."""
    await mailing.send("lab/a.json", CONTENT)
    mailing.route.queue_sender.sent.clear()
    (delivery,) = mailing.route.journal.deliveries.values()
    return delivery


async def run_housekeeping(mailing: Mailing) -> None:
    route = mailing.route
    ages = Ages(timedelta(days=3), timedelta(days=30), timedelta(days=7), timedelta(days=365))
    await sweep(
        Housekeeping(
            journal=route.journal,
            guard_store=route.guard_store,
            queue=route.queue_sender,
            activity=route.activity,
            audit=route.audit,
            row_keys=route.row_keys,
            now=route.clock,
            ages=ages,
        )
    )


def due(mailing: Mailing) -> list[str]:
    """The deliveries whose answers are queued."""
    return [item.delivery for item, _ in mailing.route.queued(ANSWER_QUEUE)]


async def test_the_end_of_a_delivery_queues_its_answer(mailing: Mailing) -> None:
    delivery = await send(mailing)
    await mailing.route.process(delivery.id)
    assert due(mailing) == [delivery.id]


async def test_a_relay_that_is_killed_before_it_queues_the_answer_is_made_up_for(
    mailing: Mailing,
) -> None:
    delivery = await send(mailing)
    await mailing.route.process(delivery.id)
    mailing.route.queue_sender.sent.clear()  # killed after the row was written
    await mailing.route.process(delivery.id)  # the queue hands its work item out again
    assert due(mailing) == [delivery.id]


async def test_a_queue_that_does_not_take_the_answer_is_asked_again(mailing: Mailing) -> None:
    class Full(MemoryQueueSender):
        async def send(self, queue: str, item: WorkItem, delay: float = 0) -> None:
            if queue == ANSWER_QUEUE and not self.sent:
                self.sent.append(("failed", item, 0))
                raise Unavailable("storage", "ServiceRequestError")
            await super().send(queue, item, delay)

    delivery = await send(mailing)
    mailing.route.queue_sender = Full()
    await mailing.route.process(delivery.id)
    await mailing.finish()
    assert mailing.answer("lab/a.json.json")["type"] == "batch-response"


async def test_the_last_of_several_lanes_queues_the_answer(mailing: Mailing) -> None:
    people = batch(*(entry(patient(id=f"p{n}"), method="PUT") for n in range(3)))
    mailing.route.limits = type(mailing.route.limits)(entries=1)
    await mailing.send("lab/a.json", as_json(people))
    await mailing.finish()
    assert len(mailing.answer("lab/a.json.json")["entry"]) == 3


async def test_housekeeping_queues_an_answer_that_was_forgotten(mailing: Mailing) -> None:
    delivery = await send(mailing)
    await mailing.route.process(delivery.id)
    mailing.route.queue_sender.sent.clear()
    mailing.route.clock.later(HOUR)
    await run_housekeeping(mailing)
    assert due(mailing) == [delivery.id]
    mailing.route.queue_sender.sent.clear()
    await run_housekeeping(mailing)
    assert due(mailing) == []
    mailing.route.clock.later(HOUR)
    await run_housekeeping(mailing)
    assert due(mailing) == [delivery.id]


async def test_housekeeping_looks_no_more_when_the_answer_is_written(mailing: Mailing) -> None:
    delivery = await send(mailing)
    await mailing.route.process(delivery.id)
    await mailing.finish()
    mailing.route.clock.later(HOUR)
    await run_housekeeping(mailing)
    assert due(mailing) == []
    assert delivery.id not in mailing.route.journal.index.values()


async def test_a_delivery_is_not_forgotten_before_it_is_answered(mailing: Mailing) -> None:
    delivery = await send(mailing)
    await mailing.route.process(delivery.id)
    mailing.route.queue_sender.sent.clear()
    mailing.route.journal.index.clear()
    await mailing.route.journal.update_delivery(delivery.id, queued_rows=0)  # all are mirrored
    mailing.route.clock.later(31 * DAY)
    await run_housekeeping(mailing)
    assert due(mailing) == [delivery.id]
    await run_housekeeping(mailing)
    assert due(mailing) == [delivery.id]  # not again on the same day
    await mailing.finish()
    mailing.route.clock.later(DAY)
    await run_housekeeping(mailing)
    assert mailing.route.journal.deliveries == {}


async def test_a_parked_delivery_that_is_cancelled_is_answered_by_housekeeping(
    mailing: Mailing,
) -> None:
    delivery = await send(mailing)
    item = WorkItem(delivery.id)
    await relaying.park(mailing.route.journal, item, "test", mailing.route.clock.now)
    await deliveries.cancel(mailing.route.journal, delivery.id, mailing.route.clock())
    await run_housekeeping(mailing)
    await mailing.finish()
    assert "0 of 1 entries were written" in mailing.problem("lab/a.json.json")


async def test_an_open_delivery_has_no_answer_yet(mailing: Mailing) -> None:
    delivery = await send(mailing)
    await write_answer(mailing.answers, WorkItem(delivery.id))
    assert mailing.files.answers == {}
    assert (await mailing.route.known(delivery.id)).answer_due


async def test_what_is_not_known_has_no_answer(mailing: Mailing) -> None:
    await write_answer(mailing.answers, WorkItem("never"))
    assert mailing.files.answers == {}


async def test_an_answer_that_cannot_be_written_is_queued_again_until_it_is_old(
    mailing: Mailing,
) -> None:
    delivery = await send(mailing)
    await mailing.route.process(delivery.id)

    class Down:
        async def write_answer(self, name: str, body: bytes) -> None:
            raise Unavailable("storage", "ServiceRequestError")

    up, mailing.files = mailing.files, Down()
    await mailing.finish()
    ((item, delay),) = mailing.route.queued(ANSWER_QUEUE)
    assert (item.attempt, delay) == (1, 2.0)
    mailing.route.clock.later(4 * DAY)
    await mailing.finish()
    assert due(mailing) == []
    assert (await mailing.route.known(delivery.id)).answer_due
    mailing.files = up
    await run_housekeeping(mailing)
    await mailing.finish()
    assert len(up.answers) == 1


@pytest.mark.parametrize("lost", ["the inbox", "the bytes"])
async def test_an_answer_that_can_never_be_written_is_given_up(
    mailing: Mailing, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = await send(mailing)
    await mailing.route.process(delivery.id)
    if lost == "the inbox":
        mailing.files = None
    else:
        mailing.route.journal.payloads.clear()
    await mailing.finish()
    assert [record.message for record in caplog.records][-1] == "answer.dropped"
    assert not (await mailing.route.known(delivery.id)).answer_due


async def test_a_delivery_that_is_held_for_its_refusals_is_answered_after_its_replay(
    route: Route,
) -> None:
    policy, rights = SenderPolicy(refused_entries="hold"), Rights(types=("Observation",))
    mailing = make_mailing(route, policy=policy, rights=rights)
    await mailing.send("lab/a.json", as_json(batch(entry(patient()), entry(observation()))))
    await mailing.finish()
    (delivery,) = route.journal.deliveries.values()
    assert delivery.status is Status.PARKED
    assert mailing.files.answers == {}
    await route.journal.update_delivery(delivery.id, holds_refused=False)
    await deliveries.replay(route.journal, route.queue_sender, delivery.id, route.clock())
    await mailing.finish()
    assert mailing.answer("lab/a.json.json")["entry"][0]["response"]["status"] == "403"


async def test_refused_entries_that_are_sent_again_have_the_answer_written_again(
    route: Route,
) -> None:
    mailing = make_mailing(route)
    route.fhir_double.refuses = {"Observation"}
    await mailing.send("lab/a.json", as_json(batch(entry(patient()), entry(observation()))))
    await mailing.finish()
    assert mailing.statuses("lab/a.json.json") == ["201", "422"]
    route.fhir_double.refuses = set()
    (delivery,) = route.journal.deliveries.values()
    await deliveries.replay(route.journal, route.queue_sender, delivery.id, route.clock())
    await mailing.finish()
    assert mailing.statuses("lab/a.json.json") == ["201", "201"]
