"""A sender learns what became of its delivery, and may stop it; an operator sees the list."""

from __future__ import annotations

import pytest

from integration import mirror as mirroring
from integration import relay as relaying
from integration import tracking
from integration.errors import Rejected
from integration.model import Claim, Status
from tests.conftest import DAY, Route, bundle, entry, observation, patient

UNKNOWN = "019caaee-c260-7000-8000-0000000fffff"


async def told(work: object) -> Rejected:
    with pytest.raises(Rejected) as caught:
        await work
    return caught.value


async def test_a_story_has_the_delivery_its_outcomes_and_its_rows(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient(id="p1"), method="PUT", url="Patient/p1")))
    assert not (await tracking.follow(route.journal, delivery)).outcomes
    await route.carry(delivery)
    await mirroring.mirror(route.mirror, Claim(delivery, resource="Patient/p1"))
    story = await tracking.follow(route.journal, delivery)
    assert story.delivery.status is Status.DONE
    assert [each.location for each in story.outcomes] == ["Patient/p1/_history/1"]
    assert [row.resource for row in story.rows] == ["Patient/p1"]


@pytest.mark.parametrize("verb", [tracking.follow, tracking.cancel])
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
async def test_a_delivery_that_nobody_knows_is_not_found(
    route: Route, verb: object, id_: str
) -> None:
    assert (await told(verb(route.journal, id_))).status == 404  # type: ignore[operator]


async def test_a_delivery_can_be_cancelled_until_it_is_done(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(observation())))
    await tracking.cancel(route.journal, delivery)
    await tracking.cancel(route.journal, delivery)
    assert (await route.known(delivery)).status is Status.CANCELLED
    other = await route.deliver(bundle(entry(patient())))
    await route.carry(other)
    assert (await told(tracking.cancel(route.journal, other))).status == 409
    assert (await route.known(other)).status is Status.DONE


async def test_a_parked_delivery_can_be_cancelled(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(observation())))
    await route.journal.change(delivery, status=Status.PARKED, reason="too old")
    await tracking.cancel(route.journal, delivery)
    assert (await route.known(delivery)).status is Status.CANCELLED


async def test_the_list_is_walked_page_by_page_newest_first(route: Route) -> None:
    made = []
    for _ in range(5):
        made.append(await route.deliver(patient()))
        route.clock.later(DAY / 2)
    seen: list[str] = []
    after = None
    for _ in range(3):
        page = await tracking.browse(route.journal, None, "2", after)
        seen += [each.id for each in page.deliveries]
        after = page.after
    assert seen == made[::-1]
    assert after is None


async def test_the_list_can_be_narrowed_to_a_status(route: Route) -> None:
    first, second = [await route.deliver(patient()) for _ in range(2)]
    await route.carry(first)
    for status, found in (("done", [first]), ("accepted", [second]), ("parked", [])):
        page = await tracking.browse(route.journal, status, "50", None)
        assert [each.id for each in page.deliveries] == found


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        (("lost", "50", None), "status"),
        (("", "50", None), "status"),
        ((None, "0", None), "_count"),
        ((None, "501", None), "_count"),
        ((None, "-1", None), "_count"),
        ((None, "²", None), "_count"),
        ((None, "", None), "_count"),
        ((None, "50", "' or PartitionKey ge '"), "after"),
        ((None, "50", ""), "after"),
    ],
)
async def test_what_the_list_cannot_be_asked_is_refused(
    route: Route, asked: tuple[str | None, str, str | None], where: str
) -> None:
    error = await told(tracking.browse(route.journal, *asked))
    assert (error.status, error.issues[0].expression) == (400, where)


async def test_a_sender_who_asks_too_early_costs_one_look_at_the_journal(route: Route) -> None:
    delivery = await route.deliver(patient())

    class OneLook:
        delivery = route.journal.delivery

    story = await tracking.follow(OneLook(), delivery)  # type: ignore[arg-type]
    assert story.delivery.status is Status.ACCEPTED


async def test_a_parked_delivery_is_replayed_with_its_id_and_ids(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    await relaying.park(route.journal, Claim(delivery), "the FHIR server was away")

    await tracking.replay(route.journal, route.outbox, delivery)
    assert (await route.known(delivery)).status is Status.ACCEPTED
    assert route.outbox.sent[-1] == ("relay", Claim(delivery), 0)
    await route.carry(delivery)

    known = await route.known(delivery)
    assert (known.status, known.reason, known.written) == (Status.DONE, None, 1)


async def test_rows_that_were_given_up_on_are_replayed(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient(id="p1"), method="PUT", url="Patient/p1")))
    await route.carry(delivery)
    assert (await told(tracking.replay(route.journal, route.outbox, delivery))).status == 409
    await mirroring.park(route.mirror, Claim(delivery, resource="Patient/p1"), "no answer")

    await tracking.replay(route.journal, route.outbox, delivery)

    assert route.outbox.sent[-1] == ("mirror", Claim(delivery, resource="Patient/p1"), 0)


async def test_what_is_on_its_way_or_cancelled_is_not_replayed(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    assert (await told(tracking.replay(route.journal, route.outbox, delivery))).status == 409
    await tracking.cancel(route.journal, delivery)
    assert (await told(tracking.replay(route.journal, route.outbox, delivery))).status == 409
    assert (await told(tracking.replay(route.journal, route.outbox, UNKNOWN))).status == 404
