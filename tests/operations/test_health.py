"""Operators see which service does not answer; however many ask, a service is asked once a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from integration.core.errors import Unavailable
from integration.journal.store import MemoryJournal, Page
from integration.operations.health import (
    ASKED,
    OK,
    SLOW,
    Answering,
    CheckedStates,
    UpstreamCheck,
    check_upstreams,
    get_known_states,
    get_last_states,
)
from tests.conftest import Route
from tests.doubles import Clock

NAMES = ("storage", "fhir", "dataverse")
WELL = dict.fromkeys(NAMES, OK)


class Broken(MemoryJournal):
    async def list_deliveries(self, *_: object) -> Page:
        raise Unavailable("storage", "ServiceRequestError")


@dataclass
class Counting(MemoryJournal):
    """Counts how often it is read."""

    reads: list[object] = field(default_factory=list)

    async def list_deliveries(self, *asked: Any) -> Page:
        self.reads.append(asked)
        return await MemoryJournal.list_deliveries(self, *asked)


@dataclass
class Silent(MemoryJournal):
    """Answers when it is let."""

    heard: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def list_deliveries(self, *asked: Any) -> Page:
        self.asked += 1
        await self.heard.wait()
        return await MemoryJournal.list_deliveries(self, *asked)


def sharing(route: Route, journal: Any = None) -> UpstreamCheck:
    return UpstreamCheck(journal or route.journal, route.fhir, route.dataverse, route.clock)


async def checked(route: Route, journal: Any = None) -> dict[str, str]:
    return (await check_upstreams(sharing(route, journal))).texts


async def test_all_is_well_when_every_upstream_answers(route: Route) -> None:
    found = await check_upstreams(sharing(route))
    assert found == CheckedStates(WELL, route.clock(), 60)
    assert found.is_healthy


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
async def test_a_failing_fhir_server_is_named_with_its_status(route: Route, status: int) -> None:
    route.fhir_double.down = status
    states = await checked(route)
    assert str(status) in states.pop("fhir")
    assert states == {"storage": "ok", "dataverse": "ok"}


@pytest.mark.parametrize(
    "wish", [{"kind": "status", "status": 404}, {"kind": "reset"}, {"kind": "throttle"}]
)
async def test_a_failing_dataverse_is_named(route: Route, wish: dict[str, object]) -> None:
    route.dataverse_double.will_fail(path="WhoAmI", next=5, **wish)
    states = await checked(route)
    assert states.pop("dataverse") != "ok"
    assert states == {"storage": "ok", "fhir": "ok"}


async def test_failing_storage_is_named(route: Route) -> None:
    states = await checked(route, Broken())
    assert "ServiceRequestError" in states.pop("storage")
    assert states == {"fhir": "ok", "dataverse": "ok"}


async def test_what_has_answered_is_known_while_another_one_is_silent(route: Route) -> None:
    journal, silence = Silent(), {"storage": ASKED}
    check = sharing(route, journal)
    assert get_known_states(check).states == dict.fromkeys(WELL, ASKED)
    asking = asyncio.create_task(check_upstreams(check))
    while get_known_states(check).states != WELL | silence:
        await asyncio.sleep(0)
    assert not get_known_states(check).is_healthy
    journal.heard.set()
    assert (await asking).states == WELL
    assert get_known_states(check).states == WELL


class Slow(MemoryJournal):
    """Answers after so many seconds of a clock that only it moves."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    async def list_deliveries(self, *asked: Any) -> Page:
        self.clock.later(self.seconds)
        return await MemoryJournal.list_deliveries(self, *asked)


@pytest.mark.parametrize(
    ("seconds", "answering"), [(SLOW - 0.1, Answering.WORKS), (SLOW, Answering.SLOWLY)]
)
async def test_an_upstream_that_takes_long_answers_slowly(
    route: Route, seconds: float, answering: Answering
) -> None:
    found = await check_upstreams(sharing(route, Slow(route.clock, seconds)))
    assert found.states["storage"].answering is answering
    assert found.is_healthy is (answering is Answering.WORKS)
    assert found.is_answering


