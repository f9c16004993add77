"""The search for orders runs all of them, and leaves out only those that nobody can tell apart."""

from __future__ import annotations

import asyncio
from math import comb

import pytest

from tests.mirror.schedules import Access, Choose, Schedule, explore


async def take_steps(schedule: Schedule, seen: list[str], name: str, steps: list[Access]) -> None:
    for access in steps:
        await schedule.wait_for_turn(access)
        seen.append(f"{name}{access.service}{'!' if access.writes else '?'}")


async def list_orders(*actors: list[Access], prunes: bool) -> tuple[int, list[str]]:
    orders = []

    async def run(choose: Choose) -> None:
        seen: list[str] = []
        schedule = Schedule(choose=choose)
        for name, steps in zip("abc", actors, strict=False):
            schedule.start(name, take_steps(schedule, seen, name, steps))
        try:
            await schedule.run()
        finally:
            await schedule.end()
        orders.append(" ".join(seen))

    return await explore(run, prunes=prunes), orders


READ, WRITE, ELSEWHERE = Access("x", False), Access("x", True), Access("y", True)


async def test_all_orders_of_two_actors_are_run_each_once() -> None:
    number, orders = await list_orders([WRITE] * 3, [WRITE] * 4, prunes=False)
    assert number == len(set(orders)) == comb(7, 3)


async def test_writes_of_one_service_are_never_left_out() -> None:
    number, orders = await list_orders([WRITE] * 2, [WRITE] * 2, [WRITE], prunes=True)
    assert number == len(set(orders)) == 30


@pytest.mark.parametrize(("first", "second"), [(READ, READ), (WRITE, ELSEWHERE)])
async def test_of_orders_that_nobody_can_tell_apart_one_is_run(
    first: Access, second: Access
) -> None:
    number, _ = await list_orders([first] * 3, [second] * 3, prunes=True)
    assert number == 1


def find_outcome(order: str) -> tuple[str, ...]:
    """What each read has seen, and what is there in the end: all that the order decides."""
    states: dict[str, str] = {}
    found = []
    for step in order.split():
        actor, service, kind = step
        if kind == "!":
            states[service] = states.get(service, "") + actor
        else:
            found.append(f"{actor} saw {states.get(service, '')} of {service}")
    return (*sorted(found), *sorted(f"{name}: {state}" for name, state in states.items()))


async def test_no_outcome_is_lost_by_leaving_orders_out() -> None:
    actors = [READ, ELSEWHERE, WRITE], [READ, Access("y", False), WRITE], [WRITE]
    every, orders = await list_orders(*actors, prunes=False)
    some, fewer = await list_orders(*actors, prunes=True)
    assert {find_outcome(order) for order in fewer} == {find_outcome(order) for order in orders}
    assert some < every / 2


async def test_work_that_ends_without_a_request_ends_the_schedule() -> None:
    async def run(choose: Choose) -> None:
        schedule = Schedule(choose=choose)
        schedule.start("a", asyncio.sleep(0))
        await schedule.run()

    assert await explore(run) == 1
