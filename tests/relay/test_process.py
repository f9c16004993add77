"""A delivery is planned, processed and finished, whatever fails on the way and however often."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from integration.core.errors import Unavailable
from integration.core.model import Policy, Status, WorkItem
from integration.fhir.units import Limits
from integration.journal.store import MemoryJournal
from integration.operations import deliveries
from integration.operations.views import build_response_bundle
from integration.queues.names import MIRROR_QUEUE, RELAY_QUEUE
from integration.relay import process as relaying
from integration.relay.end import park_failed
from tests.builders import MARKER, bundle, entry, observation, patient
from tests.conftest import Route, told_by

MAYBE = {"ifNoneExist": "identifier=urn:mrn|7"}


def family(number: int) -> list[dict[str, Any]]:
    """A patient and its observation: two entries that belong together."""
    url = f"urn:uuid:00000000-0000-4000-8000-{number:012d}"
    return [entry(patient(), url), entry(observation(url))]


def families(number: int, kind: str = "transaction") -> dict[str, Any]:
    return bundle(*(item for n in range(number) for item in family(n)), kind=kind)


# --- one lane ----------------------------------------------------------------------------------


async def test_a_delivery_of_one_lane_is_processed_at_once_and_is_done(route: Route) -> None:
    delivery = await route.deliver(families(1))
    route.clock.later(5)
    await route.process(delivery)
    assert route.queued() == []
    known = await route.known(delivery)
    assert (known.status, known.written, known.refused) == (Status.DONE, 2, 0)
    assert (known.lanes, known.units, known.split) == (1, 1, False)
    assert known.finished == route.clock.now
    assert len(route.fhir_double.of("Patient")) == len(route.fhir_double.of("Observation")) == 1


async def test_references_lead_to_the_new_ids(route: Route) -> None:
    await route.process(await route.deliver(families(1)))
    (person,), (seen,) = route.fhir_double.of("Patient"), route.fhir_double.of("Observation")
    assert seen["subject"]["reference"] == f"Patient/{person['id']}"


async def test_results_are_recorded_at_the_sender_s_positions(route: Route) -> None:
    """Entries are sent in FHIR's order, deletes first; the results have the sender's order."""
    kept = entry(patient(id="p1"), method="PUT", url="Patient/p1")
    gone = {"request": {"method": "DELETE", "url": "Observation/o1"}}
    new = entry(observation(), "urn:uuid:00000000-0000-4000-8000-000000000001")
    delivery = await route.deliver(bundle(kept, new, gone))
    await route.process(delivery)
    assert [method for method, _ in route.fhir_double.writes[0].asked] == ["DELETE", "PUT", "PUT"]
    outcomes = await route.outcomes(delivery)
    assert [result.status for result in outcomes] == [201, 201, 204]
    assert outcomes[0].location == "Patient/p1/_history/1"
    assert outcomes[0].etag == 'W/"1"'
    assert outcomes[1].full_url == "urn:uuid:00000000-0000-4000-8000-000000000001"
    assert {result.unit for result in outcomes} == {"0.0"}


async def test_the_delivery_is_named_in_every_request_to_the_fhir_server(route: Route) -> None:
    delivery = await route.deliver(families(1))
    await route.process(delivery)
    assert {
        request.headers["x-ms-client-request-id"] for request in route.fhir_double.received
    } == {delivery}


async def test_no_request_to_the_fhir_server_may_be_answered_from_a_cache(route: Route) -> None:
    """HAPI's server repeats the result of an earlier search, which a later write may have changed."""
    body = entry(patient(), **MAYBE)
    await route.process(await route.deliver(bundle(body)))
    received = route.fhir_double.received
    assert {request.headers.get("cache-control") for request in received} == {"no-cache"}


async def test_lines_that_cannot_be_read_are_refused_and_counted(route: Route) -> None:
    headers = {"content-type": "application/fhir+ndjson"}
    lines = b'{"resourceType": "Patient", "id": "p1"}\n{\n{"resourceType": "Patient", "id": "p2"}'
    delivery = await route.deliver(lines, headers=headers)
    await route.process_all(delivery)
    known = await route.known(delivery)
    assert (known.status, known.written, known.refused) == (Status.DONE, 2, 1)
    assert await route.statuses(delivery) == [201, 422, 201]
    assert (await route.outcomes(delivery))[1].issues


