"""A lane is written unit by unit. Settled entries stay settled; only the rest is tried again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from integration.core.model import Status, WorkItem
from integration.fhir.units import Limits
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from tests.builders import Body, batch, bundle, entry, observation, patient
from tests.conftest import Route

URL = "urn:uuid:00000000-0000-4000-8000-000000000001"
OTHER = "urn:uuid:00000000-0000-4000-8000-000000000002"
MAYBE = {"ifNoneExist": "identifier=urn:mrn|7"}


def numbered(**elements: Any) -> Body:
    return patient(identifier=[{"system": "urn:mrn", "value": "7"}], **elements)


# --- what the server says about single entries -------------------------------------------------


async def test_an_entry_that_was_throttled_inside_a_200_is_sent_again_alone(route: Route) -> None:
    delivery = await route.deliver(batch(entry(patient()), entry(observation()), entry(patient())))

    def throttled(said: Body) -> None:
        said["entry"][1] = {"response": {"status": "429"}}

    route.fhir_double.will_say(throttled)
    await route.process(delivery)
    assert len(await route.outcomes(delivery)) == 2
    assert (await route.known(delivery)).status is Status.ACCEPTED
    # The server said 429 and wrote nothing.
    (written,) = route.fhir_double.of("Observation")
    route.fhir_double.forget(f"Observation/{written['id']}")
    await route.process_all()
    assert await route.statuses(delivery) == [201, 201, 201]
    assert [len(request.asked) for request in route.fhir_double.writes] == [3, 1]
    assert set(route.fhir_double.writes_of_each.values()) == {1}


async def test_a_throttled_entry_waits_as_long_as_the_server_says(route: Route) -> None:
    delivery = await route.deliver(batch(entry(patient())))
    body = {"resourceType": "Bundle", "entry": [{"response": {"status": "429"}}]}
    route.fhir_double.will_answer(200, body, {"x-ms-retry-after-ms": "42000", "retry-after": "7"})
    await route.process(delivery)
    assert [delay for _, delay in route.queued()] == [42]


@pytest.mark.parametrize("status", ["500", "503 Service Unavailable", "408", "409", "429"])
async def test_an_entry_that_fails_for_now_is_not_settled(route: Route, status: str) -> None:
    delivery = await route.deliver(batch(entry(patient())))
    body = {"resourceType": "Bundle", "entry": [{"response": {"status": status}}]}
    route.fhir_double.will_answer(200, body)
    await route.process(delivery)
    assert await route.outcomes(delivery) == []
    await route.process_all()
    assert await route.statuses(delivery) == [201]


async def test_a_conflict_that_never_ends_is_refused(route: Route) -> None:
    update = entry(patient(id="p1"), method="PUT", url="Patient/p1")
    delivery = await route.deliver(batch(update))
    body = {"resourceType": "Bundle", "entry": [{"response": {"status": "409"}}]}
    route.fhir_double.will_answer(200, body)
    for _ in range(20):
        route.fhir_double.will_answer(200, body)
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [409]
    assert 1 < len(route.fhir_double.writes) < 20


@pytest.mark.parametrize(
    "answer",
    [
        b"{",
        b"[]",
        b"<html>",
        {"resourceType": "Bundle"},
        {"resourceType": "Bundle", "entry": []},
        {"resourceType": "Bundle", "entry": [{"response": {"status": "200"}}]},
        {"resourceType": "Bundle", "entry": [{"response": {"status": "200"}}] * 4},
    ],
    ids=["cut off", "a list", "HTML", "no entries", "an empty list", "too few", "too many"],
)
async def test_a_response_that_cannot_be_matched_settles_nothing(route: Route, answer: Any) -> None:
    delivery = await route.deliver(batch(entry(patient()), entry(observation())))
    route.fhir_double.will_answer(200, answer)
    await route.process(delivery)
    assert await route.outcomes(delivery) == []
    assert len(route.queued()) == 1
    await route.process_all()
    assert await route.statuses(delivery) == [201, 201]


async def test_a_refused_entry_does_not_stop_the_others_of_a_batch(route: Route) -> None:
    route.fhir_double.refuses = {"Observation"}
    delivery = await route.deliver(batch(entry(patient()), entry(observation()), entry(patient())))
    await route.process(delivery)
    assert await route.statuses(delivery) == [201, 422, 201]
    issues = (await route.outcomes(delivery))[1].issues
    assert issues is not None
    assert issues[0]["diagnostics"] == "a rule of the server"
    known = await route.known(delivery)
    assert (known.status, known.written, known.refused) == (Status.DONE, 2, 1)


async def test_a_transaction_that_is_refused_is_done_with_the_reasons(route: Route) -> None:
    route.fhir_double.refuses = {"Observation"}
    delivery = await route.deliver(bundle(entry(patient()), entry(observation())))
    await route.process(delivery)
    assert await route.statuses(delivery) == [422, 422]
    for result in await route.outcomes(delivery):
        assert result.issues is not None
        assert result.issues[0]["diagnostics"] == "a rule of the server"
    assert (await route.known(delivery)).status is Status.DONE
    assert route.queued() == []
    assert route.mirrored == []


# --- a lost response ---------------------------------------------------------------------------


async def test_a_create_whose_response_was_lost_is_looked_up_and_not_written_again(
    route: Route,
) -> None:
    delivery = await route.deliver(bundle(entry(patient(), URL), entry(observation(URL))))
    route.fhir_double.will_lose_the_reply()
    await route.process(delivery)
    assert await route.outcomes(delivery) == []
    await route.process_all()
    assert (await route.known(delivery)).status is Status.DONE
    assert await route.statuses(delivery) == [200, 200]
    assert len(route.fhir_double.writes) == 1
    assert set(route.fhir_double.writes_of_each.values()) == {1}


async def test_what_others_changed_since_is_not_undone(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    route.fhir_double.will_lose_the_reply()
    await route.process(delivery)
    (person,) = route.fhir_double.of("Patient")
    route.fhir_double.add({**person, "active": False})
    await route.process_all()
    (person,) = route.fhir_double.of("Patient")
    assert person["active"] is False
    outcome = (await route.outcomes(delivery))[0]
    assert outcome.location == f"Patient/{person['id']}/_history/2"


async def test_what_others_deleted_since_is_not_brought_back(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    route.fhir_double.will_lose_the_reply()
    await route.process(delivery)
    route.fhir_double.delete(f"Patient/{route.fhir_double.of('Patient')[0]['id']}")
    await route.process_all()
    assert route.fhir_double.of("Patient") == []
    assert (await route.known(delivery)).status is Status.DONE


@pytest.mark.parametrize(
    "failure",
    [
        (500, None),
        (408, None),
        (200, {"resourceType": "Bundle", "entry": [{"response": {"status": "429"}}]}),
        (200, {"resourceType": "Bundle", "entry": [{"response": {"status": "503"}}]}),
        (200, {"resourceType": "Bundle", "entry": []}),
        (200, b"{"),
    ],
    ids=["500", "408", "429 inside", "503 inside", "no entries", "cut off"],
)
async def test_nothing_is_written_while_a_look_up_has_no_answer(
    route: Route, failure: tuple[int, Any]
) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    route.fhir_double.will_lose_the_reply()
    await route.process(delivery)
    (person,) = route.fhir_double.of("Patient")
    route.fhir_double.add({**person, "active": False})
    route.fhir_double.will_answer(*failure)
    await route.process_all()
    (person,) = route.fhir_double.of("Patient")
    assert person["active"] is False
    assert (await route.known(delivery)).status is Status.DONE


async def test_a_request_that_never_arrived_is_sent_again(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    route.fhir_double.will_answer(500)
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [201]
    assert set(route.fhir_double.writes_of_each.values()) == {1}


async def test_the_first_attempt_does_not_look_before_it_writes(route: Route) -> None:
    await route.process(await route.deliver(bundle(entry(patient()))))
    assert len(route.fhir_double.received) == 1


async def test_a_repeat_looks_before_it_writes(route: Route) -> None:
    body = bundle(entry(patient(), URL), entry(observation(URL)))
    first = await route.deliver(body)
    await route.process(first)
    (person,) = route.fhir_double.of("Patient")
    route.fhir_double.add({**person, "active": False})
    second = await route.deliver(body)
    await route.process(second)
    assert len(route.fhir_double.writes) == 1
    assert len(route.fhir_double.stored) == 2
    assert await route.statuses(second) == [200, 200]
    assert route.fhir_double.of("Patient")[0]["active"] is False


async def test_a_repeat_of_what_never_arrived_is_written(route: Route) -> None:
    body = bundle(entry(patient()))
    await route.deliver(body)
    second = await route.deliver(body)
    await route.process(second)
    assert await route.statuses(second) == [201]


async def test_only_the_unsettled_entries_of_a_batch_are_sent_again(route: Route) -> None:
    """The first unit is recorded; the second one failed."""
    route.limits = Limits(entries=1)
    delivery = await route.deliver(batch(entry(patient(), URL), entry(observation(URL))))
    route.fhir_double.will_do_as_asked()
    route.fhir_double.will_answer(500)
    await route.process(delivery)
    assert [result.position for result in await route.outcomes(delivery)] == [0]
    await route.process_all()
    assert await route.statuses(delivery) == [201, 201]
    assert set(route.fhir_double.writes_of_each.values()) == {1}


# --- conditional entries -----------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
async def test_later_units_refer_to_the_result_of_a_conditional_create(
    route: Route, known: bool
) -> None:
    if known:
        route.fhir_double.add(numbered(id="known-1"))
    delivery = await route.deliver(batch(entry(numbered(), URL, **MAYBE), entry(observation(URL))))
    await route.process(delivery)
    (person,) = route.fhir_double.of("Patient")
    (seen,) = route.fhir_double.of("Observation")
    assert seen["subject"]["reference"] == f"Patient/{person['id']}"
    assert len(route.fhir_double.writes) == 2
    assert await route.statuses(delivery) == [200 if known else 201, 201]


async def test_an_entry_refers_to_all_the_results_that_it_waits_for(route: Route) -> None:
    """They may come from different units, and from an earlier attempt."""
    route.limits = Limits(entries=1)
    place = {"resourceType": "Location", "identifier": [{"value": "w7"}]}
    seen = {**observation(URL), "performer": [{"reference": OTHER}]}
    delivery = await route.deliver(
        batch(
            entry(seen),
            entry(numbered(), URL, **MAYBE),
            entry(place, OTHER, ifNoneExist="identifier=w7"),
        )
    )
    route.fhir_double.will_do_as_asked()
    route.fhir_double.will_answer(500)
    await route.process_all(delivery)
    (person,), (ward,) = route.fhir_double.of("Patient"), route.fhir_double.of("Location")
    (written,) = route.fhir_double.of("Observation")
    assert written["subject"]["reference"] == f"Patient/{person['id']}"
    assert written["performer"][0]["reference"] == f"Location/{ward['id']}"


async def test_a_later_attempt_knows_what_a_conditional_create_has_matched(route: Route) -> None:
    delivery = await route.deliver(batch(entry(numbered(), URL, **MAYBE), entry(observation(URL))))
    route.fhir_double.will_do_as_asked()
    route.fhir_double.will_answer(500)
    await route.process(delivery)
    assert route.fhir_double.of("Observation") == []
    await route.process_all()
    (person,), (seen,) = route.fhir_double.of("Patient"), route.fhir_double.of("Observation")
    assert seen["subject"]["reference"] == f"Patient/{person['id']}"


async def test_a_conditional_create_whose_response_was_lost_creates_nothing_more(
    route: Route,
) -> None:
    delivery = await route.deliver(batch(entry(numbered(), URL, **MAYBE), entry(observation(URL))))
    route.fhir_double.will_lose_the_reply()
    await route.process_all(delivery)
    assert len(route.fhir_double.of("Patient")) == 1
    assert len(route.fhir_double.of("Observation")) == 1
    assert set(route.fhir_double.writes_of_each.values()) == {1}


async def test_after_a_transaction_s_lost_response_only_its_conditional_entries_are_sent_again(
    route: Route,
) -> None:
    delivery = await route.deliver(bundle(entry(numbered(), URL, **MAYBE), entry(observation(URL))))
    route.fhir_double.will_lose_the_reply()
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [200, 200]
    assert len(route.fhir_double.of("Patient")) == len(route.fhir_double.of("Observation")) == 1
    assert set(route.fhir_double.writes_of_each.values()) == {1}


@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_a_conditional_update_that_made_a_resource_is_not_waited_for(
    route: Route, kind: str
) -> None:
    """Its answer was lost. The next attempt finds the resource by the condition, with the mark of
    this delivery: nobody else is writing it."""
    made = entry(numbered(), method="PUT", url="Patient?identifier=urn:mrn|7")
    delivery = await route.deliver(bundle(made, kind=kind))
    route.fhir_double.will_lose_the_reply()
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [200]
    assert set(route.fhir_double.writes_of_each.values()) == {1}
    assert len(route.waits) < 5


async def test_a_worker_that_died_before_it_could_record_anything_is_not_waited_for_for_long(
    route: Route,
) -> None:
    """Its write is there, and nothing else of it: after some attempts the history decides."""
    delivery = await route.deliver(batch(entry(patient(id="p1"), method="PUT", url="Patient/p1")))
    route.fhir_double.will_lose_the_reply()
    await route.process(delivery)
    route.journal.bases.clear()
    record = await route.journal.get_delivery(delivery)
    route.journal.deliveries[delivery] = replace(record, bases=b"")
    await route.process_all()
    assert await route.statuses(delivery) == [200]
    assert set(route.fhir_double.writes_of_each.values()) == {1}


async def test_what_refers_to_a_refused_conditional_entry_is_not_sent(route: Route) -> None:
    route.fhir_double.add(numbered(id="one"))
    route.fhir_double.add(numbered(id="two"))
    delivery = await route.deliver(
        batch(entry(numbered(), URL, **MAYBE), entry(observation(URL), OTHER), entry(observation()))
    )
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [412, 424, 201]
    assert len(route.fhir_double.of("Observation")) == 1
    issues = (await route.outcomes(delivery))[1].issues
    assert issues is not None
    assert "refused" in issues[0]["diagnostics"]


# --- a transaction that does not fit -----------------------------------------------------------


async def test_a_refused_part_of_a_split_transaction_stops_the_later_ones(route: Route) -> None:
    route.limits = Limits(entries=1)
    route.fhir_double.refuses = {"Observation"}
    report = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": {"text": "x"},
        "result": [{"reference": OTHER}],
    }
    delivery = await route.deliver(
        bundle(entry(report), entry(observation(URL), OTHER), entry(patient(), URL))
    )
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [424, 422, 201]
    assert route.fhir_double.of("DiagnosticReport") == []
    known = await route.known(delivery)
    assert (known.split, known.units, known.written, known.refused) == (True, 3, 1, 2)


# --- work items for the mirror -----------------------------------------------------------------


async def test_only_written_entries_of_mirrored_types_are_queued_for_the_mirror(
    route: Route,
) -> None:
    route.fhir_double.refuses = {"Observation"}
    kept = entry(patient(id="p1"), method="PUT", url="Patient/p1")
    gone = {"request": {"method": "DELETE", "url": "Patient/p2"}}
    stale = entry(patient(id="p3"), method="PUT", url="Patient/p3", ifMatch='W/"9"')
    place = entry({"resourceType": "Location", "name": "Ward 7"})
    delivery = await route.deliver(batch(kept, gone, stale, place, entry(observation())))
    await route.process(delivery)
    assert await route.statuses(delivery) == [201, 204, 404, 201, 422]
    assert route.mirrored == ["Patient/p1", "Patient/p2"]


async def test_what_a_condition_has_matched_is_queued_for_the_mirror(route: Route) -> None:
    route.fhir_double.add(numbered(id="known-1"))
    await route.process(await route.deliver(batch(entry(numbered(), URL, **MAYBE))))
    assert route.mirrored == ["Patient/known-1"]


async def test_what_an_earlier_attempt_wrote_is_queued_for_the_mirror_too(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient())))
    route.fhir_double.will_lose_the_reply()
    await route.process(delivery)
    assert route.mirrored == []
    await route.process_all()
    (person,) = route.fhir_double.of("Patient")
    assert route.mirrored == [f"Patient/{person['id']}"]


async def test_the_mirror_is_queued_before_the_result_is_recorded(route: Route) -> None:
    journal = route.journal
    noted_at_claim: list[int] = []

    class Watching(MemoryQueueSender):
        async def send(self, queue: str, claim: WorkItem, delay: float = 0) -> None:
            if queue == MIRROR_QUEUE:
                noted_at_claim.append(len(await journal.list_entry_results(claim.delivery)))
            await super().send(queue, claim, delay)

    route.queue_sender = Watching()
    delivery = await route.deliver(bundle(entry(patient())))
    await route.process(delivery)
    assert noted_at_claim == [0]
    assert await route.statuses(delivery) == [201]
