"""The page of one delivery: what became of it, step by step, entry by entry, row by row.

It shows codes, names of elements and ids. What a server has written about an entry may quote a
value of it, so that stands on the page Content.

It costs up to 10 storage operations for the calls, one for the delivery, one for the delivery that
it repeats, one for every 1,000 rows, and one for each lane with results. While it is open it asks
for one operation every five seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from integration.core.errors import Issue, Rejected
from integration.core.model import UNDER_WAY, Delivery, EntryResult, RowResult, Status
from integration.journal.corrections import is_correctable
from integration.journal.delivery_filter import is_waiting
from integration.operations import deliveries as verbs
from integration.operations.delivery_story import AFTER_END, MAX_CALLS, read_story
from integration.operations.views import describe_progress
from integration.pages.delivery_steps import group_steps, list_steps
from integration.pages.http import Reply, redirect
from integration.pages.row_links import build_form_link
from integration.pages.view import View, render

# Entries, and rows, of one page.
PAGE = 100

FIELDS = ("show", "page", "rows", "refresh", "live", "tried")


# A path of elements, and nothing that could quote a value, as a condition in a path does.
_ELEMENT = r"[A-Za-z]\w{0,63}(?:\[(?:\d{1,9}|x)\])?"
_PATH = re.compile(rf"{_ELEMENT}(?:\.{_ELEMENT}){{0,30}}", re.ASCII)

# https://hl7.org/fhir/R4/valueset-issue-type.html
_CODE = re.compile(r"[a-z]{1,20}(?:-[a-z]{1,20}){0,3}")

_NOT_WELL = ("refused", "parked", "requeued")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryLine:
    """What a line says of an entry. `name`: Type/id; `issues`: codes with the paths of elements."""

    position: int
    name: str
    version: str
    outcome: str
    tone: str
    status: int
    unit: str
    round: int
    issues: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLine:
    """What a line says of a row. `form`: the address of its form in Dataverse; None: no row."""

    row: RowResult
    tone: str
    form: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """One page of lines. `number`: of the page; `last`: the number of the last one."""

    shown: Sequence[Any]
    total: int
    number: int
    last: int


async def show_delivery(view: View) -> Reply:
    """Show the story of a delivery. With `live`, only how far it is by now."""
    id_ = view.arguments["id"]
    parts = view.parts
    if "live" in view.fields:
        return await _show_progress(view, id_)
    page, rows = _parse_page(view, "page"), _parse_page(view, "rows")
    only_unwritten = _parse_filter(view)
    story = await read_story(parts.journal, parts.activity, id_)
    delivery = story.delivery
    results = [result for result in story.results if not (only_unwritten and result.is_written)]
    in_order = sorted(story.rows, key=lambda row: (row.action not in _NOT_WELL, row.resource))
    is_open = delivery.status in UNDER_WAY
    return render(
        view,
        "delivery.html",
        delivery=delivery,
        progress=describe_progress(delivery),
        steps=group_steps(list_steps(story)),
        bad_rows=sum(row.action in _NOT_WELL for row in story.rows),
        story=story,
        max_calls=MAX_CALLS,
        after_end=AFTER_END,
        entries=_cut(results, page, describe_entry),
        rows=_cut(in_order, rows, lambda row: describe_row(row, parts.dataverse_url)),
        unanswered=max(0, delivery.entries - len(story.results)),
        only_unwritten=only_unwritten,
        fields={name: view.fields[name] for name in ("show",) if name in view.fields},
        is_open=is_open,
        is_refreshing=is_open and view.fields.get("refresh") != "off",
        can_replay=_can_replay(delivery, story.results, story.rows),
        can_correct=is_correctable(delivery) and delivery.corrected_by is None,
        is_waiting=is_waiting(delivery),
        is_tried="tried" in view.fields,
        can_cancel=is_open or delivery.status is Status.PARKED,
    )


async def _show_progress(view: View, id_: str) -> Reply:
    status = await verbs.get_status(view.parts.journal, id_)
    delivery = status.delivery
    is_open = delivery.status in UNDER_WAY
    reply = render(
        view,
        "delivery_live.html",
        delivery=delivery,
        progress=describe_progress(delivery),
        is_open=is_open,
        is_refreshing=is_open,
    )
    if is_open:
        return reply
    # The rest of the page has changed with it: https://htmx.org/headers/hx-refresh/
    return Reply(body=reply.body, headers={"HX-Refresh": "true"})


async def ask_to_cancel(view: View) -> Reply:
    """Say what cancelling would do, and let it be confirmed."""
    record = await verbs.get_record(view.parts.journal, view.arguments["id"])
    delivery = record.delivery
    if delivery.status is Status.DONE:
        text = "the delivery is done already and can no longer be cancelled"
        raise Rejected(Issue("conflict", text), status=409)
    written = sum(result.is_written for result in record.results)
    return render(
        view,
        "delivery_cancel.html",
        delivery=delivery,
        written=written,
        unanswered=max(0, delivery.entries - len(record.results)),
    )


async def cancel(view: View) -> Reply:
    """Cancel a delivery."""
    parts, id_ = view.parts, view.arguments["id"]
    await verbs.cancel(parts.journal, id_, parts.now())
    return redirect(f"deliveries/{id_}")


async def replay(view: View) -> Reply:
    """Replay a delivery: all of a parked one, and of one that is done what is not well. One that
    waits is tried at once, and then its page says so."""
    parts, id_ = view.parts, view.arguments["id"]
    replayed = await verbs.replay(parts.journal, parts.queue, id_, parts.now(), parts.replay_terms)
    query = "?tried=now" if is_waiting(replayed) else ""
    return redirect(f"deliveries/{id_}{query}")


def describe_entry(result: EntryResult) -> EntryLine:
    """Describe the result of an entry, without a text of the FHIR server. Pure."""
    name, _, version = (result.location or "").partition("/_history/")
    outcome, tone = _choose_outcome(result)
    return EntryLine(
        position=result.position,
        name=name,
        version=version,
        outcome=outcome,
        tone=tone,
        status=result.status,
        unit=result.unit or "",
        round=result.round,
        issues=tuple(dict.fromkeys(describe_issue(issue) for issue in result.issues or ())),
    )


def _choose_outcome(result: EntryResult) -> tuple[str, str]:
    if result.skipped:
        return "left out on purpose", ""
    if result.is_written:
        return ("read" if result.resource is not None else "written"), "good"
    return ("superseded", "warn") if result.superseded else ("refused", "bad")


def describe_issue(issue: dict[str, Any]) -> str:
    """Return the severity, the code and the elements of an issue, and nothing else of it: the rest
    may quote a value. Pure."""
    words = [issue.get("severity"), issue.get("code")]
    known = [word for word in words if isinstance(word, str) and _CODE.fullmatch(word)]
    where = issue.get("expression")
    paths = [
        path if isinstance(path, str) and _PATH.fullmatch(path) else "an element"
        for path in (where if isinstance(where, list) else ())
    ]
    return " ".join([*(known or ["issue"]), *(["at", ", ".join(paths)] if paths else [])])


def describe_row(row: RowResult, dataverse_url: str) -> RowLine:
    """Describe the result of a row. Pure."""
    form = None
    if row.row is not None and row.action != "deleted":
        form = build_form_link(dataverse_url, row.table, row.row)
    tone = "bad" if row.action in _NOT_WELL else "warn" if row.waits or row.notes else "good"
    return RowLine(row=row, tone=tone, form=form)


def _can_replay(
    delivery: Delivery, results: Iterable[EntryResult], rows: Sequence[RowResult]
) -> bool:
    """Whether there is something to replay, by what is shown. The verb decides it."""
    if delivery.status is Status.DONE:
        mirrored = {row.resource for row in rows}
        queued = {name for result in results for name in result.queued or ()}
        is_well = mirrored >= queued and all(row.action not in _NOT_WELL for row in rows)
        is_refused = delivery.refused > 0 and delivery.corrected_by is None
        return is_refused or not is_well
    return delivery.status is Status.PARKED or delivery.unqueued or is_waiting(delivery)


def _parse_filter(view: View) -> bool:
    if view.fields.get("show", "unwritten") != "unwritten":
        raise Rejected(Issue("value", "show must be unwritten, or missing", "show"))
    return "show" in view.fields


def _parse_page(view: View, name: str) -> int:
    text = view.fields.get(name, "1")
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 6 and int(text)):
        raise Rejected(Issue("value", f"{name} must be the number of a page", name))
    return int(text)


def _cut(found: Sequence[_T], number: int, describe: Callable[[_T], Any]) -> Lines:
    """Return a page of what was found. A number behind the last page means the last one."""
    last = max(1, -(-len(found) // PAGE))
    number = min(number, last)
    shown = found[(number - 1) * PAGE : number * PAGE]
    return Lines(
        shown=[describe(item) for item in shown], total=len(found), number=number, last=last
    )