async def test_a_bad_entry_of_a_batch_is_refused_and_the_others_are_written(route: Route) -> None:
    bad = {"resource": {"resourceType": MARKER}, "fullUrl": "urn:x", "request": {"method": "PUT"}}
    delivery = await route.deliver(
        bundle(entry(patient(id="p1"), method="PUT"), bad, entry(patient()), kind="batch")
    )
    await route.process_all(delivery)
    known = await route.known(delivery)
    assert (known.status, known.written, known.refused) == (Status.DONE, 2, 1)
    assert await route.statuses(delivery) == [201, 422, 201]
    refused = (await route.outcomes(delivery))[1]
    assert refused.full_url == "urn:x"
    (issue,) = refused.issues or []
    assert issue["expression"] == ["Bundle.entry[1].request.url"]


async def test_an_entry_that_is_not_valid_is_refused_alone_as_the_setting_said_at_the_time(
    route: Route,
) -> None:
    route.settings["policy"] = Policy(validate=True)
    wrong = entry(patient(birthDate="soon"))
    delivery = await route.deliver(bundle(entry(patient()), wrong, kind="batch"))
    route.settings["policy"] = Policy()
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [201, 422]


async def test_a_search_that_found_nothing_is_done_without_a_write(route: Route) -> None:
    delivery = await route.deliver({"resourceType": "Bundle", "type": "searchset", "total": 0})
    await route.process_all(delivery)
    known = await route.known(delivery)
    assert (known.status, known.entries, known.written) == (Status.DONE, 0, 0)
    status = await deliveries.get_status(route.journal, delivery)
    assert "entry" not in build_response_bundle(status.delivery, status.results, status.rows)


async def test_the_very_same_entry_again_is_written_once_and_answered_twice(route: Route) -> None:
    once = {"resource": patient(id="p1"), "fullUrl": "https://a.example/Patient/p1"}
    delivery = await route.deliver(bundle(once, once, kind="searchset"))
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [201, 200]
    assert len({item.location for item in await route.outcomes(delivery)}) == 1


async def test_an_address_of_a_conditional_entry_becomes_its_address(route: Route) -> None:
    url = "urn:uuid:00000000-0000-4000-8000-000000000001"
    photo = patient(photo=[{"url": url}])
    delivery = await route.deliver(bundle(entry(photo), entry(patient(), url, **MAYBE)))
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [201, 201]
    first, second = await route.outcomes(delivery)
    sent = route.fhir_double.stored[(first.location or "").partition("/_history")[0]]
    assert sent["photo"] == [{"url": (second.location or "").partition("/_history")[0]}]
    assert (await route.known(delivery)).split


async def test_a_transaction_that_cannot_be_sent_whole_is_refused_whole(route: Route) -> None:
    lost = observation("urn:uuid:00000000-0000-4000-8000-00000000dead")
    delivery = await route.deliver(bundle(*family(0), entry(lost)))
    await route.process(delivery)
    assert await route.statuses(delivery) == [422, 422, 422]
    assert (await route.known(delivery)).status is Status.DONE
    assert route.fhir_double.received == []


async def test_a_transaction_above_the_limit_is_refused_where_the_setting_says_so(
    route: Route,
) -> None:
    route.limits = Limits(entries=2, over="reject")
    delivery = await route.deliver(families(2))
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [422] * 4
    assert route.fhir_double.received == []


# --- bundles of other types --------------------------------------------------------------------


def loose(*resources: dict[str, Any], kind: str) -> dict[str, Any]:
    """A bundle of resources that says nothing of requests."""
    return bundle(*({"resource": resource} for resource in resources), kind=kind)


@pytest.mark.parametrize("kind", ["collection", "searchset"])
async def test_the_resources_of_a_collection_are_written_under_their_own_ids(
    route: Route, kind: str
) -> None:
    delivery = await route.deliver(loose(patient(id="p1"), observation("Patient/p1"), kind=kind))
    await route.process_all(delivery)
    assert (await route.known(delivery)).kind == kind
    assert await route.statuses(delivery) == [201, 201]
    assert [resource["id"] for resource in route.fhir_double.of("Patient")] == ["p1"]
    assert route.mirrored == ["Patient/p1"]


