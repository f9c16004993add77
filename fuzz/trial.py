"""Run one case through intake and planning, and check what must be true of both."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

from fuzz.cases import Case
from fuzz.values import MARKER
from integration.core import decimal_json
from integration.core.errors import Issue, Rejected
from integration.fhir import bundle, collections, notifications, units
from integration.fhir.collections import PagedContents
from integration.fhir.entries import Contents
from integration.fhir.fetched import FetchedResponse
from integration.fhir.notifications import Notification
from integration.fhir.plan import Plan, plan
from integration.fhir.resource_ids import Naming
from integration.fhir.units import Lane, Limits, Unit
from integration.intake import dry_run
from integration.intake.accept import Accepted, Intake, accept
from integration.journal.store import MemoryJournal
from integration.journal.table_keys import make_delivery_id
from integration.queues.queue_sender import MemoryQueueSender

REJECTED, PLANNED, BROKEN = "rejected", "planned", "broken"

_NOW = datetime(2026, 3, 2, tzinfo=UTC)

# One of this many cases is also previewed, which plans it once more.
_PREVIEWS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """The result of a case. `why`: the status of a rejection, the kind of contents, or an error."""

    number: int
    outcome: str
    why: str
    size: int
    seconds: float


class _Log(logging.Handler):
    """Keeps all log records as text."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(str(vars(record)))


def try_case(case: Case) -> CaseResult:
    """Run the case. Raises nothing: an unexpected exception is the result BROKEN."""
    log = _Log()
    logger = logging.getLogger("integration")
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    started = time.process_time()
    try:
        outcome, why = asyncio.run(_accept_and_plan(case))
        _check_no_marker("the log", log.records)
    except Exception as error:
        outcome, why = BROKEN, _describe_error(error)
    finally:
        logger.removeHandler(log)
    return CaseResult(
        number=case.number,
        outcome=outcome,
        why=why,
        size=case.size,
        seconds=time.process_time() - started,
    )


async def _accept_and_plan(case: Case) -> tuple[str, str]:
    journal, sender, ids = MemoryJournal(), MemoryQueueSender(), count(1)
    intake = Intake(
        journal=journal,
        queue=sender,
        now=lambda: _NOW,
        new_id=lambda now: make_delivery_id(now, next(ids)),
        max_bytes=case.max_bytes,
        policy=case.policy,
        write_orders={"": case.write_order},
    )
    if case.number % _PREVIEWS == 0:
        await _check_preview(intake, case)
    try:
        accepted = await accept(intake, case.request)
    except Rejected as error:
        _check_refusal(error)
        assert not sender.sent, "a refused delivery is queued"
        return REJECTED, str(error.status)
    if not isinstance(accepted, Accepted):
        return PLANNED, "nothing to do"
    _check_issues(accepted.refused)
    delivery, received = (
        await journal.get_delivery(accepted.delivery),
        await journal.get_payload(accepted.delivery),
    )
    assert delivery is not None
    _check_no_marker("the row or the queue", [str(delivery), str(sender.sent)])
    contents = _add_fetched(bundle.read(received.body, received.request), case.fetched)
    naming = Naming(delivery.sender, delivery.key)
    _check_plan(contents, plan(contents, naming, case.limits, delivery.write_order), case.limits)
    return PLANNED, contents.kind


async def _check_preview(intake: Intake, case: Case) -> None:
    try:
        preview = await dry_run.plan_delivery(intake, case.limits, case.request)
    except Rejected as error:
        _check_refusal(error)
        return
    assert list(dry_run.as_text(preview))
    _check_no_marker("the refusals of the preview", [str(preview["refused"]), str(preview["lost"])])


def _add_fetched(contents: Contents, more: bytes) -> Contents:
    """Add the resources or the page that a server would have returned."""
    answer = FetchedResponse(200, more)
    if isinstance(contents, Notification) and contents.urls_to_fetch:
        return notifications.add_fetched(contents, dict.fromkeys(contents.urls_to_fetch, answer))
    if isinstance(contents, PagedContents) and more:
        page = collections.read_further_page(2, len(contents.entries), answer)
        return replace(contents, entries=(*contents.entries, *page.entries))
    return contents


def _check_plan(contents: Contents, planned: Plan, limits: Limits) -> None:
    refused = [entry.position for entry, _ in planned.refused]
    sent = [n for lane in planned.lanes for n in lane.positions]
    assert sorted([*refused, *sent]) == list(range(len(contents.entries))), "an entry is lost"
    _check_issues(issue for _, issue in planned.refused)
    for lane in planned.lanes:
        assert units.decode_lane(units.encode_lane(lane)) == lane, (
            "a lane changes when it is stored"
        )
        _check_lane(lane, limits)


def _check_lane(lane: Lane, limits: Limits) -> None:
    sent: set[str] = set()
    for unit in lane.units:
        _check_issues(issue for entry in unit.entries for issue in entry.notes)
        inside = {entry.target for entry in unit.entries} if unit.kind == "transaction" else set()
        awaited = {name for entry in unit.entries for name in entry.awaits} - inside
        assert awaited <= sent, "a unit awaits a result of a later one"
        _check_request(unit, limits, dict.fromkeys(awaited, "Patient/found"))
        sent |= {entry.target for entry in unit.entries}


def _check_request(unit: Unit, limits: Limits, answers: dict[str, str]) -> None:
    body = units.build_request(unit, unit.entries, answers).body or b""
    assert len(unit.entries) <= limits.entries, "a unit has too many entries"
    assert len(body) <= limits.bytes, "a unit is too large"
    bundle = decimal_json.decode(body)
    assert [len(bundle["entry"]), bundle["type"]] == [len(unit.entries), unit.kind]
    for entry in bundle["entry"]:
        assert _is_address(entry["request"]["url"]), "a URL leads elsewhere"


def _is_address(url: str) -> bool:
    """Whether the URL stays below the FHIR server's base, however it is resolved."""
    path = url.partition("?")[0]
    safe = all(c.isascii() and (c.isalnum() or c in "-._$/") for c in path)
    return safe and path[:1].isupper() and not {"", ".", ".."} & set(path.split("/"))


def _check_refusal(error: Rejected) -> None:
    assert 400 <= error.status < 500, "a rejection is no 4xx"
    assert error.issues, "a rejection has no issue"
    _check_issues(error.issues)
    _check_no_marker("the exception", traceback.format_exception(error))
    inner: BaseException | None = error
    while inner is not None and inner.__suppress_context__ is False:
        inner = inner.__context__
        _check_no_marker("the exception's chain", [str(inner)])


def _check_issues(issues: Iterable[Issue]) -> None:
    for issue in issues:
        texts: list[Any] = [issue.code, issue.text, issue.expression, issue.severity]
        json.dumps(texts).encode()
        _check_no_marker("an issue", map(str, texts))


def _check_no_marker(what: str, texts: Iterable[str]) -> None:
    # Its own message must not quote what was found.
    assert not any(MARKER in text for text in texts), f"{what} quotes a value"


def _describe_error(error: Exception) -> str:
    """Name the error and the three innermost places where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames[-3:]]
    return f"{type(error).__name__} {str(error)[:80]!r} at {' > '.join(places)}"
