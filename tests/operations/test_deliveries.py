"""A sender sees what became of its delivery, and may cancel it; an operator sees the list."""

from __future__ import annotations

from datetime import timedelta

import pytest

from integration.core.errors import Rejected, Unavailable
from integration.core.model import Status, WorkItem
from integration.mirror import mirror as mirroring
from integration.operations import deliveries
from integration.operations.delivery_list import list_deliveries
from integration.relay import process as relaying
from tests.builders import bundle, entry, observation, patient
from tests.conftest import DAY, Route

UNKNOWN = "019caaee-c260-7000-8000-0000000fffff"


async def told(work: object) -> Rejected:
    with pytest.raises(Rejected) as caught:
        await work
    return caught.value


async def test_a_status_report_has_the_delivery_its_results_and_its_rows(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient(id="p1"), method="PUT", url="Patient/p1")))
    assert not (await deliveries.get_status(route.journal, delivery)).results
    await route.process(delivery)
    await mirroring.mirror_resource(route.mirror, WorkItem(delivery, resource="Patient/p1"))
    story = await deliveries.get_status(route.journal, delivery)
    assert story.delivery.status is Status.DONE
    assert [result.location for result in story.results] == ["Patient/p1/_history/1"]
    assert [row.resource for row in story.rows] == ["Patient/p1"]


@pytest.mark.parametrize(
    "id_",
    [
        UNKNOWN,
        "",
        "..",
        "no-id",
        UNKNOWN.upper(),
        f"{{{UNKNOWN}}}",
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
    ],
)
async def test_an_unknown_delivery_is_not_found(route: Route, id_: str) -> None:
    assert (await told(deliveries.get_status(route.journal, id_))).status == 404
    assert (await told(deliveries.cancel(route.journal, id_, route.clock.now))).status == 404


async def test_a_delivery_can_be_cancelled_until_it_is_done(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(observation())))
    await deliveries.cancel(route.journal, delivery, route.clock.now)
    await deliveries.cancel(route.journal, delivery, route.clock.now)
    assert (await route.known(delivery)).status is Status.CANCELLED
    other = await route.deliver(bundle(entry(patient())))
    await route.process(other)
    assert (await told(deliveries.cancel(route.journal, other, route.clock.now))).status == 409
    assert (await route.known(other)).status is Status.DONE


async def test_a_parked_delivery_can_be_cancelled(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(observation())))
    await route.journal.update_delivery(delivery, status=Status.PARKED, reason="too old")
    await deliveries.cancel(route.journal, delivery, route.clock.now)
    assert (await route.known(delivery)).status is Status.CANCELLED


async def test_the_list_is_read_page_by_page_newest_first(route: Route) -> None:
    made = []
    for _ in range(5):
        made.append(await route.deliver(patient()))
        route.clock.later(DAY / 2)
    seen: list[str] = []
    after = None
    for _ in range(3):
        page = await list_deliveries(
            route.journal, {"_count": "2"} | ({"after": after} if after else {})
        )
        seen += [delivery.id for delivery in page.deliveries]
        after = page.after
    assert seen == made[::-1]
    assert after is None


async def test_the_list_can_be_narrowed_to_a_status(route: Route) -> None:
    first, second = [await route.deliver(patient()) for _ in range(2)]
    await route.process(first)
    for status, found in (("done", [first]), ("accepted", [second]), ("parked", [])):
        page = await list_deliveries(route.journal, {"status": status})
        assert [delivery.id for delivery in page.deliveries] == found


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        *(({"status": text}, "status") for text in ("lost", "")),
        *(({"_count": text}, "_count") for text in ("0", "501", "-1", "²", "")),
        *(({"after": text}, "after") for text in ("' or PartitionKey ge '", "")),
        ({"attention": "some"}, "attention"),
        ({"attention": "any", "after": "x"}, "after"),
        ({"since": "soon"}, "since"),
        ({"until": "2026"}, "until"),
        ({"sort": "up"}, "sort"),
        *(({"sort": "oldest", **more}, "sort") for more in ({}, {"status": "done"})),
        ({"sort": "oldest", "status": "parked", "attention": "any"}, "sort"),
        *(
            ({"resource": "Patient/p1", **more}, "resource")
            for more in ({}, {"attention": "entries"})
        ),
    ],
)
async def test_wrong_query_parameters_of_the_list_are_refused(
    route: Route, asked: dict[str, str], where: str
) -> None:
    error = await told(list_deliveries(route.journal, asked))
    assert (error.status, error.issues[0].expression) == (400, where)


