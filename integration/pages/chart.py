"""Draw what passed by the hour: lengths of bars for a template. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from integration.core.flow import FlowCounts
from integration.operations.flow import HourCounts

WIDTH, HEIGHT = 960, 120  # units of the drawing, which takes the width of the page
_GAP = 0.2  # of the width of an hour

# What is drawn of an hour, from the bottom to the top.
_PARTS = ("written", "rows", "refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One part of an hour."""

    part: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What to draw."""

    bars: tuple[Bar, ...]


def count_rows(counts: FlowCounts) -> int:
    """Return how many rows were written."""
    return counts.rows_created + counts.rows_updated + counts.rows_deactivated + counts.rows_deleted


def count_refused(counts: FlowCounts) -> int:
    """Return how many entries and rows were not taken."""
    return counts.refused + counts.rows_refused + counts.rows_parked


def build_chart(hours: Sequence[HourCounts]) -> Chart:
    """Return the bars of some hours, the oldest on the left. What was refused is seen however small
    its share is."""
    sums = [_measure(hour.counts) for hour in hours]
    highest = max((sum(parts.values()) for parts in sums), default=0)
    step = WIDTH / max(len(hours), 1)
    bars = [
        bar
        for index, parts in enumerate(sums)
        for bar in _stack(parts, index * step + step * _GAP / 2, step * (1 - _GAP), highest)
    ]
    return Chart(bars=tuple(bars))


def _measure(counts: FlowCounts) -> dict[str, int]:
    numbers = (counts.written, count_rows(counts), count_refused(counts))
    return dict(zip(_PARTS, numbers, strict=True))


def _stack(parts: dict[str, int], x: float, width: float, highest: int) -> list[Bar]:
    bottom = float(HEIGHT)
    bars = []
    for part, number in parts.items():
        if not number:
            continue
        height = max(number / highest * HEIGHT, 2)
        bottom = max(bottom - height, 0)
        bars.append(
            Bar(
                part=part,
                x=round(x, 1),
                y=round(bottom, 1),
                width=round(width, 1),
                height=round(height, 1),
            )
        )
    return bars
