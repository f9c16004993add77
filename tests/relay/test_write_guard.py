"""An earlier delivery's write never lands after a later one's, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from integration.core.model import EntryResult, Status, WorkItem
from integration.core.write_order import WriteRank, is_later
from integration.journal.guard_store import Claim, MemoryGuardStore
from integration.operations import deliveries
from integration.queues.names import MIRROR_QUEUE
from integration.relay import process
from tests.builders import Body, batch, bundle, entry, observation, patient
from tests.conftest import LEASE, Route
from tests.doubles import Clock
from tests.relay.ending_journal import Killed, KillingJournal

URN = "urn:uuid:00000000-0000-4000-8000-000000000001"
BY_NUMBER = "Patient?identifier=urn:mrn|7"


def update(family: str, **elements: Any) -> Body:
    return entry(named(family, id="p1", **elements), method="PUT", url="Patient/p1")


def named(family: str, **elements: Any) -> Body:
    return patient(identifier=[{"system": "urn:mrn", "value": "7"}], **elements) | {
        "name": [{"family": family}]
    }


def family(route: Route, identity: str = "Patient/p1") -> str:
    found: str = route.fhir_double.stored[identity]["name"][0]["family"]
    return found


# --- the order of deliveries -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_what_is_carried_late_is_superseded_and_says_so(route: Route, kind: str) -> None:
    first = await route.deliver(bundle(update("first"), kind=kind))
    second = await route.deliver(bundle(update("second"), kind=kind))
    await route.process_all(second)
    await route.process_all(first)
    assert family(route) == "second"
    assert route.fhir_double.writes_of_each == {"Patient/p1": 1}
    (late,) = await route.outcomes(first)
    assert (late.status, late.superseded, late.is_written) == (409, True, False)
    assert late.issues is not None
    assert "superseded" in late.issues[0]["diagnostics"]
    known = await route.known(first)
    assert (known.status, known.written, known.superseded, known.refused) == (Status.DONE, 0, 1, 0)


async def test_in_their_order_both_are_written(route: Route) -> None:
    for name in ("first", "second"):
        await route.process_all(await route.deliver(batch(update(name))))
    assert family(route) == "second"
    assert route.fhir_double.writes_of_each == {"Patient/p1": 2}


async def test_the_rest_of_a_superseded_transaction_is_written(route: Route) -> None:
    first = await route.deliver(
        bundle(update("first"), entry(observation("Patient/p1"), URN), entry(observation()))
    )
    await route.process_all(await route.deliver(batch(update("second"))))
    await route.process_all(first)
    assert family(route) == "second"
    assert await route.statuses(first) == [409, 201, 201]


async def test_two_deletes_of_one_resource_that_come_too_late_are_both_answered(
    route: Route,
) -> None:
    route.fhir_double.add(patient(id="p1"))
    gone = {"request": {"method": "DELETE", "url": "Patient/p1"}}
    earlier = await route.deliver(batch(gone, gone, entry(observation())))
    later = await route.deliver(batch(entry(patient(id="p1"), method="PUT")))
    await route.process_all(later)
    await route.process_all(earlier)
    assert await route.statuses(earlier) == [409, 409, 201]
    assert route.fhir_double.of("Patient")


async def test_a_late_update_does_not_bring_back_what_was_deleted(route: Route) -> None:
    route.fhir_double.add(named("before", id="p1"))
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(None or b"", method="DELETE", type="Patient", id="p1")
    await route.process_all(second)
    await route.process_all(first)
    assert route.fhir_double.stored == {}
    assert await route.statuses(first) == [409]


@pytest.mark.parametrize("before", [True, False], ids=["of what is there", "of what is absent"])
async def test_a_delete_whose_worker_was_killed_is_not_undone_by_an_earlier_update(
    route: Route, before: bool
) -> None:
    journal = route.journal = KillingJournal()
    if before:
        route.fhir_double.add(named("before", id="p1"))
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(b"", method="DELETE", type="Patient", id="p1")
    journal.kills = True
    with pytest.raises(Killed):
        await route.process(second)
    route.clock.later(2 * LEASE)
    await route.process(first)
    assert route.fhir_double.stored == {}, "nobody knows yet what the delete has done"
    await route.process(second)
    await route.process_all()
    assert route.fhir_double.stored == {}
    assert await route.statuses(first) == [409]


async def test_a_delete_by_a_condition_whose_worker_was_killed_is_not_undone_either(
    route: Route,
) -> None:
    journal = route.journal = KillingJournal()
    route.fhir_double.add(named("before", id="p1"))
    changed = entry(named("first"), method="PUT", url=BY_NUMBER)
    first = await route.deliver(batch(changed))
    second = await route.deliver(batch({"request": {"method": "DELETE", "url": BY_NUMBER}}))
    journal.kills = True
    with pytest.raises(Killed):
        await route.process(second)
    route.clock.later(2 * LEASE)
    await route.process(first)
    assert route.fhir_double.stored == {}, "nobody knows yet what the delete has done"
    await route.process(second)
    await route.process_all()
    assert route.fhir_double.stored == {}
    assert await route.statuses(first) == [409]


async def test_a_later_delivery_that_was_cancelled_holds_nobody_up(route: Route) -> None:
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(b"", method="DELETE", type="Patient", id="p1")
    route.fhir_double.will_arrive_late()
    await route.process(second)
    route.clock.later(2 * LEASE)
    await route.process(first)
    assert route.fhir_double.stored == {}
    known = await route.known(first)
    assert known.reason is not None
    assert second in known.reason, "it says for whom it waits"
    await deliveries.cancel(route.journal, second, route.clock.now)
    await route.process_all()
    assert family(route) == "first"


async def test_a_refused_write_supersedes_nothing(route: Route) -> None:
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(batch(update("second")))
    route.fhir_double.refuses = {"Patient"}
    await route.process_all(second)
    route.fhir_double.refuses = set()
    await route.process_all(first)
    assert await route.statuses(second) == [422]
    assert family(route) == "first"


async def test_what_both_create_is_nobody_else_s(route: Route) -> None:
    """New resources need no turn: no storage operation is spent on them."""
    await route.process_all(await route.deliver(bundle(entry(patient()), entry(observation()))))
    assert route.guard_store.locks == {}


async def test_no_identifier_is_kept_with_the_turns(route: Route) -> None:
    changed = entry(named("x"), method="PUT", url=BY_NUMBER)
    await route.process_all(await route.deliver(batch(changed, update("y"))))
    assert route.guard_store.locks
    told = repr(route.guard_store.locks)
    assert "p1" not in told
    assert "mrn" not in told


async def test_without_the_guard_the_last_to_arrive_wins(route: Route) -> None:
    route.settings = {"write_orders": {"": "off"}}
    first = await route.deliver(batch(update("first")))
    await route.process_all(await route.deliver(batch(update("second"))))
    await route.process_all(first)
    assert family(route) == "first"
    assert route.guard_store.locks == {}


# --- two at the same time ------------------------------------------------------------------------


async def test_what_is_written_while_another_s_answer_is_awaited_comes_after_it(
    route: Route,
) -> None:
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(batch(update("second")))
    route.fhir_double.will_wait_for(lambda: route.process(second))
    await route.process(first)
    assert family(route) == "second"
    assert [await route.statuses(each) for each in (first, second)] == [[201], [200]]


async def test_a_look_that_is_outdated_when_the_write_arrives_does_no_harm(route: Route) -> None:
    route.fhir_double.add(named("before", id="p1"))
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(batch(update("second")))
    route.fhir_double.will_be_late_after(lambda: route.process(second))
    await route.process(first)
    assert family(route) == "second"
    assert [await route.statuses(each) for each in (first, second)] == [[409], [200]]
    assert route.fhir_double.writes_of_each == {"Patient/p1": 2}


async def test_a_later_delivery_looks_again_when_an_earlier_one_was_quicker(route: Route) -> None:
    route.fhir_double.add(named("before", id="p1"))
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(batch(update("second")))
    route.fhir_double.will_be_late_after(lambda: route.process(first))
    await route.process(second)
    assert family(route) == "second"
    assert [await route.statuses(each) for each in (first, second)] == [[200], [200]]


class SlowStore(MemoryGuardStore):
    """Writes a claim so slowly, once, that its lease has ended."""

    def __init__(self, clock: Clock, slow_write: int) -> None:
        super().__init__()
        self.clock, self.left = clock, slow_write

    async def write_claim(self, unit: str, claim: Claim) -> Claim | None:
        self.left -= 1
        written = await super().write_claim(unit, claim)
        if self.left == 0:
            self.clock.later(LEASE)
        return written


def will_look_slowly(route: Route, seconds: float) -> None:
    """Let the look after the names are locked take so long."""
    double = route.fhir_double

    async def first(work: Any, request: Any) -> Any:
        return await work(request)

    async def slow(work: Any, request: Any) -> Any:
        route.clock.later(seconds)
        return await work(request)

    double.look_up_script += [first, slow]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_who_looks_for_long_extends_its_locks_and_writes(route: Route, method: str) -> None:
    if method == "DELETE":
        route.fhir_double.add(named("before", id="p1"))
        delivery = await route.deliver(b"", method="DELETE", type="Patient", id="p1")
    else:
        delivery = await route.deliver(batch(update("first")))
    will_look_slowly(route, LEASE / 2)
    await route.process(delivery)
    assert [status < 300 for status in await route.statuses(delivery)] == [True]


async def test_who_looks_for_too_long_looks_again(route: Route) -> None:
    """Somebody else may have written meanwhile, and has, in this case."""
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(batch(update("second")))
    double = route.fhir_double

    async def look(work: Any, request: Any) -> Any:
        return await work(request)

    async def be_overtaken(work: Any, request: Any) -> Any:
        answer = await work(request)
        route.clock.later(LEASE + route.order.read_lag + 1)
        await route.process(second)
        return answer

    double.look_up_script += [look, be_overtaken]
    await route.process(first)
    assert family(route) == "second"
    assert double.writes_of_each == {"Patient/p1": 1}
    await route.process_all(first)
    assert await route.statuses(first) == [409]


async def test_an_extension_that_is_known_too_late_does_not_count(route: Route) -> None:
    delivery = await route.deliver(batch(update("first")))
    will_look_slowly(route, LEASE / 2)
    route.guard_store = SlowStore(route.clock, slow_write=2)
    await route.process(delivery)
    assert route.fhir_double.writes == []
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [201]


async def test_a_lost_answer_makes_nobody_wait(route: Route) -> None:
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(batch(update("second")))
    route.fhir_double.will_lose_the_reply()
    await route.process(first)
    await route.process(second)
    assert route.waits == []
    assert family(route) == "second"
    await route.process_all()
    assert family(route) == "second"
    assert await route.statuses(first) == [200]


@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_two_first_writes_of_one_id_wait_for_each_other(route: Route, kind: str) -> None:
    """No server can make a first write on the condition that nobody has written before."""
    first = await route.deliver(bundle(update("first"), kind=kind))
    second = await route.deliver(bundle(update("second"), kind=kind))
    route.fhir_double.will_be_late_after(lambda: route.process(second))
    await route.process(first)
    assert family(route) == "first"
    await route.process_all()
    assert family(route) == "second"
    assert [await route.statuses(each) for each in (first, second)] == [[201], [200]]
    assert route.fhir_double.writes_of_each == {"Patient/p1": 2}


@pytest.mark.parametrize("reply_is_lost", [False, True])
async def test_a_first_write_that_arrives_after_its_lease_restores_the_later_state(
    route: Route, reply_is_lost: bool
) -> None:
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(batch(update("second")))

    async def meanwhile() -> None:
        route.clock.later(LEASE + route.order.read_lag + 1)
        await route.process(second)

    route.fhir_double.will_be_late_after(meanwhile, reply_is_lost=reply_is_lost)
    await route.process(first)
    await route.process_all()
    assert family(route) == "second"
    assert [await route.statuses(each) for each in (first, second)] == [[409], [201]]
    assert "Patient/p1" in route.mirrored


@pytest.mark.parametrize("reply_is_lost", [False, True])
async def test_a_delete_that_arrives_after_its_lease_restores_the_later_state(
    route: Route, reply_is_lost: bool
) -> None:
    route.fhir_double.add(named("before", id="p1"))
    first = await route.deliver(b"", method="DELETE", type="Patient", id="p1")
    second = await route.deliver(batch(update("second")))
    route.fhir_double.will_be_late_after(lambda: route.process(second), reply_is_lost=reply_is_lost)
    await route.process(first)
    await route.process_all()
    assert family(route) == "second"
    assert await route.statuses(first) == [409]


async def test_a_delete_waits_for_an_earlier_first_write(route: Route) -> None:
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(b"", method="DELETE", type="Patient", id="p1")
    route.fhir_double.will_be_late_after(lambda: route.process(second))
    await route.process(first)
    await route.process_all()
    assert route.fhir_double.stored == {}
    assert [await route.statuses(each) for each in (first, second)] == [[201], [204]]


async def test_a_first_write_waits_for_a_later_delete_that_is_under_way(route: Route) -> None:
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(b"", method="DELETE", type="Patient", id="p1")
    route.fhir_double.will_be_late_after(lambda: route.process(first))
    await route.process(second)
    assert route.fhir_double.stored == {}
    await route.process_all()
    assert route.fhir_double.stored == {}
    assert await route.statuses(first) == [409]


async def test_a_first_write_waits_for_an_earlier_delete_that_is_under_way(route: Route) -> None:
    first = await route.deliver(b"", method="DELETE", type="Patient", id="p1")
    second = await route.deliver(batch(update("second")))
    route.fhir_double.will_be_late_after(lambda: route.process(second))
    await route.process(first)
    await route.process_all()
    assert family(route) == "second"
    assert await route.statuses(second) == [201]


async def test_the_first_writes_of_a_unit_are_one_row_while_they_are_under_way(
    route: Route,
) -> None:
    entries = [
        entry(named(f"n{n}", id=f"p{n}"), method="PUT", url=f"Patient/p{n}") for n in range(50)
    ]
    delivery = await route.deliver(batch(*entries))
    claimed: list[int] = []

    async def look_at_claims() -> None:
        table = await route.guard_store.read_claims(0)
        claimed.extend(len(claim.names) for claim in table.claims.values())

    route.fhir_double.will_be_late_after(look_at_claims)
    await route.process(delivery)
    assert claimed == [50]
    assert route.guard_store.claims == {}
    assert route.guard_store.locks == {}
    assert await route.statuses(delivery) == [201] * 50


async def test_an_update_waits_for_an_earlier_delete_that_is_announced(route: Route) -> None:
    """No server makes a delete on the condition of a version: nothing may be written meanwhile."""
    route.fhir_double.add(named("before", id="p1"))
    first = await route.deliver(b"", method="DELETE", type="Patient", id="p1")
    second = await route.deliver(batch(update("second")))
    route.fhir_double.will_do_as_asked()  # the announcement
    route.fhir_double.will_be_late_after(lambda: route.process(second))
    await route.process(first)
    assert route.fhir_double.stored == {}
    await route.process_all()
    assert family(route) == "second"
    assert [await route.statuses(each) for each in (first, second)] == [[204], [200]]


async def test_an_update_that_was_on_its_way_before_the_announcement_is_not_lost(
    route: Route,
) -> None:
    route.fhir_double.add(named("before", id="p1"))
    first = await route.deliver(b"", method="DELETE", type="Patient", id="p1")
    second = await route.deliver(batch(update("second")))
    route.fhir_double.will_be_late_after(lambda: route.process(first))
    await route.process(second)
    await route.process_all()
    assert family(route) == "second"


async def test_a_delete_that_the_server_refuses_holds_nobody_up(route: Route) -> None:
    await route.process_all(await route.deliver(batch(update("before"))))
    gone = await route.deliver(b"", method="DELETE", type="Patient", id="p1")
    route.fhir_double.will_do_as_asked()  # the announcement
    refused = {"resourceType": "Bundle", "entry": [{"response": {"status": "422"}}]}
    route.fhir_double.will_answer(200, refused)
    await route.process_all(gone)
    await route.process_all(await route.deliver(batch(update("after"))))
    assert family(route) == "after"
    assert await route.statuses(gone) == [422]


async def test_a_late_request_that_nobody_waits_for_any_more_turns_nothing_back(
    route: Route,
) -> None:
    """The answer to the first try is not lost but late: it arrives after the retry and an update."""
    route.fhir_double.add(named("before", id="p1"))
    first = await route.deliver(batch(update("first")))
    late = route.fhir_double.will_arrive_late()
    await route.process(first)
    await route.process_all()
    second = await route.deliver(batch(update("second")))
    await route.process(second)
    await late()
    assert family(route) == "second"


async def test_the_next_try_of_the_same_delivery_does_not_wait(route: Route) -> None:
    first = await route.deliver(batch(update("first")))
    route.fhir_double.will_lose_the_reply()
    await route.process(first)
    await route.process_all()
    assert (await route.known(first)).status is Status.DONE
    assert route.waits == []
    assert route.fhir_double.writes_of_each == {"Patient/p1": 1}


async def test_a_server_that_was_never_reached_keeps_nobody_waiting(route: Route) -> None:
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(batch(update("second")))
    route.fhir_double.down = 503
    await route.process(first)
    route.fhir_double.down = None
    await route.process(second)
    assert route.waits == []
    assert await route.statuses(second) == [201]
    await route.process_all()
    assert family(route) == "second"


async def test_a_request_that_waited_for_a_place_until_its_lock_is_nearly_over_is_not_sent(
    route: Route,
) -> None:
    """The server could still be busy with it when the next delivery has the lock."""
    create = entry(named("late"), ifNoneExist="identifier=urn:mrn|7")
    delivery = await route.deliver(batch(create))
    places = route.fhir.upstream.limiter
    async with AsyncExitStack() as full:
        for _ in range(places.limit.current):
            await full.enter_async_context(places.acquire_slot())
        going = asyncio.ensure_future(route.process(delivery))
        async with asyncio.timeout(10):
            while not route.guard_store.claims:
                await asyncio.sleep(0)
        route.clock.later(LEASE / 2)
    await going
    assert route.fhir_double.writes == []
    assert route.guard_store.claims == {}
    await route.process_all()
    assert await route.statuses(delivery) == [201]


async def test_of_many_first_writes_at_once_the_first_delivery_s_comes_first(route: Route) -> None:
    """They would give way to each other for long if none of them kept its place."""
    deliveries = [await route.deliver(batch(update(str(n)))) for n in range(20)]
    await asyncio.gather(*(route.process(delivery) for delivery in reversed(deliveries)))
    assert await route.statuses(deliveries[0]) != []
    await route.process_all()
    assert family(route) == "19"
    assert route.guard_store.claims == {}


async def test_many_at_once_end_with_the_last(route: Route) -> None:
    deliveries = [await route.deliver(batch(update(str(n)))) for n in range(6)]
    await asyncio.gather(*(route.process(delivery) for delivery in reversed(deliveries)))
    await route.process_all()
    assert family(route) == "5"
    outcomes = [await route.outcomes(delivery) for delivery in deliveries]
    assert all(each.is_written or each.superseded for (each,) in outcomes)


@pytest.mark.parametrize("created", [False, True])
async def test_a_second_work_item_of_a_delivery_turns_no_later_update_back(
    route: Route, created: bool
) -> None:
    """Its request is on the way while the first one is answered, and an update follows."""
    person = named("older", **({} if created else {"id": "p1"}))
    if not created:
        route.fhir_double.add(named("before", id="p1"))
    put = {} if created else {"method": "PUT", "url": "Patient/p1"}
    first = await route.deliver(batch(entry(person, URN, **put)))

    async def meanwhile() -> None:
        await route.process(first)
        (name,) = route.fhir_double.stored
        newer = named("newer", id=name.partition("/")[2])
        await route.process(await route.deliver(batch(entry(newer, method="PUT", url=name))))

    route.fhir_double.will_be_late_after(meanwhile)
    await route.process(first)
    (person,) = route.fhir_double.of("Patient")
    assert person["name"][0]["family"] == "newer"


async def test_units_that_want_each_other_s_resources_do_not_lock_each_other(
    route: Route,
) -> None:
    one = entry(patient(id="a"), method="PUT", url="Patient/a")
    other = entry(patient(id="b"), method="PUT", url="Patient/b")
    deliveries = [await route.deliver(batch(*pair)) for pair in ((one, other), (other, one)) * 3]
    await asyncio.gather(*(route.process(delivery) for delivery in deliveries))
    await route.process_all()
    for delivery in deliveries:
        assert (await route.known(delivery)).status is Status.DONE


# --- what only the server can name ---------------------------------------------------------------


async def test_two_conditional_creates_at_once_make_one_resource(route: Route) -> None:
    create = entry(named("x"), ifNoneExist="identifier=urn:mrn|7")
    deliveries = [await route.deliver(batch(create, entry(observation()))) for _ in range(2)]

    async def meanwhile() -> None:
        await process.process(route.relay, WorkItem(deliveries[1]))

    # The server has looked, found nothing, and writes only now.
    route.fhir_double.will_wait_for(meanwhile)
    await route.process(deliveries[0])
    await route.process_all()
    assert len(route.fhir_double.of("Patient")) == 1
    assert (await route.statuses(deliveries[1]))[0] == 200


async def test_a_late_conditional_update_is_superseded_by_its_condition(route: Route) -> None:
    def conditional(name: str) -> Body:
        return batch(entry(named(name), method="PUT", url=BY_NUMBER))

    first = await route.deliver(conditional("first"))
    await route.process_all(await route.deliver(conditional("second")))
    await route.process_all(first)
    (person,) = route.fhir_double.of("Patient")
    assert person["name"][0]["family"] == "second"
    (late,) = await route.outcomes(first)
    assert (late.superseded, late.location) == (True, f"Patient/{person['id']}")


async def test_a_late_conditional_update_is_superseded_by_a_write_of_what_it_finds(
    route: Route,
) -> None:
    first = await route.deliver(batch(entry(named("first"), method="PUT", url=BY_NUMBER)))
    await route.process_all(await route.deliver(batch(update("second"))))
    await route.process_all(first)
    assert family(route) == "second"
    assert await route.statuses(first) == [409]


async def test_a_late_write_is_superseded_by_a_conditional_update_that_found_it(
    route: Route,
) -> None:
    route.fhir_double.add(named("before", id="p1"))
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(
        batch(entry(named("second", id="p1"), method="PUT", url=BY_NUMBER))
    )
    await route.process_all(second)
    await route.process_all(first)
    assert family(route) == "second"


async def test_what_refers_to_a_superseded_conditional_entry_is_written(route: Route) -> None:
    url = "urn:uuid:00000000-0000-4000-8000-000000000001"
    first = await route.deliver(
        bundle(entry(named("first"), url, method="PUT", url=BY_NUMBER), entry(observation(url)))
    )
    await route.process_all(await route.deliver(batch(update("second"))))
    await route.process_all(first)
    assert family(route) == "second"
    (seen,) = route.fhir_double.of("Observation")
    assert seen["subject"]["reference"] == "Patient/p1"
    assert await route.statuses(first) == [409, 201]


async def test_a_search_that_failed_is_no_leave_to_write(route: Route) -> None:
    delivery = await route.deliver(batch(entry(named("x"), method="PUT", url=BY_NUMBER)))
    failed = {"resourceType": "Bundle", "entry": [{"response": {"status": "500"}}]}
    route.fhir_double.will_answer(200, failed, look_up=True)
    await route.process(delivery)
    assert route.fhir_double.writes == []
    await route.process_all()
    assert await route.statuses(delivery) == [201]


# --- looking before an update is repeated --------------------------------------------------------


async def lost(route: Route, *entries: Body, kind: str = "batch") -> str:
    """A delivery whose first try was done, and its answer lost."""
    delivery = await route.deliver(bundle(*entries, kind=kind))
    route.fhir_double.will_lose_the_reply()
    await route.process(delivery)
    route.clock.later(1)
    return delivery


@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_an_update_that_is_there_is_not_written_again(route: Route, kind: str) -> None:
    route.fhir_double.add(named("before", id="p1"))
    delivery = await lost(route, update("ours"), kind=kind)
    await route.process_all()
    assert await route.statuses(delivery) == [200]
    assert route.fhir_double.writes_of_each == {"Patient/p1": 2}
    assert len(route.fhir_double.writes) == 1


async def test_what_somebody_changed_since_the_lost_try_is_left_alone(route: Route) -> None:
    delivery = await lost(route, update("ours"))
    route.fhir_double.add(named("theirs", id="p1"))
    await route.process_all()
    assert family(route) == "theirs"
    (seen,) = await route.outcomes(delivery)
    assert (seen.status, seen.location) == (200, "Patient/p1/_history/2")
    assert seen.issues is not None
    assert "another version" in seen.issues[0]["diagnostics"]


async def test_what_somebody_changed_between_two_tries_is_left_alone(route: Route) -> None:
    """The first try did nothing: the change is newer than what the delivery was about."""
    route.fhir_double.add(named("before", id="p1"))
    delivery = await route.deliver(batch(update("ours")))
    route.fhir_double.will_answer(500)
    await route.process(delivery)
    route.fhir_double.add(named("theirs", id="p1"))
    await route.process_all()
    assert family(route) == "theirs"
    (seen,) = await route.outcomes(delivery)
    assert (seen.status, seen.superseded) == (409, True)


async def test_what_somebody_deleted_between_two_tries_is_not_brought_back(route: Route) -> None:
    """The relay itself has written it first: the row of that write tells nothing of the delete."""
    await route.process_all(await route.deliver(batch(update("before"))))
    delivery = await route.deliver(batch(update("ours")))
    route.fhir_double.will_answer(500)
    await route.process(delivery)
    route.fhir_double.delete("Patient/p1")
    await route.process_all()
    assert route.fhir_double.stored == {}
    assert await route.statuses(delivery) == [409]


async def test_what_an_earlier_delivery_deleted_between_two_tries_is_written(route: Route) -> None:
    await route.process_all(await route.deliver(batch(update("before"))))
    first = await route.deliver(b"", method="DELETE", type="Patient", id="p1")
    second = await route.deliver(batch(update("second")))
    route.fhir_double.will_answer(500)
    await route.process(second)
    await route.process(first)
    assert route.fhir_double.stored == {}
    await route.process_all()
    assert family(route) == "second"


async def test_what_somebody_changed_before_the_lost_try_is_overwritten(route: Route) -> None:
    route.fhir_double.add(named("theirs", id="p1"))
    route.clock.later(1)
    delivery = await route.deliver(batch(update("ours")))
    route.fhir_double.down = 500  # the try did nothing
    await route.process(delivery)
    route.fhir_double.down = None
    await route.process_all()
    assert family(route) == "ours"


async def test_an_own_earlier_write_is_nobody_s_change_whatever_the_server_s_clock_says(
    route: Route,
) -> None:
    """The server's clock is ahead, so its last update seems to come after the second try began."""
    delivery = await route.deliver(batch(update("older"), update("newer")))
    route.fhir_double.will_do_as_asked()
    route.fhir_double.will_answer(500)
    await route.process(delivery)
    meta = route.fhir_double.stored["Patient/p1"]["meta"]
    meta["lastUpdated"] = (route.clock() + timedelta(hours=1)).isoformat()
    await route.process_all()
    assert family(route) == "newer"
    assert await route.statuses(delivery) == [201, 200]


