"""What is not where it should be is in a list, until it is mended; what is well costs it nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from integration.core.errors import Misconfigured, Rejected, Unavailable
from integration.core.model import Delivery, RowResult, Status, WorkItem
from integration.journal.attention import ConcernFilter
from integration.journal.concern import Concern, ConcernKind, build_delivery_concern
from integration.journal.concerns import park_open
from integration.journal.store import MemoryJournal
from integration.mapping.model import EntityMap
from integration.mirror import mirror as mirroring
from integration.mirror.mirror import Mirror, mirror_resource
from integration.operations import attention, deliveries
from integration.operations.housekeeping import sweep
from integration.operations.stale_concerns import drop_stale_concerns
from integration.operations.views import describe_concern
from integration.queues.names import MIRROR_QUEUE
from integration.relay import process as relaying
from integration.relay.parts import Relay
from tests.builders import MARKER, bundle, entry, observation, patient
from tests.conftest import DAY, Route
from tests.operations.housekeeping_parts import keeping
from tests.refusals import list_concern_kinds, list_concerns

PUT_P1 = bundle(entry(patient(id="p1"), method="PUT"), kind="batch")


def refusing(number: int) -> Any:
    """A batch of which so many entries are refused before they are sent."""
    bad = {"resource": {"resourceType": MARKER}, "request": {"method": "PUT"}}
    return bundle(entry(patient(id="p1"), method="PUT"), *([bad] * number), kind="batch")


class Counting(MemoryJournal):
    """Counts what is asked of the list of what needs attention."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("put_concern", "delete_concern", "list_concerns"):
            raise AssertionError(f"{name} for what is well")
        return super().__getattribute__(name)


# --- deliveries --------------------------------------------------------------------------------


async def test_refused_entries_need_attention_and_no_value_is_quoted(route: Route) -> None:
    delivery = await route.deliver(refusing(2), sender="north")
    await route.process_all(delivery)
    (concern,) = await list_concerns(route)
    assert (concern.kind, concern.delivery, concern.sender) == ("entries", delivery, "north")
    assert (concern.positions, concern.number, concern.since) == ((1, 2), 2, route.clock.now)
    assert concern.reason.startswith("422")
    assert MARKER not in str(describe_concern(concern))
    assert describe_concern(concern)["todo"].startswith("mend the cause and replay")


async def test_what_is_written_asks_nothing_of_the_list(route: Route) -> None:
    route.journal = Counting()
    delivery = await route.deliver(PUT_P1)
    await route.process(delivery)
    await route.mirror_all()
    again = await route.deliver(bundle(entry(patient(id="p1", active=True), method="PUT")))
    await route.process(again)
    await route.mirror_all()
    rows = [*await route.journal.list_row_results(delivery)]
    rows += await route.journal.list_row_results(again)
    assert [row.action for row in rows] == ["created", "updated"]
    assert (await route.known(again)).status is Status.DONE


async def test_a_parked_delivery_needs_attention_until_it_is_replayed(route: Route) -> None:
    delivery = await route.deliver(PUT_P1)
    route.fhir_double.down = 503
    route.max_age = 0
    await route.process(delivery)
    (concern,) = await list_concerns(route)
    assert (concern.kind, concern.delivery) == ("parked", delivery)
    assert "503" in concern.reason
    assert (await route.known(delivery)).parked == route.clock.now
    await deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now)
    assert await list_concerns(route) == []
    assert (await route.known(delivery)).parked is None


async def test_a_cancelled_delivery_needs_none(route: Route) -> None:
    delivery = await route.deliver(PUT_P1)
    await relaying.park(route.journal, WorkItem(delivery, lane=4), "the cause", route.clock.now)
    assert [concern.lane for concern in await list_concerns(route)] == [4]
    await deliveries.cancel(route.journal, delivery, route.clock.now)
    assert await list_concerns(route) == []


