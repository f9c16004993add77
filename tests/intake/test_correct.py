"""An operator corrects the bytes of a delivery, and they take its place, never that of a newer one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from integration.app.identification import build_judge
from integration.core.errors import Rejected, Unavailable
from integration.core.model import Delivery, Rights, Status, WorkItem
from integration.intake.correct import Correction, Judge, correct_delivery, read_original
from integration.journal.jobs import JobKind, JobState, MemoryJobs
from integration.journal.store import MemoryJournal
from integration.journal.table_keys import build_next_id
from integration.operations import deliveries, views
from integration.operations.housekeeping import sweep
from integration.operations.job_request import JobRequest, build_job_filter
from integration.operations.jobs import JobParts, do_slice, start_job
from integration.relay import process as relaying
from integration.senders.model import ProvenSender, Sender, SenderPolicy
from tests.builders import (
    Body,
    batch,
    bundle,
    entry,
    observation,
    patient,
    put_observation,
    put_patient,
)
from tests.conftest import DAY, FHIR_JSON, Route
from tests.ending import end_worker
from tests.operations.housekeeping_parts import keeping
from tests.refusals import deliver_refused, list_concerns

URL = "urn:uuid:00000000-0000-4000-8000-000000000001"
SEEN = "urn:uuid:00000000-0000-4000-8000-000000000002"


async def refused(route: Route, *entries: Body, types: set[str], kind: str = "batch") -> str:
    """Return such a delivery, a minute later."""
    delivery = await deliver_refused(route, *entries, types=types, kind=kind)
    route.clock.later(60)
    return delivery


async def correct(
    route: Route,
    delivery: str,
    body: Any,
    *,
    judge: Judge = None,
    retention: timedelta = timedelta.max,
    kind: str = FHIR_JSON,
) -> str:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = Correction(corrected=delivery, headers={"content-type": kind}, body=content)
    made = await correct_delivery(route.intake, sent, judge=judge, retention=retention)
    return made.delivery


async def refuse(route: Route, delivery: str, body: Any, **options: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        await correct(route, delivery, body, **options)
    return caught.value


async def concerns(route: Route) -> list[tuple[str, str]]:
    return [(str(concern.kind), concern.delivery) for concern in await list_concerns(route)]


def born(route: Route) -> dict[str, str]:
    return {each["id"]: each.get("birthDate", "") for each in route.fhir_double.of("Patient")}


# --- what is sent, and what it becomes ---------------------------------------------------------


async def test_what_is_corrected_is_written_with_the_id_that_was_planned(route: Route) -> None:
    first = (entry(patient(), URL), entry(observation(URL), SEEN))
    delivery = await refused(route, *first, types={"Patient"})
    assert await route.statuses(delivery) == [422, 201]
    (seen,) = route.fhir_double.of("Observation")
    route.fhir_double.received.clear()

    made = await correct(
        route, delivery, batch(entry(patient(birthDate="1984-05-06"), URL), first[1])
    )
    assert made == build_next_id(delivery)
    await route.process_all()

    (person,) = route.fhir_double.of("Patient")
    assert seen["subject"]["reference"] == f"Patient/{person['id']}"
    assert await route.statuses(made) == [201, 201]
    (sent,) = route.fhir_double.writes
    assert [url for _, url in sent.asked] == [f"Patient/{person['id']}"]
    known = await route.known(made)
    assert (known.status, known.written, known.skipped) == (Status.DONE, 1, 1)
    assert (known.corrects, known.key) == (delivery, (await route.known(delivery)).key)
    assert (await route.known(delivery)).corrected_by == made


async def test_what_was_written_and_is_corrected_is_updated(route: Route) -> None:
    first = (entry(patient(), URL), entry(observation(URL), SEEN))
    delivery = await refused(route, *first, types={"Observation"})
    made = await correct(
        route, delivery, batch(entry(patient(birthDate="1984-05-06"), URL), first[1])
    )
    await route.process_all()
    assert [*born(route).values()] == ["1984-05-06"]
    assert await route.statuses(made) == [200, 201]


async def test_a_refused_transaction_is_sent_as_one_without_its_bad_entry(route: Route) -> None:
    first = (entry(patient(), URL), entry(observation(URL), SEEN))
    delivery = await refused(route, *first, types={"Observation"}, kind="transaction")
    assert (await route.known(delivery)).refused == 2
    made = await correct(route, delivery, bundle(first[0]))
    await route.process_all()
    assert await route.statuses(made) == [201]


async def test_a_link_to_what_is_found_by_another_condition_is_written_anew(
    route: Route,
) -> None:
    for n in (1, 2):
        mrn = [{"system": "urn:mrn", "value": str(n)}]
        route.fhir_double.add(patient(id=f"p{n}", identifier=mrn))

    def about(n: int) -> dict[str, Any]:
        return entry(patient(), URL, ifNoneExist=f"identifier=urn:mrn|{n}")

    link = entry(observation(URL), SEEN)
    bad = entry({"resourceType": "Basic", "id": "b1"}, method="PUT")
    delivery = await refused(route, about(1), link, bad, types={"Basic"})
    (seen,) = route.fhir_double.of("Observation")
    assert seen["subject"]["reference"] == "Patient/p1"
    made = await correct(route, delivery, batch(about(2), link, bad))
    await route.process_all()
    (after,) = route.fhir_double.of("Observation")
    assert (after["id"], after["subject"]["reference"]) == (seen["id"], "Patient/p2")
    assert (await route.known(made)).written == 3


async def test_entries_in_many_lanes_are_corrected(route: Route) -> None:
    route.limits = replace(route.limits, entries=1)
    first = [put_patient(f"p{n}") for n in range(3)]
    delivery = await refused(route, *first, put_observation("o1"), types={"Observation"})
    made = await correct(route, delivery, batch(*first, put_observation("o1", status="amended")))
    await route.process_all()
    known = await route.known(made)
    assert (known.status, known.written, known.skipped, known.lanes) == (Status.DONE, 1, 3, 4)
    assert route.fhir_double.writes_of_each["Patient/p1"] == 1


async def test_the_row_shows_the_later_state(route: Route) -> None:
    delivery = await refused(route, put_patient("p1"), put_observation("o1"), types={"Patient"})
    later = await route.deliver(batch(put_patient("p1", birthDate="2001-01-01")))
    await route.process_all(later)
    made = await correct(
        route, delivery, batch(put_patient("p1", birthDate="1984-05-06"), put_observation("o1"))
    )
    await route.process_all()
    await route.mirror_all()
    assert await route.statuses(made) == [409, 201]
    assert (await route.dataverse_double.contact())["birthdate"] == "2001-01-01"


# --- never over something newer ----------------------------------------------------------------


async def test_a_later_delivery_stands(route: Route) -> None:
    delivery = await refused(route, put_patient("p1"), put_observation("o1"), types={"Observation"})
    later = await route.deliver(batch(put_patient("p1", birthDate="2001-01-01")))
    await route.process_all(later)
    route.clock.later(60)
    made = await correct(
        route, delivery, batch(put_patient("p1", birthDate="1984-05-06"), put_observation("o1"))
    )
    await route.process_all()
    assert born(route) == {"p1": "2001-01-01"}
    known = await route.known(made)
    assert (known.written, known.superseded, known.refused) == (1, 1, 0)


async def test_a_later_update_of_what_the_delivery_created_stands(route: Route) -> None:
    first = (entry(patient(), URL), put_observation("o1"))
    delivery = await refused(route, *first, types={"Observation"})
    (person,) = route.fhir_double.of("Patient")
    later = await route.deliver(batch(put_patient(person["id"], birthDate="2001-01-01")))
    await route.process_all(later)
    route.clock.later(60)
    made = await correct(
        route, delivery, batch(entry(patient(birthDate="1984-05-06"), URL), put_observation("o1"))
    )
    await route.process_all()
    assert born(route) == {person["id"]: "2001-01-01"}
    assert await route.statuses(made) == [409, 201]


@pytest.mark.parametrize("is_create", [True, False])
@pytest.mark.parametrize("is_changed", [True, False])
async def test_what_somebody_else_has_changed_since_stands(
    route: Route, *, is_create: bool, is_changed: bool
) -> None:
    def person(**elements: Any) -> dict[str, Any]:
        return entry(patient(**elements), URL) if is_create else put_patient("p1", **elements)

    delivery = await refused(route, person(), put_observation("o1"), types={"Observation"})
    (before,) = route.fhir_double.of("Patient")
    route.fhir_double.add({**patient(id=before["id"]), "birthDate": "2001-01-01"})
    elements = {"birthDate": "1984-05-06"} if is_changed else {}
    amended = put_observation("o1", status="amended")
    made = await correct(route, delivery, batch(person(**elements), amended))
    await route.process_all()
    assert born(route) == {before["id"]: "2001-01-01"}
    assert await route.statuses(made) == ([409, 201] if is_changed else [201, 201])
    assert (await route.known(made)).refused == 0


@pytest.mark.parametrize("is_create", [True, False])
@pytest.mark.parametrize("is_purged", [True, False])
async def test_what_somebody_else_has_deleted_since_stays_deleted(
    route: Route, *, is_create: bool, is_purged: bool
) -> None:
    def person(**elements: Any) -> dict[str, Any]:
        return entry(patient(**elements), URL) if is_create else put_patient("p1", **elements)

    delivery = await refused(route, person(), put_observation("o1"), types={"Observation"})
    (before,) = route.fhir_double.of("Patient")
    remove = route.fhir_double.forget if is_purged else route.fhir_double.delete
    remove(f"Patient/{before['id']}")
    made = await correct(
        route, delivery, batch(person(birthDate="1984-05-06"), put_observation("o1"))
    )
    await route.process_all()
    assert born(route) == {}
    assert await route.statuses(made) == [409, 201]


async def test_an_earlier_delivery_that_is_late_does_not_overwrite_the_correction(
    route: Route,
) -> None:
    early = await route.deliver(batch(put_patient("p1", birthDate="1901-01-01")))
    route.clock.later(60)
    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    made = await correct(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    await route.process_all()
    await route.process_all(early)
    assert born(route) == {"p1": "1984-05-06"}
    assert await route.statuses(made) == [201]


async def test_a_later_delivery_that_repeats_an_earlier_state_stands(route: Route) -> None:
    """Its content is there already, but what was refused in between may be corrected."""
    early = await route.deliver(batch(put_patient("p1", birthDate="2001-01-01")))
    await route.process_all(early)
    route.clock.later(60)
    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    later = await route.deliver(batch(put_patient("p1", birthDate="2001-01-01")))
    await route.process_all(later)
    route.clock.later(60)
    made = await correct(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    await route.process_all()
    assert born(route) == {"p1": "2001-01-01"}
    assert await route.statuses(made) == [409]


async def test_a_repeat_by_the_sender_is_one_of_the_delivery_that_was_corrected(
    route: Route,
) -> None:
    body = batch(entry(patient(), URL))
    route.fhir_double.refuses = {"Patient"}
    keyed = {"headers": {"idempotency-key": "k1"}}
    delivery = await route.deliver(body, **keyed)
    await route.process_all(delivery)
    route.fhir_double.refuses = set()
    route.clock.later(60)
    await correct(route, delivery, batch(entry(patient(birthDate="1984-05-06"), URL)))
    await route.process_all()
    assert (await route.ask(body, **keyed)).delivery == delivery
    again = await route.deliver(body)
    await route.process_all(again)
    (known, *_) = born(route).values()
    assert known == "1984-05-06"


# --- one correction, or a next one -------------------------------------------------------------


async def test_the_same_bytes_again_are_the_same_correction(route: Route) -> None:
    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    body = batch(put_patient("p1", birthDate="1984-05-06"))
    made = await correct(route, delivery, body)
    assert await correct(route, delivery, body) == made
    await route.process_all()
    assert await correct(route, delivery, body) == made
    assert route.queued() == []
    assert route.fhir_double.writes_of_each == {"Patient/p1": 1}


async def test_a_correction_is_corrected_in_its_turn(route: Route) -> None:
    first = (entry(patient(), URL), entry(observation(URL), SEEN), put_observation("o1"))
    delivery = await refused(route, *first, types={"Patient", "Observation"})
    route.fhir_double.refuses = {"Observation"}
    dated = entry(patient(birthDate="1984-05-06"), URL)
    made = await correct(route, delivery, batch(dated, *first[1:]))
    await route.process_all()
    assert await concerns(route) == [("entries", made)]
    route.fhir_double.refuses = set()
    bodies = batch(dated, first[1], put_observation("o1", status="amended"))
    second = await correct(route, delivery, bodies)
    assert second == build_next_id(made)
    assert (await route.known(second)).corrects == made
    await route.process_all()
    assert await route.statuses(second) == [201, 201, 201]
    assert (await route.known(second)).skipped == 1
    assert await concerns(route) == []
    assert len(route.fhir_double.of("Patient")) == 1


async def test_a_correction_under_way_is_not_corrected(route: Route) -> None:
    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    await correct(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    error = await refuse(route, delivery, batch(put_patient("p1", birthDate="1984-05-07")))
    assert (error.status, "under way" in str(error)) == (409, True)


async def test_a_cancelled_correction_can_be_followed_by_another(route: Route) -> None:
    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    made = await correct(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    await deliveries.cancel(route.journal, made, route.clock.now)
    assert await concerns(route) == [("entries", delivery)]
    second = await correct(route, delivery, batch(put_patient("p1", birthDate="1984-05-07")))
    await route.process_all()
    assert born(route) == {"p1": "1984-05-07"}
    assert await concerns(route) == []
    assert (await route.known(second)).corrects == made


async def test_what_a_correction_refused_is_replayed(route: Route) -> None:
    delivery = await refused(
        route, put_patient("p1"), put_observation("o1"), types={"Patient", "Observation"}
    )
    route.fhir_double.refuses = {"Observation"}
    made = await correct(
        route, delivery, batch(put_patient("p1", birthDate="1984-05-06"), put_observation("o1"))
    )
    await route.process_all()
    assert await concerns(route) == [("entries", made)]
    route.fhir_double.refuses = set()
    await deliveries.replay(route.journal, route.queue_sender, made, route.clock.now)
    await route.process_all()
    assert await route.statuses(made) == [201, 201]
    assert route.fhir_double.writes_of_each == {"Patient/p1": 1, "Observation/o1": 1}
    assert await concerns(route) == []


async def test_what_is_corrected_is_not_replayed_or_cancelled_any_more(route: Route) -> None:
    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    parked = await route.deliver(batch(put_patient("p2")))
    await relaying.park(route.journal, WorkItem(parked), "too slow", route.clock.now)
    route.clock.later(60)
    made = await correct(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    other = await correct(route, parked, batch(put_patient("p2", birthDate="1984-05-06")))
    now = route.clock.now
    for each, by in ((delivery, made), (parked, other)):
        with pytest.raises(Rejected):
            await deliveries.replay(route.journal, route.queue_sender, each, now)
        with pytest.raises(Rejected):
            await deliveries.cancel(route.journal, each, now)
        assert (await route.known(each)).corrected_by == by
    asked = deliveries.parse_replay_filter({"attention": "entries"})
    page = await deliveries.replay_all(route.journal, route.queue_sender, asked, now, dry_run=False)
    assert page.deliveries == ()
    assert sorted(await concerns(route)) == [("entries", delivery), ("parked", parked)]


# --- what can be corrected ---------------------------------------------------------------------


async def test_a_parked_delivery_is_corrected_and_writes_no_more(route: Route) -> None:
    delivery = await route.deliver(batch(put_patient("p1"), put_observation("o1")))
    await relaying.park(route.journal, WorkItem(delivery), "too slow", route.clock.now)
    route.clock.later(60)
    made = await correct(
        route, delivery, batch(put_patient("p1", birthDate="1984-05-06"), put_observation("o1"))
    )
    await route.process(delivery)
    assert route.fhir_double.writes == []
    assert await concerns(route) == [("parked", delivery)]
    await route.process_all()
    assert born(route) == {"p1": "1984-05-06"}
    assert await concerns(route) == []
    known = await route.known(delivery)
    assert (known.status, known.corrected_by) == (Status.CANCELLED, made)
    assert made in views.describe_cancelled(known)
    with pytest.raises(Rejected):
        await deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now)


@pytest.mark.parametrize("is_answer_lost", [True, False])
async def test_what_a_parked_delivery_may_have_written_is_looked_for(
    route: Route, *, is_answer_lost: bool
) -> None:
    delivery = await route.deliver(batch(entry(patient(), URL)))
    if is_answer_lost:
        route.fhir_double.will_lose_the_reply()
    else:
        route.fhir_double.down = 503
    await route.process(delivery)
    route.fhir_double.down = None
    route.queue_sender.sent.clear()
    await relaying.park(route.journal, WorkItem(delivery), "too slow", route.clock.now)
    route.clock.later(600)
    made = await correct(route, delivery, batch(entry(patient(birthDate="1984-05-06"), URL)))
    await route.process_all()
    assert [*born(route).values()] == ["1984-05-06"]
    assert await route.statuses(made) == [200 if is_answer_lost else 201]


async def test_a_held_delivery_is_corrected(route: Route) -> None:
    north = Sender(name="north", policy=SenderPolicy(refused_deliveries="hold"))
    accepted = await route.ask(b"{", sender=ProvenSender(sender=north))
    route.clock.later(60)
    assert await concerns(route) == [("held", accepted.delivery)]
    made = await correct(route, accepted.delivery, patient(id="p1") | {"birthDate": "1984-05-06"})
    await route.process_all()
    known = await route.known(made)
    assert (known.status, known.kind, known.written) == (Status.DONE, "resource", 1)
    assert await concerns(route) == []
    repeat = await route.ask(b"{", sender=ProvenSender(sender=north))
    assert repeat.delivery == accepted.delivery


async def test_a_correction_is_judged_by_the_rights_of_now(route: Route) -> None:
    narrow = Sender(name="north", rights=Rights(types=("Patient",)))
    delivery = await route.deliver(
        batch(put_patient("p1"), put_observation("o1")), sender=ProvenSender(sender=narrow)
    )
    await route.process_all(delivery)
    route.clock.later(60)
    judge = build_judge(route.intake, {"north": narrow})
    body = batch(put_patient("p1"), put_observation("o1", status="amended"))
    made = await correct(route, delivery, body, judge=judge)
    await route.process_all()
    assert await route.statuses(made) == [201, 403]


@pytest.mark.parametrize("status", [Status.ACCEPTED, Status.PROCESSING, Status.CANCELLED])
async def test_what_is_under_way_or_cancelled_is_not_corrected(
    route: Route, status: Status
) -> None:
    delivery = await route.deliver(batch(put_patient("p1")))
    await route.journal.update_delivery(delivery, status=status)
    error = await refuse(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    assert error.status == 409
    assert route.queued() == []


async def test_what_was_all_written_is_not_corrected(route: Route) -> None:
    delivery = await route.deliver(batch(put_patient("p1")))
    await route.process_all(delivery)
    error = await refuse(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    assert (error.status, "none of its entries" in str(error)) == (409, True)


async def test_the_same_bytes_are_no_correction(route: Route) -> None:
    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    error = await refuse(route, delivery, batch(put_patient("p1")))
    assert (error.status, "replay" in str(error)) == (409, True)


async def test_a_delivery_older_than_its_locks_is_not_corrected(route: Route) -> None:
    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    route.clock.later(30 * DAY)
    body = batch(put_patient("p1", birthDate="1984-05-06"))
    error = await refuse(route, delivery, body, retention=timedelta(days=30))
    assert (error.status, "RETENTION_DAYS" in str(error)) == (409, True)


async def test_a_delivery_without_an_order_is_not_corrected(route: Route) -> None:
    route.settings["write_orders"] = {"": "off"}
    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    error = await refuse(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    assert (error.status, "WRITE_ORDER" in str(error)) == (409, True)


async def test_an_unknown_delivery_is_not_found(route: Route) -> None:
    for name in ("nothing", "0195545e-9f60-7000-8000-000000000001"):
        assert (await refuse(route, name, batch(put_patient("p1")))).status == 404


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", FHIR_JSON, 400),
        (b"x" * 1_000_001, FHIR_JSON, 413),
        (b"{}", "text/plain", 415),
        (b'{"resourceType":"Bundle","type":"batch","entry":{}}', FHIR_JSON, 400),
    ],
)
async def test_what_intake_does_not_take_is_answered_as_intake_does(
    route: Route, body: bytes, kind: str, status: int
) -> None:
    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    assert (await refuse(route, delivery, body, kind=kind)).status == status
    assert await concerns(route) == [("entries", delivery)]
    assert (await route.known(delivery)).corrected_by is None


async def test_what_has_its_id_by_its_place_keeps_it(route: Route) -> None:
    first, second = patient(birthDate="1984-05-06"), patient(birthDate="1990-01-01")
    entries = (put_observation("o1"), entry(first), entry(second))
    delivery = await refused(route, *entries, types={"Observation"})
    for moved in (entries[1:], (entries[0], entries[2], entries[1])):
        error = await refuse(route, delivery, batch(*moved))
        assert (error.status, "fullUrl" in str(error)) == (422, True)
    made = await correct(route, delivery, batch(put_observation("o2"), *entries[1:], entry(first)))
    await route.process_all()
    assert sorted(born(route).values()) == ["1984-05-06", "1984-05-06", "1990-01-01"]
    assert await route.statuses(made) == [201, 201, 201, 201]


# --- nothing ends unseen -----------------------------------------------------------------------


def takes_place(options: dict[str, Any]) -> bool:
    return "corrected_by" in options


def is_queued(options: dict[str, Any]) -> bool:
    return options.get("unqueued") is False


# Where the worker of a correction ends: a call, and its options.
ENDS: list[tuple[str, Any]] = [
    ("begin_lane", None),
    ("record_bases", None),
    ("add_entry_results", None),
    ("delete_concern", None),
    ("update_delivery", lambda options: options.get("status") is Status.DONE),
    ("update_delivery", lambda options: options.get("attention") == ""),
]


@pytest.mark.parametrize("kind", [JobKind.REPLAY, JobKind.CANCEL])
async def test_no_job_touches_a_delivery_that_another_has_taken_the_place_of(
    route: Route, kind: JobKind
) -> None:
    delivery = await route.deliver(batch(put_patient("p1")))
    await relaying.park(route.journal, WorkItem(delivery), "503", route.clock.now)
    await correct(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    parts = JobParts(
        jobs=MemoryJobs(),
        journal=route.journal,
        queue=route.queue_sender,
        now=route.clock,
        new_token=lambda: "a" * 16,
    )
    route.clock.later(1)
    job_filter = build_job_filter(kind, {"status": "parked"})
    job = await start_job(parts, JobRequest(kind=kind, filter=job_filter))
    await do_slice(parts, WorkItem("", job=job.id))
    done = await parts.jobs.get_job(job.id)
    assert done is not None
    assert (done.state, done.done, done.left_out) == (JobState.DONE, 0, 1)
    assert (await route.known(delivery)).status is Status.CANCELLED
    assert await concerns(route) == [("parked", delivery)]


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("is_repeated", [False, True])
@pytest.mark.parametrize(
    ("at", "when"),
    [
        ("index_delivery", None),
        ("add_delivery", None),
        ("update_delivery", takes_place),
        ("update_delivery", is_queued),
    ],
)
async def test_a_request_that_breaks_off_is_repeated_or_left_to_housekeeping(
    route: Route, at: str, when: Any, *, is_after: bool, is_repeated: bool
) -> None:
    delivery = await refused(route, put_patient("p1"), put_observation("o1"), types={"Patient"})
    await route.mirror_all()
    body = batch(put_patient("p1", birthDate="1984-05-06"), put_observation("o1"))
    end_worker(route, at, when, is_after=is_after)
    with pytest.raises(ConnectionError):
        await correct(route, delivery, body)
    assert await concerns(route) == [("entries", delivery)]
    if is_repeated:
        await correct(route, delivery, body)
    route.clock.later(1201)
    await sweep(keeping(route, route.queue_sender))
    made = build_next_id(delivery) or ""
    is_added = is_repeated or at == "update_delivery" or (at == "add_delivery" and is_after)
    assert (await route.journal.get_delivery(made) is not None) == is_added
    assert await concerns(route) == [("entries", delivery)]
    await route.process_all()
    assert born(route) == ({"p1": "1984-05-06"} if is_added else {})
    assert await concerns(route) == ([] if is_added else [("entries", delivery)])


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize(
    ("at", "when", "is_refused"),
    [
        *((*case, is_refused) for case in ENDS for is_refused in (False, True)),
        ("put_concern", None, True),
    ],
)
@pytest.mark.parametrize("entries", [500, 1])
async def test_a_correction_that_breaks_off_is_taken_up_and_is_always_to_be_seen(
    route: Route, at: str, when: Any, entries: int, *, is_after: bool, is_refused: bool
) -> None:
    route.limits = replace(route.limits, entries=entries)
    first = (entry(patient(), URL), put_patient("p2"), put_patient("p3"))
    delivery = await refused(route, *first, put_observation("o1"), types={"Observation"})
    route.fhir_double.refuses = {"Observation"} if is_refused else set()
    dated = put_patient("p3", birthDate="1984-05-06")
    made = await correct(
        route, delivery, batch(*first[:2], dated, put_observation("o1", status="amended"))
    )
    end_worker(route, at, when, is_after=is_after)
    for _ in range(30):
        assert route.fhir_double.of("Observation") or await concerns(route)
        item = route.take()
        if item is None:
            break
        try:
            await relaying.process(route.relay, item)
        except ConnectionError:
            route.queue_sender.sent.append(("relay", item, 0))
    assert route.journal.at == "", "no worker has ended"
    known = await route.known(made)
    counts = (known.status, known.written, known.skipped, known.refused)
    assert counts == (Status.DONE, 1, 2, 1) if is_refused else (Status.DONE, 2, 2, 0)
    assert await concerns(route) == ([("entries", made)] if is_refused else [])
    assert route.fhir_double.writes_of_each["Patient/p2"] == 1
    assert route.fhir_double.writes_of_each["Patient/p3"] == 2


async def test_a_correction_that_is_given_up_is_to_be_seen(route: Route) -> None:
    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    made = await correct(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    await relaying.park(route.journal, WorkItem(made), "too slow", route.clock.now)
    assert ("parked", made) in await concerns(route)
    await deliveries.replay(route.journal, route.queue_sender, made, route.clock.now)
    await route.process_all()
    assert born(route) == {"p1": "1984-05-06"}
    assert await concerns(route) == []


async def test_a_correction_of_one_that_never_began_takes_over_what_was_written(
    route: Route,
) -> None:
    """The second one would write over what somebody else has changed since."""
    delivery = await refused(route, put_patient("p1"), put_observation("o1"), types={"Observation"})
    route.fhir_double.add({**patient(id="p1"), "birthDate": "2001-01-01"})
    given_up = await correct(
        route, delivery, batch(put_patient("p1"), put_observation("o1", status="amended"))
    )
    await relaying.park(route.journal, WorkItem(given_up), "too slow", route.clock.now)
    route.clock.later(60)
    dated = put_patient("p1", birthDate="1984-05-06")
    made = await correct(route, given_up, batch(dated, put_observation("o1", status="final")))
    await route.process_all()
    assert born(route) == {"p1": "2001-01-01"}
    assert await route.statuses(made) == [409, 201]
    assert await concerns(route) == []


async def test_a_correction_of_one_that_never_began_keeps_what_has_its_id_by_its_place(
    route: Route,
) -> None:
    entries = (entry(patient(birthDate="1984-05-06")), entry(patient(birthDate="1990-01-01")))
    delivery = await refused(route, *entries, put_observation("o1"), types={"Observation"})
    given_up = await correct(route, delivery, batch(*entries, put_observation("o2")))
    await relaying.park(route.journal, WorkItem(given_up), "too slow", route.clock.now)
    error = await refuse(route, given_up, batch(*reversed(entries), put_observation("o1")))
    assert (error.status, "fullUrl" in str(error)) == (422, True)


class LateJournal(MemoryJournal):
    """Shows a delivery as it was, once."""

    was: Delivery | None = None

    async def get_delivery(self, id_: str) -> Delivery | None:
        was, self.was = self.was, None
        return was or await super().get_delivery(id_)


@pytest.mark.parametrize("is_cancel", [True, False])
async def test_what_was_corrected_just_now_is_neither_replayed_nor_cancelled(
    route: Route, *, is_cancel: bool
) -> None:
    """Whoever asks has read the delivery before the correction took its place."""
    journal = route.journal = LateJournal()
    if is_cancel:
        delivery = await route.deliver(batch(put_patient("p1")))
        await relaying.park(journal, WorkItem(delivery), "503", route.clock.now)
    else:
        delivery = await refused(route, put_patient("p1"), types={"Patient"})
    seen = await route.known(delivery)
    await correct(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    journal.was = seen
    asked = (
        deliveries.cancel(journal, delivery, route.clock.now)
        if is_cancel
        else deliveries.replay(journal, route.queue_sender, delivery, route.clock.now)
    )
    with pytest.raises(Rejected) as caught:
        await asked
    assert caught.value.status == 409
    known = await route.known(delivery)
    ended = Status.CANCELLED if is_cancel else Status.DONE
    assert (known.status, known.corrected_by) == (ended, build_next_id(delivery))
    await route.process_all()
    assert born(route) == {"p1": "1984-05-06"}


async def test_a_delivery_whose_correction_was_cancelled_can_be_cancelled_too(
    route: Route,
) -> None:
    delivery = await route.deliver(batch(put_patient("p1")))
    await relaying.park(route.journal, WorkItem(delivery), "503", route.clock.now)
    made = await correct(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    with pytest.raises(Rejected, match=made):
        await deliveries.cancel(route.journal, delivery, route.clock.now)
    await deliveries.cancel(route.journal, made, route.clock.now)
    assert await concerns(route) == [("parked", delivery)]
    await deliveries.cancel(route.journal, delivery, route.clock.now)
    assert await concerns(route) == []
    await route.process_all()
    assert route.fhir_double.stored == {}


async def test_housekeeping_keeps_what_an_open_correction_may_take_over(route: Route) -> None:
    delivery = await refused(route, put_patient("p1"), put_observation("o1"), types={"Patient"})
    await route.mirror_all()
    made = await correct(
        route, delivery, batch(put_patient("p1", birthDate="1984-05-06"), put_observation("o1"))
    )
    await relaying.park(route.journal, WorkItem(made), "503", route.clock.now)
    route.clock.later(40 * DAY)
    await sweep(keeping(route, route.queue_sender))
    assert await route.journal.get_delivery(delivery) is not None
    await deliveries.replay(route.journal, route.queue_sender, made, route.clock.now)
    await route.process_all()
    await route.mirror_all()
    assert (await route.known(made)).skipped == 1
    route.clock.later(40 * DAY)
    await sweep(keeping(route, route.queue_sender))
    for id_ in (delivery, made):
        assert await route.journal.get_delivery(id_) is None


async def test_no_repeat_is_left_out_while_a_corrected_delivery_between_may_come_back(
    route: Route,
) -> None:
    """Its correction was cancelled, and can be followed by another one."""
    first = await route.deliver(batch(put_patient("p1", birthDate="2001-01-01")))
    await route.process_all(first)
    between = await route.deliver(batch(put_patient("p1", birthDate="1990-01-01")))
    await relaying.park(route.journal, WorkItem(between), "503", route.clock.now)
    made = await correct(route, between, batch(put_patient("p1", birthDate="1984-05-06")))
    await deliveries.cancel(route.journal, made, route.clock.now)
    route.clock.later(60)
    repeat = await route.deliver(batch(put_patient("p1", birthDate="2001-01-01")))
    await route.process(repeat)
    again = await correct(route, made, batch(put_patient("p1", birthDate="1985-05-06")))
    await route.process_all()
    assert born(route) == {"p1": "2001-01-01"}
    assert await route.statuses(again) == [409]


async def test_a_queue_that_does_not_take_it_is_no_loss(route: Route) -> None:
    class Full:
        async def send(self, *_: object) -> None:
            raise Unavailable("queue", "answered 503")

    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    taken, route.queue_sender = route.queue_sender, Full()
    with pytest.raises(Unavailable):
        await correct(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    route.queue_sender = taken
    route.clock.later(1201)
    await sweep(keeping(route, route.queue_sender))
    await route.process_all()
    assert born(route) == {"p1": "1984-05-06"}


async def test_housekeeping_leaves_the_concern_of_what_is_being_corrected(route: Route) -> None:
    delivery = await route.deliver(batch(put_patient("p1")))
    await relaying.park(route.journal, WorkItem(delivery), "too slow", route.clock.now)
    route.clock.later(60)
    await correct(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    route.clock.later(3600)
    await sweep(keeping(route, route.queue_sender))
    assert ("parked", delivery) in await concerns(route)


async def test_a_delivery_that_was_replayed_just_before_is_not_corrected(route: Route) -> None:
    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    body = batch(put_patient("p1", birthDate="1984-05-06"))
    end_worker(route, "update_delivery", takes_place, is_after=False)
    with pytest.raises(ConnectionError):
        await correct(route, delivery, body)
    route.fhir_double.refuses = {"Patient"}
    await deliveries.replay(route.journal, route.queue_sender, delivery, route.clock.now)
    made = build_next_id(delivery) or ""
    await route.process(made)
    assert ("parked", made) in await concerns(route)
    await route.process_all()
    route.fhir_double.refuses = set()
    await deliveries.replay(route.journal, route.queue_sender, made, route.clock.now)
    await route.process_all()
    assert born(route) == {"p1": "1984-05-06"}
    assert await concerns(route) == []


async def test_what_was_corrected_meanwhile_is_not_corrected_unseen(route: Route) -> None:
    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    made = await correct(route, delivery, batch(put_patient("p1", birthDate="1984-05-06")))
    await route.process_all()

    async def send(birth_date: str) -> str:
        body = json.dumps(batch(put_patient("p1", birthDate=birth_date))).encode()
        headers = {"content-type": FHIR_JSON}
        sent = Correction(corrected=delivery, headers=headers, body=body, is_of_latest=True)
        return (await correct_delivery(route.intake, sent)).delivery

    assert await send("1984-05-06") == made
    with pytest.raises(Rejected, match=f"it was corrected by {made} meanwhile") as caught:
        await send("1999-01-01")
    assert caught.value.status == 409


async def test_an_original_is_read_with_its_bytes_up_to_a_size(route: Route) -> None:
    delivery = await refused(route, put_patient("p1"), types={"Patient"})
    size = (await route.known(delivery)).bytes
    for max_bytes, is_read in ((size, True), (size - 1, False)):
        original = await read_original(route.journal, delivery, max_bytes)
        assert (original.body is not None) is is_read
        assert [result.status for result in original.results] == [422]
    for unknown in ("x", build_next_id(delivery) or ""):
        with pytest.raises(Rejected) as caught:
            await read_original(route.journal, unknown, size)
        assert caught.value.status == 404


async def test_what_the_delivery_has_deleted_last_stays_deleted(route: Route) -> None:
    route.fhir_double.add(patient(id="p1"))
    remove = {"request": {"method": "DELETE", "url": "Patient/p1"}}
    delivery = await deliver_refused(route, put_patient("p1"), remove, types={"Patient"})
    assert await route.statuses(delivery) == [422, 204]
    dated = put_patient("p1", birthDate="1984-05-06")
    made = await correct(route, delivery, batch(dated, remove))
    await route.process_all()
    assert born(route) == {}
    assert await route.statuses(made) == [409, 204]
    assert await list_concerns(route) == []


async def test_what_was_written_and_then_deleted_stays_as_it_was_told(route: Route) -> None:
    route.fhir_double.add(patient(id="p1"))
    remove = {"request": {"method": "DELETE", "url": "Patient/p1"}}
    first = (put_patient("p1", birthDate="1984-05-06"), remove)
    delivery = await deliver_refused(route, *first, put_observation("o1"), types={"Observation"})
    assert await route.statuses(delivery) == [200, 204, 422]
    amended = put_observation("o1", status="amended")
    made = await correct(route, delivery, batch(*first, amended))
    await route.process_all()
    assert born(route) == {}
    assert await route.statuses(made) == [200, 204, 201]
    assert (await route.known(made)).superseded == 0