async def test_what_is_left_out_of_a_searchset_is_reported_and_not_sent(route: Route) -> None:
    hint = {"resourceType": "OperationOutcome", "issue": []}
    found = loose(hint, patient(id="p1"), kind="searchset")
    found["link"] = [{"relation": "next", "url": "https://a.example/fhir?page=2"}]
    delivery = await route.deliver(found)
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [204, 201]
    (issue,) = (await route.outcomes(delivery))[0].issues or []
    assert (issue["severity"], issue["diagnostics"]) == (
        "information",
        "left out: search outcome",
    )
    assert list(route.fhir_double.stored) == ["Patient/p1"]
    assert (await route.known(delivery)).more


async def test_a_history_ends_with_its_newest_version(route: Route) -> None:
    def version(number: int) -> dict[str, Any]:
        resource = patient(id="p1", gender=f"g{number}", meta={"versionId": str(number)})
        return entry(resource, "https://a.example/Patient/p1", method="PUT", url="Patient/p1")

    delivery = await route.deliver(bundle(*map(version, (3, 10, 2)), kind="history"))
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [200, 200, 201]
    assert route.fhir_double.stored["Patient/p1"]["gender"] == "g10"
    assert route.fhir_double.writes_of_each == {"Patient/p1": 3}


async def test_a_message_is_written_with_its_header(route: Route) -> None:
    header = {"resourceType": "MessageHeader", "id": "m1"}
    delivery = await route.deliver(loose(header, patient(id="p1"), kind="message"))
    await route.process_all(delivery)
    assert set(route.fhir_double.stored) == {"MessageHeader/m1", "Patient/p1"}


@pytest.mark.parametrize(
    ("documents", "types"),
    [
        ("bundle", {"Bundle"}),
        ("resources", {"Composition", "Patient"}),
        ("both", {"Bundle", "Composition", "Patient"}),
    ],
)
async def test_a_document_is_processed_by_the_policy_of_when_it_was_accepted(
    route: Route, documents: str, types: set[str]
) -> None:
    """Whatever the policy is when it is processed."""
    route.settings["policy"] = Policy(documents=documents)
    delivery = await route.deliver(
        loose({"resourceType": "Composition"}, patient(), kind="document")
    )
    route.settings["policy"] = Policy(messages="refuse", documents="resources")
    await route.process_all(delivery)
    assert {name.partition("/")[0] for name in route.fhir_double.stored} == types
    known = await route.known(delivery)
    assert (known.entries, known.written) == (len(types), len(types))


# --- several lanes -----------------------------------------------------------------------------


async def test_several_lanes_fan_out_with_a_work_item_each(route: Route) -> None:
    route.limits = Limits(entries=2)
    delivery = await route.deliver(families(3))
    await route.process(delivery)
    assert route.fhir_double.received == []
    assert route.queued() == [(WorkItem(delivery, lane=lane), 0) for lane in range(3)]
    known = await route.known(delivery)
    assert (known.status, known.lanes, known.units) == (Status.PROCESSING, 3, 3)
    assert known.split


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 1, 0, 2], [2, 2, 1, 0, 0, 1]])
async def test_the_last_lane_finishes_the_delivery_whatever_the_order(
    route: Route, order: list[int]
) -> None:
    route.limits = Limits(entries=2)
    delivery = await route.deliver(families(3))
    await route.process(delivery)
    for number, lane in enumerate(order):
        everything = set(order[:number]) == {0, 1, 2}
        assert ((await route.known(delivery)).status is Status.DONE) == everything
        await route.process(delivery, lane=lane)
    known = await route.known(delivery)
    assert (known.status, known.written, known.lanes, known.units) == (Status.DONE, 6, 3, 3)
    assert len(route.fhir_double.writes) == 3
    assert set(route.fhir_double.writes_of_each.values()) == {1}


