"""Read the list of what needs attention as an operator does, and have it compared.

Work must have ended. What is unseen must be nothing at once, and after at most a minute nothing may
be there that is well. Housekeeping runs meanwhile, as its schedule has it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any

import httpx

from faults.attention_rows import find_wrong_rows
from faults.attention_verdict import Difference, Due, ShownConcern, compare
from faults.judge import Report
from faults.route import Route, gather_limited
from faults.sweeping import sweep_later
from faults.verdict import Finding, Tally
from integration.core import decimal_json

_PAGE = 500
_LIMIT = 60.0  # seconds
# Housekeeping leaves a concern alone that nobody names for ten minutes: it may be named soon.
_LATER = timedelta(minutes=11)


async def check_attention(
    route: Route,
    report: Report,
    where: str,
    *,
    mirrored: Collection[str] = ("Patient",),
    either: Iterable[str] = (),
    sweeps: bool = True,
) -> float:
    """Compare the list with what the servers hold, of all deliveries that the report knows. Return
    after how many seconds it was right. `sweeps`: whether housekeeping runs."""
    due = Due(
        entries=report.missing,
        rows=frozenset(await find_wrong_rows(route.http, route.running, mirrored)),
        either=frozenset(either),
        repeats=[
            report.missing_by_body.get(sent.body, frozenset())
            for sent in route.unanswered
            if "idempotency-key" not in sent.headers  # then its repeat is the same delivery
        ],
    )
    began = time.monotonic()
    while True:
        found = await _compare(route, due)
        seconds = time.monotonic() - began
        if not found or seconds > _LIMIT:
            break
        if sweeps and all(difference.harm != "unseen" for difference in found):
            await sweep_later(route.running, _LATER)
            report.record_stuck_work(await route.wait_until_idle())
        else:  # housekeeping of later could bring what nobody has seen until then
            await asyncio.sleep(1)
    record(report, found, where)
    entries = sum(map(len, due.entries.values()))
    report.print_line(
        f"{where}: {entries} entries and {len(due.rows)} rows are due on the list, which was "
        f"compared after {seconds:.0f} s"
    )
    return seconds


def record(report: Report, found: Iterable[Difference], where: str) -> None:
    """Count what the list has too few, or too many."""
    tally = Tally()
    for difference in found:
        tally.counts[difference.harm] += difference.number
        place = f"seed {report.seed}, {where}"
        tally.findings.append(Finding(difference.harm, place, difference.what))
    report.add_tally(tally)


async def _compare(route: Route, due: Due) -> list[Difference]:
    shown = await read_list(route.http, route.host.url)
    lines = [concern.delivery for concern in shown if not concern.is_row]
    answers = await gather_limited([_read_refused(route, delivery) for delivery in lines])
    refused = {id_: found for id_, found in zip(lines, answers, strict=True) if found is not None}
    return compare(due, shown, refused)


async def read_list(http: httpx.AsyncClient, host_url: str) -> list[ShownConcern]:
    """Read all pages of the list."""
    shown: list[ShownConcern] = []
    url = f"{host_url}/api/attention?_count={_PAGE}"
    while url:
        answer = await http.get(url)
        answer.raise_for_status()
        page = answer.json()
        shown += [parse_concern(line) for line in page["attention"]]
        url = page.get("next", "")
    return shown


def parse_concern(concern: Mapping[str, Any]) -> ShownConcern:
    """Parse a line of the list."""
    return ShownConcern(
        kind=concern["kind"],
        delivery=concern["delivery"],
        positions=tuple(concern.get("positions", ())),
        number=concern.get("number", 0),
        resource=concern.get("resource"),
    )


async def _read_refused(route: Route, delivery: str) -> frozenset[int] | None:
    """Return the positions that the answer of a delivery says were refused; None: it has none."""
    answer = await route.http.get(f"{route.host.url}/api/deliveries/{delivery}")
    if answer.status_code != 200:
        return None
    entries = decimal_json.decode(answer.content)["entry"]
    return frozenset(
        position for position, entry in enumerate(entries) if _is_refused(entry["response"])
    )


def _is_refused(response: Mapping[str, Any]) -> bool:
    is_written = int(response["status"][:3]) < 300
    return not is_written and "superseded" not in str(response.get("outcome", ""))
