"""What a worker holds of deliveries stays within its budget, and everybody's turn comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.byte_budget import UNCOUNTED, ByteBudget
from integration.core.errors import Overloaded

MB = 1_000_000
TOTAL = 10 * MB

# What happens: somebody arrives and waits, or asks for now, or one of those present leaves or is
# cancelled. Sizes below, at and above the budget.
SIZES = st.sampled_from([0, UNCOUNTED, UNCOUNTED + 1, MB, 4 * MB, 6 * MB, TOTAL, 50 * MB])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), SIZES),
        st.tuples(st.just("take now"), SIZES),
        st.tuples(st.just("leave"), st.integers(0, 20)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("cancel at once"), st.integers(0, 20)),
    ),
    max_size=40,
)


class Visitor:
    """A task that takes a share and holds it until it may leave."""

    def __init__(self, budget: ByteBudget, size: int, served: list[Visitor]) -> None:
        self.share = 0 if size <= UNCOUNTED else min(size, budget.total)
        self.inside = False
        self._leave = asyncio.Event()
        self._served = served
        self.task = asyncio.create_task(self._visit(budget, size))

    async def _visit(self, budget: ByteBudget, size: int) -> None:
        async with budget.take(size):
            self.inside = True
            self._served.append(self)
            try:
                await self._leave.wait()
            finally:
                self.inside = False

    def leave(self) -> None:
        self._leave.set()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def play(steps: list[tuple[str, int]]) -> None:
    budget = ByteBudget(TOTAL)
    visitors: list[Visitor] = []
    served: list[Visitor] = []

    def find(number: int, condition: Callable[[Visitor], bool]) -> Visitor | None:
        candidates = [each for each in visitors if not each.task.done() and condition(each)]
        return candidates[number % len(candidates)] if candidates else None

    def check() -> None:
        inside = [each for each in visitors if each.inside]
        waiting = [each for each in visitors if not each.inside and not each.task.done()]
        assert budget.taken == sum(each.share for each in inside) <= TOTAL
        # No share is free that the first of those who wait could have.
        counted = [each for each in waiting if each.share]
        assert all(each.share for each in waiting)
        assert not counted or budget.taken + counted[0].share > TOTAL
        assert [each for each in visitors if each.share and each in served] == [
            each for each in served if each.share
        ]  # in the order in which they came

    for what, number in steps:
        if what == "take":
            visitors.append(Visitor(budget, number, served))
        elif what == "take now":
            before = budget.taken
            is_busy = any(not v.inside and not v.task.done() for v in visitors)
            try:
                with budget.take_now(number):
                    assert budget.taken <= TOTAL
            except Overloaded:
                assert number > UNCOUNTED
                assert is_busy or before + min(number, TOTAL) > TOTAL
            assert budget.taken == before
        elif what == "leave" and (visitor := find(number, lambda each: each.inside)):
            visitor.leave()
        elif what == "cancel" and (visitor := find(number, lambda _: True)):
            visitor.task.cancel()
        elif what == "cancel at once" and (visitor := find(number, lambda each: each.inside)):
            visitor.leave()  # and those whose turn comes by that are cancelled before they run
            await asyncio.sleep(0)
            for each in visitors:
                if not each.inside:
                    each.task.cancel()
        await settle()
        check()

    for _ in visitors:
        for each in visitors:
            each.leave()
        await settle()
        check()
    assert all(each.task.done() for each in visitors)
    assert budget.taken == 0
    with budget.take_now(TOTAL):  # nothing leaked
        pass


@given(STEPS)
def test_the_budget_is_kept_nobody_starves_and_nothing_leaks(steps: list[tuple[str, int]]) -> None:
    asyncio.run(play(steps))


async def test_a_share_above_the_budget_is_taken_when_nothing_else_runs() -> None:
    budget = ByteBudget(MB)
    with budget.take_now(50 * MB):
        assert budget.taken == MB
    async with budget.take(50 * MB):
        assert budget.taken == MB
    assert budget.taken == 0


async def test_a_share_that_is_not_free_at_once_is_refused_with_a_time_to_come_again() -> None:
    budget = ByteBudget(TOTAL)
    with budget.take_now(6 * MB):
        with pytest.raises(Overloaded) as caught, budget.take_now(6 * MB):
            pass
        assert (caught.value.retry_after or 0) > 0
        with budget.take_now(4 * MB), budget.take_now(UNCOUNTED):
            pass
    assert budget.taken == 0


async def test_one_who_waits_too_long_gives_up_and_leaves_the_queue() -> None:
    budget = ByteBudget(TOTAL)
    with budget.take_now(6 * MB):
        with pytest.raises(Overloaded):
            async with budget.take(6 * MB, max_wait=0):
                pass
        with budget.take_now(4 * MB):
            pass
    assert budget.taken == 0


async def test_an_error_inside_gives_the_share_back() -> None:
    budget = ByteBudget(TOTAL)
    with pytest.raises(ZeroDivisionError), budget.take_now(MB):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        async with budget.take(MB):
            raise ZeroDivisionError
    assert budget.taken == 0
