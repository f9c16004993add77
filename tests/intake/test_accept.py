"""A delivery is checked, kept and queued before its sender gets the response."""

from __future__ import annotations

import gzip
import json
import logging
import tracemalloc
from dataclasses import replace
from time import process_time
from typing import Any

import pytest

from integration.core.errors import Rejected, Unavailable
from integration.core.model import Delivery, Policy, Status, WorkItem
from integration.fhir.entries import MAX_ISSUES
from integration.journal.store import MemoryJournal, Payload
from integration.queues.names import RELAY_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from tests.builders import MARKER, bundle, entry, observation, patient
from tests.conftest import Route, told_by

# The key of a bare Patient since the first version. Another one would create what is sent again
# after an upgrade once more.
KEY_OF_FIRST_VERSION = "b9d4cc7290f034c7b7865e9d94313f802fb87b94bba294a3009aa3480e7bf581"

GZIP = {"content-encoding": "gzip"}


class FullQueue(MemoryQueueSender):
    """Accepts no work item while it is full."""

    full = True

    async def send(self, queue: str, claim: WorkItem, delay: float = 0) -> None:
        if self.full:
            raise Unavailable("storage", "queue: ServiceRequestError")
        await super().send(queue, claim, delay)


class Fragile(MemoryJournal):
    """Fails once, at the chosen step."""

    breaks_at = ""

    async def add_delivery(self, delivery: Delivery, payload: Payload) -> bool:
        if self.breaks_at == "add_delivery":
            self.breaks_at = ""
            raise Unavailable("storage", "ServiceRequestError")
        added = await super().add_delivery(delivery, payload)
        if self.breaks_at == "between bytes and row":
            self.breaks_at = ""
            del self.deliveries[delivery.id]
            raise Unavailable("storage", "ServiceRequestError")
        return added


async def refusal(route: Route, body: Any, **asked: Any) -> Rejected:
    """Return the error that the sender gets, and check that nothing of the request was kept."""
    with pytest.raises(Rejected) as caught:
        await route.ask(body, **asked)
    assert route.queue_sender.sent == []
    assert route.journal.deliveries == {}
    assert route.journal.payloads == {}
    return caught.value


# --- what is accepted --------------------------------------------------------------------------


async def test_a_delivery_is_kept_byte_for_byte_and_queued_before_the_response(
    route: Route,
) -> None:
    body = b' {"resourceType" : "Patient", "multipleBirthInteger": 1.10 } \n'
    accepted = await route.ask(body)
    assert (await route.journal.get_payload(accepted.delivery)).body == body
    assert route.queue_sender.sent == [(RELAY_QUEUE, WorkItem(accepted.delivery), 0)]
    known = await route.known(accepted.delivery)
    assert (known.status, known.kind, known.entries, known.bytes, known.accepted) == (
        Status.ACCEPTED,
        "resource",
        1,
        len(body),
        route.clock.now,
    )


async def test_the_bundle_s_type_and_count_are_recorded(route: Route) -> None:
    two = bundle(entry(patient()), entry(observation()), kind="batch")
    known = await route.known(await route.deliver(two))
    assert (known.kind, known.entries) == ("batch", 2)


async def test_address_and_conditions_are_kept_beside_the_bytes(route: Route) -> None:
    headers = {"if-match": 'W/"3"', "if-none-exist": "identifier=a|b"}
    asked = {"method": "PUT", "type": "Patient", "id": "p1"}
    delivery = await route.deliver(patient(id="p1"), headers=headers, **asked)
    received = (await route.journal.get_payload(delivery)).request
    assert (received.method, received.type, received.id) == ("PUT", "Patient", "p1")
    assert (received.if_match, received.if_none_exist) == ('W/"3"', "identifier=a|b")


