"""`python -m faults [--number N] [--seed S] [--app FOLDER]`: the proof, on this machine.

Its last line counts what became of every entry; the exit status is 0 only if no harm was done.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from faults import kinds, outage
from faults.copies import Copies
from faults.deliveries import Maker
from faults.judge import Report
from faults.kills import Kills
from faults.route import Route, opened
from faults.verdict import Tally
from faults.weather import Weather
from local.child import PROJECT
from local.neighbours import Running, free_ports, neighbours

CHAPTERS = ("outage", "storm", "copies", "kills")

# Of a whole run; the rest are kills at every request, and the outage.
_STORM, _COPIES, _RANDOM_KILLS = 0.4, 0.25, 0.01


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--number", type=int, default=os.environ.get("FAULTS", "2000"))
    parser.add_argument("--seed", default=os.environ.get("FAULTS_SEED", "1"))
    parser.add_argument("--only", choices=CHAPTERS, action="append", help="a part of the proof")
    parser.add_argument("--app", type=Path, default=PROJECT, help="the folder of function_app.py")
    parser.add_argument("--logs", type=Path, help="a folder for logs; else they are not kept")
    given = parser.parse_args()
    # The relay's own log of what is done to it goes to the host's file, or nowhere.
    logging.getLogger("integration").addHandler(logging.NullHandler())
    if os.environ.get("FHIR_URL"):
        print("cannot start: unset FHIR_URL, whose server cannot be told to misbehave")
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = given.logs or Path(name)
        with neighbours(free_ports(), folder) as running:
            tally = asyncio.run(_run(running, folder, given, given.only or CHAPTERS))
    print(tally, flush=True)
    return 0 if tally.harmless else 1


async def _run(
    running: Running, folder: Path, given: argparse.Namespace, chapters: Sequence[str]
) -> Tally:
    begun, number, seed = time.monotonic(), given.number, given.seed

    def tell(text: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {text}", flush=True)

    async with opened(running, folder, given.app.resolve(), {}) as route:
        report = Report(route.http, running, seed, tell)
        tell(f"seed {seed}, {number} faults at least: {', '.join(chapters)}")
        if "outage" in chapters:
            await _outage(running, report, seed, max(number // 50, 4))
        if "storm" in chapters:
            await _storm(route, report, seed, round(number * _STORM))
        if "copies" in chapters:
            await _copies(route, report, seed, round(number * _COPIES))
        if "kills" in chapters:
            await _kills(route, report, seed, round(number * _RANDOM_KILLS))
    return report.tally


async def _outage(running: Running, report: Report, seed: str, streams: int) -> None:
    report.progress(await outage.endured(running, report, Maker(f"outage-{seed}"), streams))


async def _storm(route: Route, report: Report, seed: str, number: int) -> None:
    weather = Weather(route, report, Maker(f"storm-{seed}"))
    await weather.storm(number)
    report.progress(f"storm: {len(weather.kinds)} kinds of trouble")


async def _copies(route: Route, report: Report, seed: str, number: int) -> None:
    copies = Copies(route, report, Maker(f"copies-{seed}"))
    begin = report.tally.counts["injected"]
    while (done := report.tally.counts["injected"] - begin) < number:
        await copies.shower(max(min(number - done, 200) // 8, 1), each=3)
        report.progress(f"copies: {report.tally.counts['injected'] - begin} of {number}")


async def _kills(route: Route, report: Report, seed: str, random: int) -> None:
    kills, maker = Kills(route, report), Maker(f"kills-{seed}")
    await route.mortal()
    await kills.at_every_request(maker, kinds.transaction)
    report.progress(f"kills: {kills.points.total()}, at every request of a transaction, both sides")
    for kind in (kinds.parts, kinds.updates, kinds.lines):
        await kills.at_every_other(maker, kind)
        report.progress(f"kills: {kills.points.total()}, at every request of {kind.__name__}")
    for _ in range(random):
        await kills.at_random(maker, streams=4, most=100)
    report.progress(f"kills: {kills.points.total()} at {len(kills.points)} kinds of requests")


if __name__ == "__main__":
    sys.exit(main())