async def test_the_list_can_be_narrowed_by_what_is_known_of_a_delivery(route: Route) -> None:
    first = await route.deliver(patient(), sender="north")
    route.clock.later(DAY)
    second = await route.deliver(bundle(entry(patient()), kind="batch"), sender="south")
    now = route.clock.now
    await relaying.park(route.journal, WorkItem(second), "FHIR server: answered 503", now)
    for asked, found in (
        ({"sender": "north"}, [first]),
        ({"kind": "batch"}, [second]),
        ({"reason": "answered 503"}, [second]),
        ({"since": now.isoformat()}, [second]),
        ({"until": (now - timedelta(hours=1)).isoformat()}, [first]),
        ({"status": "parked", "sender": "north"}, []),
        ({"attention": "delivery"}, [second]),
        ({"attention": "any", "reason": "503"}, [second]),
        ({"attention": "any", "reason": "504"}, []),
        ({"attention": "any", "kind": "resource"}, []),
        ({"attention": "entries"}, []),
    ):
        page = await list_deliveries(route.journal, asked)
        assert ([delivery.id for delivery in page.deliveries], page.after) == (found, None), asked


async def test_open_deliveries_are_listed_from_either_end(route: Route) -> None:
    made = [await route.deliver(patient()) for _ in range(5)]
    seen, after = list[str](), None
    for _ in range(3):
        asked = {"status": "accepted", "sort": "oldest", "_count": "2"}
        page = await list_deliveries(route.journal, asked | ({"after": after} if after else {}))
        seen += [delivery.id for delivery in page.deliveries]
        after = page.after
    assert (seen, after) == (made, None)


async def test_deliveries_with_rows_that_need_attention_are_listed_once_a_page(
    route: Route,
) -> None:
    made = []
    for number in range(3):
        made.append(await route.deliver(patient(), sender=f"s{number}"))
        for row in ("a", "b"):
            route.clock.later(1)
            item = WorkItem(made[-1], resource=f"Patient/{number}{row}")
            await mirroring.park(route.mirror, item, "no answer")
    seen, after, pages = list[str](), None, 0
    while pages == 0 or after is not None:
        asked = {"attention": "rows", "_count": "2"} | ({"after": after} if after else {})
        page = await list_deliveries(route.journal, asked)
        seen += [delivery.id for delivery in page.deliveries]
        after, pages = page.after, pages + 1
    assert list(dict.fromkeys(seen)) == made[::-1]
    assert pages == 2
    for asked, found in (
        ({"attention": "rows", "resource": "Patient/1a"}, made[1:2]),
        ({"attention": "any", "resource": "Patient/9"}, []),
        ({"attention": "any", "sender": "s2"}, made[2:]),
    ):
        page = await list_deliveries(route.journal, asked)
        assert [delivery.id for delivery in page.deliveries] == found


async def test_a_sender_who_polls_costs_one_read_of_the_journal(route: Route) -> None:
    delivery = await route.deliver(patient())

    class OneLook:
        get_delivery = route.journal.get_delivery

    story = await deliveries.get_status(OneLook(), delivery)  # type: ignore[arg-type]
    assert story.delivery.status is Status.ACCEPTED


async def test_a_replayed_delivery_keeps_its_ids(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    await relaying.park(
        route.journal, WorkItem(delivery), "the FHIR server was away", route.clock.now
    )

    await deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now)
    assert (await route.known(delivery)).status is Status.ACCEPTED
    assert route.queue_sender.sent[-1] == ("relay", WorkItem(delivery), 0)
    await route.process(delivery)

    known = await route.known(delivery)
    assert (known.status, known.reason, known.written) == (Status.DONE, None, 1)


async def test_parked_rows_are_replayed(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient(id="p1"), method="PUT", url="Patient/p1")))
    await route.process(delivery)
    await route.mirror_all()
    assert (
        await told(deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now))
    ).status == 409
    await mirroring.park(route.mirror, WorkItem(delivery, resource="Patient/p1"), "no answer")

    await deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now)

    assert route.queue_sender.sent[-1] == ("mirror", WorkItem(delivery, resource="Patient/p1"), 0)