async def test_a_delete_needs_neither_body_nor_content_type(route: Route) -> None:
    asked = {"method": "DELETE", "type": "Patient", "id": "p1"}
    known = await route.known(await route.deliver(b"", headers={"content-type": None}, **asked))
    assert (known.kind, known.entries) == ("resource", 1)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/fhir+json",
        "application/json",
        "Application/FHIR+JSON; charset=UTF-8",
        'application/fhir+json; fhirVersion=4.0; charset="utf-8"',
    ],
)
async def test_json_is_accepted_under_each_of_its_names(route: Route, content_type: str) -> None:
    await route.deliver(patient(), headers={"content-type": content_type})


@pytest.mark.parametrize(
    "content_type", ["application/fhir+ndjson", "application/ndjson", "application/x-ndjson"]
)
async def test_ndjson_is_accepted_under_each_of_its_names(route: Route, content_type: str) -> None:
    lines = b"\n".join(json.dumps(patient(id=f"p{n}")).encode() for n in range(3))
    known = await route.known(await route.deliver(lines, headers={"content-type": content_type}))
    assert (known.kind, known.entries) == ("ndjson", 3)


async def test_bad_lines_of_ndjson_are_listed_and_the_good_ones_accepted(route: Route) -> None:
    lines = [json.dumps(patient(id="p1")), '{"resourceType": "Patient"', "", '{"a": 1}']
    headers = {"content-type": "application/fhir+ndjson"}
    accepted = await route.ask("\n".join(lines).encode(), headers=headers)
    assert [issue.expression for issue in accepted.refused] == ["line 2", "line 4"]
    assert (await route.known(accepted.delivery)).entries == 3
    assert len(route.queued()) == 1


async def test_no_more_refused_entries_are_listed_than_a_sender_can_read(route: Route) -> None:
    accepted = await route.ask(bundle(entry(patient()), *[{}] * 100, kind="batch"))
    assert len(accepted.refused) == MAX_ISSUES + 1
    assert accepted.refused[-1].severity == "information"


async def test_as_many_entries_as_the_setting_are_accepted_and_more_are_refused(
    route: Route,
) -> None:
    route.settings = {"max_entries": 2}
    assert (await refusal(route, bundle(*[entry(patient())] * 3, kind="batch"))).status == 413
    await route.deliver(bundle(*[entry(patient())] * 2, kind="batch"))


async def test_what_was_accepted_is_planned_whatever_the_setting_is_by_then(route: Route) -> None:
    delivery = await route.deliver(bundle(*[entry(patient())] * 3, kind="batch"))
    route.settings = {"max_entries": 2}
    await route.process_all(delivery)
    assert (await route.known(delivery)).written == 3


async def test_ndjson_without_one_good_line_is_refused(route: Route) -> None:
    headers = {"content-type": "application/fhir+ndjson"}
    error = await refusal(route, b"{\n[]\n", headers=headers)
    assert [issue.expression for issue in error.issues] == ["line 1", "line 2"]


# --- repeated requests -------------------------------------------------------------------------


async def test_a_full_queue_is_reported_to_the_sender_and_a_repeat_works(route: Route) -> None:
    route.queue_sender = FullQueue()
    with pytest.raises(Unavailable):
        await route.ask(patient())
    route.queue_sender.full = False
    accepted = await route.ask(patient())
    assert route.queued() == [(WorkItem(accepted.delivery), 0)]


async def test_bytes_that_cannot_be_kept_are_never_queued_and_a_repeat_works(route: Route) -> None:
    route.journal = Fragile()
    route.journal.breaks_at = "add_delivery"
    with pytest.raises(Unavailable):
        await route.ask(patient())
    assert route.queued() == []
    accepted = await route.ask(patient())
    assert route.queued() == [(WorkItem(accepted.delivery), 0)]


async def test_a_repeated_key_returns_the_first_delivery_and_queues_nothing(
    route: Route,
) -> None:
    headers = {"idempotency-key": "k1"}
    first = await route.deliver(patient(), headers=headers)
    await route.process(first)
    again = await route.ask(patient(), headers=headers)
    assert again.delivery == first
    assert route.queued() == []
    assert list(route.journal.deliveries) == [first]


