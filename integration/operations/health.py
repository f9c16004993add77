"""VERB check_upstreams: whether storage, the FHIR server and Dataverse answer.

However many ask, each of them is asked once a minute by one worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from integration.core.errors import IntegrationError, Unavailable
from integration.core.model import Request, Response
from integration.dataverse import requests
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.journal.delivery_filter import DeliveryFilter
from integration.journal.store import Journal

_NAMES = ("storage", "fhir", "dataverse")
_TIMEOUT = 10.0  # seconds


# The state of an upstream that was asked, and has not answered yet.
ASKED = "asked, and has not answered yet"

# How long a result is answered again. Trouble is to be seen gone soon after it is mended.
_KEPT = timedelta(seconds=60)
_TROUBLE_KEPT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class CheckedStates:
    """`ok` or what is wrong, by name: storage, fhir and dataverse. `checked`: when that was seen;
    `max_age`: whole seconds for which it may be answered again."""

    states: Mapping[str, str]
    checked: datetime
    max_age: int

    @property
    def is_healthy(self) -> bool:
        return all(state == "ok" for state in self.states.values())


@dataclass(slots=True)
class UpstreamCheck:
    """What checks the upstreams, and what all requests to a worker share: the last result."""

    journal: Journal
    fhir: FhirServer
    dataverse: Dataverse
    now: Callable[[], datetime]
    _answered: dict[str, str] = field(default_factory=dict)  # of the first round, while it lasts
    _last: tuple[Mapping[str, str], datetime] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)


async def check_upstreams(check: UpstreamCheck) -> CheckedStates:
    """Return the last result while it is fresh, or else a new one. Those who ask meanwhile wait for
    the same one."""
    async with check._lock:
        fresh = _find_fresh(check)
        if fresh is not None:
            return fresh
        states = await _ask_upstreams(check)
        check._last = states, check.now()
        return _build_result(states, check._last[1], _get_lifetime(states))


def get_last_states(check: UpstreamCheck) -> CheckedStates | None:
    """Return the last result, however old, and ask nobody. None: this worker has none."""
    return None if check._last is None else CheckedStates(*check._last, max_age=0)


def get_known_states(check: UpstreamCheck) -> CheckedStates:
    """Return the last result, or else what has answered so far: the others are ASKED."""
    last = get_last_states(check)
    if last is not None:
        return last
    states = {name: check._answered.get(name, ASKED) for name in _NAMES}
    return CheckedStates(states, check.now(), max_age=0)


def _find_fresh(check: UpstreamCheck) -> CheckedStates | None:
    if check._last is None:
        return None
    states, checked = check._last
    age = check.now() - checked
    left = _get_lifetime(states) - age
    # A clock that was set back makes nothing fresh for longer.
    is_fresh = age >= timedelta() and left > timedelta()
    return _build_result(states, checked, left) if is_fresh else None


def _get_lifetime(states: Mapping[str, str]) -> timedelta:
    return _KEPT if all(state == "ok" for state in states.values()) else _TROUBLE_KEPT


def _build_result(states: Mapping[str, str], checked: datetime, left: timedelta) -> CheckedStates:
    return CheckedStates(states, checked, int(left.total_seconds()))


async def _ask_upstreams(check: UpstreamCheck) -> Mapping[str, str]:
    journal, fhir, dataverse = check.journal, check.fhir, check.dataverse

    async def note_state(name: str, work: Callable[[], Awaitable[object]]) -> str:
        state = check._answered[name] = await _describe_state(work)
        return state

    check._answered.clear()
    metadata = Request("GET", "metadata", headers={"accept": "application/fhir+json"})
    who_am_i = requests.build_who_am_i()
    async with fhir.upstream.activities.track(action="health"):
        states = await asyncio.gather(
            note_state("storage", lambda: journal.list_deliveries(DeliveryFilter(), 1, None)),
            note_state("fhir", lambda: _ensure_ok(fhir.send(metadata, "health"))),
            note_state("dataverse", lambda: _ensure_ok(dataverse.send(who_am_i, "health"))),
        )
    return dict(zip(_NAMES, states, strict=True))


async def _ensure_ok(request: Awaitable[Response]) -> None:
    response = await request
    if response.status != 200:
        raise Unavailable("service", f"answered {response.status}")


async def _describe_state(work: Callable[[], Awaitable[object]]) -> str:
    try:
        async with asyncio.timeout(_TIMEOUT):
            await work()
    except TimeoutError:
        return f"no answer in {_TIMEOUT:.0f} s"
    except IntegrationError as error:
        return str(error)
    return "ok"