async def test_a_lost_transaction_is_known_by_what_its_placeholders_led_to(route: Route) -> None:
    found = entry(named("found"), URN, ifNoneExist="identifier=urn:mrn|7")
    weight = observation(URN, id="o1")
    sent = bundle(found, entry(weight, method="PUT", url="Observation/o1"))
    delivery = await route.deliver(sent)
    route.fhir_double.will_lose_the_reply()
    await route.process(delivery)
    await route.process_all()
    assert await route.statuses(delivery) == [200, 200]
    assert [len(each.asked) for each in route.fhir_double.writes] == [2, 1]


async def test_a_delete_of_what_was_not_there_yet_is_not_undone_by_the_earlier_update(
    route: Route,
) -> None:
    """The server has no trace of it."""
    first = await route.deliver(batch(update("first")))
    second = await route.deliver(b"", method="DELETE", type="Patient", id="p1")
    await route.process_all(second)
    await route.process_all(first)
    assert route.fhir_double.stored == {}
    assert [await route.statuses(each) for each in (first, second)] == [[409], [204]]


async def test_a_transaction_that_was_done_stays_done_whatever_was_changed(route: Route) -> None:
    other = entry(patient(id="p2"), method="PUT", url="Patient/p2")
    delivery = await lost(route, update("ours"), other, kind="transaction")
    route.fhir_double.add(named("theirs", id="p1"))
    await route.process_all()
    assert family(route) == "theirs"
    assert await route.statuses(delivery) == [200, 200]
    assert len(route.fhir_double.writes) == 1