async def test_a_repeated_key_of_a_delivery_that_waits_is_queued_again(route: Route) -> None:
    """The first request may have ended between the journal and the queue."""
    headers = {"idempotency-key": "k1"}
    first = await route.deliver(patient(), headers=headers)
    again = await route.ask(patient(), headers=headers)
    assert again.delivery == first
    assert route.queued() == [(WorkItem(first), 0)]


async def test_a_request_that_broke_off_after_taking_its_key_is_finished_by_a_repeat(
    route: Route,
) -> None:
    route.journal = Fragile()
    route.journal.breaks_at = "add_delivery"
    headers = {"idempotency-key": "k1"}
    with pytest.raises(Unavailable):
        await route.ask(patient(), headers=headers)
    (taken,) = route.journal.keys.values()
    accepted = await route.ask(patient(), headers=headers)
    assert accepted.delivery == taken
    assert route.queued() == [(WorkItem(taken), 0)]
    await route.process_all()
    assert (await route.known(taken)).status is Status.DONE


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (patient(active=True), {}),
        (patient(), {"type": "Patient"}),
        (patient(), {"headers": {"if-none-exist": "identifier=a|b"}}),
    ],
    ids=["another body", "another address", "another condition"],
)
async def test_a_key_cannot_be_used_for_another_request(
    route: Route, body: Any, asked: dict[str, Any]
) -> None:
    await route.deliver(patient(), headers={"idempotency-key": "k1"})
    headers = {"idempotency-key": "k1", **asked.pop("headers", {})}
    with pytest.raises(Rejected) as caught:
        await route.ask(body, headers=headers, **asked)
    assert caught.value.status == 422
    assert route.queued() == []


async def test_a_key_of_a_request_that_ended_between_bytes_and_row_is_for_those_bytes(
    route: Route,
) -> None:
    headers = {"idempotency-key": "k1"}
    route.journal = Fragile()
    route.journal.breaks_at = "between bytes and row"
    with pytest.raises(Unavailable):
        await route.ask(patient(id="old"), headers=headers)
    with pytest.raises(Rejected) as caught:
        await route.ask(patient(id="new"), headers=headers)
    assert caught.value.status == 422
    assert (route.queued(), route.journal.deliveries) == ([], {})

    accepted = await route.ask(patient(id="old"), headers=headers)
    await route.process_all()
    assert (await route.known(accepted.delivery)).status is Status.DONE
    assert len(route.fhir_double.of("Patient")) == 1


async def test_the_same_bytes_make_a_second_delivery_marked_as_a_repeat(
    route: Route,
) -> None:
    first = await route.known(await route.deliver(patient()))
    second = await route.known(await route.deliver(patient()))
    assert (first.repeat, second.repeat) == (False, True)
    assert first.id != second.id
    assert first.key == second.key


async def test_the_same_bytes_at_another_address_are_no_repeat(route: Route) -> None:
    await route.deliver(patient())
    other = await route.known(await route.deliver(patient(), type="Patient"))
    assert not other.repeat


async def test_two_senders_may_use_the_same_key(route: Route) -> None:
    headers = {"idempotency-key": "k1"}
    first = await route.deliver(patient(), headers=headers, sender="north")
    second = await route.deliver(patient(active=True), headers=headers, sender="south")
    assert first != second


async def test_the_keys_of_deliveries_are_those_of_earlier_versions(route: Route) -> None:
    known = await route.known(await route.deliver(b'{"resourceType":"Patient"}'))
    assert known.key == known.digest == KEY_OF_FIRST_VERSION


# --- gzip --------------------------------------------------------------------------------------


async def test_gzip_is_unpacked_before_the_delivery_is_kept(route: Route) -> None:
    body = json.dumps(patient()).encode()
    delivery = await route.deliver(gzip.compress(body), headers=GZIP)
    assert (await route.journal.get_payload(delivery)).body == body


async def test_gzip_of_several_members_is_one_body(route: Route) -> None:
    body = json.dumps(patient()).encode()
    members = b"".join(gzip.compress(body[n : n + 20]) for n in range(0, len(body), 20))
    delivery = await route.deliver(members, headers=GZIP)
    assert (await route.journal.get_payload(delivery)).body == body


