"""The page Today: whether anything needs somebody, before anything else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from integration.core.errors import Unavailable
from integration.core.flow import add_counts
from integration.journal.attention import ConcernPage
from integration.journal.concern import Concern, ConcernKind
from integration.operations.alerts import AlertState, judge_alerts
from integration.operations.attention import read_newest
from integration.operations.flow import DEFAULT_HOURS, FlowReport, report_flow
from integration.operations.health import (
    ASKED,
    Answering,
    CheckedStates,
    UpstreamState,
    check_in_time,
)
from integration.operations.status import StatusReport, Unreadable, report_status
from integration.pages.chart import HEIGHT, WIDTH, build_chart, count_refused, count_rows
from integration.pages.http import Reply
from integration.pages.people import Role
from integration.pages.recovery import UPSTREAMS, describe_recovery, list_recovered
from integration.pages.view import View, render
from integration.queues.queue_reader import QueueState

# The newest concerns that are counted, in one storage operation. Of more it says `more than`.
MAX_CONCERNS = 1000

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
        "record could not be brought to Dataverse",
        "records could not be brought to Dataverse",
    ),
    ConcernKind.ROW_REFUSED: (
        "record was refused for Dataverse",
        "records were refused for Dataverse",
    ),
    ConcernKind.ROW_WAITING: (
        "record waits on its way to Dataverse",
        "records wait on their way to Dataverse",
    ),
    ConcernKind.ROW_INCOMPLETE: (
        "record waits in Dataverse for one that it names",
        "records wait in Dataverse for some that they name",
    ),
}


# What is to be done about an upstream that does not work as it should.
_REMEDIES = {
    Answering.SLOWLY: (
        "Work goes on, and takes long. See what else it has to do, or have it scaled"
    ),
    Answering.REFUSES: (
        "It is there, and refuses: see its status below. What waits for it goes on by itself; what "
        "was given up does not"
    ),
    Answering.SILENT: (
        "See whether it runs, and can be reached. What waits for it goes on by itself; what was "
        "given up does not"
    ),
}

# What was given up, and is replayed once the service works again; and what goes on by itself, and
# earlier if somebody wants it to.
_GIVEN_UP = frozenset({ConcernKind.PARKED, ConcernKind.ROW_PARKED})
_WAITING = frozenset({ConcernKind.WAITING, ConcernKind.ROW_WAITING})

# Alerts that no concern tells of: what they are called here, and the page that says more.
_ALERTS = {
    "unproven": ("A sender is not let in", "senders"),
    "oldest": ("A delivery takes long", "deliveries"),
    "backlog": ("Work piles up", "activity"),
    "silent": ("Housekeeping", "settings"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is wrong, and no concern. `path`, `fields`: of the page that says more."""

    place: str
    text: str
    path: str
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """All concerns of one kind. `number`: how many were found; `reason`: the most frequent one."""

    kind: ConcernKind
    number: int
    title: str
    oldest: datetime
    reason: str
    other_reasons: int
    next_attempt: datetime | None = None  # the first of theirs, of what waits
    recovery: str | None = None  # what says that the cause is gone

    @property
    def is_waiting(self) -> bool:
        """Whether it goes on by itself."""
        return self.kind in _WAITING

    @property
    def is_given_up(self) -> bool:
        """Whether it goes on when somebody replays it, and not before."""
        return self.kind in _GIVEN_UP


async def show_today(view: View) -> Reply:
    """Show attention first, then what flows."""
    parts = view.parts
    report, found, upstreams, flow = await asyncio.gather(
        report_status(parts.status_check),
        read_newest(parts.journal, MAX_CONCERNS),
        check_upstreams_of(view),
        _read_flow(view),
    )
    total = None if flow is None else add_counts(hour.counts for hour in flow.by_hour)
    return render(
        view,
        "today.html",
        needs=[] if isinstance(found, Unreadable) else group_concerns(found.concerns, upstreams),
        has_more=not isinstance(found, Unreadable) and found.after is not None,
        max_concerns=MAX_CONCERNS,
        report=report,
        upstreams=upstreams,
        recovered=_list_recovered(report, upstreams),
        upstream_names=UPSTREAMS,
        is_waited_for=upstreams is not None and ASKED in upstreams.states.values(),
        tone_of=_choose_tone,
        asked=ASKED,
        may_start=view.person.can(Role.OPERATOR),
        problems=list_problems(report, upstreams, found),
        flow=flow,
        total=total if total is not None and total.list_counted() else None,
        chart=None if flow is None else build_chart(flow.by_hour),
        width=WIDTH,
        height=HEIGHT,
        count_rows=count_rows,
        count_refused=count_refused,
        is_refreshing=view.fields.get("refresh") != "off",
    )


