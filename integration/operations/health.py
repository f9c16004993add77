"""VERB check_upstreams: whether storage, the FHIR server and Dataverse answer, and how.

However many ask, each of them is asked once a minute by one worker. One that does not answer in
time goes on being asked by the same request: when that is answered at last, it is known to be slow,
and not dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from integration.core.errors import IntegrationError, Unavailable
from integration.core.model import HEALTH_ACTION, Request, Response
from integration.dataverse import requests
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.journal.delivery_filter import DeliveryFilter
from integration.journal.store import Journal

_NAMES = ("storage", "fhir", "dataverse")
_TIMEOUT = 10.0  # seconds


# Seconds from which an answer is slow: so long a request for next to nothing should never take.
SLOW = 3.0

# How long a result is answered again. Trouble is to be seen gone soon after it is mended.
_KEPT = timedelta(seconds=60)
_TROUBLE_KEPT = timedelta(seconds=10)


class Answering(StrEnum):
    """How an upstream answers: what has to be done differs."""

    WORKS = "works"
    SLOWLY = "answers slowly"
    REFUSES = "refuses"
    SILENT = "does not answer"
    ASKED = "was asked, and has not answered yet"


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """How an upstream answers. `detail`: after how long, or what it says instead."""

    answering: Answering
    detail: str = ""

    @property
    def text(self) -> str:
        """Return `ok`, or what is wrong."""
        if self.answering is Answering.WORKS:
            return "ok"
        return f"{self.answering}: {self.detail}" if self.detail else self.answering


OK = UpstreamState(Answering.WORKS)
ASKED = UpstreamState(Answering.ASKED)


@dataclass(frozen=True, slots=True)
class CheckedStates:
    """How each upstream answers, by name: storage, fhir and dataverse. `checked`: when that was
    seen; `max_age`: whole seconds for which it may be answered again."""

    states: Mapping[str, UpstreamState]
    checked: datetime
    max_age: int

    @property
    def is_healthy(self) -> bool:
        return all(state.answering is Answering.WORKS for state in self.states.values())

    @property
    def is_answering(self) -> bool:
        """Whether each does what it is asked to, be it slowly."""
        good = (Answering.WORKS, Answering.SLOWLY)
        return all(state.answering in good for state in self.states.values())

    @property
    def texts(self) -> dict[str, str]:
        """`ok` or what is wrong, by name."""
        return {name: state.text for name, state in self.states.items()}


@dataclass(slots=True)
class UpstreamCheck:
    """What checks the upstreams, and what all requests to a worker share: the last result."""

    journal: Journal
    fhir: FhirServer
    dataverse: Dataverse
    now: Callable[[], datetime]
    timeout: float = _TIMEOUT
    _answered: dict[str, UpstreamState] = field(default_factory=dict)  # in this round
    # Requests that are not answered yet, with the time when they began; and what came of the last
    # one that took longer than a round.
    _pending: dict[str, tuple[asyncio.Task[UpstreamState], datetime]] = field(default_factory=dict)
    _late: dict[str, UpstreamState] = field(default_factory=dict)
    _last: tuple[Mapping[str, UpstreamState], datetime] | None = None
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


async def check_in_time(check: UpstreamCheck, seconds: float) -> CheckedStates:
    """Return the result, or after so many seconds what is known so far. The check goes on."""
    task = asyncio.ensure_future(check_upstreams(check))
    try:
        return await asyncio.wait_for(asyncio.shield(task), seconds)
    except TimeoutError:
        return get_known_states(check)


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


def _get_lifetime(states: Mapping[str, UpstreamState]) -> timedelta:
    return _KEPT if all(state == OK for state in states.values()) else _TROUBLE_KEPT


def _build_result(
    states: Mapping[str, UpstreamState], checked: datetime, left: timedelta
) -> CheckedStates:
    return CheckedStates(states, checked, int(left.total_seconds()))


async def _ask_upstreams(check: UpstreamCheck) -> Mapping[str, UpstreamState]:
    journal, fhir, dataverse = check.journal, check.fhir, check.dataverse
    metadata = Request("GET", "metadata", headers={"accept": "application/fhir+json"})
    asked: dict[str, Callable[[], Awaitable[object]]] = {
        "storage": lambda: journal.list_deliveries(DeliveryFilter(), 1, None),
        "fhir": lambda: _ensure_ok(fhir.send(metadata, "health")),
        "dataverse": lambda: _ensure_ok(dataverse.send(requests.build_who_am_i(), "health")),
    }
    check._answered.clear()
    async with fhir.upstream.activities.track(action=HEALTH_ACTION):
        for name, work in asked.items():
            if name not in check._pending:
                task = asyncio.create_task(_ask(check, name, work))
                check._pending[name] = task, check.now()
    tasks = {name: task for name, (task, _) in check._pending.items()}
    await asyncio.wait(tasks.values(), timeout=check.timeout)
    return {
        name: tasks[name].result() if tasks[name].done() else _describe_pending(check, name)
        for name in _NAMES
    }


async def _ask(
    check: UpstreamCheck, name: str, work: Callable[[], Awaitable[object]]
) -> UpstreamState:
    """Ask one upstream, however long it takes, and record what came of it."""
    began = check.now()
    try:
        state = await _describe_state(work)
        seconds = (check.now() - began).total_seconds()
        if state == OK and seconds >= SLOW:
            state = UpstreamState(Answering.SLOWLY, f"its last answer took {seconds:.0f} s")
        if seconds >= check.timeout:
            check._late[name] = state
        else:
            check._late.pop(name, None)
        check._answered[name] = state
        return state
    finally:
        del check._pending[name]


def _describe_pending(check: UpstreamCheck, name: str) -> UpstreamState:
    """Describe an upstream whose answer is still missing by what is known of it: it may be slow."""
    _, began = check._pending[name]
    seconds = max(check.timeout, (check.now() - began).total_seconds())
    late = check._late.get(name)
    if late is not None and late.answering is Answering.SLOWLY:
        return UpstreamState(late.answering, f"{late.detail}; asked again {seconds:.0f} s ago")
    detail = (
        f"no answer in {seconds:.0f} s. If it is slow and not dead, that is said here once this "
        "answer has come"
    )
    return UpstreamState(Answering.SILENT, detail)


async def _ensure_ok(request: Awaitable[Response]) -> None:
    response = await request
    if response.status != 200:
        raise Unavailable("service", f"answered {response.status}", is_answer=True)


async def _describe_state(work: Callable[[], Awaitable[object]]) -> UpstreamState:
    try:
        await work()
    except Unavailable as error:
        answering = Answering.REFUSES if error.is_answer else Answering.SILENT
        return UpstreamState(answering, str(error))
    except IntegrationError as error:
        return UpstreamState(Answering.REFUSES, str(error))
    return OK