async def test_a_failing_lane_does_not_hold_up_the_others(route: Route) -> None:
    route.limits = Limits(entries=2)
    delivery = await route.deliver(families(2))
    await route.process(delivery)
    route.fhir_double.will_answer(500)
    await route.process(delivery, lane=0)
    await route.process(delivery, lane=1)
    assert len(route.fhir_double.stored) == 2
    assert (await route.known(delivery)).status is Status.PROCESSING
    await route.process_all()
    assert (await route.known(delivery)).status is Status.DONE


async def test_a_fan_out_that_broke_off_is_repeated(route: Route) -> None:
    route.limits = Limits(entries=2)
    delivery = await route.deliver(families(3))
    await route.process(delivery)
    await route.process_all(delivery)
    assert (await route.known(delivery)).status is Status.DONE
    assert len(route.fhir_double.stored) == 6
    assert set(route.fhir_double.writes_of_each.values()) == {1}


async def test_bad_lines_count_when_the_lanes_are_many(route: Route) -> None:
    route.limits = Limits(entries=1)
    headers = {"content-type": "application/fhir+ndjson"}
    lines = b'{"resourceType": "Patient", "id": "p1"}\n{\n{"resourceType": "Patient", "id": "p2"}'
    delivery = await route.deliver(lines, headers=headers)
    await route.process_all(delivery)
    known = await route.known(delivery)
    assert (known.status, known.written, known.refused, known.lanes) == (Status.DONE, 2, 1, 2)


# --- repeated work items -----------------------------------------------------------------------


async def test_a_work_item_for_a_finished_delivery_sends_nothing(route: Route) -> None:
    delivery = await route.deliver(families(1))
    await route.process(delivery)
    heard = len(route.fhir_double.received)
    before = await route.known(delivery)
    route.clock.later(60)
    await route.process(delivery)
    assert len(route.fhir_double.received) == heard
    assert await route.known(delivery) == before


async def test_a_work_item_without_a_delivery_is_an_error(route: Route) -> None:
    unknown = route.intake.new_id(route.clock.now)
    with pytest.raises(LookupError):
        await route.process(unknown)


# --- failures -----------------------------------------------------------------------------------


async def test_a_failure_requeues_the_work_item_with_growing_delay(route: Route) -> None:
    delivery = await route.deliver(families(1))
    claim, delays = WorkItem(delivery), []
    route.fhir_double.down = 500
    for _ in range(4):
        await relaying.process(route.relay, claim)
        ((claim, delay),) = route.queued()
        route.queue_sender.sent.clear()
        delays.append(delay)
        route.clock.later(delay)
    assert delays == sorted(set(delays))
    assert claim.attempt == 4
    route.fhir_double.down = None
    await relaying.process(route.relay, claim)
    assert (await route.known(delivery)).status is Status.DONE


