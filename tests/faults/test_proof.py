"""The proof in small: faults of every kind on the whole route, and no harm done.

`make faults` is the same in large.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from faults import kinds, outage, time_outs
from faults.chains import Chains
from faults.copies import Copies
from faults.deliveries import DeliveryFactory
from faults.injected import (
    CONCERN_FAILED,
    COPIED,
    CORRECTED,
    KEY_REPEATED,
    KILLED,
    LIMITS_CHANGED,
    QUEUE_FAILED,
    REFUSED_FOR_HOURS,
    TIMED_OUT,
)
from faults.judge import Report
from faults.kills import Kills
from faults.refusal_chapter import RefusalChapter, build_settings
from faults.refusals import REFUSALS
from faults.replays import Replays
from faults.route import Route, make_client, open_route
from faults.weather import Weather
from local.processes import PROJECT
from local.services import Running, find_free_ports, run_services

pytestmark = [
    pytest.mark.slow,  # tests/journeys/test_trouble.py has one fault of each kind
    pytest.mark.live,
    pytest.mark.azurite,
    pytest.mark.skipif(
        not (PROJECT / "local/node_modules/azurite").is_dir(),
        reason="local/node_modules is missing: run make test",
    ),
    pytest.mark.skipif(
        "FHIR_URL" in os.environ,
        reason="FHIR_URL names a server that cannot be told to misbehave",
    ),
]

SEED = "test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    with run_services(find_free_ports(), folder) as it:
        yield it


@pytest.fixture
async def route(running: Running, folder: Path) -> AsyncIterator[Route]:
    async with open_route(running, folder, PROJECT) as opened:
        yield opened


def make_report(route: Route) -> Report:
    return Report(http=route.http, running=route.running, seed=SEED)


async def test_hours_without_a_fhir_server_cost_time_and_no_entry(running: Running) -> None:
    async with make_client() as http:
        found = Report(http=http, running=running, seed=SEED)
        await outage.run_outage(running, found, DeliveryFactory("outage"), streams=8)
    assert found.tally.findings == []
    assert found.tally.injected[REFUSED_FOR_HOURS] > 100


async def test_failing_services_cost_time_and_no_entry(route: Route) -> None:
    found = make_report(route)
    await Weather(route, found, DeliveryFactory("storm")).run_storm(15, senders=4)
    assert found.tally.findings == []
    assert found.tally.injected.total() >= 15


async def test_messages_that_come_again_change_nothing(route: Route) -> None:
    found = make_report(route)
    await Copies(route, found, DeliveryFactory("copies")).post_copies(streams=2, copies=2)
    assert found.tally.findings == []
    assert found.tally.injected[COPIED] >= 4


async def test_deliveries_with_two_chains_of_work_items_are_written_once(route: Route) -> None:
    found = make_report(route)
    await Chains(route, found, DeliveryFactory("chains")).run_round()
    assert found.tally.findings == []
    assert found.tally.injected[QUEUE_FAILED]
    assert found.tally.injected[KEY_REPEATED]


async def test_invocations_that_time_out_are_finished_by_others(route: Route) -> None:
    found = make_report(route)
    maker = DeliveryFactory("time-outs")
    await time_outs.run_time_outs(route, found, maker, number=2, streams=3)
    assert found.tally.findings == []
    assert found.tally.injected[TIMED_OUT] >= 2


async def test_other_limits_and_broken_replays_leave_no_entry_out(route: Route) -> None:
    found = make_report(route)
    await Replays(route, found, DeliveryFactory("replays")).run_round()
    assert found.tally.findings == []
    assert found.tally.injected[LIMITS_CHANGED]


async def test_a_host_that_is_killed_again_and_again_loses_nothing(route: Route) -> None:
    await route.shorten_leases(15, 4)  # other tests run beside this one
    found = make_report(route)
    kills = Kills(route, found)
    assert await kills.run_with_kills(
        [
            kinds.make_updates(DeliveryFactory("one")),
            *kinds.take_streams(DeliveryFactory("other"), 2),
        ],
        ["after:25", "before:9"],
    )
    assert found.tally.findings == []
    assert found.tally.injected[KILLED] == 2


async def test_what_is_refused_is_on_the_list_and_nothing_else_is(tmp_path: Path) -> None:
    settings = build_settings(tmp_path)
    with run_services(find_free_ports(), tmp_path) as services:
        async with open_route(services, tmp_path, PROJECT, hosts=2, settings=settings) as opened:
            found, maker = make_report(opened), DeliveryFactory("refusals")
            chapter = RefusalChapter(route=opened, report=found, maker=maker, folder=tmp_path)
            await chapter.refuse_entries(1, size=12, kills=0)
    assert found.tally.findings == []
    assert all(found.tally.injected[kind] for kind in (*REFUSALS, CONCERN_FAILED))
    fails = [
        item.id
        for item in chapter.accepted
        for intent in item.sent.intents
        if intent.action == "fails" and item.sent.name != CORRECTED
    ]
    assert Counter({id_: len(positions) for id_, positions in found.missing.items()}) >= Counter(
        fails
    )
    assert len(fails) > len(REFUSALS)