def _choose_tone(state: UpstreamState) -> str:
    return {Answering.WORKS: "good", Answering.SLOWLY: "warn", Answering.ASKED: ""}.get(
        state.answering, "bad"
    )


def _list_recovered(report: StatusReport, upstreams: CheckedStates | None) -> list[tuple[str, int]]:
    if isinstance(report.deliveries, Unreadable):
        return []
    return list_recovered(report.deliveries.waiting_reasons, upstreams)


def group_concerns(
    concerns: Sequence[Concern], upstreams: CheckedStates | None = None
) -> list[Need]:
    """Return what needs somebody, by kind: what cannot go on by itself first. Pure."""
    by_kind: dict[ConcernKind, list[Concern]] = {}
    for concern in concerns:
        by_kind.setdefault(concern.kind, []).append(concern)
    return [_describe(kind, by_kind[kind], upstreams) for kind in _TITLES if kind in by_kind]


def _describe(
    kind: ConcernKind, concerns: Sequence[Concern], upstreams: CheckedStates | None
) -> Need:
    reasons = Counter(concern.reason for concern in concerns)
    reason = reasons.most_common(1)[0][0]
    singular, plural = _TITLES[kind]
    return Need(
        kind=kind,
        number=len(concerns),
        title=singular if len(concerns) == 1 else plural,
        oldest=min(concern.since for concern in concerns),
        reason=reason,
        other_reasons=len(reasons) - 1,
        next_attempt=min(
            (concern.next_attempt for concern in concerns if concern.next_attempt), default=None
        ),
        recovery=describe_recovery(reason, upstreams) if kind in _GIVEN_UP | _WAITING else None,
    )


def list_problems(
    report: StatusReport, upstreams: CheckedStates | None, found: ConcernPage | Unreadable
) -> list[Problem]:
    """Return what else needs somebody. `found`: what needs attention. Pure."""
    return [
        *_list_upstreams(upstreams),
        *_list_senders(report),
        *_list_alerts(report, found),
        *_list_poison(report),
        *_list_unread(report, found),
    ]


def _list_upstreams(upstreams: CheckedStates | None) -> Iterable[Problem]:
    for name, state in (upstreams.states if upstreams else {}).items():
        if state.answering in _REMEDIES:
            place = UPSTREAMS.get(name, name)
            text = f"{state.text}. {_REMEDIES[state.answering]}."
            yield Problem(
                place=place,
                text=text,
                path="activity",
                fields={"upstream": place, "health": "show"},
            )


def _list_senders(report: StatusReport) -> Iterable[Problem]:
    for name, problem in report.sender_problems.items():
        text = f"{name}: {problem}"
        yield Problem(place="A sender cannot send", text=text, path=f"senders/{name}")


def _list_alerts(report: StatusReport, found: ConcernPage | Unreadable) -> Iterable[Problem]:
    """The alerts that ring, but for those that tell of concerns, which are listed by themselves."""
    for alert in judge_alerts(report, found):
        if alert.name in _ALERTS and alert.known.state is AlertState.RINGS:
            place, path = _ALERTS[alert.name]
            yield Problem(place=place, text=alert.known.reason, path=path)


def _list_poison(report: StatusReport) -> Iterable[Problem]:
    """What the app parks it takes out of a poison queue: what stays there, it cannot read."""
    for name, queue in report.queues.items():
        if name.endswith("-poison") and isinstance(queue, QueueState) and queue.length:
            text = f"{queue.length} in {name}: see who puts what into the queue, and delete it"
            yield Problem(place="A message cannot be read", text=text, path="settings")


def _list_unread(report: StatusReport, found: ConcernPage | Unreadable) -> Iterable[Problem]:
    """What is not known is not well."""
    parts = {
        "What needs attention": found,
        "What is on its way": report.deliveries,
        "The activity log": report.activity,
        "Housekeeping": report.housekeeping,
        "What passed": report.refusals,
        **{f"The queue {name}": queue for name, queue in report.queues.items()},
    }
    for name, part in parts.items():
        if isinstance(part, Unreadable):
            text = f"{name} cannot be read: {part.reason}"
            yield Problem(place="Storage", text=text, path="settings")


async def _read_flow(view: View) -> FlowReport | None:
    """The chart is the least of the page: what keeps it from being read is said in the others."""
    try:
        return await report_flow(view.parts.flow, DEFAULT_HOURS, view.parts.now())
    except Unavailable:
        return None


async def check_upstreams_of(view: View) -> CheckedStates | None:
    """Return how upstreams answer, within the patience of a page; None: none is to be asked."""
    check = view.parts.status_check.upstream_check
    return None if check is None else await check_in_time(check, view.parts.patience)
