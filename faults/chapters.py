"""The scenarios, each with its own services and host."""

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
from faults.deliveries import DeliveryFactory, Stream
from faults.judge import Report
from faults.kills import Kills
from faults.mirror_chapter import MirrorChapter, build_settings, run_second_host
from faults.route import Route, open_route
from faults.verdict import Tally
from faults.weather import Weather
from local.services import find_free_ports, run_services

# Shares of all faults. Kills at every request are not limited by the number.
_STORM, _COPIES, _RANDOM_KILLS, _OUTAGE = 0.4, 0.25, 0.01, 0.02
_MIRROR = 0.5
_CROWD = 100  # with the number of faults: at 2,000, more wait than a page of a table holds


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioOptions:
    """The options of a run. `started` is the time.time() at which the whole run started."""

    number: int
    seed: str
    app: Path
    folder: Path
    started: float


def run_scenario(name: str, options: ScenarioOptions) -> Tally:
    # The faults fill the relay's log. The host writes it to a file; here it is dropped.
    logging.getLogger("integration").addHandler(logging.NullHandler())
    try:
        return asyncio.run(_run_scenario(name, options))
    except Exception:
        traceback.print_exc()  # at once: the other scenarios go on for minutes
        raise


async def _run_scenario(name: str, options: ScenarioOptions) -> Tally:
    def print_progress(text: str) -> None:
        print(f"{time.time() - options.started:6.0f} s  {name}: {text}", flush=True)

    folder = options.folder / name
    with run_services(find_free_ports(), folder) as running:
        more = build_settings(folder) if name == "mirror" else {}
        async with open_route(
            running, folder, options.app, proxied=name == "storm", settings=more
        ) as route:
            report = Report(
                http=route.http, running=running, seed=options.seed, print_line=print_progress
            )
            await SCENARIOS[name](route, report, options)
    return report.tally


async def _run_outage(route: Route, report: Report, options: ScenarioOptions) -> None:
    streams = max(round(options.number * _OUTAGE), 4)
    maker = DeliveryFactory(f"outage-{options.seed}")
    report.print_progress(await outage.run_outage(route.running, report, maker, streams))


async def _run_storm(route: Route, report: Report, options: ScenarioOptions) -> None:
    weather = Weather(route, report, DeliveryFactory(f"storm-{options.seed}"))
    await weather.run_storm(round(options.number * _STORM))
    report.print_progress(f"{len(weather.kinds)} kinds of faults")


async def _run_copies(route: Route, report: Report, options: ScenarioOptions) -> None:
    copies, number = (
        Copies(route, report, DeliveryFactory(f"copies-{options.seed}")),
        options.number * _COPIES,
    )
    while (done := report.tally.counts["injected"]) < number:
        await copies.post_copies(max(min(round(number) - done, 200) // 8, 1), copies=3)
        report.print_progress(f"{report.tally.counts['injected']} of {number:.0f}")


async def _run_kills(
    kind: Callable[[DeliveryFactory], Stream],
    route: Route,
    report: Report,
    options: ScenarioOptions,
) -> None:
    kills, name = Kills(route, report), kind.__name__.removeprefix("make_")
    await route.shorten_leases()
    run = kills.kill_on_both_sides if kind in _BOTH_SIDES else kills.kill_on_alternating_sides
    await run(DeliveryFactory(f"{name}-{options.seed}"), kind)
    report.print_progress(f"{kills.points.total()} kills, at every request")


async def _run_random_kills(route: Route, report: Report, options: ScenarioOptions) -> None:
    kills, maker = Kills(route, report), DeliveryFactory(f"kills-{options.seed}")
    await route.shorten_leases()
    for _ in range(round(options.number * _RANDOM_KILLS)):
        await kills.kill_at_random(maker, streams=4, max_request=100)
    report.print_progress(f"{kills.points.total()} kills at {len(kills.points)} kinds of requests")


async def _run_mirror(route: Route, report: Report, options: ScenarioOptions) -> None:
    async with run_second_host(route, options.folder / "mirror", options.app):
        chapter = await MirrorChapter.open(route, report, f"mirror-{options.seed}")
        number = round(options.number * _MIRROR)
        await chapter.run(number, crowd=number + _CROWD)
    found = ", ".join(
        f"{number} {harm} by {name}" for (name, harm), number in chapter.kinds.items()
    )
    report.print_progress(found or "no harm of any kind")


_BOTH_SIDES = (kinds.make_transaction, kinds.make_lines)
_ALTERNATING = (kinds.make_updates, kinds.make_parts, kinds.make_batch)

# The longest first.
SCENARIOS: dict[str, Callable[[Route, Report, ScenarioOptions], Awaitable[None]]] = {
    "storm": _run_storm,
    "mirror": _run_mirror,
    **{
        f"kills-{kind.__name__.removeprefix('make_')}": partial(_run_kills, kind)
        for kind in (*_ALTERNATING, *_BOTH_SIDES)
    },
    "kills": _run_random_kills,
    "copies": _run_copies,
    "outage": _run_outage,
}