async def test_a_delete_is_not_repeated_on_what_came_back(route: Route) -> None:
    route.fhir_double.add(named("before", id="p1"))
    delivery = await route.deliver(b"", method="DELETE", type="Patient", id="p1")
    route.fhir_double.will_do_as_asked()  # the announcement
    route.fhir_double.will_lose_the_reply()
    await route.process(delivery)
    route.clock.later(1)
    route.fhir_double.add(named("again", id="p1"))
    await route.process_all()
    assert family(route) == "again"
    assert await route.statuses(delivery) == [204]


async def test_a_delete_that_was_done_is_done(route: Route) -> None:
    route.fhir_double.add(named("before", id="p1"))
    delivery = await route.deliver(b"", method="DELETE", type="Patient", id="p1")
    route.fhir_double.will_do_as_asked()  # the announcement
    route.fhir_double.will_lose_the_reply()
    await route.process(delivery)
    await route.process_all()
    assert await route.statuses(delivery) == [204]


async def test_without_the_guard_a_retry_looks_as_well(route: Route) -> None:
    route.settings = {"write_orders": {"": "off"}}
    await lost(route, update("ours"))
    route.fhir_double.add(named("theirs", id="p1"))
    await route.process_all()
    assert family(route) == "theirs"


# --- servers that rewrite, and clocks that differ ------------------------------------------------


