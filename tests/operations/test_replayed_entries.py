"""Refused entries are sent again once their cause is mended, and never over something newer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from integration.app.identification import build_judge
from integration.core.errors import Rejected, Unavailable
from integration.core.model import EntryResult, Rights, Status, WorkItem
from integration.journal.store import keep_first_by_position, list_settled
from integration.operations import deliveries
from integration.operations.deliveries import ReplayFilter, ReplayTerms, parse_replay_filter
from integration.operations.housekeeping import sweep
from integration.relay import process as relaying
from integration.senders.model import ProvenSender, Sender, SenderPolicy
from tests.builders import batch, entry, observation, patient, put_observation, put_patient
from tests.conftest import DAY, Route
from tests.ending import end_worker
from tests.operations.housekeeping_parts import keeping
from tests.refusals import deliver_refused, list_concern_kinds


async def replay(route: Route, delivery: str, terms: ReplayTerms | None = None) -> None:
    now = route.clock.now
    await deliveries.replay(
        route.journal, route.queue_sender, delivery, now, terms or ReplayTerms()
    )


# --- what is sent, and what it becomes ---------------------------------------------------------


async def test_only_what_was_refused_is_sent_again_and_its_result_replaces_the_other(
    route: Route,
) -> None:
    delivery = await deliver_refused(
        route, put_patient("p1"), put_observation("o1"), put_patient("p2"), put_observation("o2")
    )
    assert await route.statuses(delivery) == [201, 422, 201, 422]
    before = await route.outcomes(delivery)
    assert await list_concern_kinds(route) == ["entries"]
    route.fhir_double.received.clear()

    await replay(route, delivery)
    known = await route.known(delivery)
    assert (known.status, known.round, known.finished) == (Status.ACCEPTED, 1, None)
    assert await list_concern_kinds(route) == []
    await route.process_all()

    (sent,) = route.fhir_double.writes
    assert [url for _, url in sent.asked] == ["Observation/o1", "Observation/o2"]
    assert await route.statuses(delivery) == [201, 201, 201, 201]
    after = await route.outcomes(delivery)
    assert [after[n] for n in (0, 2)] == [before[n] for n in (0, 2)]
    known = await route.known(delivery)
    assert (known.status, known.written, known.refused) == (Status.DONE, 4, 0)
    assert await list_concern_kinds(route) == []


async def test_what_is_refused_again_needs_attention_again_with_its_new_reason(
    route: Route,
) -> None:
    delivery = await deliver_refused(route, put_patient("p1"), put_observation("o1"))
    route.fhir_double.refuses = {"Observation"}
    for number in (1, 2):
        route.clock.later(60)
        await replay(route, delivery)
        await route.process_all()
        known = await route.known(delivery)
        assert (known.status, known.refused, known.round) == (Status.DONE, 1, number)
        assert await list_concern_kinds(route) == ["entries"]
    route.fhir_double.refuses = set()
    await replay(route, delivery)
    await route.process_all()
    assert await route.statuses(delivery) == [201, 201]


async def test_a_refused_transaction_is_sent_again_as_one(route: Route) -> None:
    url = "urn:uuid:00000000-0000-4000-8000-000000000001"
    body = (entry(patient(), url), entry(observation(url)))
    delivery = await deliver_refused(route, *body, kind="transaction")
    assert (await route.known(delivery)).refused == 2
    await replay(route, delivery)
    await route.process_all()
    assert await route.statuses(delivery) == [201, 201]
    (person,), (seen,) = route.fhir_double.of("Patient"), route.fhir_double.of("Observation")
    assert seen["subject"]["reference"] == f"Patient/{person['id']}"


async def test_what_is_sent_again_refers_to_what_was_written_before(route: Route) -> None:
    url = "urn:uuid:00000000-0000-4000-8000-000000000001"
    maybe = {"ifNoneExist": "identifier=urn:mrn|7"}
    delivery = await deliver_refused(
        route, entry(patient(), url, **maybe), entry(observation(url), method="POST")
    )
    assert await route.statuses(delivery) == [201, 422]
    await replay(route, delivery)
    await route.process_all()
    assert await route.statuses(delivery) == [201, 201]
    (person,), (seen,) = route.fhir_double.of("Patient"), route.fhir_double.of("Observation")
    assert seen["subject"]["reference"] == f"Patient/{person['id']}"


async def test_entries_in_many_lanes_are_sent_again(route: Route) -> None:
    route.limits = replace(route.limits, entries=1)
    delivery = await deliver_refused(
        route, *[put_patient(f"p{n}") for n in range(3)], put_observation("o1")
    )
    assert (await route.known(delivery)).lanes == 4
    await replay(route, delivery)
    await route.process_all()
    known = await route.known(delivery)
    assert (known.status, known.written, known.refused) == (Status.DONE, 4, 0)
    assert route.fhir_double.writes_of_each["Patient/p1"] == 1


async def test_rows_of_what_is_sent_again_are_mirrored(route: Route) -> None:
    route.fhir_double.refuses = {"Patient"}
    delivery = await route.deliver(batch(put_patient("p1"), put_observation("o1")))
    await route.process_all(delivery)
    route.fhir_double.refuses = set()
    assert (await route.known(delivery)).queued_rows == 0
    await replay(route, delivery)
    await route.process_all()
    await route.mirror_all()
    assert (await route.known(delivery)).queued_rows == 1
    assert [row.action for row in await route.journal.list_row_results(delivery)] == ["created"]


# --- never over something newer ----------------------------------------------------------------


async def test_a_replay_does_not_overwrite_a_later_delivery(route: Route) -> None:
    delivery = await deliver_refused(
        route, put_patient("p1"), put_observation("o1", status="preliminary")
    )
    later = await route.deliver(batch(put_observation("o1", status="final")))
    await route.process_all(later)
    await replay(route, delivery)
    await route.process_all()
    (seen,) = route.fhir_double.of("Observation")
    assert seen["status"] == "final"
    known = await route.known(delivery)
    assert (known.status, known.superseded, known.refused) == (Status.DONE, 1, 0)
    assert await list_concern_kinds(route) == []


async def test_a_replay_does_not_overwrite_what_somebody_else_changed_since(
    route: Route,
) -> None:
    route.fhir_double.add({**observation(id="o1"), "status": "registered"})
    delivery = await deliver_refused(
        route, put_patient("p1"), put_observation("o1", status="preliminary")
    )
    route.fhir_double.add({**observation(id="o1"), "status": "amended"})
    await replay(route, delivery)
    await route.process_all()
    (seen,) = route.fhir_double.of("Observation")
    assert seen["status"] == "amended"
    assert (await route.known(delivery)).superseded == 1


async def test_a_delivery_older_than_its_locks_is_not_sent_again(route: Route) -> None:
    delivery = await deliver_refused(route, put_patient("p1"), put_observation("o1"))
    await route.mirror_all()
    route.clock.later(30 * DAY)
    terms = ReplayTerms(retention=timedelta(days=30))
    with pytest.raises(Rejected) as caught:
        await replay(route, delivery, terms)
    assert caught.value.status == 409
    assert "RETENTION_DAYS" in str(caught.value)
    assert (await route.known(delivery)).status is Status.DONE


# --- where a worker ends in between ------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "when"),
    [
        ("get_request", None),
        ("index_delivery", None),
        ("update_delivery", None),
        ("delete_concern", None),
        ("update_delivery", lambda options: options.get("unqueued") is False),
    ],
)
async def test_a_replay_that_breaks_off_can_be_repeated(route: Route, at: str, when: Any) -> None:
    delivery = await deliver_refused(route, put_patient("p1"), put_observation("o1"))
    end_worker(route, at, when)
    with pytest.raises(ConnectionError):
        await replay(route, delivery)
    await replay(route, delivery)
    await route.process_all()
    known = await route.known(delivery)
    assert (known.status, known.written, known.refused) == (Status.DONE, 2, 0)
    assert known.round == 1
    assert route.fhir_double.writes_of_each == {"Patient/p1": 1, "Observation/o1": 1}


@pytest.mark.parametrize(
    ("at", "when"),
    [
        ("begin_plan", None),
        ("begin_lane", None),
        ("record_bases", None),
        ("add_entry_results", None),
        ("update_delivery", lambda options: options.get("status") is Status.DONE),
    ],
)
@pytest.mark.parametrize("entries", [500, 1])
async def test_a_round_that_breaks_off_is_taken_up_and_writes_once(
    route: Route, at: str, when: Any, entries: int
) -> None:
    route.limits = replace(route.limits, entries=entries)
    delivery = await deliver_refused(
        route, put_patient("p1"), put_observation("o1"), put_patient("p2")
    )
    await replay(route, delivery)
    end_worker(route, at, when)
    for _ in range(20):
        item = route.take()
        if item is None:
            break
        try:
            await relaying.process(route.relay, item)
        except ConnectionError:
            route.queue_sender.sent.append(("relay", item, 0))
    known = await route.known(delivery)
    assert (known.status, known.written, known.refused) == (Status.DONE, 3, 0)
    # 200 for what was written by a worker that ended before it recorded that.
    assert (await route.statuses(delivery))[1] in (200, 201)
    assert route.fhir_double.writes_of_each == {
        "Patient/p1": 1,
        "Patient/p2": 1,
        "Observation/o1": 1,
    }


async def test_a_replay_that_the_queue_did_not_take_is_queued_by_housekeeping(
    route: Route,
) -> None:
    class Full:
        async def send(self, *_: object) -> None:
            raise Unavailable("queue", "answered 503")

    delivery = await deliver_refused(route, put_patient("p1"), put_observation("o1"))
    await route.mirror_all()
    with pytest.raises(Unavailable):
        await deliveries.replay(route.journal, Full(), delivery, route.clock.now)
    route.clock.later(601)
    await sweep(keeping(route, route.queue_sender))
    await route.process_all()
    assert (await route.known(delivery)).written == 2


async def test_a_lost_answer_in_a_later_round_writes_nothing_twice(route: Route) -> None:
    delivery = await deliver_refused(route, put_patient("p1"), put_observation("o1"))
    await replay(route, delivery)
    route.fhir_double.will_lose_the_reply()
    await route.process_all()
    assert route.fhir_double.writes_of_each["Observation/o1"] == 1
    assert (await route.known(delivery)).refused == 0


async def test_a_round_that_is_parked_is_replayed(route: Route) -> None:
    delivery = await deliver_refused(route, put_patient("p1"), put_observation("o1"))
    await replay(route, delivery)
    await relaying.park(route.journal, WorkItem(delivery), "too slow", route.clock.now)
    await replay(route, delivery)
    await route.process_all()
    known = await route.known(delivery)
    assert (known.status, known.written, known.refused) == (Status.DONE, 2, 0)


async def test_two_replays_at_once_are_one_round(route: Route) -> None:
    delivery = await deliver_refused(route, put_patient("p1"), put_observation("o1"))
    await replay(route, delivery)
    with pytest.raises(Rejected):
        await replay(route, delivery)
    await route.process_all()
    assert (await route.known(delivery)).round == 1


def test_the_last_round_counts_and_in_it_the_first_result() -> None:
    results = [
        EntryResult(0, 201),
        EntryResult(1, 422),
        EntryResult(1, 500, round=1),
        EntryResult(1, 201, round=1),
        EntryResult(1, 201),
        EntryResult(0, 422),
    ]
    found = keep_first_by_position(results)
    assert [(each.position, each.status) for each in found] == [(0, 201), (1, 500)]
    assert [each.position for each in list_settled(found, 1)] == [0, 1]
    assert [each.position for each in list_settled(found, 2)] == [0]
    superseded = EntryResult(2, 409, superseded=True)
    assert list_settled([superseded], 5) == [superseded]


# --- rights and policy of now ------------------------------------------------------------------


def north(**changes: Any) -> Sender:
    return Sender(name="north", **changes)


def terms(route: Route, sender: Sender) -> ReplayTerms:
    return ReplayTerms(judge=build_judge(route.intake, {sender.name: sender}))


async def test_what_was_forbidden_is_sent_once_its_sender_may_send_it(route: Route) -> None:
    narrow = ProvenSender(sender=north(rights=Rights(types=("Patient",))))
    delivery = await route.deliver(batch(put_patient("p1"), put_observation("o1")), sender=narrow)
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [201, 403]
    await replay(route, delivery)
    await route.process_all()
    assert await route.statuses(delivery) == [201, 403], "it still may not"
    await replay(route, delivery, terms(route, north()))
    await route.process_all()
    assert await route.statuses(delivery) == [201, 201]


async def test_what_was_held_is_judged_with_the_rights_of_now(route: Route) -> None:
    policy = SenderPolicy(refused_deliveries="hold")
    narrow = north(rights=Rights(types=("Patient",)), policy=policy)
    accepted = await route.ask(observation(id="o1"), sender=ProvenSender(sender=narrow))
    assert await list_concern_kinds(route) == ["held"]
    await replay(route, accepted.delivery, terms(route, narrow))
    await route.process_all()
    assert (await route.known(accepted.delivery)).status is not Status.ACCEPTED
    assert route.fhir_double.of("Observation") == []
    await replay(route, accepted.delivery, terms(route, north(policy=policy)))
    await route.process_all()
    known = await route.known(accepted.delivery)
    assert (known.status, known.kind, known.written) == (Status.DONE, "resource", 1)
    assert await list_concern_kinds(route) == []


async def test_a_delivery_that_ended_held_is_sent_again(route: Route) -> None:
    holding = ProvenSender(sender=north(policy=SenderPolicy(refused_entries="hold")))
    route.fhir_double.refuses = {"Observation"}
    delivery = await route.deliver(batch(put_patient("p1"), put_observation("o1")), sender=holding)
    await route.process_all(delivery)
    assert (await route.known(delivery)).status is Status.PARKED
    assert await list_concern_kinds(route) == ["held"]
    route.fhir_double.refuses = set()
    await replay(route, delivery)
    await route.process_all()
    assert await route.statuses(delivery) == [201, 201]
    assert (await route.known(delivery)).status is Status.DONE
    assert await list_concern_kinds(route) == []


def test_a_sender_that_is_no_longer_listed_is_judged_as_before(route: Route) -> None:
    judge = build_judge(route.intake, {})
    request = object()
    delivery: Any = type("Delivery", (), {"sender": "gone", "kind": "held"})()
    assert judge(delivery, request) is request  # type: ignore[arg-type, comparison-overlap]


# --- many at once ------------------------------------------------------------------------------


async def test_all_refused_entries_are_replayed_page_by_page(route: Route) -> None:
    made = [
        await deliver_refused(route, put_patient(f"p{n}"), put_observation(f"o{n}"))
        for n in range(3)
    ]
    found, after = list[str](), None
    for _ in range(2):
        asked = parse_replay_filter(
            {"attention": "entries", "_count": "2"} | ({"after": after} if after else {})
        )
        dry = await deliveries.replay_all(
            route.journal, route.queue_sender, asked, route.clock.now, dry_run=True
        )
        page = await deliveries.replay_all(
            route.journal, route.queue_sender, asked, route.clock.now, dry_run=False
        )
        assert [each.id for each in dry.deliveries] == [each.id for each in page.deliveries]
        found += [each.id for each in page.deliveries]
        after = page.after
    assert (sorted(found), after) == (made, None)
    await route.process_all()
    assert await list_concern_kinds(route) == []


async def test_all_rows_that_need_attention_are_replayed(route: Route) -> None:
    delivery = await route.deliver(batch(put_patient("p1")))
    await route.process_all(delivery)
    route.dataverse_double.will_fail(kind="status", status=400, code="0x80048408", method="PATCH")
    await route.mirror_all()
    assert await list_concern_kinds(route) == ["row-refused"]
    asked = ReplayFilter(group=parse_replay_filter({"attention": "rows"}).group, reason="400")
    page = await deliveries.replay_all(
        route.journal, route.queue_sender, asked, route.clock.now, dry_run=False
    )
    assert [each.id for each in page.deliveries] == [delivery]
    await route.mirror_all()
    assert await list_concern_kinds(route) == []


@pytest.mark.parametrize(
    "params",
    [{"attention": "delivery"}, {"attention": "any"}, {"attention": "rows", "status": "parked"}],
)
def test_what_cannot_be_replayed_together_is_refused(params: dict[str, str]) -> None:
    with pytest.raises(Rejected) as caught:
        parse_replay_filter(params)
    assert caught.value.issues[0].expression == "attention"
