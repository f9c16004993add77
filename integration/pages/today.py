"""The page Today: whether anything needs somebody, before anything else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from integration.journal.attention import ConcernFilter
from integration.journal.concern import Concern, ConcernKind
from integration.operations.health import (
    CheckedStates,
    UpstreamCheck,
    check_upstreams,
    get_last_states,
)
from integration.operations.status import StatusReport, report_status
from integration.pages.http import Reply
from integration.pages.view import View, render

# The newest concerns that are counted, in one storage operation. Of more it says `more than`.
MAX_CONCERNS = 1000

# Seconds for upstreams to answer. One that hangs must not keep the page from showing.
_PATIENCE = 2.0

# What each kind is called here, for one and for several; words that need no glossary.
_TITLES = {
    ConcernKind.PARKED: (
        "delivery was given up",
        "deliveries were given up",
    ),
    ConcernKind.HELD: (
        "delivery was kept, but cannot be written",
        "deliveries were kept, but cannot be written",
    ),
    ConcernKind.WAITING: (
        "delivery waits until something is mended",
        "deliveries wait until something is mended",
    ),
    ConcernKind.ENTRIES: (
        "delivery has records that were refused",
        "deliveries have records that were refused",
    ),
    ConcernKind.ROW_PARKED: (
        "patient could not be brought to Dataverse",
        "patients could not be brought to Dataverse",
    ),
    ConcernKind.ROW_REFUSED: (
        "patient was refused by Dataverse",
        "patients were refused by Dataverse",
    ),
    ConcernKind.ROW_WAITING: (
        "patient waits for Dataverse to be mended",
        "patients wait for Dataverse to be mended",
    ),
    ConcernKind.ROW_INCOMPLETE: (
        "record waits in Dataverse for one that it names",
        "records wait in Dataverse for some that they name",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """All concerns of one kind. `number`: how many were found; `reason`: the most frequent one."""

    kind: ConcernKind
    number: int
    title: str
    oldest: datetime
    reason: str
    other_reasons: int


async def show_today(view: View) -> Reply:
    """Show attention first, then what flows."""
    parts = view.parts
    report, found, upstreams = await asyncio.gather(
        report_status(parts.status_check),
        parts.journal.list_concerns(ConcernFilter(), MAX_CONCERNS, None),
        _check_upstreams(parts.status_check.upstream_check),
    )
    return render(
        view,
        "today.html",
        needs=group_concerns(found.concerns),
        has_more=found.after is not None,
        max_concerns=MAX_CONCERNS,
        report=report,
        upstreams=upstreams,
        problems=list_problems(report, upstreams),
        is_refreshing=view.fields.get("refresh") != "off",
    )


def group_concerns(concerns: Sequence[Concern]) -> list[Need]:
    """Return what needs somebody, by kind: what cannot go on by itself first. Pure."""
    by_kind: dict[ConcernKind, list[Concern]] = {}
    for concern in concerns:
        by_kind.setdefault(concern.kind, []).append(concern)
    return [_describe(kind, by_kind[kind]) for kind in _TITLES if kind in by_kind]


def _describe(kind: ConcernKind, concerns: Sequence[Concern]) -> Need:
    reasons = Counter(concern.reason for concern in concerns)
    singular, plural = _TITLES[kind]
    return Need(
        kind=kind,
        number=len(concerns),
        title=singular if len(concerns) == 1 else plural,
        oldest=min(concern.since for concern in concerns),
        reason=reasons.most_common(1)[0][0],
        other_reasons=len(reasons) - 1,
    )


def list_problems(report: StatusReport, upstreams: CheckedStates | None) -> list[tuple[str, str]]:
    """Return what else needs somebody: where it is, and what is wrong. Pure."""
    return [*_list_problems(report, upstreams)]


def _list_problems(
    report: StatusReport, upstreams: CheckedStates | None
) -> Iterable[tuple[str, str]]:
    names = {"fhir": "FHIR server", "dataverse": "Dataverse", "storage": "Storage"}
    for name, state in (upstreams.states if upstreams else {}).items():
        if state != "ok":
            yield names.get(name, name), state
    for sender, problem in report.sender_problems.items():
        yield f"Sender {sender}", problem
    housekeeping = report.housekeeping
    if getattr(housekeeping, "is_overdue", False):
        yield "Housekeeping", "it should have run by now: see that the app runs"
    for part in report.unreadable:
        yield "Storage", part.reason


async def _check_upstreams(check: UpstreamCheck | None) -> CheckedStates | None:
    if check is None:
        return None
    task = asyncio.ensure_future(check_upstreams(check))
    try:
        return await asyncio.wait_for(asyncio.shield(task), _PATIENCE)
    except TimeoutError:
        return get_last_states(check)