def weight(status: str, **elements: Any) -> Body:
    found = {**observation(id="o1", issued="2026-03-02T07:30:00Z"), **elements, "status": status}
    return entry(found, method="PUT", url="Observation/o1")


async def test_a_lost_write_is_known_on_a_server_that_rewrites_what_it_stores(
    route: Route,
) -> None:
    """Microsoft's writes `Z` as `+00:00`, and a conditional reference as a literal one."""
    practitioner = {"resourceType": "Practitioner", "id": "dr1", "identifier": [{"value": "1"}]}
    route.fhir_double.add(practitioner)
    first = await route.deliver(batch(weight("preliminary")))
    performer = [{"reference": "Practitioner?identifier=1"}]
    second = await lost(route, weight("final", performer=performer))
    route.fhir_double.stored["Observation/o1"]["issued"] = "2026-03-02T07:30:00+00:00"
    await route.process_all()
    await route.process_all(first)
    assert [await route.statuses(each) for each in (first, second)] == [[409], [200]]
    assert route.fhir_double.stored["Observation/o1"]["status"] == "final"
    assert route.fhir_double.writes_of_each["Observation/o1"] == 1


@pytest.mark.parametrize("ahead", [-60.0, -0.3, 0.0, 0.3, 60.0])
async def test_a_server_s_clock_decides_nothing(route: Route, ahead: float) -> None:
    """The second write follows at once, and its request is lost before the server has it."""
    clock = route.fhir_double.now
    route.fhir_double.now = lambda: clock() + timedelta(seconds=ahead)
    await route.process_all(await route.deliver(batch(update("first"))))
    route.clock.later(0.2)
    second = await route.deliver(batch(update("second")))
    route.fhir_double.will_answer(500)
    await route.process(second)
    await route.process_all()
    assert family(route) == "second"
    assert await route.statuses(second) == [200]


