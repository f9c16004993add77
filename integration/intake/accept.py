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
from integration.journal.keys import accepted_at
from integration.journal.store import Journal, Kept
from integration.queues.names import RELAY_QUEUE
from integration.queues.queue_sender import QueueSender

# A delivery that is gone after a day was forgotten, not broken off: its id, which is its place in
# the order of deliveries, is not to be used again.
_TAKEN_OVER = timedelta(days=1)


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
class Checked:
    """A delivery that may come in; nothing of it is kept or queued yet."""

    delivery: Delivery
    kept: Kept
    contents: Contents
    repeatable: bool  # no Idempotency-Key: the same bytes may be meant again


async def accept(intake: Intake, ask: IncomingRequest) -> Accepted | Acknowledged:
    """Raises Rejected with nothing queued, or Unavailable so that the sender tries again."""
    checked = await check(intake, ask)
    if not isinstance(checked.contents, Notification):
        return await _keep(intake, checked)
    heard = await subscriptions.heard(
        intake.journal, checked.delivery.sender, checked.contents.status
    )
    if not checked.contents.brings:
        return await subscriptions.take(intake.journal, heard)
    delivery = replace(checked.delivery, gap=heard.gap)
    accepted = await _keep(intake, replace(checked, delivery=delivery))
    await subscriptions.note(intake.journal, heard, accepted.delivery)
    return accepted


async def check(intake: Intake, ask: IncomingRequest) -> Checked:
    """All that can be said of a request without the journal. Raises Rejected."""
    received = http_request.received(ask)
    body = http_request.decoded(ask, intake.max_bytes)
    # The relay reads it as the door did, whatever the settings are by then.
    asked = replace(received, policy=intake.policy)
    contents = await offload(len(body), lambda: _read(body, asked, intake.validate))
    given = http_request.header(ask, "idempotency-key")
    digest = _digest(msgspec.json.encode(received), body)
    now = intake.now()
    sender = http_request.sender(ask, intake.sender_header)
    delivery = Delivery(
        id=intake.new_id(now),
        sender=sender,
        key=_digest(b"key", given.encode()) if given else digest,
        digest=digest,
        accepted=now,
        status=Status.ACCEPTED,
        kind=contents.kind,
        entries=len(contents.entries),
        bytes=len(body),
        write_order=intake.write_orders.get(sender, intake.write_orders[""]),
        more=contents.more,
    )
    return Checked(delivery, Kept(asked, body), contents, repeatable=not given)


async def earlier(journal: Journal, checked: Checked, first: str) -> Delivery | None:
    """The delivery that took the key of this one, if it is known and this is its repeat.

    Raises Rejected when an Idempotency-Key came before with something else.
    """
    known = await journal.delivery(first)
    if known is not None and not checked.repeatable and known.digest != checked.delivery.digest:
        text = "this Idempotency-Key came before with another body; use a new key"
        raise Rejected(Issue("conflict", text), status=422)
    return known


def _read(body: bytes, received: DeliveryRequest, validate: bool) -> Contents:
    contents = bundle.read(body, received)
    if validate:
        found = (
            issue
            for entry in contents.entries
            if entry.resource is not None and entry.refusal is None
            for issue in validation.issues(entry.resource, entry.element)
        )
        issues = tuple(islice(found, MAX_ISSUES))
        if issues:
            raise Rejected(*issues, status=422)
    return contents


async def _keep(intake: Intake, checked: Checked) -> Accepted:
    """Key, bytes, row, queue, in this order: a crash between any two is mended by a repeat."""
    delivery, journal = checked.delivery, intake.journal
    first = await journal.claim_key(delivery.sender, delivery.key, delivery.id)
    if first != delivery.id and not checked.repeatable:
        known = await earlier(journal, checked, first)
        if known is not None and known.status is not Status.ACCEPTED:
            return Accepted(first)
        if known is not None or delivery.accepted - accepted_at(first) < _TAKEN_OVER:
            delivery = replace(delivery, id=first)  # its first try may have ended before the queue
    if first != delivery.id:
        # The same bytes may be meant again (A, B, A), so they are carried again, with the same
        # ids; `repeat` makes the relay look before it writes.
        delivery = replace(delivery, repeat=True)
    await journal.keep(delivery, checked.kept)
    await intake.queue.send(RELAY_QUEUE, WorkItem(delivery.id))
    log_event(
        "delivery.accepted",
        delivery=delivery.id,
        kind=delivery.kind,
        entries=delivery.entries,
        bytes=delivery.bytes,
        repeat=delivery.repeat,
    )
    return Accepted(delivery.id, tuple(_refused(checked.contents)))


def _refused(contents: Contents) -> Iterator[Issue]:
    """What is not sent, whatever happens; what is to be fetched may still come."""
    waiting = contents.wanted if isinstance(contents, Notification) else {}
    for entry in contents.entries:
        if entry.refusal and entry.position not in waiting:
            yield entry.refusal


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
