"""VERB accept: check a delivery, keep its exact bytes, queue a work item for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice

import msgspec

from integration.core.byte_budget import ByteBudget
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
from integration.fhir import bundle
from integration.fhir.entries import MAX_ISSUES, Contents
from integration.fhir.notifications import Notification
from integration.fhir.plan import PLANNER
from integration.fhir.units import DEFAULT_LIMITS, Limits
from integration.intake import http_request, subscriptions
from integration.intake.http_request import IncomingRequest, ParsedRequest
from integration.intake.subscriptions import Acknowledged
from integration.journal.store import Journal, Payload
from integration.journal.table_keys import parse_accepted_time
from integration.queues.names import RELAY_QUEUE
from integration.queues.queue_sender import QueueSender

# How long a repeat may finish a delivery that broke off before it was kept. A delivery that is
# missing after that time was deleted by housekeeping. Its id is also its place in the order of
# deliveries, so it is not used again.
_TAKEOVER_PERIOD = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A delivery that is kept and queued. `refused`: why entries will not be sent, up to
    MAX_ISSUES."""

    delivery: str
    refused: tuple[Issue, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What accepting needs. `new_id` makes a delivery id from the time of acceptance."""

    journal: Journal
    queue: QueueSender
    now: Callable[[], datetime]
    new_id: Callable[[datetime], str]
    max_bytes: int
    max_entries: int = 100_000
    sender_header: str | None = None
    policy: Policy = DEFAULT_POLICY
    limits: Limits = DEFAULT_LIMITS
    write_orders: Mapping[str, str] = field(default_factory=lambda: {"": "arrival"})  # by sender
    budget: ByteBudget = field(default_factory=ByteBudget)


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A delivery that may be accepted. Nothing of it is kept or queued yet."""

    delivery: Delivery
    payload: Payload
    contents: Contents
    repeatable: bool  # it has no Idempotency-Key, so its sender may mean the same bytes again


async def accept(intake: Intake, request: IncomingRequest) -> Accepted | Acknowledged:
    """Check, keep and queue a delivery. A notification without resources is only acknowledged.

    Raises Rejected, with nothing queued, or Unavailable, so that the sender tries again.
    """
    parsed = parse_headers(intake, request)
    with intake.budget.take_now(len(parsed.body)):
        return await _accept(intake, parsed)


async def _accept(intake: Intake, parsed: ParsedRequest) -> Accepted | Acknowledged:
    checked = await check_request(intake, parsed)
    contents, delivery = checked.contents, checked.delivery
    if not isinstance(contents, Notification):
        return await _keep_and_queue(intake, checked)
    gap = await subscriptions.find_gap(intake.journal, delivery.sender, contents.status)
    if not contents.has_content:
        return await subscriptions.acknowledge(intake.journal, gap)
    checked = replace(checked, delivery=replace(delivery, gap=gap.text))
    accepted = await _keep_and_queue(intake, checked)
    await subscriptions.record_gap(intake.journal, gap, accepted.delivery)
    return accepted


def parse_headers(intake: Intake, request: IncomingRequest) -> ParsedRequest:
    """Check a request but for the content of its body, which is decompressed. Raises Rejected."""
    return http_request.parse_request(request, intake.max_bytes, intake.sender_header)


async def check_request(intake: Intake, parsed: ParsedRequest) -> CheckedRequest:
    """Check all that can be checked without the journal. Raises Rejected.

    The caller holds a share of the budget for the body.
    """
    body = parsed.body
    # The policy is kept with the bytes: the relay parses them the same way, whatever the settings
    # are by then.
    delivery_request = replace(parsed.request, policy=intake.policy)
    contents = await offload(
        len(body), lambda: parse_contents(body, delivery_request, intake.max_entries)
    )
    return CheckedRequest(
        _make_delivery(intake, parsed, contents),
        Payload(delivery_request, body),
        contents,
        repeatable=parsed.idempotency_key is None,
    )


def parse_contents(body: bytes, request: DeliveryRequest, max_entries: int) -> Contents:
    """Parse the entries of a delivery. Raises Rejected."""
    return bundle.read(body, request, max_entries)


def _make_delivery(intake: Intake, parsed: ParsedRequest, contents: Contents) -> Delivery:
    now = intake.now()
    digest = _compute_digest(msgspec.json.encode(parsed.request), parsed.body)
    key = digest
    if parsed.idempotency_key is not None:
        key = _compute_digest(b"key", parsed.idempotency_key.encode())
    return Delivery(
        id=intake.new_id(now),
        sender=parsed.sender,
        key=key,
        digest=digest,
        accepted=now,
        status=Status.ACCEPTED,
        kind=contents.kind,
        entries=len(contents.entries),
        bytes=len(parsed.body),
        write_order=intake.write_orders.get(parsed.sender, intake.write_orders[""]),
        more=contents.has_next_page,
        # Planning is later, and may come twice: it goes by what is kept here.
        planner=PLANNER,
        unit_max_entries=intake.limits.entries,
        unit_max_bytes=intake.limits.bytes,
        over_limit=intake.limits.over,
    )


async def find_earlier(journal: Journal, checked: CheckedRequest, first_id: str) -> Delivery | None:
    """Return the delivery `first_id`, which has taken the key of this one. None: it is gone.

    Raises Rejected when an Idempotency-Key was used before for another request.
    """
    delivery = await journal.get_delivery(first_id)
    if (
        delivery is not None
        and not checked.repeatable
        and delivery.digest != checked.delivery.digest
    ):
        raise _refuse_key()
    return delivery


def _refuse_key() -> Rejected:
    text = "this Idempotency-Key was used before for another request; use a new key"
    return Rejected(Issue("conflict", text), status=422)


async def _keep_and_queue(intake: Intake, checked: CheckedRequest) -> Accepted:
    """Store the key, the bytes and the delivery, then queue it.

    In this order: wherever a worker ends in between, a repeat of the request finishes the rest.
    """
    delivery = await _take_key(intake.journal, checked)
    if delivery.status is not Status.ACCEPTED:
        return Accepted(delivery.id)
    added = await intake.journal.add_delivery(delivery, checked.payload)
    if added is None:
        raise _refuse_key()  # of a request that ended after its bytes were stored
    accepted = added if added.etag else None  # else it may have begun
    await intake.queue.send(RELAY_QUEUE, WorkItem(delivery.id, accepted=accepted))
    log_event(
        "delivery.accepted",
        delivery=delivery.id,
        kind=delivery.kind,
        entries=delivery.entries,
        bytes=delivery.bytes,
        repeat=delivery.repeat,
    )
    refusals = tuple(islice(_list_refusals(checked.contents), MAX_ISSUES + 1))
    if len(refusals) > MAX_ISSUES:
        text = "more entries will not be sent: the answer of the delivery names each"
        more = Issue("informational", text, None, "information")
        refusals = (*refusals[:MAX_ISSUES], more)
    return Accepted(delivery.id, refusals)


async def _take_key(journal: Journal, checked: CheckedRequest) -> Delivery:
    """Take the delivery's key. Return the delivery to keep, or an earlier one that has begun."""
    delivery = checked.delivery
    first_id = await journal.claim_key(delivery.sender, delivery.key, delivery.id)
    if first_id == delivery.id:
        return delivery
    if not checked.repeatable:
        earlier = await find_earlier(journal, checked, first_id)
        if earlier is not None and earlier.status is not Status.ACCEPTED:
            return earlier
        # The first request may have ended before it reached the queue.
        if (
            earlier is not None
            or delivery.accepted - parse_accepted_time(first_id) < _TAKEOVER_PERIOD
        ):
            # Housekeeping finds new deliveries by the time in their id, which is past here.
            await journal.index_delivery(first_id, delivery.accepted)
            return replace(delivery, id=first_id)
    # A sender may mean the same bytes again (A, B, A), so they are processed again, with the same
    # resource ids. `repeat` makes the relay look before it writes.
    return replace(delivery, repeat=True)


def _list_refusals(contents: Contents) -> Iterator[Issue]:
    """Yield why entries will not be sent. What is yet to be fetched may still be."""
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