# --- a create that is sent again -----------------------------------------------------------------


async def created_twice(route: Route, between: Callable[[str], object]) -> EntryResult:
    """The result of a create that is delivered again after something happened to its resource."""
    body = batch(entry(named("ours"), URN))
    await route.process_all(await route.deliver(body))
    (name,) = route.fhir_double.stored
    between(name)
    again = await route.deliver(body)
    await route.process_all(again)
    (outcome,) = await route.outcomes(again)
    return outcome


async def test_a_create_that_was_deleted_since_is_refused_when_it_comes_again(
    route: Route,
) -> None:
    outcome = await created_twice(route, route.fhir_double.delete)
    assert outcome.status == 409
    assert outcome.issues is not None
    assert "Idempotency-Key" in outcome.issues[0]["diagnostics"]
    assert route.fhir_double.stored == {}


async def test_a_create_that_was_changed_since_stays_as_it_was_changed(route: Route) -> None:
    def change(name: str) -> None:
        route.fhir_double.add({**named("theirs"), "id": name.partition("/")[2]})

    outcome = await created_twice(route, change)
    assert outcome.status == 200
    assert outcome.issues is not None
    assert "another version" in outcome.issues[0]["diagnostics"]
    (person,) = route.fhir_double.of("Patient")
    assert person["name"][0]["family"] == "theirs"


