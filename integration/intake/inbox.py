"""VERBS take_files, queue_left_files: files of the inbox become deliveries of their senders.

The folder says who the sender is: storage lets nobody else write into it. From there on a file is
taken as a request with the same bytes would be. Its name is its idempotency key, so that an event
that comes twice, or a worker that ends before it has deleted the file, changes nothing.

The event of Azure names the file. A message of ours names only its digest, and the file is looked
up in its folder: names of files may hold names of patients.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote

import msgspec

from integration.core.errors import Issue, Misconfigured, Rejected, Unavailable
from integration.core.log_events import log_event
from integration.core.model import OPEN, WorkItem
from integration.core.offload import offload
from integration.fhir.operation_outcome import as_json
from integration.intake import accept as accepting
from integration.intake.accept import Accepted, Intake
from integration.intake.http_request import IncomingRequest
from integration.intake.open_file import Part, estimate_bytes, list_parts
from integration.intake.quotas import Quotas
from integration.intake.subscriptions import Acknowledged
from integration.journal.inbox_files import InboxFile, InboxFiles
from integration.queues.names import ANSWER_QUEUE, INBOX_QUEUE
from integration.queues.queue_sender import QueueSender, parse_work_item
from integration.queues.retry import plan_retry
from integration.senders.model import ProvenSender, Sender
from integration.senders.schemes import FOLDER, get_scheme

# https://learn.microsoft.com/azure/event-grid/event-schema-blob-storage: a rename ends an upload
# under another name.
EVENT_TYPES = ("Microsoft.Storage.BlobCreated", "Microsoft.Storage.BlobRenamed")

# The file is there and not yet whole (same page).
UNFINISHED_CALLS = ("CreateFile", "SftpCreate", "SftpWrite")

# Of a rename: the address of the file by its new name.
_ADDRESS = re.compile(r"https?://[^/]+/([^/]+)/(.+)", re.DOTALL)

_SUBJECT = re.compile(r"/blobServices/default/containers/([^/]+)/blobs/(.+)", re.DOTALL)

# Names that programs give to files while they send them. They rename them at the end.
_UNFINISHED_ENDINGS = (".part", ".partial", ".filepart", ".tmp")

# In bytes of UTF-8. It stands in the metadata of a blob, which has 8 KiB:
# https://learn.microsoft.com/rest/api/storageservices/setting-and-retrieving-properties-and-metadata-for-blob-resources
_MAX_NAME = 500

# Retries end after this many seconds; from then on housekeeping has the file tried again.
_MAX_AGE = 3600.0
_LEFT_AFTER = timedelta(seconds=_MAX_AGE)

# When housekeeping looks whether the answer of a delivery is still due.
_ANSWER_CHECK = timedelta(hours=1)

# Files that one run of housekeeping queues.
MAX_LEFT_FILES = 1000

# Seconds that a file waits for its share of the budget.
_MAX_WAIT = 120.0

# A work item of housekeeping has no retries of its own: the next run is its retry.
_LONG_AGO = 0.0


class UnreadableMessage(ValueError):
    """A message that is no event of a blob. The text quotes nothing of it."""


class _Data(msgspec.Struct):
    api: str = ""
    destination: str | None = msgspec.field(name="destinationUrl", default=None)


class _Event(msgspec.Struct):
    """In Event Grid's own schema the type is `eventType`, in CloudEvents 1.0 it is `type`."""

    subject: str
    event_type: str | None = msgspec.field(name="eventType", default=None)
    type: str | None = None
    data: _Data = msgspec.field(default_factory=_Data)


_event_decoder = msgspec.json.Decoder(_Event | list[_Event])


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """What taking files needs. `container`: of the files; `senders`: all, by name."""

    container: str
    files: InboxFiles
    intake: Intake
    queue: QueueSender
    senders: Mapping[str, Sender]
    quotas: Quotas
    now: Callable[[], datetime]
    max_wait: float = _MAX_WAIT


@dataclass(slots=True)
class _Counts:
    """What became of the parts of a file."""

    deliveries: int = 0
    refused: int = 0


async def take_files(inbox: Inbox | None, body: bytes) -> None:
    """Take the file that a message is about: an event of Azure, or a work item of this app.

    A file that cannot be taken now is queued again. Raises UnreadableMessage, and Unavailable when
    the queue does not accept the work item.
    """
    if inbox is None:
        log_event("inbox.left", sender=None, reason="the setting INBOX is empty")
        return
    item = _parse_item(body)
    if item is not None:
        name, _, digest = (item.file or "").partition("/")
        sender = _find_sender(inbox, name)
        if sender is None:
            log_event("inbox.left", sender=None, reason="its sender is no sender of files any more")
        else:
            await _take_or_requeue(inbox, sender, item, _find_by_digest(inbox, name, digest))
        return
    for path in _list_paths(inbox.container, body):
        await _take_path(inbox, path)


