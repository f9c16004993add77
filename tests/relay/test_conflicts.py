"""What a server says of a whole unit: conflicts that pass, and batches with one bad entry."""

from __future__ import annotations

import json
from math import log2
from typing import Any

import httpx
import pytest

from integration.core.model import Status, WorkItem
from integration.fhir.entry_results import MAX_CONFLICT_ATTEMPTS
from integration.relay import process as relaying
from tests.builders import Body, batch, bundle, entry, observation, patient
from tests.conftest import Route
from tests.doubles import Handler

REFUSAL = {
    "resourceType": "OperationOutcome",
    "issue": [{"severity": "error", "code": "structure", "diagnostics": "an unknown element"}],
}


def people(number: int, *bad: int) -> Body:
    """A batch of updates; the bad ones are marked."""
    return batch(
        *(
            entry(patient(id=f"p{n}", active=n not in bad), method="PUT", url=f"Patient/p{n}")
            for n in range(number)
        )
    )


def refuse_the_batch(route: Route, status: int = 400, extra: int = 1000) -> None:
    """Refuse each request with a bad entry as a whole, as Microsoft's service does."""

    async def step(work: Handler, request: httpx.Request) -> httpx.Response:
        entries = json.loads(request.content).get("entry", [])
        if any(each.get("resource", {}).get("active") is False for each in entries):
            return httpx.Response(status, json=REFUSAL)
        return await work(request)

    route.fhir_double.script += [step] * extra


async def attempts(route: Route, delivery: str, number: int) -> None:
    """Process the delivery so often, each time with the work item that was requeued."""
    item: WorkItem | None = WorkItem(delivery)
    for _ in range(number):
        assert item is not None
        await relaying.process(route.relay, item)
        item = route.take()
    assert item is not None
    await route.queue_sender.send("relay", item)


# --- conflicts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409])
async def test_an_outage_does_not_make_the_first_conflict_final(route: Route, status: int) -> None:
    delivery = await route.deliver(bundle(entry(patient()), entry(observation())))
    route.fhir_double.down = 503
    await attempts(route, delivery, 2 * MAX_CONFLICT_ATTEMPTS)
    route.fhir_double.down = None
    route.fhir_double.will_do_as_asked()  # the look-up
    route.fhir_double.will_answer(status)
    await route.process_all()
    assert await route.statuses(delivery) == [201, 201]


async def test_waiting_for_another_unit_does_not_make_the_first_conflict_final(
    route: Route,
) -> None:
    delivery = await route.deliver(people(1))
    route.fhir_double.down = 500
    await attempts(route, delivery, MAX_CONFLICT_ATTEMPTS)
    route.fhir_double.down = None
    body = {"resourceType": "Bundle", "entry": [{"response": {"status": "409"}}]}
    route.fhir_double.will_do_as_asked()
    route.fhir_double.will_answer(200, body)
    await route.process_all()
    assert await route.statuses(delivery) == [201]


async def test_conflicts_of_one_unit_do_not_count_for_the_next(route: Route) -> None:
    """Two updates of one resource are two units."""
    updates = [patient(id="p1", active=active) for active in (False, True)]
    delivery = await route.deliver(
        batch(*(entry(update, method="PUT", url="Patient/p1") for update in updates))
    )
    answer_writes_with_conflicts(route, MAX_CONFLICT_ATTEMPTS, 2 * MAX_CONFLICT_ATTEMPTS)
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [201, 200]


def answer_writes_with_conflicts(route: Route, first: int, then: int) -> None:
    """Answer so many writes with 409, then one as asked, then again up to so many in all."""
    conflict = {"resourceType": "Bundle", "entry": [{"response": {"status": "409"}}]}
    writes = 0

    async def step(work: Handler, request: httpx.Request) -> httpx.Response:
        nonlocal writes
        entries = json.loads(request.content)["entry"] if request.method == "POST" else []
        if all(each["request"]["method"] == "GET" for each in entries):
            return await work(request)
        writes += 1
        if writes == first + 1 or writes > then + 1:
            return await work(request)
        return httpx.Response(200, json=conflict)

    route.fhir_double.script += [step] * 1000


# --- one bad entry -----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, 3, 6])
async def test_one_bad_entry_does_not_refuse_its_batch(route: Route, bad: int) -> None:
    refuse_the_batch(route)
    delivery = await route.deliver(people(7, bad))
    await route.process(delivery)
    assert await route.statuses(delivery) == [400 if n == bad else 201 for n in range(7)]
    results = await route.outcomes(delivery)
    assert [n for n, result in enumerate(results) if result.issues] == [bad]
    assert set(route.fhir_double.writes_of_each.values()) == {1}
    assert sorted(route.mirrored) == [f"Patient/p{n}" for n in range(7) if n != bad]
    known = await route.known(delivery)
    assert (known.status, known.written, known.refused) == (Status.DONE, 6, 1)


@pytest.mark.parametrize(("number", "bad"), [(256, [17]), (500, [499]), (200, [3, 150])])
async def test_the_search_for_bad_entries_takes_few_requests(
    route: Route, number: int, bad: list[int]
) -> None:
    refuse_the_batch(route)
    delivery = await route.deliver(people(number, *bad))
    await route.process(delivery)
    assert [n for n, status in enumerate(await route.statuses(delivery)) if status == 400] == bad
    assert len(route.fhir_double.writes) <= 1 + 2 * len(bad) * (int(log2(number)) + 1)


async def test_a_batch_of_bad_entries_only_is_refused(route: Route) -> None:
    refuse_the_batch(route, 422)
    delivery = await route.deliver(people(4, 0, 1, 2, 3))
    await route.process(delivery)
    assert await route.statuses(delivery) == [422] * 4
    assert (await route.known(delivery)).status is Status.DONE


async def test_a_bad_entry_that_always_times_out_refuses_itself_alone(route: Route) -> None:
    """A validation error was once answered 408: microsoft/fhir-server#5582."""
    refuse_the_batch(route, 408)
    delivery = await route.deliver(people(4, 2))
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [201, 201, 408, 201]


async def test_the_results_of_each_half_are_recorded_as_they_come(route: Route) -> None:
    refuse_the_batch(route, extra=2)  # all four, then the first two
    route.fhir_double.will_answer(500)
    delivery = await route.deliver(people(4, 3))
    await route.process(delivery)
    assert [result.position for result in await route.outcomes(delivery)] == [0, 1]
    refuse_the_batch(route)
    await route.process_all()
    assert await route.statuses(delivery) == [201, 201, 201, 400]
    assert set(route.fhir_double.writes_of_each.values()) == {1}


async def test_a_transaction_that_is_refused_is_not_sent_in_halves(route: Route) -> None:
    refuse_the_batch(route)
    update: Any = people(4, 2)
    delivery = await route.deliver({**update, "type": "transaction"})
    await route.process(delivery)
    assert await route.statuses(delivery) == [400] * 4
    assert len(route.fhir_double.writes) == 1