async def test_rows_whose_work_items_were_lost_are_replayed(route: Route) -> None:
    """A queue that somebody has emptied leaves no other trace: the delivery is done."""
    people = [entry(patient(id=id_), method="PUT", url=f"Patient/{id_}") for id_ in ("p1", "p2")]
    delivery = await route.deliver(bundle(*people))
    await route.process(delivery)
    await route.mirror_all()
    route.fhir_double.add(patient(id="p1"))
    again = await route.deliver(bundle(people[0]))
    await route.process(again)
    route.queue_sender.sent.clear()
    assert (await route.known(again)).queued_rows == 1
    await deliveries.replay(route.journal, route.queue_sender, again, route.clock.now)
    assert route.queue_sender.sent == [("mirror", WorkItem(again, resource="Patient/p1"), 0)]
    await route.mirror_all()
    refused = deliveries.replay(route.journal, route.queue_sender, again, route.clock.now)
    assert (await told(refused)).status == 409


async def test_an_active_or_cancelled_delivery_is_not_replayed(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    assert (
        await told(deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now))
    ).status == 409
    await deliveries.cancel(route.journal, delivery, route.clock.now)
    assert (
        await told(deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now))
    ).status == 409
    assert (
        await told(deliveries.replay(route.journal, route.queue_sender, UNKNOWN, route.clock.now))
    ).status == 404


async def test_a_delivery_that_waits_is_tried_at_once_and_waits_on_if_that_fails(
    route: Route,
) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    route.fhir_double.down = 401
    await route.process(delivery)
    waiting = [item for _, item, _ in route.queue_sender.sent]

    await deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now)
    hastened = [item for _, item, delay in route.queue_sender.sent if item.once and not delay]
    assert [item.delivery for item in hastened] == [delivery]
    await relaying.process(route.relay, hastened[0])
    left = [item for _, item, _ in route.queue_sender.sent if not item.once]
    assert left == waiting, "the one chain of retries is as it was"

    route.fhir_double.down = None
    await relaying.process(route.relay, hastened[0])
    assert (await route.known(delivery)).status is Status.DONE
    await relaying.process(route.relay, waiting[0])
    assert (await route.known(delivery)).written == 1


class Broken:
    """A queue that does not answer."""

    async def send(self, *_: object) -> None:
        raise Unavailable("storage", "ServiceRequestError")


async def test_a_replay_that_breaks_off_can_be_repeated(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    route.fhir_double.down = 500
    await route.process(delivery)  # begun, so that housekeeping would leave it to its worker
    route.fhir_double.down = None
    item = route.take()
    assert item is not None
    await relaying.park(route.journal, item, "the FHIR server was away", route.clock.now)
    with pytest.raises(Unavailable):
        await deliveries.replay(route.journal, Broken(), delivery, route.clock.now)

    await deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now)
    assert (
        await told(deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now))
    ).status == 409
    await route.process_all()
    assert (await route.known(delivery)).status is Status.DONE


# --- many at once ------------------------------------------------------------------------------


async def parked(route: Route, number: int, reason: str = "FHIR server: answered 503") -> list[str]:
    """Make parked deliveries, half a day between them, the oldest first."""
    made = []
    for _ in range(number):
        made.append(await route.deliver(patient(multipleBirthInteger=len(route.journal.payloads))))
        await relaying.park(route.journal, WorkItem(made[-1]), reason, route.clock.now)
        route.clock.later(DAY / 2)
    return made


async def replayed(route: Route, *, dry: bool = False, **params: str) -> tuple[list[str], object]:
    named = {name.replace("_run", "-run"): value for name, value in params.items()}
    result = await deliveries.replay_all(
        route.journal,
        route.queue_sender,
        deliveries.parse_replay_filter(named),
        route.clock.now,
        dry_run=dry,
    )
    return [delivery.id for delivery in result.deliveries], result.after


async def test_parked_deliveries_are_replayed_the_oldest_first(route: Route) -> None:
    made = await parked(route, 3)
    waiting = await route.deliver(patient(active=True))
    assert await replayed(route) == (made, None)
    assert route.queued() == [(WorkItem(id_), 0) for id_ in made]
    for id_ in made:
        known = await route.known(id_)
        assert (known.status, known.reason, known.replayed) == (
            Status.ACCEPTED,
            None,
            route.clock.now,
        )
    assert (await route.known(waiting)).replayed is None
    assert await replayed(route) == ([], None)


async def test_a_replay_continues_where_the_last_one_ended(route: Route) -> None:
    made = await parked(route, 5)
    first, after = await replayed(route, _count="2")
    assert (first, after) == (made[:2], made[1])
    again = await parked(route, 1)
    await relaying.park(
        route.journal, WorkItem(made[0]), "FHIR server: answered 503", route.clock.now
    )
    second, after = await replayed(route, _count="3", after=str(after))
    assert (second, after) == (made[2:], made[4])
    assert await replayed(route, after=str(after)) == (again, None)