async def test_the_delay_is_as_long_as_the_server_asks_for(route: Route) -> None:
    delivery = await route.deliver(families(1))
    route.fhir_double.will_answer(429, headers={"retry-after": "77"})
    await route.process(delivery)
    assert [delay for _, delay in route.queued()] == [77]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_missing_role_requeues_with_a_long_delay_and_an_error(
    route: Route, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    delivery = await route.deliver(families(1))
    route.fhir_double.will_answer(status)
    await route.process(delivery)
    ((claim, delay),) = route.queued()
    assert claim.delivery == delivery
    assert delay == 60
    (record,) = [record for record in caplog.records if record.message == "delivery.requeued"]
    assert record.levelno == logging.ERROR
    assert (await route.known(delivery)).status is Status.ACCEPTED


async def test_only_age_parks_a_delivery_and_says_why(route: Route) -> None:
    route.max_age = 3600
    delivery = await route.deliver(families(1))
    claim, tries = WorkItem(delivery), 0
    route.fhir_double.down = 500
    while (await route.known(delivery)).status is Status.ACCEPTED:
        route.queue_sender.sent.clear()
        await relaying.process(route.relay, claim)
        for again, delay in route.queued():
            claim = again
            route.clock.later(delay)
        tries += 1
    known = await route.known(delivery)
    assert known.status is Status.PARKED
    assert known.reason
    assert "FHIR server" in known.reason
    assert tries > 5
    assert route.queued() == []


async def test_a_parked_delivery_is_processed_when_its_work_item_is_queued_again(
    route: Route,
) -> None:
    delivery = await route.deliver(families(1))
    await relaying.park(
        route.journal, WorkItem(delivery), "processing failed repeatedly", route.clock.now
    )
    assert (await route.known(delivery)).reason == "processing failed repeatedly"
    await route.process(delivery)
    known = await route.known(delivery)
    assert (known.status, known.reason) == (Status.DONE, None)


async def test_a_cancelled_delivery_sends_no_further_unit(route: Route) -> None:
    route.limits = Limits(entries=1)
    url = "urn:uuid:00000000-0000-4000-8000-000000000001"
    chain = bundle(entry(patient(), url), entry(observation(url)))
    delivery = await route.deliver(chain)
    route.fhir_double.will_wait_for(
        lambda: deliveries.cancel(route.journal, delivery, route.clock.now)
    )
    await route.process(delivery)
    assert len(route.fhir_double.writes) == 1
    assert (await route.known(delivery)).status is Status.CANCELLED
    assert len(await route.outcomes(delivery)) == 1
    assert route.queued() == []


async def test_a_cancelled_delivery_is_not_begun(route: Route) -> None:
    delivery = await route.deliver(families(1))
    await deliveries.cancel(route.journal, delivery, route.clock.now)
    await route.process(delivery)
    assert route.fhir_double.received == []


class CancelledMeanwhile(MemoryJournal):
    """Its sender cancels while the lanes are being kept."""

    async def save_lane(self, id_: str, plan: int, lane: int, data: bytes) -> None:
        await super().save_lane(id_, plan, lane, data)
        if self.deliveries[id_].status is Status.ACCEPTED:
            await deliveries.cancel(self, id_, self.deliveries[id_].accepted)


async def test_a_delivery_cancelled_while_it_fans_out_stays_cancelled(route: Route) -> None:
    route.journal = CancelledMeanwhile()
    route.limits = Limits(entries=2)
    delivery = await route.deliver(families(3))
    await route.process_all(delivery)
    assert (await route.known(delivery)).status is Status.CANCELLED
    assert route.fhir_double.received == []


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (None, "processing failed repeatedly: the log says why"),
        (
            "FHIR server: answered 503",
            "processing failed repeatedly; the last error that is known: FHIR server: answered 503",
        ),
    ],
)
async def test_what_failed_repeatedly_is_parked_with_the_last_error_that_is_known(
    route: Route, last: str | None, told: str
) -> None:
    delivery = await route.deliver(families(1))
    await route.journal.update_delivery(delivery, reason=last)
    await park_failed(route.journal, WorkItem(delivery), route.clock())
    known = await route.known(delivery)
    assert (known.status, known.reason) == (Status.PARKED, told)


async def test_a_late_failure_does_not_park_what_is_done(route: Route) -> None:
    delivery = await route.deliver(families(1))
    await route.process(delivery)
    await relaying.park(
        route.journal, WorkItem(delivery), "processing failed repeatedly", route.clock.now
    )
    assert (await route.known(delivery)).status is Status.DONE


# --- logs and messages -------------------------------------------------------------------------


