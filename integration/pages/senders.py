"""The pages Senders and of one sender: what it may do, how it proves itself, and how it fares.

Each costs what a status report costs, once in five seconds for all who look, and one storage
operation for the counts of the last day.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from integration.core.errors import Issue, Rejected
from integration.core.flow import NO_SENDER, OTHER_SENDERS, FlowCounts
from integration.core.model import Delivery
from integration.operations.flow import DEFAULT_HOURS, FlowReport, report_flow
from integration.operations.status import LastDeliveries, StatusReport, report_status
from integration.pages.http import Reply
from integration.pages.sender_facts import SenderTables, describe_sender
from integration.pages.view import View, render
from integration.senders.proofs.proof import Secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderView:
    """A sender on a page. `tables`: None: senders.toml does not list it. `counts`: of the last
    day; `last_unproven`: the last hour of it in which a request was not proven."""

    name: str
    tables: SenderTables | None
    last: Delivery | None
    counts: FlowCounts
    last_unproven: datetime | None
    problem: str | None

    @property
    def settled(self) -> int:
        """How many of its entries have a result."""
        counts = self.counts
        return counts.written + counts.skipped + counts.superseded + counts.refused


async def show_senders(view: View) -> Reply:
    """Show all senders: those that are listed, and those that were seen without."""
    report, flow, senders = await _collect(view)
    return render(
        view,
        "senders.html",
        senders=senders,
        strangers=_get_counts(flow, NO_SENDER) + _get_counts(flow, OTHER_SENDERS),
        is_listing=view.parts.identification.senders is not None,
        report=report,
        flow=flow,
    )


async def show_sender(view: View) -> Reply:
    """Show one sender."""
    report, flow, senders = await _collect(view)
    name = view.arguments["name"]
    sender = next((found for found in senders if found.name == name), None)
    if sender is None:
        text = (
            "senders.toml lists no sender of this name, and nothing came from one in the last "
            f"{DEFAULT_HOURS} hours."
        )
        raise Rejected(Issue("not-found", text), status=404)
    return render(view, "sender.html", sender=sender, report=report, flow=flow)


async def _collect(view: View) -> tuple[StatusReport, FlowReport, list[SenderView]]:
    parts = view.parts
    report, flow = await asyncio.gather(
        report_status(parts.status_check), report_flow(parts.flow, DEFAULT_HOURS, parts.now())
    )
    listed = parts.identification.senders or {}
    seen = {sender.name for sender in flow.by_sender} - {NO_SENDER, OTHER_SENDERS}
    names = [*listed, *sorted((_get_last(report).keys() | seen) - listed.keys())]
    return report, flow, [_build(view, name, report, flow) for name in names]


def _build(view: View, name: str, report: StatusReport, flow: FlowReport) -> SenderView:
    identification = view.parts.identification
    sender = (identification.senders or {}).get(name)
    secrets = identification.secrets.secrets.get(name, Secrets())
    return SenderView(
        name=name,
        tables=None if sender is None else describe_sender(sender, secrets, _find_root(view)),
        last=_get_last(report).get(name),
        counts=_get_counts(flow, name),
        last_unproven=next(
            (found.last_unproven for found in flow.by_sender if found.name == name), None
        ),
        problem=report.sender_problems.get(name),
    )


def _get_last(report: StatusReport) -> Mapping[str, Delivery | None]:
    return report.senders.by_sender if isinstance(report.senders, LastDeliveries) else {}


def _get_counts(flow: FlowReport, name: str) -> FlowCounts:
    found = (sender.counts for sender in flow.by_sender if sender.name == name)
    return next(found, FlowCounts())


def _find_root(view: View) -> str:
    """Return what stands before /api for senders."""
    url = urlsplit(view.request.url)
    return view.parts.public_url or f"{url.scheme}://{url.netloc}"
