"""Every order in which the requests of some work items can reach their services.

A schedule is one order. Whoever waits for a service holds a ticket; one ticket at a time is let
through, so a schedule is a list of tickets, and the same list always does the same. `explore` runs
all of them: it runs one, goes back to the last place where another ticket could have been chosen,
and runs on from there.

Of schedules that differ only in the order of two neighbouring requests that cannot see each other
it runs one: two reads of a service, or requests to different services. Such a swap changes no
answer and no state. These are sleep sets: https://doi.org/10.1007/3-540-60761-7, chapter 5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpx

ROUNDS = 30  # of the event loop: more than any step between two requests takes

Choose = Callable[[dict[str, "Access"]], str]

_actor: ContextVar[str | None] = ContextVar("actor", default=None)


class Pruned(Exception):
    """The rest of this schedule is the rest of another one, but for swaps that nobody sees."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a ticket is for: a service, and whether it is changed there."""

    service: str
    writes: bool

    def commutes(self, other: Access) -> bool:
        return self.service != other.service or not (self.writes or other.writes)


@dataclass(slots=True)
class Ticket:
    access: Access
    turn: asyncio.Future[None]


@dataclass(slots=True, kw_only=True)
class Schedule:
    """One run. `choose` takes the tickets that wait and returns one of them."""

    choose: Choose
    waiting: dict[str, Ticket] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    tasks: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    def start(self, actor: str, work: Awaitable[Any]) -> None:
        """Begin work whose requests wait for their turn."""

        async def run() -> None:
            _actor.set(actor)
            await work

        self.tasks[actor] = asyncio.ensure_future(run())

    async def wait_for_turn(self, access: Access) -> None:
        """Wait for one's turn. What no actor does, such as a look at the rows, need not wait."""
        actor = _actor.get()
        if actor is None:
            return
        number = self._numbers[actor] = self._numbers.get(actor, 0) + 1
        ticket = Ticket(access, asyncio.get_running_loop().create_future())
        self.waiting[f"{actor}{number}"] = ticket
        await ticket.turn

    async def run(self) -> None:
        """Let one ticket after the other through, until nobody waits and all work is done."""
        while True:
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
            if not self.waiting:
                await asyncio.gather(*self.tasks.values())
                return
            offered = {name: ticket.access for name, ticket in sorted(self.waiting.items())}
            name = self.choose(offered)
            self.order.append(name)
            self.waiting.pop(name).turn.set_result(None)

    async def end(self) -> None:
        """Stop whatever is left of it: the work, and the requests that it has sent."""
        for task in self.tasks.values():
            task.cancel()
        for ticket in self.waiting.values():
            ticket.turn.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        for _ in range(ROUNDS):
            await asyncio.sleep(0)


class GatedTransport(httpx.AsyncBaseTransport):
    """Requests wait for their turn, but for those of definitions, which never change. `is_write`
    says of a request whether it changes the service."""

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        service: str,
        is_write: Callable[[httpx.Request], bool],
    ) -> None:
        self.inner, self.service, self.is_write = inner, service, is_write
        self.schedule: Schedule | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.schedule is not None and "EntityDefinitions" not in request.url.path:
            await self.schedule.wait_for_turn(Access(self.service, self.is_write(request)))
        return await self.inner.handle_async_request(request)


@dataclass(slots=True)
class _Place:
    """A place in a schedule: what could go on there, and what need not be tried any more."""

    offered: dict[str, Access]
    asleep: set[str]
    chosen: str


async def explore(
    run: Callable[[Choose], Awaitable[None]], *, prunes: bool = True, most: int = 100_000
) -> int:
    """Run every schedule, and return their number. `run` runs one with these choices."""
    places: list[_Place] = []
    number = 0
    while True:
        position = 0

        def choose(offered: dict[str, Access]) -> str:
            nonlocal position
            position += 1
            if position <= len(places):
                place = places[position - 1]
                assert place.offered == offered, "the same choices led to something else"
                return place.chosen
            asleep = _find_sleeping(places[-1], offered) if places and prunes else set()
            awake = [name for name in offered if name not in asleep]
            if not awake:
                raise Pruned
            places.append(_Place(offered, asleep, awake[0]))
            return awake[0]

        try:
            await run(choose)
            number += 1
        except Pruned:
            pass
        assert number <= most, "more schedules than anybody waits for"
        if not _turn_back(places):
            return number


def _find_sleeping(before: _Place, offered: dict[str, Access]) -> set[str]:
    """Return what need not go first here, since it went before what has just gone."""
    gone = before.offered[before.chosen]
    return {
        name for name in before.asleep if name in offered and before.offered[name].commutes(gone)
    }


def _turn_back(places: list[_Place]) -> bool:
    """Choose something else at the last place where that is possible."""
    while places:
        place = places[-1]
        place.asleep.add(place.chosen)
        awake = [name for name in place.offered if name not in place.asleep]
        if awake:
            place.chosen = awake[0]
            return True
        places.pop()
    return False
