"""A sender's policy decides how its deliveries are taken, whatever the settings are for others."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import pytest

from integration.core.errors import Rejected
from integration.core.model import Rights, Status
from integration.intake.accept import Accepted, accept, parse_headers
from integration.intake.dry_run import plan_delivery
from integration.intake.http_request import IncomingRequest, add_content_key
from integration.journal.store import Payload
from integration.operations import deliveries
from integration.senders.model import ProvenSender, Sender, SenderPolicy
from integration.senders.proofs.bearer import Bearer
from tests.builders import MARKER, Body, batch, bundle, entry, observation, patient
from tests.conftest import FHIR_JSON, Route

BASE = "https://lab.example/fhir"


def proven(
    message_id: str | None = None, rights: Rights | None = None, **policy: Any
) -> ProvenSender:
    return ProvenSender(
        sender=Sender(
            name="lab",
            proof=Bearer(secrets=("LAB_TOKEN",)),
            rights=rights or Rights(),
            policy=SenderPolicy(**policy),
        ),
        message_id=message_id,
    )


async def kept(route: Route, delivery: str) -> Payload:
    return await route.journal.get_payload(delivery)


# --- how a delivery is read --------------------------------------------------------------------


async def test_policy_and_rights_are_kept_with_the_bytes(route: Route) -> None:
    rights = Rights(types=("Patient",))
    sender = proven(rights=rights, dangling="note", documents="both", write_order="version")
    id_ = await route.deliver(patient(), sender=sender)
    request = (await kept(route, id_)).request
    assert request.rights == rights
    assert (request.policy.dangling, request.policy.documents) == ("note", "both")
    assert (await route.known(id_)).write_order == "version"


async def test_what_a_policy_leaves_open_is_as_the_settings_say(route: Route) -> None:
    route.settings = {"policy": replace(route.intake.policy, dangling="note")}
    id_ = await route.deliver(patient(), sender=proven())
    assert (await kept(route, id_)).request.policy.dangling == "note"


async def test_a_sender_without_a_base_has_nothing_fetched(route: Route) -> None:
    id_ = await route.deliver(patient(), sender=proven())
    assert (await kept(route, id_)).request.policy.fetch_from == ()
    unlisted = await route.deliver(patient(active=True))
    assert (await kept(route, unlisted)).request.policy.fetch_from is None


async def test_placeholders_that_are_trusted_are_the_same_resource_in_each_delivery(
    route: Route,
) -> None:
    uuid = "0a0e6f3a-58a7-4f3e-9f0a-0d5d0f6f7a11"

    def made(**elements: Any) -> Body:
        person = entry(patient(**elements), full_url=f"urn:uuid:{uuid.upper()}")
        return bundle(person, entry(observation(f"urn:uuid:{uuid}"), full_url="urn:uuid:1"))

    sender = proven(trust="uuids", dangling="note")
    for body in (made(), made(active=True)):
        await route.process_all(await route.deliver(body, sender=sender))
    (person,) = route.fhir_double.of("Patient")
    assert (person["id"], person["active"]) == (uuid, True)
    subjects = {each["subject"]["reference"] for each in route.fhir_double.of("Observation")}
    assert subjects == {f"Patient/{uuid}"}


# --- what repeats share ------------------------------------------------------------------------


async def test_what_is_signed_as_the_message_s_id_is_the_key_of_a_repeat(route: Route) -> None:
    first = await route.deliver(patient(), sender=proven("msg-1"))
    again = await route.ask(patient(), sender=proven("msg-1"))
    other_header = {"headers": {"idempotency-key": "another"}}
    third = await route.ask(patient(), sender=proven("msg-1"), **other_header)
    assert (again.delivery, third.delivery) == (first, first)
    with pytest.raises(Rejected) as caught:
        await route.ask(patient(active=True), sender=proven("msg-1"))
    assert caught.value.status == 422


async def test_a_header_of_the_sender_s_choice_may_hold_the_key(route: Route) -> None:
    sender = proven(idempotency_header="X-Message")
    first = await route.deliver(patient(), sender=sender, headers={"x-message": "1"})
    again = await route.ask(patient(), sender=sender, headers={"x-message": "1"})
    assert again.delivery == first


async def test_a_key_in_the_body_makes_a_repeat_of_bytes_that_differ(route: Route) -> None:
    """Addresses are signed anew with each try."""

    def made(version: str, address: str) -> Body:
        url = f"https://files.example/{address}"
        return patient(id="p1", meta={"versionId": version}, photo=[{"url": url}])

    sender = proven(idempotency_pointers=("/resourceType", "/id", "/meta/versionId"))
    first = await route.deliver(made("1", "a"), sender=sender)
    again = await route.ask(made("1", "b"), sender=sender)
    shown = await plan_delivery(
        route.intake,
        route.intake.limits,
        IncomingRequest(
            method="POST",
            type=None,
            id=None,
            headers={"content-type": FHIR_JSON},
            body=json.dumps(made("1", "c")).encode(),
            sender=sender,
        ),
    )
    assert shown["repeats"] == first
    later = await route.ask(made("2", "a"), sender=sender)
    assert again.delivery == first
    assert later.delivery != first


async def test_events_are_told_apart_by_their_ids_where_their_numbers_begin_again(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    def event(*ids: str) -> Body:
        status = {
            "resourceType": "SubscriptionStatus",
            "type": "event-notification",
            "eventsSinceSubscriptionStart": "7",
            "subscription": {"reference": "Subscription/s1"},
            "notificationEvent": [
                {"id": id_, "eventNumber": "7", "focus": {"reference": "Patient/a-1.E-9"}}
                for id_ in ids
            ],
        }
        request = {"method": "GET", "url": "Subscription/s1/$status"}
        return bundle({"resource": status, "request": request}, kind="history")

    sender = proven(
        event_numbers="ignored",
        base=BASE,
        idempotency_pointers=("/entry/0/resource/notificationEvent/*/id",),
    )
    with caplog.at_level(logging.WARNING):
        first = await route.deliver(event("a", "b"), sender=sender)
        again = await route.ask(event("a", "b"), sender=sender)
        other = await route.ask(event("c"), sender=sender)
    assert again.delivery == first
    assert other.delivery != first
    assert caplog.records == [], "numbers that begin again are no gap"


async def test_nothing_of_a_body_is_parsed_before_there_is_room_for_it(route: Route) -> None:
    sender = proven(idempotency_pointers=("/id",))
    body = json.dumps(patient(id="p1")).encode()
    request = IncomingRequest(
        method="POST",
        type=None,
        id=None,
        headers={"content-type": FHIR_JSON},
        body=body,
        sender=sender,
    )
    parsed = parse_headers(route.intake, request)
    assert parsed.content_key is None
    assert (await add_content_key(parsed)).content_key == '[["p1"]]'


async def test_a_body_without_the_key_is_a_delivery_like_any_other(route: Route) -> None:
    sender = proven(idempotency_pointers=("/id",))
    first, second = (
        await route.ask(patient(), sender=sender),
        await route.ask(
            b"{}", sender=proven(idempotency_pointers=("/id",), refused_deliveries="hold")
        ),
    )
    assert first.delivery != second.delivery


# --- what cannot be read -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"resourceType": "Nothing"}',
        batch(entry(method="GET", url=f"Patient?family={MARKER}")),
    ],
    ids=["no JSON", "no resource", "no right"],
)
async def test_what_is_refused_is_kept_where_the_sender_must_not_hear_of_it(
    route: Route, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        accepted = await route.ask(body, sender=proven(refused_deliveries="hold"))
    known = await route.known(accepted.delivery)
    assert (known.status, known.kind, known.entries) == (Status.PARKED, "held", 0)
    assert (known.reason or "").startswith("refused at the door: ")
    assert MARKER not in str(known) + caplog.text
    assert accepted.refused
    assert route.queue_sender.sent == []
    assert (await kept(route, accepted.delivery)).body
    again = await route.ask(body, sender=proven(refused_deliveries="hold"))
    assert again.delivery == accepted.delivery


async def test_what_is_held_is_kept_even_if_its_key_was_used_for_another_request(
    route: Route,
) -> None:
    sender = proven(message_id="1", refused_deliveries="hold")
    first = await route.deliver(patient(), sender=sender)
    held = await route.ask(b"{", sender=sender)
    assert held.delivery != first
    assert (await kept(route, held.delivery)).body == b"{"
    assert (await kept(route, first)).body != b"{"
    assert (await route.known(first)).status is Status.ACCEPTED


async def test_a_repeat_of_what_was_held_is_sent_once_its_sender_may_send_it(route: Route) -> None:
    body = {"resourceType": "Condition", "subject": {"display": "x"}}
    narrow, wide = Rights(types=("Patient",)), Rights(types=("Condition",))
    for rights in (narrow, wide):
        sender = proven(message_id="1", rights=rights, refused_deliveries="hold")
        accepted = await route.ask(body, sender=sender)
    await route.process_all(accepted.delivery)
    assert (await route.known(accepted.delivery)).status is Status.DONE


async def test_what_was_held_is_sent_once_its_cause_is_mended_and_else_parked_again(
    route: Route,
) -> None:
    unreadable = await route.ask(b"{", sender=proven(refused_deliveries="hold"))
    await deliveries.replay(route.journal, route.queue_sender, unreadable.delivery, route.clock.now)
    await route.process_all()
    known = await route.known(unreadable.delivery)
    assert known.status is Status.PARKED
    assert (known.reason or "").startswith("refused: ")


async def test_a_delivery_of_which_entries_are_refused_ends_parked_where_that_is_wanted(
    route: Route,
) -> None:
    body = batch(entry(patient(id="p1"), method="PUT"), entry(method="GET", url="Patient/p1"))
    for policy, status in (("answer", Status.DONE), ("hold", Status.PARKED)):
        id_ = await route.deliver(body, sender=proven(refused_entries=policy))
        await route.process_all(id_)
        known = await route.known(id_)
        assert (known.status, known.refused) == (status, 1)
        results = await route.outcomes(id_)
        assert [result.status for result in results][1] == 403
        body["entry"][0]["resource"]["active"] = True


# --- what is deleted ---------------------------------------------------------------------------


async def test_a_delete_that_nobody_signed_is_sent_only_when_its_server_agrees(
    route: Route,
) -> None:
    sender = proven(rights=Rights(methods=("PUT", "DELETE")), base=BASE)
    request = IncomingRequest(
        method="DELETE", type="Patient", id="p1", headers={}, body=b"", confirm=True, sender=sender
    )
    accepted = await accept(route.intake, request)
    assert isinstance(accepted, Accepted)
    assert (await kept(route, accepted.delivery)).request.confirm
    route.queue_sender.sent.clear()
    await route.process_all(accepted.delivery)
    (result,) = await route.outcomes(accepted.delivery)
    # Nothing may be fetched here, so that nothing is deleted either.
    assert (result.status, route.fhir_double.writes) == (422, [])