# --- content that is sent again ------------------------------------------------------------------


async def test_content_that_is_sent_again_makes_no_new_version(route: Route) -> None:
    for _ in range(3):
        delivery = await route.deliver(batch(update("same"), entry(observation())))
        await route.process_all(delivery)
    assert route.fhir_double.writes_of_each["Patient/p1"] == 1
    (outcome, _) = await route.outcomes(delivery)
    assert (outcome.status, outcome.etag) == (200, 'W/"1"')


@pytest.mark.parametrize("keeps_mark", [True, False])
async def test_content_that_somebody_has_changed_since_is_written_again(
    route: Route, keeps_mark: bool
) -> None:
    await route.process_all(await route.deliver(batch(update("ours"))))
    meta = {"meta": route.fhir_double.stored["Patient/p1"]["meta"]} if keeps_mark else {}
    route.fhir_double.add({**named("theirs", id="p1"), **meta})
    await route.process_all(await route.deliver(batch(update("ours"))))
    assert family(route) == "ours"


async def test_content_is_written_again_while_an_earlier_delivery_could_still_overwrite_it(
    route: Route,
) -> None:
    await route.process_all(await route.deliver(batch(update("same"))))
    late = await route.deliver(batch(update("other")))
    await route.process_all(await route.deliver(batch(update("same"))))
    await route.process_all(late)
    assert family(route) == "same"
    assert await route.statuses(late) == [409]


