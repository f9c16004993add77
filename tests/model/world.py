"""The real relay between a memory journal, a memory outbox and the model server, step by step.

Whatever could happen next is a choice, and a script of numbers makes the choices: which message is
taken, which request arrives first, and what goes wrong. Where the script ends, all goes well.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from inspect import isasyncgenfunction
from itertools import count
from math import inf
from typing import Any

import httpx

from integration.core.errors import Rejected
from integration.core.http import Upstream
from integration.core.model import WorkItem
from integration.core.rate_limiter import Limiter, build_full_limit
from integration.fhir.client import FhirServer
from integration.fhir.units import Limits
from integration.intake.accept import Intake, accept
from integration.intake.correct import Correction, correct_delivery
from integration.intake.http_request import IncomingRequest
from integration.journal.guard_store import MemoryGuardStore
from integration.journal.store import MemoryJournal
from integration.journal.table_keys import make_delivery_id
from integration.journal.write_guard import WriteGuard
from integration.operations.deliveries import get_status
from integration.operations.views import build_response_bundle
from integration.queues.names import RELAY_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from integration.relay import process as relaying
from integration.relay.lane_run import LaneContext
from integration.relay.parts import Relay
from tests.conftest import patients_followed
from tests.model.server import Server

Body = dict[str, Any]

# Each choice takes a second, and no request longer than the patience of its sender; so what a
# dead worker holds is free again some choices later, and not while it may still be at it.
_STEP = timedelta(seconds=1)
_PATIENCE = timedelta(seconds=20)
_LEASE = 40.0

# More rounds of the event loop than any step between two waits takes.
_IDLE = 20

WELL = "well"
TROUBLE = (
    "the reply is lost",
    "the request is lost",
    "throttled",
    "unavailable",
    "partly throttled",
    "crash before",
    "crash after",
)


class Crash(BaseException):
    """The process ends here."""


@dataclass
class Script:
    """Choices, made beforehand."""

    numbers: Iterator[int]

    def choose(self, options: Sequence[Any]) -> Any:
        """One of them; the first where the script has ended."""
        return options[next(self.numbers, 0) % len(options)]


@dataclass
class _Fragile:
    """A neighbour of whose every call the process may die, before or after the effect."""

    inner: Any
    world: World

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if isasyncgenfunction(method):
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            fate = self.world.fate(f"{name}")
            if fate == "crash before":
                raise Crash
            result = await method(*args, **kwargs)
            if fate == "crash after":
                raise Crash
            return result

        return call


@dataclass
class World:
    """`workers`: messages that are worked on at once. `trouble`: whether anything goes wrong."""

    server: Server
    limits: Limits
    script: Script
    trouble: bool = False
    workers: int = 3
    happened: Counter[str] = field(default_factory=Counter)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    queue_sender: MemoryQueueSender = field(default_factory=MemoryQueueSender)
    guard_store: MemoryGuardStore = field(default_factory=MemoryGuardStore)
    now: datetime = datetime(2026, 3, 2, 1, 15, tzinfo=UTC)
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)
    _arrived: list[datetime] = field(default_factory=list)
    _ids: Iterator[int] = field(default_factory=lambda: count(1))
    _relay: Relay | None = None

    def __post_init__(self) -> None:
        # The server's clock is ahead or behind, or agrees.
        difference = timedelta(seconds=self.script.choose([0, 60, -60, 0.3]))
        self.server.now = lambda: self.now + difference

    def clock(self) -> datetime:
        return self.now

    @asynccontextmanager
    async def open(self) -> Any:
        transport = httpx.MockTransport(self._arrives)
        async with httpx.AsyncClient(transport=transport, trust_env=False) as http:
            room = Limiter(build_full_limit(16), inf, lambda: 0.0, _no_pause)
            fhir = FhirServer(
                Upstream("FHIR server", "http://fhir/fhir", http, room, pause=_no_pause)
            )
            journal: Any = _Fragile(self.journal, self)
            queue_sender: Any = _Fragile(self.queue_sender, self)
            guard_store: Any = _Fragile(self.guard_store, self)
            order = WriteGuard(
                store=guard_store,
                lease=_LEASE,
                now=lambda: self.now.timestamp(),
                token=lambda: f"token {next(self._ids)}",
                pause=_no_pause,
                jitter=lambda: 0.5,
            )
            context = LaneContext(
                journal=journal,
                queue=queue_sender,
                fhir=fhir,
                guard=order,
                change_queues=patients_followed,
            )
            self._relay = Relay(context=context, limits=self.limits, now=self.clock, max_age=inf)
            yield self

    async def accepts(self, body: bytes, ndjson: bool) -> str:
        """As a sender gives it in at intake. Raises Rejected."""
        headers = {**_typed(ndjson), "idempotency-key": f"message {next(self._ids)}"}
        return (
            await accept(
                self._intake,
                IncomingRequest(method="POST", type=None, id=None, headers=headers, body=body),
            )
        ).delivery

    async def corrects(self, delivery: str, body: bytes, ndjson: bool) -> str | None:
        """As an operator sends corrected bytes; None: there is nothing to correct."""
        sent = Correction(corrected=delivery, headers=_typed(ndjson), body=body)
        try:
            return (await correct_delivery(self._intake, sent)).delivery
        except Rejected as refused:
            if refused.status != 409:
                raise
            return None

    def gives_up(self, *, at_once: bool) -> None:
        """Whether a delivery is parked when a neighbour is away, or tried for ever."""
        assert self._relay is not None
        self._relay = replace(self._relay, max_age=-1.0 if at_once else inf)

    @property
    def _intake(self) -> Intake:
        return Intake(
            journal=self.journal,
            queue=self.queue_sender,
            now=self.clock,
            new_id=lambda now: make_delivery_id(now, next(self._ids)),
            max_bytes=10_000_000,
            limits=self.limits,
        )

    async def carries(self) -> None:
        """All that is queued, until nothing is left to do."""
        running: dict[asyncio.Task[None], WorkItem] = {}
        for _ in range(3000):
            await self._settled(running)
            for task in [task for task in running if task.done()]:
                claim = running.pop(task)
                error = task.exception()
                if isinstance(error, Crash):
                    self.happened["a worker died"] += 1
                    self.queue_sender.sent.append((RELAY_QUEUE, claim, 0))  # its message comes back
                elif error is not None:
                    raise error
            queued = [message for message in self.queue_sender.sent if message[0] == RELAY_QUEUE]
            steps: list[Any] = list(self._waiting)
            if self._waiting and self.now - self._arrived[0] > _PATIENCE:
                steps = [self._waiting[0]]
            elif len(running) < self.workers:
                steps += queued
            if not steps:
                return
            step = self.script.choose(steps)
            self.now += _STEP
            if isinstance(step, asyncio.Future):
                place = self._waiting.index(step)
                del self._waiting[place], self._arrived[place]
                step.set_result(None)
                continue
            if self.trouble and self.script.choose([False] * 9 + [True]):
                self.happened["a message came twice"] += 1
            else:
                self.queue_sender.sent.remove(step)
            running[asyncio.ensure_future(self._work(step[1]))] = step[1]
        raise AssertionError("the work never ends")

    async def told(self, delivery: str) -> list[tuple[str | None, int]]:
        """(fullUrl, status) of each entry, as the sender reads it at the end."""
        story = await get_status(self.journal, delivery)
        assert story.delivery.finished, f"not done, but {story.delivery.status}"
        said = build_response_bundle(story.delivery, story.results, story.rows)
        return [(each.get("fullUrl"), int(each["response"]["status"])) for each in said["entry"]]

    def fate(self, what: str) -> str:
        """What happens to a call of a neighbour in storage."""
        fates = [WELL] * 18 + ["crash before", "crash after"]
        fate = str(self.script.choose(fates)) if self.trouble else WELL
        if fate != WELL:
            self.happened[fate] += 1
        return fate

    async def _work(self, claim: WorkItem) -> None:
        assert self._relay is not None
        await relaying.process(self._relay, claim)

    async def _settled(self, running: dict[asyncio.Task[None], WorkItem]) -> None:
        """Until nothing moves but by a choice: the workers wait for the FHIR server, or for each
        other, or are done."""
        before, idle = None, 0
        while idle < _IDLE:
            await asyncio.sleep(0)
            now = [task.done() for task in running], len(self._waiting), len(self.queue_sender.sent)
            idle = idle + 1 if now == before else 0
            before = now

    async def _arrives(self, request: httpx.Request) -> httpx.Response:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._arrived.append(self.now)
        await turn
        fate = self.script.choose([WELL] * 8 + list(TROUBLE)) if self.trouble else WELL
        if fate != WELL:
            self.happened[fate] += 1
        if fate == "crash before":
            raise Crash
        if fate == "the request is lost":
            raise httpx.ConnectError("lost", request=request)
        if fate in ("throttled", "unavailable"):
            return httpx.Response(429 if fate == "throttled" else 503)
        answer = self._answer(request, partly=fate == "partly throttled")
        if fate == "crash after":
            raise Crash
        if fate == "the reply is lost":
            raise httpx.ReadError("lost", request=request)
        return answer

    def _answer(self, request: httpx.Request, *, partly: bool) -> httpx.Response:
        if request.method == "GET":
            status, found = self.server.get(str(request.url).removeprefix("http://fhir/fhir/"))
            return httpx.Response(status, json=found)
        body = json.loads(request.content)
        if not partly:
            status, said = self.server.bundle(body)
            return httpx.Response(status, json=said)
        if body["type"] == "transaction":
            return httpx.Response(500)
        # The rest was never tried: https://github.com/microsoft/fhir-server/pull/2400
        done = self.script.choose(range(len(body["entry"])))
        _, said = self.server.bundle({**body, "entry": body["entry"][:done]})
        rest = [{"response": {"status": "429"}} for _ in body["entry"][done:]]
        return httpx.Response(200, json={**said, "entry": said["entry"] + rest})


def _typed(ndjson: bool) -> dict[str, str]:
    return {"content-type": f"application/fhir+{'ndjson' if ndjson else 'json'}"}


async def _no_pause(seconds: float) -> None:
    """Time is no part of this."""