@pytest.mark.parametrize(
    "damaged",
    [
        b"no gzip at all",
        gzip.compress(b'{"resourceType": "Patient"}')[:-9],
        gzip.compress(b"{}") + b"and more",
    ],
    ids=["other bytes", "cut off", "followed by something"],
)
async def test_what_is_not_gzip_is_refused(route: Route, damaged: bytes) -> None:
    assert (await refusal(route, damaged, headers=GZIP)).status == 400


async def test_a_gzip_bomb_takes_no_more_memory_than_a_delivery_may(route: Route) -> None:
    route.settings = {"max_bytes": 100_000}
    bomb = gzip.compress(bytes(64_000_000))
    tracemalloc.start()
    try:
        error = await refusal(route, bomb, headers=GZIP)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error.status == 413
    assert peak < 2_000_000


async def test_the_limit_holds_for_all_gzip_members_together(route: Route) -> None:
    route.settings = {"max_bytes": 100_000}
    error = await refusal(route, gzip.compress(bytes(60_000)) * 2, headers=GZIP)
    assert error.status == 413


async def test_many_empty_gzip_members_take_time_in_proportion(route: Route) -> None:
    """They have twenty bytes each, so a large delivery may hold millions while all others wait."""
    route.settings = {"max_bytes": 50_000_000}

    async def seconds(members: int) -> float:
        begun = process_time()  # other work on the machine takes no part in it
        await refusal(route, gzip.compress(b"") * members, headers=GZIP)
        return process_time() - begun

    few = min([await seconds(10_000) for _ in range(3)])
    many = min([await seconds(40_000) for _ in range(3)])
    assert many < 8 * few  # four times as many; sixteen would be the square


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/xml"}, 415),
        ({"content-type": "text/json"}, 415),
        ({"content-type": None}, 415),
        ({"content-type": "application/fhir+json; charset=iso-8859-1"}, 415),
        ({"content-encoding": "br"}, 415),
        ({"idempotency-key": "k" * 2001}, 400),
        ({"if-match": 'W/"1"\x00'}, 400),
        ({"if-none-exist": "q" * 2001}, 400),
    ],
    ids=str,
)
async def test_unsupported_headers_are_refused(
    route: Route, headers: dict[str, Any], status: int
) -> None:
    assert (await refusal(route, patient(), headers=headers)).status == status


@pytest.mark.parametrize(
    ("type_", "id_", "method", "allowed"),
    [
        (None, None, "GET", ("POST",)),
        (None, None, "PUT", ("POST",)),
        (None, None, "PATCH", ("POST",)),
        ("Patient", None, "DELETE", ("POST",)),
        ("Patient", None, "PATCH", ("POST",)),
        ("Patient", "p1", "POST", ("PUT", "PATCH", "DELETE")),
    ],
)
async def test_a_wrong_method_gets_the_methods_that_are_allowed(
    route: Route, type_: str | None, id_: str | None, method: str, allowed: tuple[str, ...]
) -> None:
    error = await refusal(route, patient(), type=type_, id=id_, method=method)
    assert (error.status, error.headers) == (405, {"Allow": ", ".join(allowed)})


async def test_a_patch_is_accepted_in_either_form(route: Route) -> None:
    operation = {"op": "remove", "path": "/name"}
    asked = {"type": "Patient", "id": "p1", "method": "PATCH"}
    json_patch = {"content-type": "application/json-patch+json"}
    accepted = await route.ask(json.dumps([operation]).encode(), headers=json_patch, **asked)
    kept = await route.journal.get_payload(accepted.delivery)
    assert (kept.request.method, kept.request.format) == ("PATCH", "json-patch")
    fhirpath = {"resourceType": "Parameters", "parameter": [{"name": "operation"}]}
    accepted = await route.ask(fhirpath, **asked)
    assert (await route.known(accepted.delivery)).entries == 1


async def test_a_json_patch_is_accepted_only_with_patch(route: Route) -> None:
    headers = {"content-type": "application/json-patch+json"}
    error = await refusal(route, b"[]", type="Patient", id="p1", method="PUT", headers=headers)
    assert error.status == 415


