"""VERB accept: check a delivery, keep its exact bytes, queue its claim check."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice

import msgspec

from integration.core.errors import Issue, Rejected
from integration.core.log_events import log_event
from integration.core.model import (
    DEFAULT_POLICY,
    Delivery,
    DeliveryRequest,
    Policy,
    Status,
    WorkItem,
)
from integration.core.offload import offload
from integration.fhir import bundle, validation
from integration.fhir.entries import MAX_ISSUES, Contents
from integration.fhir.notifications import Notification
from integration.intake import http_request, subscriptions
from integration.intake.http_request import IncomingRequest
from integration.intake.subscriptions import Acknowledged
from integration.journal.keys import parse_accepted_time
from integration.journal.store import Journal, Payload
from integration.queues.names import RELAY_QUEUE
from integration.queues.queue_sender import QueueSender

# A delivery that is gone after a day was forgotten, not broken off: its id, which is its place in
# the order of deliveries, is not to be used again.
_TAKEOVER_PERIOD = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A delivery that is kept and queued; `refused` are lines of NDJSON that will not be."""

    delivery: str
    refused: tuple[Issue, ...] = ()


@dataclass(frozen=True, slots=True)
class Intake:
    """What accepting needs. `new_id` makes a delivery id from the moment of acceptance."""

    journal: Journal
    queue: QueueSender
    now: Callable[[], datetime]
    new_id: Callable[[datetime], str]
    max_bytes: int
    validate: bool = False
    sender_header: str | None = None
    policy: Policy = DEFAULT_POLICY
    write_orders: Mapping[str, str] = field(default_factory=lambda: {"": "arrival"})  # by sender


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A delivery that may come in; nothing of it is kept or queued yet."""

    delivery: Delivery
    kept: Payload
    contents: Contents
    repeatable: bool  # no Idempotency-Key: the same bytes may be meant again


async def accept(intake: Intake, request: IncomingRequest) -> Accepted | Acknowledged:
    """Raises Rejected with nothing queued, or Unavailable so that the sender tries again."""
    checked = await check_request(intake, request)
    if not isinstance(checked.contents, Notification):
        return await _keep_and_queue(intake, checked)
    gap = await subscriptions.find_gap(
        intake.journal, checked.delivery.sender, checked.contents.status
    )
    if not checked.contents.has_content:
        return await subscriptions.acknowledge(intake.journal, gap)
    delivery = replace(checked.delivery, gap=gap.text)
    accepted = await _keep_and_queue(intake, replace(checked, delivery=delivery))
    await subscriptions.record_gap(intake.journal, gap, accepted.delivery)
    return accepted


async def check_request(intake: Intake, request: IncomingRequest) -> CheckedRequest:
    """All that can be said of a request without the journal. Raises Rejected."""
    received = http_request.parse_request(request)
    body = http_request.decode_body(request, intake.max_bytes)
    # The relay reads it as the door did, whatever the settings are by then.
    delivery_request = replace(received, policy=intake.policy)
    contents = await offload(
        len(body), lambda: parse_contents(body, delivery_request, intake.validate)
    )
    idempotency_key = http_request.get_header(request, "idempotency-key")
    digest = _compute_digest(msgspec.json.encode(received), body)
    now = intake.now()
    sender = http_request.get_sender(request, intake.sender_header)
    delivery = Delivery(
        id=intake.new_id(now),
        sender=sender,
        key=_compute_digest(b"key", idempotency_key.encode()) if idempotency_key else digest,
        digest=digest,
        accepted=now,
        status=Status.ACCEPTED,
        kind=contents.kind,
        entries=len(contents.entries),
        bytes=len(body),
        write_order=intake.write_orders.get(sender, intake.write_orders[""]),
        more=contents.has_next_page,
    )
    return CheckedRequest(
        delivery, Payload(delivery_request, body), contents, repeatable=not idempotency_key
    )


async def find_earlier(journal: Journal, checked: CheckedRequest, first_id: str) -> Delivery | None:
    """The delivery that took the key of this one, if it is known and this is its repeat.

    Raises Rejected when an Idempotency-Key came before with something else.
    """
    delivery = await journal.get_delivery(first_id)
    if (
        delivery is not None
        and not checked.repeatable
        and delivery.digest != checked.delivery.digest
    ):
        text = "this Idempotency-Key came before with another body; use a new key"
        raise Rejected(Issue("conflict", text), status=422)
    return delivery


def parse_contents(body: bytes, request: DeliveryRequest, validate: bool) -> Contents:
    contents = bundle.read(body, request)
    if validate:
        all_issues = (
            issue
            for entry in contents.entries
            if entry.resource is not None and entry.refusal is None
            for issue in validation.find_issues(entry.resource, entry.resource_path)
        )
        issues = tuple(islice(all_issues, MAX_ISSUES))
        if issues:
            raise Rejected(*issues, status=422)
    return contents


async def _keep_and_queue(intake: Intake, checked: CheckedRequest) -> Accepted:
    """Key, bytes, row, queue, in this order: a crash between any two is mended by a repeat."""
    delivery, journal = checked.delivery, intake.journal
    first_id = await journal.claim_key(delivery.sender, delivery.key, delivery.id)
    if first_id != delivery.id and not checked.repeatable:
        earlier = await find_earlier(journal, checked, first_id)
        if earlier is not None and earlier.status is not Status.ACCEPTED:
            return Accepted(first_id)
        if (
            earlier is not None
            or delivery.accepted - parse_accepted_time(first_id) < _TAKEOVER_PERIOD
        ):
            delivery = replace(
                delivery, id=first_id
            )  # its first try may have ended before the queue
    if first_id != delivery.id:
        # The same bytes may be meant again (A, B, A), so they are carried again, with the same
        # ids; `repeat` makes the relay look before it writes.
        delivery = replace(delivery, repeat=True)
    await journal.add_delivery(delivery, checked.kept)
    await intake.queue.send(RELAY_QUEUE, WorkItem(delivery.id))
    log_event(
        "delivery.accepted",
        delivery=delivery.id,
        kind=delivery.kind,
        entries=delivery.entries,
        bytes=delivery.bytes,
        repeat=delivery.repeat,
    )
    return Accepted(delivery.id, tuple(_list_refusals(checked.contents)))


def _list_refusals(contents: Contents) -> Iterator[Issue]:
    """What is not sent, whatever happens; what is to be fetched may still come."""
    to_fetch = contents.urls_to_fetch if isinstance(contents, Notification) else {}
    for entry in contents.entries:
        if entry.refusal and entry.position not in to_fetch:
            yield entry.refusal


def _compute_digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