async def test_a_delivery_that_waits_for_an_operator_needs_attention_until_it_goes_on(
    route: Route,
) -> None:
    delivery = await route.deliver(PUT_P1)
    route.fhir_double.down = 401
    await route.process(delivery)
    first = route.clock.now
    (concern,) = await list_concerns(route)
    assert (concern.kind, concern.since) == ("waiting", first)
    known = await route.known(delivery)
    assert (known.waiting, known.attempts, known.for_operator) == (first, 1, True)
    assert known.next_attempt == first + timedelta(seconds=60)
    assert (concern.attempts, concern.next_attempt) == (1, known.next_attempt)
    assert known.reason == concern.reason
    route.clock.later(60)
    item = route.take()
    assert item is not None
    await relaying.process(route.relay, item)
    (concern,) = await list_concerns(route)
    assert concern.since == first, "it has been so since then"
    assert (await route.known(delivery)).attempts == 2
    route.fhir_double.down = None
    await route.process_all()
    assert await list_concerns(route) == []
    known = await route.known(delivery)
    assert (known.status, known.waiting, known.attempts) == (Status.DONE, None, 0)
    assert (known.reason, known.next_attempt, known.for_operator) == (None, None, False)


async def test_what_waits_for_a_service_says_so_and_needs_nobody(route: Route) -> None:
    delivery = await route.deliver(PUT_P1)
    route.fhir_double.down = 503
    await route.process(delivery)
    known = await route.known(delivery)
    assert (known.attempts, known.for_operator) == (1, False)
    assert known.next_attempt == route.clock.now + timedelta(seconds=2)
    assert await list_concerns(route) == []


async def test_lanes_that_fail_together_are_recorded_once(route: Route) -> None:
    route.limits = replace(route.limits, entries=1)
    people = [entry(patient(id=f"p{n}"), method="PUT") for n in range(4)]
    delivery = await route.deliver(bundle(*people, kind="batch"))
    await route.process(delivery)
    route.fhir_double.down = 503
    for item, _ in route.queued():
        route.queue_sender.sent.remove(("relay", item, 0))
        await relaying.process(route.relay, item)
    known = await route.known(delivery)
    assert (known.status, known.attempts) == (Status.PROCESSING, 1)
    changes = route.journal.changes
    for item, delay in route.queued():
        route.queue_sender.sent.remove(("relay", item, delay))
        await relaying.process(route.relay, replace(item, attempt=0))
    assert route.journal.changes == changes