async def queue_left_files(inbox: Inbox | None) -> None:
    """Queue the files that are still there long after they came: their event was lost, or what kept
    them from being taken lasts. Raises Unavailable or Misconfigured."""
    if inbox is None:
        return
    before, count = inbox.now() - _LEFT_AFTER, 0
    for name in inbox.senders:
        if _find_sender(inbox, name) is None:
            continue
        async for file in inbox.files.list_files(name):
            is_left = file.modified < before and not _is_unfinished(file.name)
            if count < MAX_LEFT_FILES and is_left and _is_plain(file.name):
                item = WorkItem("", file=f"{name}/{_digest(file.name)}", since=_LONG_AGO)
                await inbox.queue.send(INBOX_QUEUE, item)
                count += 1


def drop_message() -> None:
    """Give up a message that failed repeatedly. Housekeeping finds its file."""
    reason = "taking it failed repeatedly; it stays, and housekeeping has it tried again"
    log_event("inbox.left", sender=None, reason=reason)


# -- messages --------------------------------------------------------------------------------------


def _parse_item(body: bytes) -> WorkItem | None:
    """Return the work item; None: it is an event of Azure, or cannot be read."""
    try:
        item = parse_work_item(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return item if item.file else None


def _list_paths(container: str, body: bytes) -> Iterator[str]:
    """Yield the paths of the files that are whole by now, in this container."""
    try:
        decoded = _event_decoder.decode(body)
    # `from None`: the text of these may quote the message.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableMessage("the message is no event of a blob") from None
    for event in decoded if isinstance(decoded, list) else [decoded]:
        moved = _ADDRESS.fullmatch(event.data.destination or "")
        subject = moved or _SUBJECT.fullmatch(event.subject)
        is_ours = subject is not None and subject[1] == container
        if not is_ours or (event.event_type or event.type) not in EVENT_TYPES:
            log_event("inbox.left", sender=None, reason="an event that is not of the inbox's files")
        elif subject is not None and event.data.api not in UNFINISHED_CALLS:
            yield subject[2]


async def _take_path(inbox: Inbox, path: str) -> None:
    if _is_unfinished(path):
        return
    folder, slash, _ = path.partition("/")
    sender = _find_sender(inbox, folder) if slash else None
    if sender is None:
        listed = inbox.senders.get(folder)
        log_event(
            "inbox.left",
            sender=listed.name if listed else None,
            reason="no sender whose scheme is folder has the name of its folder",
        )
    elif not _is_plain(path):
        reason = "its name has a part that is empty, or leads elsewhere"
        log_event("inbox.left", sender=sender.name, reason=reason)
    elif len(path.encode()) > _MAX_NAME:
        reason = f"its name has more than {_MAX_NAME} bytes; send it under a shorter one"
        log_event("inbox.left", sender=sender.name, reason=reason)
    else:
        item = WorkItem("", file=f"{folder}/{_digest(path)}")
        await _take_or_requeue(inbox, sender, item, _find_by_path(inbox, path))


def _find_sender(inbox: Inbox, folder: str) -> Sender | None:
    sender = inbox.senders.get(folder)
    return sender if sender and get_scheme(sender.proof) == FOLDER else None


def _is_unfinished(name: str) -> bool:
    return name.lower().endswith(_UNFINISHED_ENDINGS)


def _is_plain(path: str) -> bool:
    """Whether every part of a path is a name. Of others, it depends on who reads them, where they
    lead."""
    return all(part not in ("", ".", "..") for part in path.split("/"))


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


# How a file is found: at most one, or none if it is gone.
_Finding = AsyncIterator[InboxFile]


async def _find_by_path(inbox: Inbox, path: str) -> _Finding:
    # Whether the subject of an event is percent-encoded is not documented.
    for name in dict.fromkeys((path, unquote(path))):
        is_inside = _is_plain(name) and name.partition("/")[0] == path.partition("/")[0]
        file = await inbox.files.find(name) if is_inside else None
        if file is not None:
            yield file
            return


async def _find_by_digest(inbox: Inbox, folder: str, digest: str) -> _Finding:
    async for file in inbox.files.list_files(folder):
        if _digest(file.name) == digest:
            yield file
            return


# -- one file --------------------------------------------------------------------------------------


async def _take_or_requeue(inbox: Inbox, sender: Sender, item: WorkItem, found: _Finding) -> None:
    try:
        async for file in found:
            item = replace(item, file=f"{sender.name}/{_digest(file.name)}")
            await _take(inbox, sender, file)
    except (Unavailable, Misconfigured) as error:
        retry = plan_retry(item, error, inbox.now(), _MAX_AGE)
        log_event(
            "inbox.requeued", error, sender=sender.name, attempt=item.attempt, reason=str(error)
        )
        if retry.delay is not None:
            await inbox.queue.send(INBOX_QUEUE, retry.item, retry.delay)


async def _take(inbox: Inbox, sender: Sender, file: InboxFile) -> None:
    """Make deliveries of a file, or write why not; then delete it, if it is still what was read.

    In this order: wherever a worker ends in between, the next one does the rest.
    """
    _take_from_quota(inbox, sender, file)
    intake, counts = inbox.intake, _Counts()
    share = estimate_bytes(file.name, file.size, intake.max_bytes)
    async with intake.budget.take(share, inbox.max_wait):
        try:
            if file.size > intake.max_bytes:
                text = f"the file is larger than {intake.max_bytes} bytes; send it in parts"
                raise Rejected(Issue("too-long", text), status=413)
            body = await inbox.files.read(file)
            if body is None:
                return  # it has changed since, and what it is now has an event of its own
            parts = await offload(len(body), lambda: list_parts(file.name, body, intake.max_bytes))
            await _accept_parts(inbox, sender, file, parts, counts)
        except Rejected as error:
            await _refuse(inbox, sender, file.name, error, counts)
    await inbox.files.delete(file)
    log_event(
        "inbox.taken", sender=sender.name, deliveries=counts.deliveries, refused=counts.refused
    )


def _take_from_quota(inbox: Inbox, sender: Sender, file: InboxFile) -> None:
    try:
        inbox.quotas.take(sender, file.size)
    except Rejected as error:
        wait = float(error.headers.get("Retry-After", "1"))
        raise Unavailable("quota", "the sender has sent what it may in a minute", wait) from None


async def _accept_parts(
    inbox: Inbox, sender: Sender, file: InboxFile, parts: Sequence[Part], counts: _Counts
) -> None:
    for part in parts:
        name = file.name if part.member is None else f"{file.name}/{part.member}"
        try:
            media, body = await offload(inbox.intake.max_bytes, part.read)
            result = await _accept(inbox.intake, sender, name, media, body)
        except Rejected as error:
            await _refuse(inbox, sender, name, error, counts)
        else:
            await _answer_at_once(inbox, name, result, counts)


async def _accept(
    intake: Intake, sender: Sender, name: str, media: str, body: bytes
) -> Accepted | Acknowledged:
    request = IncomingRequest(
        method="POST",
        type=None,
        id=None,
        headers={"content-type": media},
        body=body,
        sender=ProvenSender(sender=sender, message_id=name, has_own_address=True),
        answer_to=f"{name}.json",
    )
    return await accepting.accept_parsed(intake, accepting.parse_headers(intake, request))


async def _answer_at_once(
    inbox: Inbox, name: str, result: Accepted | Acknowledged, counts: _Counts
) -> None:
    """Write the answer of what is no delivery, and queue that of one which has ended before.

    The answers of all others are queued by whoever ends them. Should that be forgotten,
    housekeeping looks at the delivery by its index.
    """
    if isinstance(result, Acknowledged):
        text = f"acknowledged; a {result.notification_type} without resources needs no processing"
        issue = Issue("informational", text, None, "information")
        await inbox.files.write_answer(f"{name}.json", _build_outcome([issue]))
        return
    counts.deliveries += 1
    delivery = await inbox.intake.journal.get_delivery(result.delivery)
    if delivery is not None and delivery.status not in OPEN:
        await inbox.queue.send(ANSWER_QUEUE, WorkItem(delivery.id))
    else:
        due = inbox.now() + _ANSWER_CHECK
        await inbox.intake.journal.index_delivery(result.delivery, due)


async def _refuse(
    inbox: Inbox, sender: Sender, name: str, error: Rejected, counts: _Counts
) -> None:
    """Write why something is refused. A name that was used before keeps its answer."""
    counts.refused += 1
    is_used = any(issue.code == "conflict" for issue in error.issues)
    issues: Iterable[Issue] = error.issues
    if is_used:
        text = "a file of this name was taken before, with another content; use a new name"
        issues = [Issue("conflict", text)]
    ending = ".refused.json" if is_used else ".json"
    await inbox.files.write_answer(f"{name}{ending}", _build_outcome(issues))
    reason = "; ".join(issue.text for issue in issues)
    log_event("inbox.refused", sender=sender.name, reason=reason)


def _build_outcome(issues: Iterable[Issue]) -> bytes:
    outcome: dict[str, Any] = {
        "resourceType": "OperationOutcome",
        "issue": [as_json(issue) for issue in issues],
    }
    return msgspec.json.encode(outcome)
