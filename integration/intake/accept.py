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
from integration.core.flow import FlowCounts
from integration.core.flow_recorder import FlowRecorder
from integration.core.log_events import log_event
from integration.core.model import (
    DEFAULT_POLICY,
    TO_BE_PLANNED,
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
from integration.journal.concern import ConcernKind, build_delivery_concern
from integration.journal.concerns import change_with_concern
from integration.journal.store import Journal, Payload
from integration.journal.table_keys import parse_accepted_time
from integration.queues.names import RELAY_QUEUE
from integration.queues.queue_sender import QueueSender
from integration.senders.model import Sender, SenderPolicy

# How long a repeat may finish a delivery that broke off before it was kept. A delivery that is
# missing after that time was deleted by housekeeping. Its id is also its place in the order of
# deliveries, so it is not used again.
_TAKEOVER_PERIOD = timedelta(days=1)


# What every digest has held since the first version.
_FIRST_POLICY = {
    "messages": "resources",
    "documents": "bundle",
    "dangling": "refuse",
    "validate": False,
}


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
    policy: Policy = DEFAULT_POLICY
    limits: Limits = DEFAULT_LIMITS
    write_orders: Mapping[str, str] = field(default_factory=lambda: {"": "arrival"})  # by sender
    budget: ByteBudget = field(default_factory=ByteBudget)
    flow: FlowRecorder = field(default_factory=FlowRecorder)


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A delivery that may be accepted. Nothing of it is kept or queued yet."""

    delivery: Delivery
    payload: Payload
    contents: Contents
    repeatable: bool  # it has no key, so its sender may mean the same bytes again


async def accept(intake: Intake, request: IncomingRequest) -> Accepted | Acknowledged:
    """Check, keep and queue a delivery. A notification without resources is only acknowledged.

    Raises Rejected, with nothing queued, or Unavailable, so that the sender tries again.
    """
    parsed = parse_headers(intake, request)
    with intake.budget.take_now(len(parsed.body)):
        return await accept_parsed(intake, parsed)


async def accept_parsed(intake: Intake, parsed: ParsedRequest) -> Accepted | Acknowledged:
    """Do the same within a share of the budget that the caller holds."""
    parsed = await http_request.add_content_key(parsed)
    try:
        checked = await check_request(intake, parsed)
    except Rejected as error:
        if parsed.sender.sender.policy.refused_deliveries != "hold":
            raise
        return await _hold(intake, parsed, error)
    return await _accept(intake, checked, parsed.sender.sender.policy)


async def _accept(
    intake: Intake, checked: CheckedRequest, policy: SenderPolicy
) -> Accepted | Acknowledged:
    contents, delivery = checked.contents, checked.delivery
    if not isinstance(contents, Notification):
        return await _keep_and_queue(intake, checked)
    is_counted = policy.event_numbers == "counted"
    gap = await subscriptions.find_gap(
        intake.journal, delivery.sender, contents.status, is_counted=is_counted
    )
    if not contents.has_content:
        return await subscriptions.acknowledge(intake.journal, gap)
    checked = replace(checked, delivery=replace(delivery, gap=gap.text))
    accepted = await _keep_and_queue(intake, checked)
    await subscriptions.record_gap(intake.journal, gap, accepted.delivery)
    return accepted


async def _hold(intake: Intake, parsed: ParsedRequest, error: Rejected) -> Accepted:
    """Keep for an operator what cannot be read, where a refusal would stop its sender's feed."""
    request = _add_policy(intake, parsed)
    held = _make_delivery(intake, parsed, Contents("held", ()))
    reason = f"refused at the door: {error}"
    held = replace(held, status=Status.PARKED, reason=reason, parked=held.accepted)
    first_id = await intake.journal.claim_key(held.sender, held.key, held.id)
    earlier = await intake.journal.get_delivery(first_id) if first_id != held.id else None
    if earlier is None:
        held = replace(held, id=first_id)
    elif earlier.digest == held.digest:
        return Accepted(first_id, error.issues[:MAX_ISSUES])
    concern = build_delivery_concern(
        ConcernKind.HELD, held.id, held.sender, held.accepted, reason=reason
    )
    await intake.journal.put_concern(concern)
    held = replace(held, attention=concern.id)
    # Under an id of its own where its key was used before for another request.
    added = await intake.journal.add_delivery(held, Payload(request, parsed.body))
    _count_accepted(intake, added)
    log_event("delivery.held", delivery=held.id, reason=reason)
    return Accepted(held.id, error.issues[:MAX_ISSUES])


def _count_accepted(intake: Intake, added: Delivery | None) -> None:
    if added is not None and added.etag:  # else an earlier attempt has added it
        intake.flow.count(added.sender, FlowCounts(accepted=1))


def parse_headers(intake: Intake, request: IncomingRequest) -> ParsedRequest:
    """Check a request but for the content of its body, which is decompressed. Raises Rejected."""
    return http_request.parse_request(request, intake.max_bytes)


async def check_request(intake: Intake, parsed: ParsedRequest) -> CheckedRequest:
    """Check all that can be checked without the journal. Raises Rejected.

    The caller holds a share of the budget for the body.
    """
    body = parsed.body
    delivery_request = _add_policy(intake, parsed)
    contents = await offload(
        len(body), lambda: parse_contents(body, delivery_request, intake.max_entries)
    )
    return CheckedRequest(
        _make_delivery(intake, parsed, contents),
        Payload(delivery_request, body),
        contents,
        repeatable=parsed.idempotency_key is None and parsed.content_key is None,
    )


def _add_policy(intake: Intake, parsed: ParsedRequest) -> DeliveryRequest:
    """Return the request with how it is read and what it may do.

    Both are kept with the bytes: the relay reads them the same way, whatever the settings are by
    then.
    """
    sender = parsed.sender.sender
    return replace(parsed.request, policy=_build_policy(intake, sender), rights=sender.rights)


def _build_policy(intake: Intake, sender: Sender) -> Policy:
    stated = sender.policy
    return replace(
        intake.policy,
        messages=stated.messages or intake.policy.messages,
        documents=stated.documents or intake.policy.documents,
        dangling=stated.dangling or intake.policy.dangling,
        trust=stated.trust,
        fetch_from=((stated.base,) if stated.base else ()) if sender.is_listed else None,
    )


def parse_contents(body: bytes, request: DeliveryRequest, max_entries: int) -> Contents:
    """Parse the entries of a delivery. Raises Rejected."""
    return bundle.read(body, request, max_entries)


def _make_delivery(intake: Intake, parsed: ParsedRequest, contents: Contents) -> Delivery:
    now = intake.now()
    digest = compute_digest(parsed.request, parsed.body)
    key = digest
    if parsed.idempotency_key is not None:
        key = _compute_digest(b"key", parsed.idempotency_key.encode())
    elif parsed.content_key is not None:
        # The rest of a repeat may differ: addresses that are signed anew, times of sending.
        key = digest = _compute_digest(b"content", parsed.content_key.encode())
    sender = parsed.sender.name
    own_order = parsed.sender.sender.policy.write_order
    return Delivery(
        id=intake.new_id(now),
        sender=sender,
        key=key,
        digest=digest,
        accepted=now,
        status=Status.ACCEPTED,
        kind=contents.kind,
        entries=len(contents.entries),
        bytes=len(parsed.body),
        write_order=own_order or intake.write_orders.get(sender, intake.write_orders[""]),
        more=contents.has_next_page,
        holds_refused=parsed.sender.sender.policy.refused_entries == "hold",
        answer_due=parsed.request.answer_to is not None,
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
    if delivery.kind == "held" and delivery.status is Status.PARKED:
        return await _release(intake, delivery, checked)
    if delivery.status is not Status.ACCEPTED:
        return Accepted(delivery.id)
    added = await intake.journal.add_delivery(delivery, checked.payload)
    if added is None:
        raise _refuse_key()  # of a request that ended after its bytes were stored
    accepted = added if added.etag else None  # else it may have begun
    _count_accepted(intake, added)
    await intake.queue.send(RELAY_QUEUE, WorkItem(delivery.id, accepted=accepted))
    log_event(
        "delivery.accepted",
        delivery=delivery.id,
        kind=delivery.kind,
        entries=delivery.entries,
        bytes=delivery.bytes,
        repeat=delivery.repeat,
    )
    return Accepted(delivery.id, list_refusals(checked.contents))


async def _release(intake: Intake, held: Delivery, checked: CheckedRequest) -> Accepted:
    """Queue what was held when it came, since its sender may send it by now: under its id, and so
    in its place among others. In the order of a replay, which this is."""
    now = checked.delivery.accepted
    await intake.journal.save_request(held.id, checked.payload.request)
    await intake.journal.index_delivery(held.id, now)
    is_released = await change_with_concern(
        intake.journal,
        held,
        None,
        only_if=frozenset({Status.PARKED}),
        status=Status.ACCEPTED,
        reason=None,
        parked=None,
        replayed=now,
        unqueued=True,
        planner=TO_BE_PLANNED,
        write_order=checked.delivery.write_order,
        holds_refused=checked.delivery.holds_refused,
    )
    if is_released:
        await intake.queue.send(RELAY_QUEUE, WorkItem(held.id))
        await intake.journal.update_delivery(held.id, unqueued=False)
    return Accepted(held.id)


def judge_anew(
    intake: Intake, sender: Sender, request: DeliveryRequest, *, is_held: bool
) -> DeliveryRequest:
    """Return the request of a kept delivery with what its sender may do now, and how it is read.

    `is_held`: nothing of it has been read yet. Else what decides how many entries it has, and which
    ids they get, stays as it was.
    """
    stated = _build_policy(intake, sender)
    kept = request.policy
    policy = replace(
        stated,
        messages=kept.messages,
        documents=kept.documents,
        trust=kept.trust,
    )
    return replace(request, policy=stated if is_held else policy, rights=sender.rights)


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


def list_refusals(contents: Contents) -> tuple[Issue, ...]:
    """Return why entries will not be sent, up to MAX_ISSUES."""
    refusals = tuple(islice(_find_refusals(contents), MAX_ISSUES + 1))
    if len(refusals) <= MAX_ISSUES:
        return refusals
    text = "more entries will not be sent: the answer of the delivery names each"
    return (*refusals[:MAX_ISSUES], Issue("informational", text, None, "information"))


def _find_refusals(contents: Contents) -> Iterator[Issue]:
    """Yield why entries will not be sent. What is yet to be fetched may still be."""
    to_fetch = contents.urls_to_fetch if isinstance(contents, Notification) else {}
    for entry in contents.entries:
        if entry.refusal and entry.position not in to_fetch:
            yield entry.refusal


def compute_digest(request: DeliveryRequest, body: bytes) -> str:
    """Return the digest of a request: of its address and its bytes."""
    return _compute_digest(_encode_for_digest(request), body)


def _encode_for_digest(request: DeliveryRequest) -> bytes:
    """Return a request as bytes that stay the same from version to version.

    The ids of created resources come from them: were they others after an upgrade, a repeat of what
    was sent before would create everything again. So what was added later counts where it is set.
    """
    addressed = {
        "method": request.method,
        "type": request.type,
        "id": request.id,
        "format": request.format,
        "if_match": request.if_match,
        "if_none_match": request.if_none_match,
        "if_none_exist": request.if_none_exist,
        "policy": _FIRST_POLICY,
    }
    later = {"query": request.query} if request.query is not None else {}
    return msgspec.json.encode(addressed | later)


def _compute_digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