async def test_work_items_deliveries_and_logs_hold_no_patient_data(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    marked = entry(patient(), ifNoneExist=f"identifier=urn:mrn|{MARKER}")
    delivery = await route.deliver(bundle(marked, *family(1)))
    route.fhir_double.will_answer(500, {"issue": MARKER})
    await route.process(delivery)
    assert MARKER not in repr(route.queue_sender.sent)
    await route.process_all()
    assert MARKER not in repr(await route.known(delivery))
    ours = [record for record in caplog.records if record.name.startswith("integration")]
    assert {"delivery.done", "delivery.requeued"} <= {record.message for record in ours}
    assert MARKER not in told_by(caplog.records)


# --- a worker that dies ------------------------------------------------------------------------


class Died(Exception):
    """The worker has ended; the queue gives its message to another one."""


class Fuse:
    """Raises an error at one of the steps, once."""

    def __init__(self, at: int, error: Exception) -> None:
        self.at, self.error, self.steps = at, error, 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise self.error


class Fused:
    """The journal or the queue sender, with a fuse before and after every call."""

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self.inner, self.fuse = inner, fuse

    def __getattr__(self, name: str) -> Any:
        work = getattr(self.inner, name)
        if not callable(work):
            return work

        async def fused(*args: Any, **kwargs: Any) -> Any:
            self.fuse.step()
            result = await work(*args, **kwargs)
            self.fuse.step()
            return result

        return fused


def plain() -> dict[str, Any]:
    known = [{"system": "urn:mrn", "value": "7"}]
    return bundle(entry(patient(identifier=known), **MAYBE), *family(1))


def conditional_first() -> dict[str, Any]:
    """What refers to a conditional create goes into a later unit, and refers to its result there."""
    url = "urn:uuid:00000000-0000-4000-8000-000000000001"
    maybe = entry(patient(identifier=[{"system": "urn:mrn", "value": "7"}]), url, **MAYBE)
    return bundle(maybe, entry(observation(url)), kind="batch")


@pytest.mark.parametrize(
    "error",
    [Died("killed"), Unavailable("storage", "ServiceRequestError")],
    ids=["the worker dies", "the storage fails"],
)
@pytest.mark.parametrize(
    ("body", "limits", "entries"),
    [
        (plain, Limits(), 3),
        (conditional_first, Limits(), 2),
        (lambda: families(2), Limits(entries=2), 4),
        (lambda: bundle(*family(0)), Limits(entries=1), 2),
    ],
    ids=["one unit", "two units", "two lanes", "a split transaction"],
)
async def test_a_worker_that_dies_anywhere_loses_nothing_and_doubles_nothing(
    route: Route, body: Callable[[], Any], limits: Limits, entries: int, error: Exception
) -> None:
    route.limits = limits
    journal, queue_sender, script = route.journal, route.queue_sender, route.fhir_double.script
    at, deaths = 0, 0
    while True:
        at += 1
        route.journal, route.queue_sender = journal, queue_sender
        route.clock.later(60)
        queue_sender.sent.clear()
        fhir_double = route.fhir_double
        fhir_double.stored.clear()
        # The same bytes would be a repeat. Another key makes another delivery.
        delivery = await route.deliver(body(), headers={"idempotency-key": str(at)})
        fuse = Fuse(at, error)
        route.journal, route.queue_sender = Fused(journal, fuse), Fused(queue_sender, fuse)

        async def through(work: Any, request: Any, fuse: Fuse = fuse) -> Any:
            try:
                fuse.step()  # the request is lost
                answer = await work(request)
                fuse.step()  # the response is lost
            except Unavailable:
                raise Died from None
            return answer

        script[:] = [through] * 50
        waiting = [WorkItem(delivery)]
        while waiting:
            claim = waiting.pop(0)
            try:
                await relaying.process(route.relay, claim)
            except (Died, Unavailable):
                deaths += 1
                waiting.append(claim)
            while (new := route.take()) is not None:
                waiting.append(new)
        script.clear()
        known = await journal.get_delivery(delivery)
        assert known is not None
        assert (known.status, known.written, known.refused) == (Status.DONE, entries, 0), at
        assert len(await journal.list_entry_results(delivery)) == entries
        assert len(fhir_double.stored) == entries, at
        assert set(fhir_double.writes_of_each.values()) == {1}, at
        people = {f"Patient/{person['id']}" for person in fhir_double.of("Patient")}
        assert {
            claim.resource for name, claim, _ in queue_sender.sent if name == MIRROR_QUEUE
        } == people
        if fuse.steps < at:
            break
    assert at > 10
    assert deaths > 0 or isinstance(error, Unavailable)


async def test_a_work_item_that_cannot_be_requeued_stays_in_the_queue(route: Route) -> None:
    class Full:
        async def send(self, queue: str, claim: WorkItem, delay: float = 0) -> None:
            raise Unavailable("storage", "queue: ServiceRequestError")

    delivery = await route.deliver(families(1))
    route.queue_sender = Full()
    route.fhir_double.will_answer(500)
    with pytest.raises(Unavailable):
        await route.process(delivery)
    assert RELAY_QUEUE == "relay"
