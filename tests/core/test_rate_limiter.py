"""An upstream that throttles is asked less, one that wants a rest is left alone, nobody jumps the queue."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.http import Upstream, build_limiter
from integration.core.model import Request
from integration.core.rate_limiter import ConcurrencyLimit, Limiter, LimiterClosed, build_full_limit
from integration.dataverse.client import Dataverse

# What happened to a limit: a success, a throttling (each of some round back), or advice.
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("success"), st.integers(0, 2)),
        st.tuples(st.just("throttle"), st.integers(0, 2)),
        st.tuples(st.just("advice"), st.integers(0, 80)),
    ),
    max_size=200,
)


def after(limit: ConcurrencyLimit, events: list[tuple[str, int]]) -> list[ConcurrencyLimit]:
    """Every limit on the way."""
    found = [limit]
    for what, number in events:
        limit = found[-1]
        if what == "advice":
            found.append(limit.after_advice(number))
        elif what == "success":
            found.append(limit.after_success(limit.round - number))
        else:
            found.append(limit.after_throttle(limit.round - number))
    return found


class Time:
    """Passes in pauses only."""

    def __init__(self) -> None:
        self.now = 50_000.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


def limiter(max_count: int, time: Time) -> Limiter:
    return Limiter(build_full_limit(max_count), 10.0, time, time.pause)


async def settle() -> None:
    """Until everybody who can go on has gone on."""
    for _ in range(50):
        await asyncio.sleep(0)


class Work:
    """Requests that start when they have a place, and end when they are told to."""

    def __init__(self, room: Limiter) -> None:
        self.room = room
        self.started: list[str] = []
        self.told: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str) -> None:
        for name in names:
            self.told[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._run(name))
            await settle()

    async def end(self, *names: str) -> None:
        for name in names:
            self.told[name].set()
            await settle()

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        await settle()
        assert self.tasks[name].cancelled()

    async def _run(self, name: str) -> None:
        async with self.room.acquire_slot():
            self.started.append(name)
            await self.told[name].wait()


# --- the limit, which only computes ------------------------------------------------------------


@given(st.integers(1, 64), EVENTS)
def test_a_limit_stays_between_one_and_what_the_operator_allows(
    maximum: int, events: list[tuple[str, int]]
) -> None:
    for limit in after(build_full_limit(maximum), events):
        assert 1 <= limit.current <= limit.ceiling <= limit.maximum == maximum


@given(st.integers(1, 64), EVENTS, st.integers(1, 64))
def test_requests_of_one_round_that_are_throttled_together_count_once(
    maximum: int, events: list[tuple[str, int]], together: int
) -> None:
    before = after(build_full_limit(maximum), events)[-1]
    once = before.after_throttle(before.round)
    many = before
    for _ in range(together):
        many = many.after_throttle(before.round)
    assert many == once
    assert once.current == max(1, before.current // 2)


@given(st.integers(1, 64), EVENTS)
def test_what_an_earlier_round_achieved_says_nothing(
    maximum: int, events: list[tuple[str, int]]
) -> None:
    limit = after(build_full_limit(maximum), events)[-1]
    assert limit.after_success(limit.round - 1) == limit
    assert limit.after_throttle(limit.round - 1) == limit


@given(st.integers(1, 64), EVENTS)
def test_a_limit_recovers_after_enough_successes_and_never_by_leaps(
    maximum: int, events: list[tuple[str, int]]
) -> None:
    limit = after(build_full_limit(maximum), events)[-1]
    for _ in range(sum(range(limit.current, limit.ceiling))):
        grown = limit.after_success(limit.round)
        assert limit.current <= grown.current <= limit.current + 1
        limit = grown
    assert limit.current == limit.ceiling


@given(st.integers(2, 64))
def test_it_takes_a_full_window_of_successes_to_grow_by_one(maximum: int) -> None:
    limit = build_full_limit(maximum).after_throttle(0)
    lowered = limit.current
    for _ in range(lowered - 1):
        limit = limit.after_success(1)
        assert limit.current == lowered
    assert limit.after_success(1).current == lowered + 1


@given(st.integers(1, 64), EVENTS, st.integers(0, 80))
def test_advice_caps_a_limit_and_never_raises_it(
    maximum: int, events: list[tuple[str, int]], max_count: int
) -> None:
    before = after(build_full_limit(maximum), events)[-1]
    advised = before.after_advice(max_count)
    assert advised.current <= max(1, min(max_count, before.current))
    for _ in range(5000):
        advised = advised.after_success(advised.round)
    assert advised.current == max(1, min(max_count, maximum))


# --- the places --------------------------------------------------------------------------------


async def test_never_more_are_under_way_than_the_limit_of_that_moment(time: Time) -> None:
    """Forty requests, some of them throttled, some failing."""
    room = limiter(8, time)
    over, max_count, throttled = [], 0, 0

    async def one(number: int) -> None:
        nonlocal max_count, throttled
        async with room.acquire_slot() as round_:
            if room.under_way > room.limit.current:
                over.append(number)
            max_count = max(max_count, room.under_way)
            for _ in range(number % 5):
                await asyncio.sleep(0)
            if number % 7 == 3:
                throttled += 1
                room.record_throttle(round_, 1.0)
            elif number % 7 == 5:
                raise ConnectionError
            else:
                room.record_success(round_)

    ends = await asyncio.gather(*(one(number) for number in range(40)), return_exceptions=True)
    assert over == []
    assert (max_count, throttled) == (8, 6)
    assert sum(end is None for end in ends) == 35
    assert room.under_way == 0


async def test_after_a_fall_the_next_starts_only_when_enough_have_ended(time: Time) -> None:
    room = limiter(4, time)
    work = Work(room)
    await work.come("a", "b", "c", "d", "e")
    room.record_throttle(0, None)
    await work.end("a", "b")
    assert work.started == ["a", "b", "c", "d"]
    await work.end("c")
    assert work.started == ["a", "b", "c", "d", "e"]
    await work.end("d", "e")


async def test_first_come_first_served(time: Time) -> None:
    work = Work(limiter(1, time))
    await work.come(*"abcde")
    await work.end(*"abcde")
    assert work.started == list("abcde")


async def test_nobody_overtakes_who_waits_while_closed(time: Time) -> None:
    room = limiter(2, time)
    room.record_throttle(0, 3.0)
    work = Work(room)
    first = asyncio.create_task(work.come("first"))
    second = asyncio.create_task(work.come("second"))
    await asyncio.gather(first, second)
    await work.end("first", "second")
    assert work.started == ["first", "second"]
    assert time.pauses == [3]


@pytest.mark.parametrize("cancelled", ["b", "c"])
async def test_who_is_cancelled_while_waiting_loses_no_place(time: Time, cancelled: str) -> None:
    """`b` is the next, and waits for a place; `c` waits behind it."""
    room = limiter(1, time)
    work = Work(room)
    await work.come(*"abcd")
    await work.cancel(cancelled)
    await work.end("a")
    (left,) = {"b", "c"} - {cancelled}
    await work.end(left, "d")
    assert work.started == ["a", left, "d"]
    assert room.under_way == 0


async def test_who_is_cancelled_in_the_moment_of_its_turn_loses_no_place(time: Time) -> None:
    room = limiter(1, time)
    work = Work(room)
    await work.come(*"abc")
    # Told to go on and cancelled before it could.
    work.told["a"].set()
    await asyncio.sleep(0)
    work.tasks["b"].cancel()
    await settle()
    assert work.tasks["b"].cancelled()
    assert work.started[-1] == "c"
    await work.end("c")
    assert room.under_way == 0


async def test_who_is_cancelled_under_way_gives_its_place_back(time: Time) -> None:
    room = limiter(1, time)
    work = Work(room)
    await work.come("a", "b")
    await work.cancel("a")
    assert work.started == ["a", "b"]
    await work.end("b")


async def test_who_is_cancelled_while_closed_leaves_the_pause_to_the_next(time: Time) -> None:
    forever = asyncio.Event()

    async def first_for_ever(seconds: float) -> None:
        if not time.pauses:
            time.pauses.append(seconds)
            await forever.wait()
        await time.pause(seconds)

    room = Limiter(build_full_limit(1), 10.0, time, first_for_ever)
    room.record_throttle(0, 5.0)
    work = Work(room)
    await work.come("a", "b")
    assert work.started == []
    await work.cancel("a")
    assert work.started == ["b"]
    assert time.pauses == [5, 5]
    await work.end("b")


# --- closed ------------------------------------------------------------------------------------


async def test_a_short_rest_is_waited_for(time: Time) -> None:
    room = limiter(4, time)
    room.record_throttle(0, 10.0)
    async with room.acquire_slot():
        assert time.now == 50_010


async def test_a_long_rest_is_told_at_once(time: Time) -> None:
    room = limiter(4, time)
    room.record_throttle(0, 60.0)
    time.now += 20
    with pytest.raises(LimiterClosed) as caught:
        async with room.acquire_slot():
            raise AssertionError("it was closed")
    assert (caught.value.remaining, time.pauses) == (40, [])


async def test_a_later_and_shorter_wish_does_not_open_earlier(time: Time) -> None:
    room = limiter(4, time)
    room.record_throttle(0, 8.0)
    room.record_throttle(0, 2.0)
    room.record_throttle(0, None)
    async with room.acquire_slot():
        assert time.now == 50_008


async def test_rests_that_overlap_are_one(time: Time) -> None:
    room = limiter(1, time)
    work = Work(room)
    await work.come("a", "b")
    room.record_throttle(0, 6.0)
    room.record_throttle(0, 8.0)
    await work.end("a")
    assert (work.started, time.pauses) == (["a", "b"], [8])
    await work.end("b")


async def test_rests_that_follow_each_other_are_not_waited_for_without_end(time: Time) -> None:
    """A request waits its patience in all, wherever in the queue it is."""
    room = limiter(1, time)
    work = Work(room)
    await work.come("a", "b")
    for _ in range(3):
        room.record_throttle(room.limit.round, 4.0)
        time.now += 4
    room.record_throttle(room.limit.round, 4.0)
    await work.end("a")
    with pytest.raises(LimiterClosed):
        await work.tasks["b"]
    async with room.acquire_slot():  # who comes now has waited for none of them
        assert time.pauses == [4]


async def test_a_rest_that_grows_while_it_is_waited_for_ends_for_the_whole_queue(
    time: Time,
) -> None:
    room = limiter(1, time)

    async def meanwhile(seconds: float) -> None:
        await time.pause(seconds)
        room.record_throttle(room.limit.round, 30.0)

    room.pause = meanwhile
    room.record_throttle(0, 5.0)

    async def one() -> None:
        async with room.acquire_slot():
            raise AssertionError("it was closed")

    ends = await asyncio.gather(*(one() for _ in range(20)), return_exceptions=True)
    assert {type(end) for end in ends} == {LimiterClosed}
    assert time.pauses == [5]


async def test_no_wish_shuts_an_upstream_out_for_ever(time: Time) -> None:
    room = limiter(4, time)
    room.record_throttle(0, 1e9)
    time.now += 3600
    async with room.acquire_slot():
        assert time.pauses == []


# --- Dataverse's advice ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "now"),
    [
        ("4", 4),
        ("16", 16),
        ("52", 16),
        ("0", 1),
        ("", 16),
        ("many", 16),
        ("-3", 16),
        ("²", 16),
        ("9" * 5000, 16),
    ],
    ids=lambda value: str(value)[:8],
)
async def test_dataverse_s_recommended_parallelism_caps_the_limit(
    time: Time, hint: str, now: int
) -> None:
    def hear(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"x-ms-dop-hint": hint.encode()})

    async with httpx.AsyncClient(transport=httpx.MockTransport(hear)) as http:
        room = build_limiter(16, time, time.pause)
        dataverse = Dataverse(Upstream("Dataverse", "https://org.example", http, room))
        await dataverse.send(Request("GET", "contacts"), "d1")
    assert room.limit.current == now


async def test_a_higher_recommendation_is_grown_into(time: Time) -> None:
    room = limiter(16, time)
    room.set_advice(2)
    room.set_advice(8)
    assert room.limit.current == 2
    for _ in range(sum(range(2, 8))):
        async with room.acquire_slot() as round_:
            room.record_success(round_)
    assert room.limit.current == 8
