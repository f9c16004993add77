"""How far a job came fits into its row, however many things it works on."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

from integration.journal.concern import build_concern_id
from integration.journal.table_keys import make_delivery_id
from integration.operations.job_cursor import (
    MAX_SEGMENTS,
    PART,
    SEGMENT,
    Cursor,
    begin_part,
    count_key,
    decode_cursor,
    encode_cursor,
    end_segment,
)

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def count(number: int, size: int = SEGMENT) -> Cursor:
    cursor = Cursor(size=size)
    for key in range(number):
        cursor = count_key(cursor, f"{key:036x}")
    return cursor


def list_segments(cursor: Cursor) -> list[range]:
    """What each segment has, from the last to the first, as numbers of keys."""
    segments, end = [], None
    while cursor.starts:
        first = int(cursor.starts[-1], 16) + 1 if cursor.starts[-1] else 0
        segments.append(range(first, end if end is not None else 10**9))
        cursor = end_segment(cursor)
        end = first
        assert cursor.end is not None
    return segments


def test_segments_follow_each_other_without_a_gap() -> None:
    segments = list_segments(count(1234))
    assert segments == [range(1000, 10**9), range(500, 1000), range(500)]


def test_there_is_none_of_nothing() -> None:
    assert list_segments(count(0)) == []


def test_a_cursor_is_read_as_it_was_written() -> None:
    cursor = begin_part(end_segment(count(1234)), [("a", "b")])
    assert decode_cursor(encode_cursor(cursor)) == cursor
    assert decode_cursor("") == Cursor()


def test_a_cursor_fits_into_a_property_of_a_row_and_misses_nothing() -> None:
    number = (MAX_SEGMENTS * 3 + 7) * 10
    cursor = count(number, 10)
    assert len(cursor.starts) <= MAX_SEGMENTS
    ids = (build_concern_id(NOW, "x"), make_delivery_id(NOW, 1))
    assert len(encode_cursor(begin_part(cursor, [ids] * PART))) < 32_000
    segments = list_segments(cursor)
    assert segments[0].start < number
    assert segments[-1].start == 0
    assert all(later.start == earlier.stop for later, earlier in pairwise(segments))
    assert max(len(segment) for segment in segments[1:]) <= cursor.size
