"""VERBS read_original, correct_delivery: an operator sends corrected bytes in the place of a
delivery.

The correction is a delivery of its own, whose id comes right after that of the corrected one: so
it is later than that one, and earlier than all that was accepted since. It has the same key, so
what it creates has the same ids.
docs/decisions/0040-a-correction-takes-the-place-of-its-delivery.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import NoReturn

from integration.core.errors import Issue, Rejected
from integration.core.log_events import log_event
from integration.core.model import (
    UNDER_WAY,
    Delivery,
    DeliveryRequest,
    EntryResult,
    Status,
    WorkItem,
)
from integration.core.offload import offload
from integration.fhir.collections import PagedContents
from integration.fhir.correction import is_created, list_moved, read_corrected
from integration.fhir.entries import MAX_ISSUES, Contents
from integration.fhir.notifications import Notification
from integration.fhir.plan import PLANNER
from integration.fhir.resource_ids import parse_placeholder
from integration.intake.accept import (
    Accepted,
    Intake,
    compute_digest,
    list_refusals,
    parse_contents,
    parse_headers,
)
from integration.intake.http_request import IncomingRequest
from integration.journal.corrections import is_correctable, take_place
from integration.journal.store import Journal, Payload
from integration.journal.table_keys import build_next_id, is_delivery_id
from integration.queues.names import RELAY_QUEUE

# What of the request says how its bytes are to be read. All else is as it was.
_HEADERS = ("content-type", "content-encoding")

# Ids that are looked at for a free one: those of corrections that broke off, or were cancelled.
_MAX_IDS = 20

# Housekeeping queues the correction then, unless that was done.
_CHECK_AFTER = timedelta(minutes=10)


_NO_BYTES = "its bytes are deleted, or it never had any, so it cannot be corrected"

# Returns the request of a delivery as it is judged now; None: as it was accepted.
Judge = Callable[[Delivery, DeliveryRequest], DeliveryRequest] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What an operator sends: the id of the delivery that is corrected, and the corrected bytes.
    Header names are lower case. `is_of_latest`: it is refused if the delivery was corrected
    already, by other bytes. Otherwise it corrects that correction, which its operator may not have
    seen."""

    corrected: str
    headers: Mapping[str, str]
    body: bytes
    is_of_latest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A delivery that is to be corrected. `body`: None: it has more bytes than were asked for."""

    delivery: Delivery
    request: DeliveryRequest
    body: bytes | None
    results: Sequence[EntryResult]


async def read_original(journal: Journal, id_: str, max_bytes: int) -> Original:
    """Return a delivery, with its bytes up to so many, for somebody who is to correct it. Raises
    Rejected: with 404 for an unknown one, with 409 for one that has no bytes to correct."""
    delivery = await _get_delivery(journal, id_)
    request = await _get_request(journal, delivery)
    body = None
    if delivery.bytes <= max_bytes:
        try:
            body = (await journal.get_payload(id_)).body
        except KeyError:
            _refuse(_NO_BYTES)
    results = await journal.list_entry_results(id_)
    return Original(delivery=delivery, request=request, body=body, results=results)


def check_correctable(intake: Intake, delivery: Delivery, retention: timedelta) -> None:
    """Raise Rejected for a delivery that cannot be corrected, whatever is sent."""
    if delivery.corrected_by is not None:
        _refuse(f"it was corrected by {delivery.corrected_by}: correct that one")
    _check_state(intake, delivery, retention)


async def correct_delivery(
    intake: Intake,
    correction: Correction,
    *,
    judge: Judge = None,
    retention: timedelta = timedelta.max,
) -> Accepted:
    """Check, keep and queue corrected bytes in the place of a delivery that ended with refused
    entries, or is parked or held. The same bytes again are the same correction; others correct the
    one before.

    `retention`: for so long after a delivery was accepted the locks are kept that tell of later
    deletes. Raises Rejected: with 404 for an unknown delivery, with 409 for one that cannot be
    corrected, with the status of intake for bytes that are not taken.
    """
    corrected = await _get_delivery(intake.journal, correction.corrected)
    request = await _get_request(intake.journal, corrected)
    parsed = parse_headers(intake, _build_incoming(correction, request))
    request = replace(request, format=parsed.request.format)
    with intake.budget.take_now(len(parsed.body)):
        digest = compute_digest(request, parsed.body)
        corrected, repeated = await _follow(intake.journal, corrected, digest)
        if repeated is not None:
            return await _queue(intake, repeated)
        if correction.is_of_latest and corrected.id != correction.corrected:
            _refuse(f"it was corrected by {corrected.id} meanwhile: look at that one")
        _check_state(intake, corrected, retention)
        if corrected.digest == digest and corrected.status is not Status.CANCELLED:
            _refuse(f"these are the bytes of {corrected.id}: mend the cause and replay it")
        judged = request if judge is None else judge(corrected, request)
        payload = Payload(judged, parsed.body)
        contents = await offload(
            len(parsed.body), lambda: parse_contents(parsed.body, judged, intake.max_entries)
        )
        _check_contents(contents, judged)
        await _check_places(intake, corrected, contents)
        made = _make_delivery(intake, corrected, payload, contents, digest)
        added = await _add(intake, made, payload)
    return replace(await _queue(intake, added), refused=list_refusals(contents))


async def _get_delivery(journal: Journal, id_: str) -> Delivery:
    delivery = await journal.get_delivery(id_) if is_delivery_id(id_) else None
    if delivery is None:
        raise Rejected(Issue("not-found", "no delivery has this id"), status=404)
    return delivery


async def _get_request(journal: Journal, corrected: Delivery) -> DeliveryRequest:
    try:
        request = await journal.get_request(corrected.id)
    except KeyError:
        _refuse(_NO_BYTES)
    if request.method == "DELETE":
        _refuse("a delete has no body that could be corrected")
    return request


def _build_incoming(correction: Correction, request: DeliveryRequest) -> IncomingRequest:
    headers = {name: value for name, value in correction.headers.items() if name in _HEADERS}
    return IncomingRequest(
        method=request.method,
        type=request.type,
        id=request.id,
        condition=request.query,
        headers=headers,
        body=correction.body,
    )


async def _follow(
    journal: Journal, corrected: Delivery, digest: str
) -> tuple[Delivery, Delivery | None]:
    """Return the delivery to correct, which is the last correction so far, and the correction that
    has these bytes already, if any."""
    while corrected.corrected_by is not None:
        following = await journal.get_delivery(corrected.corrected_by)
        if following is None:
            _refuse("its correction is deleted: have its sender send the content anew")
        if following.digest == digest and following.status is not Status.CANCELLED:
            return corrected, following
        corrected = following
    return corrected, None


def _check_state(intake: Intake, corrected: Delivery, retention: timedelta) -> None:
    """Raise Rejected unless the delivery may be corrected."""
    if corrected.status in UNDER_WAY:
        _refuse(f"{corrected.id} is still under way: correct it when it has ended, or cancel it")
    if not is_correctable(corrected):
        cancelled = corrected.status is Status.CANCELLED
        _refuse(
            "it was cancelled, so nothing of it is to be sent: have its sender send it anew"
            if cancelled
            else f"{corrected.id} is done, and none of its entries was refused"
        )
    if intake.now() - corrected.accepted >= retention:
        _refuse(
            "it was accepted so long ago (RETENTION_DAYS) that a correction could overwrite what "
            "came later: have its sender send it anew"
        )
    if corrected.write_order == "off":
        _refuse(
            "its sender's deliveries have no order (WRITE_ORDER=off), so a correction could "
            "overwrite something newer: have it sent anew"
        )


def _check_contents(contents: Contents, request: DeliveryRequest) -> None:
    """Raise Rejected for what a correction cannot take the place of."""
    is_paged = isinstance(contents, PagedContents) and contents.next_url is not None
    names_only = isinstance(contents, Notification) and contents.urls_to_fetch
    if is_paged or names_only or request.confirm:
        _refuse(
            "what it refers to would be fetched as it is now, which is newer than the delivery: "
            "have its sender send it anew"
        )
    if isinstance(contents, Notification) and not contents.has_content:
        _refuse("a notification without resources writes nothing")
    trusts_uuids = request.policy.trust == "uuids"
    if trusts_uuids and any(
        is_created(entry) and parse_placeholder(entry.full_url or "") for entry in contents.entries
    ):
        _refuse(
            "its sender's UUIDs name the same resource in each delivery (trust), so a later one "
            "may have created it too: have its sender send it anew"
        )


async def _check_places(intake: Intake, corrected: Delivery, contents: Contents) -> None:
    """Raise Rejected if an entry would become another resource than before: one without `fullUrl`
    gets its id by its place."""
    journal = intake.journal
    while not await _has_begun(journal, corrected):
        # A correction that has not begun stands for what it corrects.
        before_it = await journal.get_delivery(corrected.corrects or "")
        if before_it is None:
            return  # nothing of it was sent
        corrected = before_it
    results = await journal.list_entry_results(corrected.id)
    refused = {result.position for result in results if result.is_refused}
    with intake.budget.take_now(corrected.bytes):
        try:
            payload = await journal.get_payload(corrected.id)
        except KeyError:
            _refuse("its bytes are deleted, so it cannot be corrected")
        read = partial(read_corrected, payload.body, payload.request)
        before = await offload(len(payload.body), read)
        _check_fetched(before)
        work = partial(list_moved, before, contents, refused)
        moved = await offload(len(payload.body), lambda: list(work()))
    if moved:
        text = (
            "an entry without fullUrl that was written before has its id by its place: keep it "
            "there, and put further ones at the end"
        )
        issues = (Issue("value", text, entry.where) for entry in moved[:MAX_ISSUES])
        raise Rejected(*issues, status=422)


async def _has_begun(journal: Journal, delivery: Delivery) -> bool:
    """Whether anything of a delivery may have been sent."""
    return delivery.begun or await journal.has_begun(delivery.id)


def _check_fetched(before: Contents) -> None:
    is_paged = isinstance(before, PagedContents) and before.next_url is not None
    if is_paged or (isinstance(before, Notification) and before.urls_to_fetch):
        _refuse("a part of it was fetched, which is not in its bytes: have its sender send it anew")


def _make_delivery(
    intake: Intake, corrected: Delivery, payload: Payload, contents: Contents, digest: str
) -> Delivery:
    return Delivery(
        id=corrected.id,  # until it has its own
        sender=corrected.sender,
        key=corrected.key,
        digest=digest,
        accepted=corrected.accepted,
        status=Status.ACCEPTED,
        kind=contents.kind,
        entries=len(contents.entries),
        bytes=len(payload.body),
        write_order=corrected.write_order,
        more=contents.has_next_page,
        holds_refused=corrected.holds_refused,
        answer_due=payload.request.answer_to is not None,
        gap=corrected.gap,
        corrects=corrected.id,
        replayed=intake.now(),
        unqueued=True,
        planner=PLANNER,
        unit_max_entries=intake.limits.entries,
        unit_max_bytes=intake.limits.bytes,
        over_limit=intake.limits.over,
    )


async def _add(intake: Intake, made: Delivery, payload: Payload) -> Delivery:
    """Add the correction under the next free id. Return it, or the one that was added before with
    the same bytes."""
    journal = intake.journal
    id_: str | None = made.id
    for _ in range(_MAX_IDS):
        id_ = build_next_id(id_) if id_ is not None else None
        if id_ is None:
            break
        # Housekeeping finds new deliveries by the time in their id, which is past here.
        await journal.index_delivery(id_, intake.now() + _CHECK_AFTER)
        added = await journal.add_delivery(replace(made, id=id_), payload)
        known = await journal.get_delivery(id_)
        if known is None or known.status is Status.CANCELLED:
            continue  # one that broke off before it was added, or had to give way
        if added is None or known.digest != made.digest or known.corrects != made.corrects:
            break
        return known
    raise _build_refusal(
        "another correction of it was accepted just now, or there were too many: look at it again"
    )


async def _queue(intake: Intake, made: Delivery) -> Accepted:
    """Have the correction take its place, then queue it. Repeating it does what is left."""
    journal, id_ = intake.journal, made.id
    if made.status is not Status.ACCEPTED or not made.unqueued:
        return Accepted(id_)
    if not await take_place(journal, made, intake.now()):
        await journal.update_delivery(
            id_,
            only_if=frozenset({Status.ACCEPTED}),
            status=Status.CANCELLED,
            finished=intake.now(),
            answer_due=False,
        )
        _refuse(f"{made.corrects} was replayed, cancelled or corrected just now")
    await intake.queue.send(RELAY_QUEUE, WorkItem(id_))
    await journal.update_delivery(id_, unqueued=False)
    log_event(
        "delivery.corrected",
        delivery=id_,
        corrects=made.corrects,
        entries=made.entries,
        bytes=made.bytes,
    )
    return Accepted(id_)


def _refuse(text: str) -> NoReturn:
    raise _build_refusal(text)


def _build_refusal(text: str) -> Rejected:
    return Rejected(Issue("conflict", text), status=409)