@pytest.mark.parametrize(
    ("wish", "answering"),
    [
        ({"kind": "status", "status": 401}, Answering.REFUSES),
        ({"kind": "status", "status": 404}, Answering.REFUSES),
        ({"kind": "status", "status": 503}, Answering.REFUSES),
        ({"kind": "throttle"}, Answering.REFUSES),
        ({"kind": "reset"}, Answering.SILENT),
    ],
)
async def test_who_refuses_is_told_apart_from_who_does_not_answer(
    route: Route, wish: dict[str, Any], answering: Answering
) -> None:
    route.dataverse_double.will_fail(path="WhoAmI", next=9, **wish)
    found = await check_upstreams(sharing(route))
    assert found.states["dataverse"].answering is answering
    assert not found.is_answering


async def test_one_that_answers_at_last_is_slow_and_was_asked_once_until_then(
    route: Route,
) -> None:
    """Its second request is not answered either: what is known of the first one tells."""
    journal = Silent()
    check = UpstreamCheck(journal, route.fhir, route.dataverse, route.clock, timeout=0.01)
    for _ in range(2):
        state = (await check_upstreams(check)).states["storage"]
        assert state.answering is Answering.SILENT
        assert "If it is slow and not dead" in state.text
        route.clock.later(30)
    assert journal.asked == 1
    journal.heard.set()
    while check._pending:
        await asyncio.sleep(0)
    journal.heard.clear()
    state = (await check_upstreams(check)).states["storage"]
    assert state.text.startswith("answers slowly: its last answer took 60 s; asked again")
    journal.heard.set()
    while check._pending:
        await asyncio.sleep(0)
    route.clock.later(30)
    assert (await check_upstreams(check)).states["storage"] == OK


async def test_the_response_holds_no_addresses(route: Route) -> None:
    route.fhir_double.down = 500
    route.dataverse_double.will_fail(kind="reset", next=5)
    states = await checked(route, Broken())
    assert "http" not in " ".join(states.values())


async def ask_at_once(check: UpstreamCheck, number: int = 40) -> list[CheckedStates]:
    return list(await asyncio.gather(*(check_upstreams(check) for _ in range(number))))


async def requested(route: Route) -> Mapping[str, int]:
    await route.activities.flush()
    upstreams = [entry.upstream for entry in route.activity.entries]
    return {name: upstreams.count(name) for name in sorted(set(upstreams))}


async def test_forty_who_ask_at_once_cost_each_service_one_request(route: Route) -> None:
    journal = Counting()
    found = await ask_at_once(sharing(route, journal))
    assert found == [found[0]] * 40
    assert await requested(route) == {"Dataverse": 1, "FHIR server": 1}
    assert len(journal.reads) == 1


async def test_a_result_is_answered_for_a_minute_and_says_for_how_long(route: Route) -> None:
    check = sharing(route)
    first = await check_upstreams(check)
    route.fhir_double.down = 500
    route.clock.later(59)
    again = await check_upstreams(check)
    assert (again.states, again.checked, again.max_age) == (WELL, first.checked, 1)
    route.clock.later(1)
    assert not (await check_upstreams(check)).is_healthy


async def test_trouble_is_answered_for_ten_seconds(route: Route) -> None:
    check = sharing(route)
    route.fhir_double.down = 500
    assert (await check_upstreams(check)).max_age == 10
    route.fhir_double.down = None
    route.clock.later(9)
    assert not (await check_upstreams(check)).is_healthy
    route.clock.later(1)
    assert (await check_upstreams(check)).is_healthy


async def test_a_clock_that_was_set_back_keeps_no_result(route: Route) -> None:
    check = sharing(route)
    await check_upstreams(check)
    route.clock.later(-3600)
    route.fhir_double.down = 500
    assert not (await check_upstreams(check)).is_healthy


async def test_who_asks_first_may_go_away_and_the_others_get_an_answer(route: Route) -> None:
    check = sharing(route)
    first = asyncio.create_task(check_upstreams(check))
    others = asyncio.create_task(ask_at_once(check, 5))
    await asyncio.sleep(0)
    first.cancel()
    assert {result.is_healthy for result in await others} == {True}


async def test_who_looks_at_the_last_result_asks_nobody(route: Route) -> None:
    check = sharing(route)
    assert get_last_states(check) is None
    first = await check_upstreams(check)
    route.clock.later(3600)
    assert get_last_states(check) == CheckedStates(WELL, first.checked, 0)
    assert await requested(route) == {"Dataverse": 1, "FHIR server": 1}
