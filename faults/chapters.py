"""The scenarios, each with its own services and host."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from faults import kinds, outage, time_outs
from faults.attention import check_attention
from faults.chains import Chains
from faults.copies import Copies
from faults.deliveries import DeliveryFactory, Stream
from faults.edits_chapter import EditsChapter
from faults.edits_chapter import build_settings as build_edit_settings
from faults.injected import (
    BATCH_REFUSED,
    CONCERN_FAILED,
    COPIED,
    DATAVERSE_FAILED,
    DELIVERED_TWICE,
    EDITED,
    FHIR_CLOCK,
    FHIR_FAILED,
    KEY_REPEATED,
    KILLED,
    LIMITS_CHANGED,
    QUEUE_FAILED,
    QUEUED_AGAIN,
    READS_LAGGED,
    REFUSED_FOR_HOURS,
    REPLAY_BROKEN,
    REWRITTEN,
    STORAGE_CLOCK,
    STORAGE_FAILED,
    TIMED_OUT,
)
from faults.judge import Report
from faults.kills import Kills
from faults.mirror_chapter import MirrorChapter, build_settings
from faults.mirror_troubles import ALL_KINDS
from faults.mirror_verdict import NOTHING_ALLOWED
from faults.refusal_chapter import OTHERS, RefusalChapter
from faults.refusal_chapter import build_settings as build_refusal_settings
from faults.refusals import REFUSALS
from faults.replays import Replays
from faults.route import Route, open_route
from faults.verdict import Tally
from faults.weather import Weather
from local.services import find_free_ports, run_services

# Shares of all faults. Kills at every request are not limited by the number.
_STORM, _COPIES, _CHAINS, _REPLAYS = 0.35, 0.3, 0.08, 0.04
_TIME_OUTS, _RANDOM_KILLS, _OUTAGE = 0.02, 0.01, 0.02
_MIRROR, _EDITS = 0.36, 0.1
_REFUSALS = 7  # entries for each fault
_CROWD = 100  # with the number of faults: at 3,000, more wait than a page of a table holds


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

    folder, scenario = options.folder / name, SCENARIOS[name]
    settings = scenario.settings(folder) if scenario.settings else None
    with run_services(find_free_ports(), folder, storage_clock=scenario.storage_clock) as running:
        async with open_route(
            running,
            folder,
            options.app,
            proxied=scenario.is_proxied,
            hosts=scenario.hosts,
            settings=settings,
        ) as route:
            report = Report(
                http=route.http, running=running, seed=options.seed, print_line=print_progress
            )
            await scenario.run(route, report, options)
            if scenario.is_on_list:
                await check_attention(route, report, name)
    if scenario.storage_clock:
        report.tally.injected[STORAGE_CLOCK] += 1
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
    while (done := report.tally.injected[COPIED]) < number:
        await copies.post_copies(max(min(round(number) - done, 400) // 8, 1), copies=3)
        report.print_progress(f"{report.tally.injected[COPIED]} of {number:.0f}")


async def _run_chains(route: Route, report: Report, options: ScenarioOptions) -> None:
    chains = Chains(route, report, DeliveryFactory(f"chains-{options.seed}"))
    await route.restart(HOST_LEASE_SECONDS="5")
    while report.tally.injected.total() < (number := options.number * _CHAINS):
        await chains.run_round()
        report.print_progress(f"{report.tally.injected.total()} of {number:.0f}")


async def _run_time_outs(route: Route, report: Report, options: ScenarioOptions) -> None:
    maker, number = DeliveryFactory(f"time-outs-{options.seed}"), options.number * _TIME_OUTS
    await time_outs.run_time_outs(route, report, maker, max(round(number), 2))


async def _run_replays(route: Route, report: Report, options: ScenarioOptions) -> None:
    replays = Replays(route, report, DeliveryFactory(f"replays-{options.seed}"))
    while (done := report.tally.injected[LIMITS_CHANGED]) < (number := options.number * _REPLAYS):
        await replays.run_round()
        report.print_progress(f"{done} of {number:.0f} changes of limits")


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
    # Several deliveries at once, and a start of the host between: shorter leases end while their
    # work is under way, and a first write of a killed host would arrive after them.
    await route.shorten_leases(4, 2)
    for _ in range(round(options.number * _RANDOM_KILLS)):
        await kills.kill_at_random(maker, streams=4, max_request=100)
    report.print_progress(f"{kills.points.total()} kills at {len(kills.points)} kinds of requests")


async def _run_mirror(route: Route, report: Report, options: ScenarioOptions) -> None:
    chapter = await MirrorChapter.open(route, report, f"mirror-{options.seed}")
    number = round(options.number * _MIRROR)
    await chapter.run(number, crowd=number + _CROWD)
    people, strangers = chapter.people.known, chapter.people.strangers.values()
    await check_attention(
        route,
        report,
        "mirror",
        mirrored=("Patient", "Organization"),
        either=[
            *(person.identity for person in people if person.allowed != NOTHING_ALLOWED),
            *(f"Patient/{fhir_id}" for _, fhir_id in strangers),
        ],
    )
    for (kind, harm), found in chapter.kinds.items():
        report.print_line(f"{found} {harm}: {kind}")


async def _run_edits(route: Route, report: Report, options: ScenarioOptions) -> None:
    maker, folder = DeliveryFactory(f"edits-{options.seed}"), options.folder / "edits"
    chapter = EditsChapter(route=route, report=report, maker=maker, folder=folder)
    await chapter.run(round(options.number * _EDITS))


async def _run_refusals(route: Route, report: Report, options: ScenarioOptions) -> None:
    maker = DeliveryFactory(f"refusals-{options.seed}")
    folder = options.folder / "refusals"
    chapter = RefusalChapter(route=route, report=report, maker=maker, folder=folder)
    number = options.number * _REFUSALS
    await chapter.run(number, size=min(max(number // 26, 20), 250))


_BOTH_SIDES = (kinds.make_transaction, kinds.make_lines)
_ALTERNATING = (kinds.make_updates, kinds.make_parts, kinds.make_batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A scenario. `injects`: the kinds of faults without which it has shown nothing."""

    run: Callable[[Route, Report, ScenarioOptions], Awaitable[None]]
    injects: tuple[str, ...]
    is_proxied: bool = False
    hosts: int = 1
    storage_clock: float = 0  # seconds that it is ahead
    settings: Callable[[Path], dict[str, str]] | None = None  # of the host, by the folder
    is_on_list: bool = True  # what needs attention is compared here, when all work has ended


