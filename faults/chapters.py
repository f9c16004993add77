"""The parts of the proof, each with neighbours and a host of its own."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from faults import kinds, outage
from faults.copies import Copies
from faults.deliveries import Maker, Stream
from faults.judge import Report
from faults.kills import Kills
from faults.route import Route, opened
from faults.verdict import Tally
from faults.weather import Weather
from local.services import free_ports, neighbours

# Of a whole run; the rest are kills at every request, and the outage.
_STORM, _COPIES, _RANDOM_KILLS, _OUTAGE = 0.4, 0.25, 0.01, 0.02


@dataclass(frozen=True, slots=True)
class Wish:
    """What a part of the proof is asked for. `begun`: when the whole was, as time.time() has it."""

    number: int
    seed: str
    app: Path
    folder: Path
    begun: float


def proven(name: str, wish: Wish) -> Tally:
    # The relay's own log of what is done to it goes to the host's file, or nowhere.
    logging.getLogger("integration").addHandler(logging.NullHandler())
    try:
        return asyncio.run(_told(name, wish))
    except Exception:
        traceback.print_exc()  # now: the others go on for minutes
        raise


async def _told(name: str, wish: Wish) -> Tally:
    def tell(text: str) -> None:
        print(f"{time.time() - wish.begun:6.0f} s  {name}: {text}", flush=True)

    folder = wish.folder / name
    with neighbours(free_ports(), folder) as running:
        async with opened(running, folder, wish.app, proxied=name == "storm") as route:
            report = Report(route.http, running, wish.seed, tell)
            await CHAPTERS[name](route, report, wish)
    return report.tally


async def _outage(route: Route, report: Report, wish: Wish) -> None:
    streams = max(round(wish.number * _OUTAGE), 4)
    maker = Maker(f"outage-{wish.seed}")
    report.progress(await outage.endured(route.running, report, maker, streams))


async def _storm(route: Route, report: Report, wish: Wish) -> None:
    weather = Weather(route, report, Maker(f"storm-{wish.seed}"))
    await weather.storm(round(wish.number * _STORM))
    report.progress(f"{len(weather.kinds)} kinds of trouble")


async def _copies(route: Route, report: Report, wish: Wish) -> None:
    copies, number = Copies(route, report, Maker(f"copies-{wish.seed}")), wish.number * _COPIES
    while (done := report.tally.counts["injected"]) < number:
        await copies.shower(max(min(round(number) - done, 200) // 8, 1), each=3)
        report.progress(f"{report.tally.counts['injected']} of {number:.0f}")


async def _kills(kind: Callable[[Maker], Stream], route: Route, report: Report, wish: Wish) -> None:
    kills, name = Kills(route, report), kind.__name__
    await route.mortal()
    go = kills.at_both_sides if kind in _BOTH_SIDES else kills.by_turns
    await go(Maker(f"{name}-{wish.seed}"), kind)
    report.progress(f"{kills.points.total()} kills, at every request")


async def _kills_at_random(route: Route, report: Report, wish: Wish) -> None:
    kills, maker = Kills(route, report), Maker(f"kills-{wish.seed}")
    await route.mortal()
    for _ in range(round(wish.number * _RANDOM_KILLS)):
        await kills.at_random(maker, streams=4, most=100)
    report.progress(f"{kills.points.total()} kills at {len(kills.points)} kinds of requests")


_BOTH_SIDES = (kinds.transaction, kinds.lines)
_BY_TURNS = (kinds.updates, kinds.parts, kinds.batch)

# The longest first.
CHAPTERS: dict[str, Callable[[Route, Report, Wish], Awaitable[None]]] = {
    "storm": _storm,
    **{f"kills-{kind.__name__}": partial(_kills, kind) for kind in (*_BY_TURNS, *_BOTH_SIDES)},
    "kills": _kills_at_random,
    "copies": _copies,
    "outage": _outage,
}
