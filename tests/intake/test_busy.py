"""A worker takes in and plans no more at the same time than its memory bears."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from integration.core.byte_budget import UNCOUNTED, ByteBudget
from integration.core.errors import Overloaded
from integration.core.model import Status, WorkItem
from integration.intake.accept import accept
from integration.intake.dry_run import plan_delivery
from integration.intake.http_request import IncomingRequest
from integration.journal.store import MemoryJournal, Payload
from integration.relay import process as relaying
from integration.relay.fetch import Sources
from tests.builders import patient
from tests.conftest import FHIR_JSON, Route

LARGE = "a" * UNCOUNTED


def large(**fields: Any) -> dict[str, Any]:
    return patient(text={"status": "generated", "div": LARGE}, **fields)


def make_request(body: bytes) -> IncomingRequest:
    headers = {"content-type": FHIR_JSON}
    return IncomingRequest(method="POST", type=None, id=None, headers=headers, body=body)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class RecordingJournal(MemoryJournal):
    """Records which payloads are read."""

    read: list[str]

    async def get_payload(self, id_: str) -> Payload:
        self.read = [*getattr(self, "read", []), id_]
        return await super().get_payload(id_)


async def test_a_busy_worker_refuses_a_large_delivery_before_it_parses_it(route: Route) -> None:
    budget = ByteBudget(UNCOUNTED * 2)
    intake = replace(route.intake, budget=budget)
    broken = make_request(b"{" * UNCOUNTED * 2)  # would be a 400
    with budget.take_now(UNCOUNTED * 2):
        for work in (accept(intake, broken), plan_delivery(intake, route.limits, broken)):
            with pytest.raises(Overloaded):
                await work
    assert route.journal.deliveries == {}
    assert route.queue_sender.sent == []


async def test_a_busy_worker_takes_small_deliveries_and_later_large_ones(route: Route) -> None:
    route.settings["budget"] = budget = ByteBudget(UNCOUNTED * 2)
    with budget.take_now(UNCOUNTED * 2):
        await route.deliver(patient())
    await route.deliver(large())
    assert budget.taken == 0


async def test_planning_waits_for_its_share_and_reads_nothing_before(route: Route) -> None:
    route.journal = journal = RecordingJournal()
    delivery = await route.deliver(large(id="p1"))
    budget = ByteBudget(UNCOUNTED * 2)
    relay = replace(route.relay, budget=budget)
    with budget.take_now(UNCOUNTED * 2):
        work = asyncio.create_task(relaying.process(relay, WorkItem(delivery)))
        await settle()
        assert not hasattr(journal, "read")
        assert not work.done()
    await work
    assert journal.read == [delivery]
    assert (await route.known(delivery)).status is Status.DONE
    assert budget.taken == 0


async def test_planning_that_is_cancelled_gives_its_share_back(route: Route) -> None:
    delivery = await route.deliver(large(id="p1"))
    budget = ByteBudget(UNCOUNTED * 2)
    relay = replace(route.relay, budget=budget)
    with budget.take_now(UNCOUNTED * 2):
        work = asyncio.create_task(relaying.process(relay, WorkItem(delivery)))
        await settle()
        work.cancel()
        await settle()
        assert work.cancelled()
    assert budget.taken == 0
    await relaying.process(relay, WorkItem(delivery))
    assert (await route.known(delivery)).status is Status.DONE


async def test_planning_that_waits_too_long_goes_back_to_the_queue(route: Route) -> None:
    delivery = await route.deliver(large(id="p1"))
    relay = replace(route.relay, budget=ByteBudget(UNCOUNTED * 2), max_wait=0.0)
    with relay.budget.take_now(UNCOUNTED * 2):
        await relaying.process(relay, WorkItem(delivery))
    ((_, item, delay),) = route.queue_sender.sent
    assert (item.delivery, item.attempt) == (delivery, 1)
    assert delay >= 2
    assert (await route.known(delivery)).status is Status.ACCEPTED


@pytest.mark.parametrize(("kind", "share"), [("searchset", 1_000_000), ("collection", 0)])
async def test_what_may_be_fetched_for_a_delivery_counts_beforehand(
    route: Route, kind: str, share: int
) -> None:
    upstream = route.fhir.upstream
    sources = Sources({upstream.base: upstream}, max_bytes=1_000_000)
    entry = {"resource": patient(id="p1")}
    delivery = await route.deliver({"resourceType": "Bundle", "type": kind, "entry": [entry]})
    relay = replace(route.relay, sources=sources, budget=ByteBudget(10_000_000), max_wait=0.0)
    with relay.budget.take_now(relay.budget.total - share + 1):
        await relaying.process(relay, WorkItem(delivery))
    expected = Status.ACCEPTED if share else Status.DONE
    assert (await route.known(delivery)).status is expected