# The longest first.
SCENARIOS: dict[str, Scenario] = {
    "storm": Scenario(
        run=_run_storm,
        injects=(
            *(FHIR_FAILED, DATAVERSE_FAILED, STORAGE_FAILED, FHIR_CLOCK, READS_LAGGED),
            *(BATCH_REFUSED, REWRITTEN, STORAGE_CLOCK),
        ),
        is_proxied=True,
        storage_clock=60,
    ),
    "mirror": Scenario(
        run=_run_mirror, injects=ALL_KINDS, hosts=2, settings=build_settings, is_on_list=False
    ),
    "edits": Scenario(
        run=_run_edits,
        injects=(EDITED, FHIR_FAILED, DATAVERSE_FAILED, STORAGE_FAILED, KILLED),
        is_proxied=True,
        hosts=2,
        settings=build_edit_settings,
        is_on_list=False,
    ),
    "refusals": Scenario(
        run=_run_refusals,
        injects=(*REFUSALS, *OTHERS, CONCERN_FAILED, KILLED, DELIVERED_TWICE),
        is_proxied=True,
        hosts=2,
        settings=build_refusal_settings,
        is_on_list=False,
    ),
    "copies": Scenario(
        run=_run_copies,
        injects=(COPIED, DELIVERED_TWICE, STORAGE_CLOCK),
        is_proxied=True,
        hosts=2,
        storage_clock=-60,
    ),
    **{
        f"kills-{kind.__name__.removeprefix('make_')}": Scenario(
            run=partial(_run_kills, kind), injects=(KILLED,)
        )
        for kind in (*_ALTERNATING, *_BOTH_SIDES)
    },
    "chains": Scenario(
        run=_run_chains, injects=(QUEUE_FAILED, KEY_REPEATED, QUEUED_AGAIN), is_proxied=True
    ),
    "replays": Scenario(run=_run_replays, injects=(LIMITS_CHANGED, REPLAY_BROKEN)),
    "time-outs": Scenario(run=_run_time_outs, injects=(TIMED_OUT,)),
    "kills": Scenario(run=_run_random_kills, injects=(KILLED,)),
    "outage": Scenario(run=_run_outage, injects=(REFUSED_FOR_HOURS,), is_on_list=False),
}


def list_missing(names: Iterable[str], tally: Tally) -> list[str]:
    """Return the kinds of faults that these scenarios should have injected, and did not."""
    wanted = dict.fromkeys(kind for name in names for kind in SCENARIOS[name].injects)
    return [kind for kind in wanted if not tally.injected[kind]]
