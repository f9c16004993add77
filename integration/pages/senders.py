"""The pages Senders and of one sender: what it may do, how it proves itself, and how it fares.

Each costs what a status report costs, once in five seconds for all who look, and one storage
operation for the newest deliveries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from integration.core.errors import Issue, Rejected
from integration.core.model import Delivery
from integration.operations.sender_shares import SenderShare, SenderShares, count_by_sender
from integration.operations.status import LastDeliveries, StatusReport, report_status
from integration.pages.http import Reply
from integration.pages.sender_facts import SenderTables, describe_sender
from integration.pages.view import View, render
from integration.senders.proofs.proof import Secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderView:
    """A sender on a page. `tables`: None: senders.toml does not list it. `refusals`: the number by
    HTTP status, in this worker since it started."""

    name: str
    tables: SenderTables | None
    last: Delivery | None
    share: SenderShare
    refusals: Mapping[int, int]
    problem: str | None


async def show_senders(view: View) -> Reply:
    """Show all senders: those that are listed, and those that were seen without."""
    report, shares, senders = await _collect(view)
    return render(
        view,
        "senders.html",
        senders=senders,
        strangers=_count_refusals(report, None),
        is_listing=view.parts.identification.senders is not None,
        report=report,
        shares=shares,
    )


async def show_sender(view: View) -> Reply:
    """Show one sender."""
    report, shares, senders = await _collect(view)
    name = view.arguments["name"]
    sender = next((found for found in senders if found.name == name), None)
    if sender is None:
        text = (
            "senders.toml lists no sender of this name, and none of the newest "
            f"{shares.looked_at} deliveries is of one."
        )
        raise Rejected(Issue("not-found", text), status=404)
    return render(view, "sender.html", sender=sender, report=report, shares=shares)


async def _collect(view: View) -> tuple[StatusReport, SenderShares, list[SenderView]]:
    parts = view.parts
    report, shares = await asyncio.gather(
        report_status(parts.status_check), count_by_sender(parts.journal)
    )
    listed, last = parts.identification.senders or {}, _get_last(report)
    names = [*listed, *sorted((last.keys() | shares.by_sender.keys()) - listed.keys())]
    return report, shares, [_build(view, name, report, shares) for name in names]


def _build(view: View, name: str, report: StatusReport, shares: SenderShares) -> SenderView:
    identification = view.parts.identification
    sender = (identification.senders or {}).get(name)
    secrets = identification.secrets.secrets.get(name, Secrets())
    return SenderView(
        name=name,
        tables=None if sender is None else describe_sender(sender, secrets, _find_root(view)),
        last=_get_last(report).get(name),
        share=shares.by_sender.get(name, SenderShare()),
        refusals=_count_refusals(report, name),
        problem=report.sender_problems.get(name),
    )


def _get_last(report: StatusReport) -> Mapping[str, Delivery | None]:
    return report.senders.by_sender if isinstance(report.senders, LastDeliveries) else {}


def _count_refusals(report: StatusReport, sender: str | None) -> dict[int, int]:
    return {count.status: count.count for count in report.refusals if count.sender == sender}


def _find_root(view: View) -> str:
    """Return what stands before /api for senders."""
    url = urlsplit(view.request.url)
    return view.parts.public_url or f"{url.scheme}://{url.netloc}"