async def test_a_replay_can_be_narrowed(route: Route) -> None:
    made = await parked(route, 4)
    other = await route.deliver(patient(active=True), sender="north")
    await relaying.park(
        route.journal, WorkItem(other), "FHIR server: answered 401", route.clock.now
    )
    moments = [(await route.known(id_)).accepted for id_ in made]
    for params, found in (
        ({"reason": "503"}, made),
        ({"reason": "answered 401"}, [other]),
        ({"reason": "gone"}, []),
        ({"sender": "north"}, [other]),
        ({"since": moments[2].isoformat()}, [*made[2:], other]),
        ({"until": moments[1].isoformat()}, made[:2]),
        ({"since": moments[1].isoformat(), "until": moments[2].isoformat()}, made[1:3]),
        ({"since": "2026-03-03"}, [*made[3:], other]),
        ({"status": "parked", "_count": "1"}, made[:1]),
    ):
        assert (await replayed(route, dry=True, **params))[0] == found, params


async def test_a_dry_run_only_lists_what_would_be_replayed(route: Route) -> None:
    made = await parked(route, 2)
    assert await replayed(route, dry=True, dry_run="true") == (made, None)
    assert route.queued() == []
    assert (await route.known(made[0])).status is Status.PARKED


async def test_a_delivery_that_is_cancelled_meanwhile_is_not_replayed(route: Route) -> None:
    made = await parked(route, 2)
    update_delivery = route.journal.update_delivery

    class Cancelling:
        get_delivery = route.journal.get_delivery
        scan_deliveries = route.journal.scan_deliveries
        index_delivery = route.journal.index_delivery
        delete_concern = route.journal.delete_concern

        async def update_delivery(self, id_: str, **changes: object) -> bool:
            if id_ == made[0]:
                await deliveries.cancel(route.journal, id_, route.clock.now)
            done: bool = await update_delivery(id_, **changes)
            return done

    result = await deliveries.replay_all(
        Cancelling(),  # type: ignore[arg-type]
        route.queue_sender,
        deliveries.ReplayFilter(),
        route.clock.now,
        dry_run=False,
    )
    assert [delivery.id for delivery in result.deliveries] == made[1:]
    assert (await route.known(made[0])).status is Status.CANCELLED
    assert route.queued() == [(WorkItem(made[1]), 0)]


async def test_a_replay_of_many_that_breaks_off_is_continued_by_the_next(route: Route) -> None:
    made = await parked(route, 3)
    queue_sender = route.queue_sender

    class Full:
        async def send(self, queue: str, item: WorkItem, delay: float = 0) -> None:
            if item.delivery == made[1]:
                raise Unavailable("storage", "ServiceRequestError")
            await queue_sender.send(queue, item, delay)

    route.queue_sender = Full()
    with pytest.raises(Unavailable):
        await replayed(route)
    route.queue_sender = queue_sender
    assert await replayed(route) == (made[1:], None)
    assert route.queued() == [(WorkItem(id_), 0) for id_ in made]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "done"),
        ("since", "yesterday"),
        ("since", "2026-03-02T07:30:00"),
        ("until", "1969-12-31"),
        ("until", "9998-12-31"),
        ("_count", "501"),
        ("after", "x"),
    ],
)
async def test_wrong_query_parameters_of_a_replay_are_refused(name: str, value: str) -> None:
    with pytest.raises(Rejected) as caught:
        deliveries.parse_replay_filter({name: value})
    assert (caught.value.status, caught.value.issues[0].expression) == (400, name)


# --- cancelling --------------------------------------------------------------------------------


async def test_a_delivery_that_ends_meanwhile_is_not_cancelled(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    update_delivery = route.journal.update_delivery

    class Ending:
        get_delivery = route.journal.get_delivery

        async def update_delivery(self, id_: str, **changes: object) -> bool:
            await route.process(id_)
            done: bool = await update_delivery(id_, **changes)
            return done

    error = await told(deliveries.cancel(Ending(), delivery, route.clock.now))  # type: ignore[arg-type]
    assert error.status == 409
    assert (await route.known(delivery)).status is Status.DONE


async def test_a_cancelled_delivery_has_an_end(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    await deliveries.cancel(route.journal, delivery, route.clock.now)
    assert (await route.known(delivery)).finished == route.clock.now
