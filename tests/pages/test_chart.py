"""The chart of Today: each hour is a stack of bars, and nothing that was refused is too small."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.flow import FlowCounts
from integration.operations.flow import HourCounts
from integration.pages.chart import HEIGHT, WIDTH, build_chart, count_refused, count_rows

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)

COUNTS = st.builds(
    FlowCounts,
    written=st.integers(0, 10**6),
    rows_updated=st.integers(0, 10**6),
    refused=st.integers(0, 10),
)


def hours(*counts: FlowCounts) -> list[HourCounts]:
    return [HourCounts(NOON + timedelta(hours=n), each) for n, each in enumerate(counts)]


def test_rows_that_were_written_and_what_was_refused_are_summed() -> None:
    counts = FlowCounts(
        refused=1,
        rows_created=2,
        rows_updated=4,
        rows_deactivated=8,
        rows_deleted=16,
        rows_refused=32,
        rows_parked=64,
        throttled=128,  # requests, and no entries
    )
    assert count_rows(counts) == 2 + 4 + 8 + 16
    assert count_refused(counts) == 1 + 32 + 64


def test_an_hour_is_a_stack_and_the_highest_fills_the_drawing() -> None:
    full = FlowCounts(written=60, rows_created=30, refused=30)
    chart = build_chart(hours(FlowCounts(written=60), full))
    alone, *stack = chart.bars
    assert (alone.part, alone.height) == ("written", HEIGHT / 2)
    assert [bar.part for bar in stack] == ["written", "rows", "refused"]
    assert [bar.y for bar in stack] == [60, 30, 0]
    assert [bar.height for bar in stack] == [60, 30, 30]
    assert {bar.x for bar in stack} == {stack[0].x}
    assert alone.x + alone.width < WIDTH / 2 < stack[0].x


@pytest.mark.parametrize("counts", [[], [FlowCounts()], [FlowCounts(accepted=3, throttled=5)] * 24])
def test_where_nothing_was_written_nothing_is_drawn(counts: list[FlowCounts]) -> None:
    chart = build_chart(hours(*counts))
    assert chart.bars == ()


def test_one_of_a_million_that_was_refused_is_seen() -> None:
    chart = build_chart(hours(FlowCounts(written=1_000_000, refused=1)))
    (refused,) = [bar for bar in chart.bars if bar.part == "refused"]
    assert refused.height >= 2
    assert refused.y >= 0


@given(st.lists(COUNTS, max_size=24))
def test_no_bar_leaves_the_drawing(counts: list[FlowCounts]) -> None:
    for bar in build_chart(hours(*counts)).bars:
        assert 0 <= bar.x < bar.x + bar.width <= WIDTH
        assert 0 <= bar.y <= HEIGHT
        assert 0 < bar.height <= HEIGHT