async def test_a_superseded_patient_is_not_mirrored_again(route: Route) -> None:
    first = await route.deliver(batch(update("first")))
    await route.process_all(await route.deliver(batch(update("second"))))
    route.queue_sender.sent.clear()
    await route.process_all(first)
    assert [name for name, *_ in route.queue_sender.sent if name == MIRROR_QUEUE] == []


# --- the order by the source's own word ----------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "write", "later"),
    [
        (WriteRank("a"), WriteRank("b"), False),
        (WriteRank("c"), WriteRank("b"), True),
        (WriteRank("b"), WriteRank("b"), False),
        (WriteRank("a", "v:2"), WriteRank("b", "v:1"), True),
        (WriteRank("c", "v:1"), WriteRank("b", "v:2"), False),
        (WriteRank("c", "v:1"), WriteRank("b", "v:1"), True),
        (WriteRank("c", "v:1"), WriteRank("b", "u:2026"), True),
        (WriteRank("a", "v:1"), WriteRank("b"), False),
        (WriteRank("c"), WriteRank("b", "v:9"), True),
    ],
)
def test_what_is_later(last: WriteRank, write: WriteRank, later: bool) -> None:
    """By the source's versions where both have one of a kind, else by arrival."""
    assert is_later(last, write) is later


# --- conditional references to what the delivery brings itself -----------------------------------


def referring(kind: str) -> Body:
    return bundle(
        entry(named("ours")),
        entry(observation("Patient?identifier=urn:mrn|7")),
        kind=kind,
    )


@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_a_conditional_reference_finds_what_comes_with_it(route: Route, kind: str) -> None:
    delivery = await route.deliver(referring(kind))
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [201, 201]
    (person,), (seen,) = route.fhir_double.of("Patient"), route.fhir_double.of("Observation")
    assert seen["subject"]["reference"] == f"Patient/{person['id']}"


async def test_a_second_match_on_the_server_refuses_a_conditional_reference(route: Route) -> None:
    route.fhir_double.add(named("theirs", id="other"))
    delivery = await route.deliver(referring("transaction"))
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [424, 412]
    assert route.fhir_double.writes == []


async def test_a_retry_is_not_disturbed_by_its_own_match(route: Route) -> None:
    delivery = await route.deliver(referring("batch"))
    route.fhir_double.will_do_as_asked()
    route.fhir_double.will_lose_the_reply()
    await route.process(delivery)
    await route.process_all()
    assert [status // 100 for status in await route.statuses(delivery)] == [2, 2]
    assert len(route.fhir_double.of("Patient")) == 1
