"""The page on which an operator corrects a delivery: its bytes in a text area, what was refused
beside it, and what intake says of what was sent.

It shows a patient's data and takes it, for people with the roles operator and phi. Each look is in
the audit log before the page leaves the app, and so is who has sent a correction.

A look costs five storage operations, and one more for each lane with results: the delivery, what
was asked for, its bytes, its results, the audit entry. Sending costs what the endpoint costs, and
the first four of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from integration.core.errors import Issue, Rejected, Unavailable
from integration.core.log_events import log_event
from integration.core.model import EntryResult
from integration.core.offload import offload
from integration.intake.correct import (
    Correction,
    Original,
    check_correctable,
    correct_delivery,
    read_original,
)
from integration.journal.audit_entry import Reader
from integration.operations.audit import record_correction
from integration.pages.content import build_answer, choose_media, list_names, record_look
from integration.pages.correction_text import MAX_BYTES, MAX_TEXT, quote_line, read_text, show_text
from integration.pages.form_files import is_multipart, read_form_with_file
from integration.pages.forms import TOKEN_FIELD, check_form
from integration.pages.http import Reply, check_fields, read_form, redirect
from integration.pages.view import View, render

# The refused entries that the page lists.
MAX_LISTED = 100

# A form writes an end of a line with six bytes, and any other byte with three at most.
_MAX_FORM = 6 * MAX_TEXT

_TEXT, _FILE = "text", "file"

_NO_ANSWER = Issue(
    "transient",
    "a service that is needed does not respond: send it again in a minute. What is sent twice is "
    "taken once",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedEntry:
    """`issues`: severity and code, text, elements of each."""

    position: int
    status: int
    issues: Sequence[tuple[str, str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """What somebody has sent. `typed`: in the text area; None: a file was sent."""

    typed: str | None
    body: bytes


async def show_correction(view: View) -> Reply:
    """Show a delivery to somebody who is to correct it."""
    parts = view.parts
    original = await read_original(parts.journal, view.arguments["id"], MAX_BYTES)
    check_correctable(parts.intake, original.delivery, parts.replay_terms.retention)
    return await _show(view, original)


async def send_correction(view: View) -> Reply:
    """Send a correction. What is refused is shown above what was typed."""
    fields, file = await _read_form(view)
    try:
        return await _send(view, fields, file)
    except Unavailable as error:
        log_event("request.unavailable", reason=str(error))
        return await _show_again(view, None if file is not None else fields.get(_TEXT, ""))


async def _send(view: View, fields: dict[str, str], file: bytes | None) -> Reply:
    parts, id_ = view.parts, view.arguments["id"]
    original = await read_original(parts.journal, id_, MAX_BYTES)
    sent = await _build_sent(original, fields, file)
    correction = Correction(
        corrected=id_,
        headers={"content-type": choose_media(original.request)[0]},
        body=sent.body,
        is_of_latest=True,
    )
    terms = parts.replay_terms
    try:
        accepted = await correct_delivery(
            parts.intake, correction, judge=terms.judge, retention=terms.retention
        )
        await record_correction(parts.audit, Reader(user=view.person.name), accepted.delivery)
    except Rejected as error:
        return await _show(view, original, sent, problems=error.issues, status=error.status)
    except Unavailable:
        return await _show(view, original, sent, problems=(_NO_ANSWER,), status=503)
    return redirect(f"deliveries/{accepted.delivery}")


async def _read_form(view: View) -> tuple[dict[str, str], bytes | None]:
    """Parse and check a form of this page. Return its fields and its file; None: it has none."""
    request, max_bytes = view.request, view.parts.intake.max_bytes

    def parse() -> tuple[dict[str, str], bytes | None]:
        if is_multipart(request):
            return read_form_with_file(request, _FILE, max_bytes)
        return read_form(request, _MAX_FORM), None

    fields, file = await offload(len(request.body), parse)
    check_form(request, fields)
    del fields[TOKEN_FIELD]
    check_fields(fields, (_TEXT,) if file is None else ())
    return fields, file


async def _build_sent(original: Original, fields: dict[str, str], file: bytes | None) -> _Sent:
    if file is not None:
        return _Sent(typed=None, body=file)
    typed = fields.get(_TEXT, "")
    return _Sent(
        typed=typed,
        body=await offload(len(typed), lambda: read_text(typed, original.request, original.body)),
    )


async def _show(
    view: View,
    original: Original,
    sent: _Sent | None = None,
    *,
    problems: Sequence[Issue] = (),
    status: int = 200,
) -> Reply:
    """Show the form. `sent`: what was refused, for these `problems`."""
    delivery, request = original.delivery, original.request
    typed = sent.typed if sent is not None else None
    text, line = typed, None
    if text is None and original.body is not None:
        body = original.body
        text = await offload(len(body), lambda: show_text(body, request))
    if sent is not None:
        refused = sent.body
        line = await offload(len(refused), lambda: quote_line(refused, request))
    names = list(list_names(original.results))
    is_recorded = await record_look(view, delivery, names, number=delivery.entries)
    refused_entries = [result for result in original.results if result.is_refused]
    return render(
        view,
        "correction.html",
        status=status,
        delivery=delivery,
        request=request,
        text=text,
        is_typed=typed is not None,
        is_too_long=original.body is None,
        max_shown=MAX_BYTES,
        max_bytes=view.parts.intake.max_bytes,
        problems=problems,
        is_unknown=_NO_ANSWER in problems,
        line=line,
        refused=[_describe_refused(result) for result in refused_entries[:MAX_LISTED]],
        refused_number=len(refused_entries),
        is_recorded=is_recorded,
    )


async def _show_again(view: View, typed: str | None) -> Reply:
    """Show nothing but what was typed, where not even the delivery can be read, or that somebody
    looks at it cannot be recorded. `typed`: None: a file was sent."""
    return await offload(
        len(typed or ""),
        lambda: render(
            view,
            "correction_again.html",
            status=503,
            id=view.arguments["id"],
            text=typed,
            problem=_NO_ANSWER.text,
        ),
    )


def _describe_refused(result: EntryResult) -> RefusedEntry:
    return RefusedEntry(
        position=result.position, status=result.status, issues=build_answer(result).issues
    )