async def test_an_unknown_type_is_not_found(route: Route) -> None:
    assert (await refusal(route, patient(), type="Pateint")).status == 404


@pytest.mark.parametrize("id_", ["a_b", "x" * 65, "é"])
async def test_an_id_that_fhir_does_not_allow_is_refused(route: Route, id_: str) -> None:
    assert (await refusal(route, patient(), type="Patient", id=id_, method="PUT")).status == 400


async def test_ndjson_at_the_address_of_a_type_is_refused(route: Route) -> None:
    headers = {"content-type": "application/fhir+ndjson"}
    assert (await refusal(route, patient(), headers=headers, type="Patient")).status == 415


async def test_as_many_bytes_as_the_setting_are_accepted_and_more_are_refused(
    route: Route,
) -> None:
    body = json.dumps(patient()).encode()
    route.settings = {"max_bytes": len(body) - 1}
    assert (await refusal(route, body)).status == 413
    assert (await refusal(route, gzip.compress(body), headers=GZIP)).status == 413
    route.settings = {"max_bytes": len(body)}
    await route.deliver(body)
    await route.deliver(gzip.compress(body), headers=GZIP)


@pytest.mark.parametrize("body", [b"", b"  ", b"{", b"\xff\xfe{\x00", b"[]", b'{"a": 1}'])
async def test_what_is_not_fhir_json_is_refused(route: Route, body: bytes) -> None:
    assert (await refusal(route, body)).status == 400


async def test_validation_names_elements_and_no_values(route: Route) -> None:
    route.settings = {"policy": Policy(validate=True)}
    wrong = patient(birthDate=MARKER, active=MARKER)
    error = await refusal(route, bundle(entry(observation()), entry(wrong)))
    assert error.status == 422
    where = "Bundle.entry[1].resource"
    assert {issue.expression for issue in error.issues} == {f"{where}.birthDate", f"{where}.active"}
    assert MARKER not in str(error)


async def test_what_is_not_valid_in_a_batch_is_refused_alone_and_named(route: Route) -> None:
    route.settings = {"policy": Policy(validate=True)}
    wrong = entry(patient(birthDate=MARKER, active=MARKER))
    assert (await refusal(route, bundle(wrong, wrong, kind="batch"))).status == 422
    accepted = await route.ask(bundle(entry(patient()), wrong, kind="batch"))
    (issue,) = accepted.refused
    assert (issue.expression or "").startswith("Bundle.entry[1].resource.")
    assert issue.text.endswith("and 1 more")
    assert MARKER not in repr(issue)


async def test_validation_is_off_unless_the_setting_says_on(route: Route) -> None:
    await route.deliver(patient(active=MARKER))


async def test_a_refusal_quotes_nothing_of_the_body(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "integration")
    wrong = {"resourceType": MARKER, "id": MARKER, "type": MARKER}
    for body in (wrong, bundle(wrong), bundle(entry(patient(), method=MARKER)), {"x": wrong}):
        error = await refusal(route, body)
        assert MARKER not in repr(error.issues)
        assert error.__cause__ is None
    assert MARKER not in told_by(caplog.records)


# --- what is in the queue, the journal and the log ---------------------------------------------


async def test_work_item_delivery_and_log_hold_no_patient_data(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "integration")
    headers = {
        "if-none-exist": f"identifier=urn:mrn|{MARKER}",
        "idempotency-key": MARKER,
        "if-match": MARKER,
    }
    delivery = await route.deliver(patient(), type="Patient", headers=headers)
    await route.ask(patient(), type="Patient", headers=headers)
    assert MARKER not in repr(await route.known(delivery))
    assert MARKER not in repr(route.queue_sender.sent)
    assert MARKER not in repr(route.journal.keys)
    assert "delivery.accepted" in caplog.messages
    assert MARKER not in told_by(caplog.records)
    # The marker is in the payload, and the search would find it elsewhere.
    assert MARKER in repr(await route.journal.get_payload(delivery))
    assert MARKER in repr(replace(await route.known(delivery), reason=MARKER))
