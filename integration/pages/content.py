"""The page Content: one entry of a delivery as it came, as it was sent, and what was answered.

It shows a patient's data, to people with the role phi. Each look is in the audit log before the
page leaves the app.

It costs five storage operations: the delivery, its bytes, its results (one more for each lane with
results), what was fetched for it (one more for each page), and the audit entry. The delivery is
planned again in a thread, up to MAX_BYTES of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from integration.core.errors import Issue, Rejected
from integration.core.model import Delivery, DeliveryRequest, EntryResult
from integration.core.offload import offload
from integration.fhir.original_entry import EntryText
from integration.journal.audit_entry import AccessKind, Reader, build_access
from integration.journal.audit_recorder import record
from integration.operations.deliveries import DeliveryStatus, get_record
from integration.pages.http import Reply
from integration.pages.line_differences import MarkedLine, mark_differences
from integration.pages.view import View, render
from integration.relay.kept_entry import KeptEntry, read_kept_entry

# The most bytes of one text that a page shows, and of its lines.
MAX_SHOWN = 1_000_000
MAX_SHOWN_LINES = 20_000

# Comparing and showing take far longer than parsing, for which the bounds of `offload` are.
_WORK = 10

_TOO_LONG = f"More than {MAX_SHOWN // 1_000_000} MB: it is not shown here."
_DELETED = "its bytes are deleted, so nothing of what came can be shown"

_MEDIA = {
    "ndjson": ("application/fhir+ndjson", "ndjson"),
    "json-patch": ("application/json-patch+json", "json"),
    "json": ("application/fhir+json", "json"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the texts that stand side by side. `number`: of its lines, of which `lines` are the
    first; `problem`: why there are none."""

    request: Sequence[tuple[str, str]] = ()
    lines: Sequence[MarkedLine] = ()
    number: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the FHIR server, or the relay itself, has answered."""

    result: EntryResult
    issues: Sequence[tuple[str, str, str]]  # severity and code, text, elements
    resource: Side | None


async def show_content(view: View) -> Reply:
    """Show an entry."""
    status = await get_record(view.parts.journal, view.arguments["id"])
    delivery = status.delivery
    position = _parse_position(view.arguments["position"], delivery)
    result = next((found for found in status.results if found.position == position), None)
    entry = await _read_entry(view, status, position)
    answered = (result.resource if result is not None else None) or ""
    shown_bytes = len(answered) + sum(
        len(_get_resource(text)) for text in (entry.original, entry.sent)
    )
    (original, sent, is_compared), answer = await offload(
        _WORK * shown_bytes,
        lambda: (build_sides(entry), None if result is None else build_answer(result)),
    )
    name = ((result and result.location) or "").partition("/_history/")[0] or entry.name
    is_recorded = await record_look(view, delivery, [name or "Resource"])
    return await offload(
        _WORK * shown_bytes,
        lambda: render(
            view,
            "content.html",
            delivery=delivery,
            position=position,
            name=name,
            is_recorded=is_recorded,
            entry=entry,
            original=original,
            sent=sent,
            is_compared=is_compared,
            answer=answer,
        ),
    )


async def download(view: View) -> Reply:
    """Hand out the bytes of a delivery as they came."""
    journal, id_ = view.parts.journal, view.arguments["id"]
    status = await get_record(journal, id_)
    try:
        payload = await journal.get_payload(id_)
    except KeyError:
        raise Rejected(Issue("not-found", _DELETED), status=404) from None
    names = list(list_names(status.results))
    await record_look(view, status.delivery, names, number=status.delivery.entries)
    media, ending = choose_media(payload.request)
    disposition = f'attachment; filename="delivery-{id_}.{ending}"'
    return Reply(body=payload.body, media=media, headers={"Content-Disposition": disposition})


def choose_media(request: DeliveryRequest) -> tuple[str, str]:
    """Return the media type of a delivery's bytes, and the ending of a file of them."""
    return _MEDIA.get(request.format, ("application/octet-stream", "bin"))


def list_names(results: Iterable[EntryResult]) -> Iterator[str]:
    """Yield what the entries of a delivery have written."""
    for result in results:
        if result.location:
            yield result.location.partition("/_history/")[0]


async def record_look(
    view: View, delivery: Delivery, names: Sequence[str], *, number: int | None = None
) -> bool:
    """Record who is shown what. Return False where a setting says that this is not needed. Raises
    Unavailable or Misconfigured, and then it is not shown."""
    access = build_access(AccessKind.CONTENT, names, delivery=delivery.id)
    if number is not None:
        access = replace(access, number=number)
    return await record(view.parts.audit, Reader(user=view.person.name), access) is not None


async def _read_entry(view: View, status: DeliveryStatus, position: int) -> KeptEntry:
    parts = view.parts
    try:
        return await read_kept_entry(
            parts.journal, parts.budget, status.delivery, position, results=status.results
        )
    except KeyError:
        return KeptEntry(reason=_DELETED)


def _parse_position(text: str, delivery: Delivery) -> int:
    """Parse which entry is to be shown. What could not be read when it came has one at least."""
    is_number = text.isascii() and text.isdigit() and len(text) <= 9
    if not is_number or int(text) >= max(delivery.entries, 1):
        raise Rejected(Issue("not-found", "the delivery has no such entry"), status=404)
    return int(text)


def build_sides(entry: KeptEntry) -> tuple[Side, Side, bool]:
    """Return what came and what was sent, and whether their differences are marked. Pure."""
    reason = entry.reason or "nothing of it is known"
    original = _build_side(entry.original, reason)
    sent = _build_side(entry.sent, reason)
    if not (original.lines and sent.lines):
        return original, sent, False
    marked = mark_differences(
        [line.text for line in original.lines], [line.text for line in sent.lines]
    )
    if marked is None:
        return original, sent, False
    return replace(original, lines=marked[0]), replace(sent, lines=marked[1]), True


def _build_side(text: EntryText | None, reason: str) -> Side:
    if text is None:
        return Side(problem=reason)
    if text.resource is None:
        return Side(request=text.request, problem="it has no resource")
    if len(text.resource) > MAX_SHOWN:
        return Side(request=text.request, problem=_TOO_LONG)
    found = format_json(text.resource)
    lines = tuple(MarkedLine(line) for line in found[:MAX_SHOWN_LINES])
    return Side(request=text.request, lines=lines, number=len(found))


def format_json(text: bytes) -> list[str]:
    """Return JSON with a line for each element. Every digit stays as it is, and so does what is no
    JSON. Pure."""
    try:
        formatted = msgspec.json.format(text, indent=2)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        formatted = text
    return formatted.decode(errors="replace").splitlines()


def build_answer(result: EntryResult) -> Answer:
    """Return what is shown of an answer. Pure."""
    resource = None
    if result.resource is not None:
        resource = _build_side(EntryText(request=(), resource=result.resource.encode()), "")
    return Answer(
        result=result,
        issues=[_describe_issue(issue) for issue in result.issues or ()],
        resource=resource,
    )


def _describe_issue(issue: dict[str, Any]) -> tuple[str, str, str]:
    details = issue.get("details")
    text = details.get("text") if isinstance(details, dict) else None
    kind = " ".join(str(issue[name]) for name in ("severity", "code") if name in issue)
    texts = [said for said in (issue.get("diagnostics"), text) if isinstance(said, str)]
    where = issue.get("expression")
    paths = ", ".join(map(str, where)) if isinstance(where, list) else ""
    return kind or "issue", "; ".join(dict.fromkeys(texts)), paths


def _get_resource(text: EntryText | None) -> bytes:
    return (text.resource if text is not None else None) or b""