async def test_a_reason_that_cannot_be_recorded_keeps_no_work_from_the_queue(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = await route.deliver(PUT_P1)
    route.fhir_double.down = 503

    class Closed(MemoryJournal):
        async def update_delivery(self, id_: str, *_: Any, **changes: Any) -> bool:
            if "waiting" in changes:
                raise Unavailable("storage", "answered 500")
            return await MemoryJournal.update_delivery(self, id_, *_, **changes)

    known = route.journal
    route.journal = Closed(deliveries=known.deliveries, payloads=known.payloads)
    await route.process(delivery)
    assert [item.attempt for item, _ in route.queued()] == [1]
    assert "not recorded: storage: answered 500" in str([vars(each) for each in caplog.records])


async def test_what_waits_for_an_operator_unrecorded_is_tried_again_soon(route: Route) -> None:
    delivery = await route.deliver(PUT_P1)
    route.fhir_double.down = 401

    class Closed(MemoryJournal):
        async def put_concern(self, concern: Concern) -> None:
            raise Unavailable("storage", "answered 500")

    known = route.journal
    route.journal = Closed(deliveries=known.deliveries, payloads=known.payloads)
    await route.process(delivery)
    ((item, delay),) = route.queued()
    assert (item.attempt, delay) == (1, 20), "nobody sees it before"
    assert await list_concerns(route) == []
    route.journal = MemoryJournal(deliveries=known.deliveries, payloads=known.payloads)
    await relaying.process(route.relay, item)
    assert await list_concern_kinds(route) == ["waiting"]


# --- rows --------------------------------------------------------------------------------------


class Scripted:
    """A row sink that answers in turn."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def bring_up_to_date(self, _: EntityMap, item: WorkItem) -> RowResult:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        made = RowResult(
            delivery=item.delivery,
            resource=item.resource or "",
            table="contact",
            row="00000000-0000-4000-8000-000000000001",
            action="updated",
        )
        return replace(made, **answer)


def scripted(route: Route, *answers: Any) -> Mirror:
    return replace(route.mirror, sink=Scripted(*answers))


REFUSED: Mapping[str, Any] = {"action": "refused", "row": None, "notes": ("answered 400 0x1",)}
WRITTEN: Mapping[str, Any] = {}
WAITS: Mapping[str, Any] = {"action": "created", "waits": ("Organization/o1",)}
PARTLY: Mapping[str, Any] = {"left_out": 1, "notes": ("answered 412, so a row was left out",)}
ABSENT: Mapping[str, Any] = {"action": "absent", "row": None}


async def drop_stale(route: Route) -> int:
    return await drop_stale_concerns(
        route.journal, route.row_keys, route.queue_sender, route.clock.now
    )


async def mirror_in_turn(route: Route, *answers: Any) -> list[list[str]]:
    """Mirror the same patient for one delivery after the other. Return what there is each time."""
    mirror, found = scripted(route, *answers), []
    for _ in answers:
        delivery = await route.deliver(patient(), sender="north")
        await mirror_resource(mirror, WorkItem(delivery, resource="Patient/p1"))
        found.append(await list_concern_kinds(route))
    return found


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (REFUSED, "row-refused"),
        (PARTLY, "row-refused"),
        (WAITS, "row-incomplete"),
        (Misconfigured("contact has no column x"), "row-waiting"),
    ],
)
@pytest.mark.parametrize("then", [WRITTEN, ABSENT])
async def test_a_later_deliverys_success_mends_the_row_of_an_earlier_one(
    route: Route, first: Any, kind: str, then: Any
) -> None:
    assert await mirror_in_turn(route, first, then) == [[kind], []]
    assert (await route.row_keys.read("Patient", "p1")).concern is None


async def test_a_row_that_fails_again_is_one_thing_since_the_first_time(route: Route) -> None:
    first = route.clock.now
    assert await mirror_in_turn(route, WAITS) == [["row-incomplete"]]
    route.clock.later(3600)
    assert await mirror_in_turn(route, REFUSED) == [["row-refused"]]
    (concern,) = await list_concerns(route)
    assert concern.since == first
    assert (concern.resource, concern.table) == ("Patient/p1", "contact")
    assert (concern.sender, concern.reason) == ("north", "answered 400 0x1")
    assert [await list_concerns(route, kind="row-refused")] == [
        await list_concerns(route, sender="north")
    ]


async def test_a_row_that_waits_says_how_often_it_was_tried_and_when_it_is_next(
    route: Route,
) -> None:
    wait = Misconfigured("contact has no column x")
    await mirror_in_turn(route, wait)
    (concern,) = await list_concerns(route)
    assert (concern.attempts, concern.next_attempt) == (1, route.clock() + timedelta(seconds=60))


async def test_a_parked_row_needs_attention_until_its_replay_has_written_it(route: Route) -> None:
    delivery = await route.deliver(PUT_P1)
    await route.process(delivery)
    await route.mirror_all()
    await mirroring.park(route.mirror, WorkItem(delivery, resource="Patient/p1"), "no answer")
    assert await list_concern_kinds(route) == ["row-parked"]
    await deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now)
    await route.mirror_all()
    assert await list_concern_kinds(route) == []


async def test_a_row_of_which_a_part_was_refused_can_be_replayed(route: Route) -> None:
    delivery = await route.deliver(PUT_P1)
    await route.process(delivery)
    item = WorkItem(delivery, resource="Patient/p1")
    await mirror_resource(scripted(route, PARTLY), item)
    route.queue_sender.sent.clear()
    await deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now)
    assert [queued for _, queued, _ in route.queue_sender.sent] == [item]


async def test_a_row_that_waits_for_an_operator_unrecorded_is_tried_again_soon(
    route: Route,
) -> None:
    class Closed(MemoryJournal):
        async def put_concern(self, concern: Concern) -> None:
            raise Unavailable("storage", "answered 500")

    mirror = replace(scripted(route, Misconfigured("no column x")), journal=Closed())
    await mirror_resource(mirror, WorkItem("d", resource="Patient/p1"))
    ((_, item, delay),) = route.queue_sender.sent
    assert (item.attempt, delay) == (1, 20)


async def test_a_row_that_waits_for_a_service_needs_nobody(route: Route) -> None:
    assert await mirror_in_turn(route, Unavailable("Dataverse", "answered 503")) == [[]]


async def test_a_lookup_that_waits_needs_attention_until_its_target_has_its_row(
    route: Route,
) -> None:
    manager = {"reference": "Organization/o1"}
    people = entry(patient(id="p1", managingOrganization=manager), method="PUT")
    route.maps = {**route.all_maps}
    delivery = await route.deliver(bundle(people, kind="batch"))
    await route.process_all(delivery)
    await mirror_resource(route.mirror, WorkItem(delivery, resource="Patient/p1"))
    (concern,) = await list_concerns(route)
    assert (concern.kind, concern.reason) == ("row-incomplete", "waits for Organization/o1")
    route.fhir_double.add({"resourceType": "Organization", "id": "o1", "name": "North"})
    await mirror_resource(route.mirror, WorkItem(delivery, resource="Organization/o1"))
    route.queue_sender.sent = [
        message for message in route.queue_sender.sent if message[1].resource == "Patient/p1"
    ][-1:]
    await route.mirror_all()
    assert await list_concerns(route) == []


# --- where a worker ends in between ------------------------------------------------------------


async def test_a_worker_that_ends_before_the_state_leaves_one_too_many_which_is_dropped(
    route: Route,
) -> None:
    delivery = await route.deliver(refusing(1))

    class Ending(MemoryJournal):
        async def update_delivery(self, id_: str, *_: Any, **changes: Any) -> bool:
            if changes.get("status") is Status.DONE:
                raise ConnectionError
            return await MemoryJournal.update_delivery(self, id_, *_, **changes)

    whole = route.journal
    route.journal = Ending(
        deliveries=whole.deliveries, payloads=whole.payloads, concerns=whole.concerns
    )
    with pytest.raises(ConnectionError):
        await route.process(delivery)
    whole.entry_results = route.journal.entry_results
    route.journal = whole
    assert await list_concern_kinds(route) == ["entries"]
    route.clock.later(1)
    await route.process(delivery)
    assert await list_concern_kinds(route) == ["entries", "entries"]
    await sweep(keeping(route, route.queue_sender))
    assert await list_concern_kinds(route) == ["entries", "entries"], "it may not be named yet"
    route.clock.later(600)
    await sweep(keeping(route, route.queue_sender))
    (concern,) = await list_concerns(route)
    assert concern.id == (await route.known(delivery)).attention


async def test_a_worker_that_ends_after_it_mended_something_leaves_it_to_housekeeping(
    route: Route,
) -> None:
    delivery = await route.deliver(PUT_P1)
    await relaying.park(route.journal, WorkItem(delivery), "the cause", route.clock.now)
    await mirroring.park(route.mirror, WorkItem(delivery, resource="Patient/p1"), "no answer")

    class Ending(MemoryJournal):
        async def delete_concern(self, id_: str) -> None:
            raise ConnectionError

    whole = route.journal
    route.journal = Ending(deliveries=whole.deliveries, payloads=whole.payloads)
    with pytest.raises(ConnectionError):
        await deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now)
    with pytest.raises(ConnectionError):
        await mirror_resource(scripted(route, WRITTEN), WorkItem(delivery, resource="Patient/p1"))
    route.journal = whole
    assert len(await list_concerns(route)) == 2
    route.clock.later(600)
    assert await drop_stale(route) == 2
    assert await list_concerns(route) == []


async def test_a_row_that_was_parked_lately_is_tried_once_more_and_then_left(route: Route) -> None:
    delivery = await route.deliver(PUT_P1)
    await mirroring.park(route.mirror, WorkItem(delivery, resource="Patient/p1"), "no answer")
    ages = []
    for minutes in range(0, 60, 5):
        before = len(route.queued(MIRROR_QUEUE))
        assert await drop_stale(route) == 0
        ages += [minutes] * (len(route.queued(MIRROR_QUEUE)) - before)
        route.clock.later(300)
    assert ages == [10, 15, 20]
    item, _ = route.queued(MIRROR_QUEUE)[-1]
    assert (item.resource, item.once) == ("Patient/p1", True)


async def test_a_row_that_another_work_item_had_mirrored_is_not_listed_after_it_is_tried(
    route: Route,
) -> None:
    delivery = await route.deliver(PUT_P1)
    item = WorkItem(delivery, resource="Patient/p1")
    await mirror_resource(scripted(route, WRITTEN), item)
    await mirroring.park(route.mirror, item, "no answer")
    route.clock.later(600)
    await drop_stale(route)
    tried, _ = route.queued(MIRROR_QUEUE)[-1]
    await mirror_resource(scripted(route, WRITTEN), tried)
    assert await list_concerns(route) == []


async def test_a_concern_of_another_state_than_its_deliverys_is_dropped(route: Route) -> None:
    delivery = await route.deliver(PUT_P1)
    concern = build_delivery_concern(
        ConcernKind.PARKED, delivery, "north", route.clock.now, reason="the cause"
    )
    await route.journal.put_concern(concern)
    await route.journal.update_delivery(delivery, status=Status.DONE, attention=concern.id)
    route.clock.later(600)
    assert await drop_stale(route) == 1
    assert (await route.known(delivery)).attention == ""


async def test_the_rows_of_a_deleted_delivery_are_no_longer_listed(route: Route) -> None:
    assert await mirror_in_turn(route, REFUSED) == [["row-refused"]]
    assert await drop_stale(route) == 0
    (concern,) = await list_concerns(route)
    await route.journal.delete_delivery(concern.delivery)
    route.clock.later(DAY)
    assert await drop_stale(route) == 1
    assert (await route.row_keys.read("Patient", "p1")).concern is None


async def test_what_two_workers_found_at_once_is_listed_once(route: Route) -> None:
    delivery = await route.deliver(PUT_P1)
    seen: Delivery = await route.known(delivery)
    for _ in range(2):
        await park_open(route.journal, seen, "the cause", route.clock.now)
    assert await list_concern_kinds(route) == ["parked"]
    page = await route.journal.list_concerns(ConcernFilter(), 9, None)
    assert page.concerns[0].id == (await route.known(delivery)).attention


async def test_what_ends_while_it_is_parked_needs_no_attention(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(observation())))
    relay: Relay = route.relay

    async def park() -> None:
        await relaying.park(route.journal, WorkItem(delivery), "too slow", route.clock.now)

    route.fhir_double.will_wait_for(park)
    await relaying.process(relay, WorkItem(delivery))
    assert (await route.known(delivery)).status is Status.DONE
    route.clock.later(600)
    await drop_stale(route)
    assert await list_concerns(route) == []


@pytest.mark.parametrize(
    ("params", "where"),
    [({"kind": "lost"}, "kind"), ({"_count": "0"}, "_count"), ({"after": "x"}, "after")],
)
async def test_wrong_parameters_are_refused(
    route: Route, params: dict[str, str], where: str
) -> None:
    with pytest.raises(Rejected) as caught:
        await attention.find_concerns(route.journal, params)
    assert caught.value.issues[0].expression == where
