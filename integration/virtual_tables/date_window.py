"""Put rows that FHIR has sorted by moments into the order of a date column, as they come. Pure.

A row is held until no row to come can belong before it: rows stand out of place by the `slack` of
the column at most. Rows with equal values keep the order in which FHIR has them.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

T = TypeVar("T")

# Null comes before every date, and last in descending order.
_NULL = datetime.min.replace(tzinfo=UTC)
_NULL_RANK = timedelta()


class OutOfOrder(Exception):
    """The FHIR server has not sorted as the map promises."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where a page of rows ends. Of the rows that are read again for the next page, those before
    `value` have been shown, and so have the first `count` with that value."""

    value: datetime | None
    count: int


@dataclass(slots=True)
class DateWindow(Generic[T]):
    """The rows that came and are not released. Those up to `boundary` are left out."""

    descending: bool
    slack: timedelta
    boundary: Boundary | None = None
    # Rank and number of each row; a row that ranks lower comes first.
    _held: list[tuple[timedelta, int, T]] = field(default_factory=list)
    _passed: list[tuple[timedelta, int]] = field(default_factory=list)
    _furthest: timedelta | None = None
    _left_out: int = 0

    def advance(self, value: datetime | None) -> None:
        """Note the value of the row that comes next. Raises OutOfOrder."""
        rank = self._rank(value)
        if self._furthest is None:
            self._furthest = rank
        elif rank < self._find_limit(self._furthest):
            raise OutOfOrder
        self._furthest = max(rank, self._furthest)

    def add(self, number: int, value: datetime | None, row: T) -> None:
        """Add a row; `number`: its place in FHIR's order."""
        rank = self._rank(value)
        if self._is_shown_before(rank):
            self._passed.append((rank, number))
        else:
            insort(self._held, (rank, number, row), key=lambda held: held[:2])

    def release(self, size: int, *, is_last: bool) -> list[T]:
        """Take out up to `size` rows that no row to come can precede; after the last row any."""
        end = len(self._held)
        if not is_last:
            assert self._furthest is not None or not self._held
            limit = self._find_limit(self._furthest or _NULL_RANK)
            end = bisect_right(self._held, limit, key=lambda held: held[0])
        end = min(end, size)
        released, self._held = self._held[:end], self._held[end:]
        self._passed += [(rank, number) for rank, number, _ in released]
        return [row for _, _, row in released]

    def find_resumption(self, next_number: int) -> tuple[int, Boundary | None]:
        """Find the number of the row from which the next page must read, and the boundary that it
        needs. `next_number`: that of the row that would be added next."""
        first = min((number for _, number, _ in self._held), default=next_number)
        again = [rank for rank, number in self._passed if number >= first]
        if not again:
            return first, None
        last = max(rank for rank, _ in self._passed)
        value = None if last == _NULL_RANK else _NULL + abs(last)
        return first, Boundary(value, again.count(last))

    def _rank(self, value: datetime | None) -> timedelta:
        if value is None:
            return _NULL_RANK
        return _NULL - value if self.descending else value - _NULL

    def _find_limit(self, furthest: timedelta) -> timedelta:
        """Find the lowest rank of the rows to come."""
        if furthest == _NULL_RANK:  # in ascending order the lowest of all, else the last
            return furthest
        limit = furthest - self.slack
        return limit if self.descending else max(limit, _NULL_RANK)

    def _is_shown_before(self, rank: timedelta) -> bool:
        if self.boundary is None:
            return False
        last = self._rank(self.boundary.value)
        if rank == last and self._left_out < self.boundary.count:
            self._left_out += 1
            return True
        return rank < last
