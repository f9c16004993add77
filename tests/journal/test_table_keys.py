"""How deliveries are keyed, so that the newest come first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.model import RowResult
from integration.journal.table_keys import (
    build_after_filters,
    build_days_filter,
    build_delivery_key,
    build_index_key,
    build_newer_filters,
    build_row_key,
    build_window_filters,
    is_between,
    is_delivery_id,
    make_delivery_id,
    parse_accepted_time,
    parse_index_key,
)
from tests.journal.recording import parse_ranges
from tests.randomness import limit_examples, make_random

NOW = datetime(2024, 5, 6, 7, 8, 9, 123_000, tzinfo=UTC)
# 1970 to 2200, in milliseconds, as ids keep them
MOMENTS = st.integers(0, 7_258_118_400_000).map(lambda ms: datetime.fromtimestamp(ms / 1000, UTC))
BITS = st.integers(0, (1 << 74) - 1)


@limit_examples(100)
@given(MOMENTS, BITS)
def test_a_delivery_id_is_a_uuid_of_version_7(moment: datetime, bits: int) -> None:
    id_ = make_delivery_id(moment, bits)
    assert UUID(id_).version == 7
    assert is_delivery_id(id_)


def test_a_delivery_id_begins_with_its_moment() -> None:
    assert UUID(make_delivery_id(NOW, 0)).int >> 80 == int(NOW.timestamp() * 1000)


def test_a_moment_is_the_same_in_every_time_zone() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-11)))
    assert make_delivery_id(elsewhere, 5) == make_delivery_id(NOW, 5)


def test_every_random_bit_counts() -> None:
    ids = {make_delivery_id(NOW, 1 << bit) for bit in range(74)}
    assert len(ids) == 74


def test_more_random_bits_than_fit_do_not_touch_the_moment() -> None:
    assert make_delivery_id(NOW, 1 << 74) == make_delivery_id(NOW, 0)


@limit_examples(100)
@given(st.lists(st.tuples(MOMENTS, BITS), min_size=2, max_size=6))
def test_keys_sort_the_newest_first(made: list[tuple[datetime, int]]) -> None:
    ids = sorted({make_delivery_id(*one) for one in made})
    assert sorted(ids, key=build_delivery_key, reverse=True) == ids


@limit_examples(100)
@given(MOMENTS, BITS)
def test_a_partition_is_one_day_wherever_the_moment_falls(moment: datetime, bits: int) -> None:
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    partition, row = build_delivery_key(make_delivery_id(moment, bits))
    assert partition == build_delivery_key(make_delivery_id(midnight, 0))[0]
    assert partition > build_delivery_key(make_delivery_id(midnight + timedelta(days=1), 0))[0]
    assert (len(partition), len(row)) == (5, 32)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "..",
        "0b6d3d3e-9c4b-4a53-8f1f-6f0f8a2f4c11",
        make_delivery_id(NOW, 5).upper(),
        f"{{{make_delivery_id(NOW, 5)}}}",
        make_delivery_id(NOW, 5).replace("-", ""),
        f"urn:uuid:{make_delivery_id(NOW, 5)}",
        f"{make_delivery_id(NOW, 5)}\n",
        "x' or PartitionKey ne '",
    ],
)
def test_what_we_could_not_have_made_is_no_delivery_id(text: str) -> None:
    assert not is_delivery_id(text)


def is_in(filters: list[str], id_: str) -> bool:
    """Whether one of these queries finds the delivery."""
    return any(parse_ranges(each).contains(*build_delivery_key(id_)) for each in filters)


def make_others(number: int) -> list[str]:
    dice = make_random(7)
    hours = (dice.choice([-90, -30, -1, 0, 1, 30, 90]) for _ in range(number))
    return [make_delivery_id(NOW + timedelta(hours=h), dice.getrandbits(74)) for h in hours]


def test_the_list_begins_with_everything() -> None:
    assert build_after_filters(None) == ["PartitionKey ge ''"]


def test_the_list_goes_on_below_the_last_one_shown() -> None:
    last = make_delivery_id(NOW, 1 << 60)
    filters = build_after_filters(last)
    for other in make_others(200):
        assert is_in(filters, other) is (other < last)


def test_what_is_newer_is_found_from_its_first_millisecond_on() -> None:
    filters = build_newer_filters(NOW)
    for other in make_others(200):
        assert is_in(filters, other) is (parse_accepted_time(other) >= NOW)
    assert build_newer_filters(None) == ["PartitionKey ge ''"]


@limit_examples(200)
@given(MOMENTS, st.timedeltas(timedelta(0), timedelta(days=3)), st.data())
def test_a_window_holds_what_was_accepted_in_it(
    since: datetime, length: timedelta, data: st.DataObject
) -> None:
    filters = build_window_filters(since, since + length)
    ids = st.integers(-1, int(length / timedelta(milliseconds=1)) + 1)
    offset = data.draw(ids)
    moment = parse_accepted_time(make_delivery_id(since, 0)) + timedelta(milliseconds=offset)
    other = make_delivery_id(moment + timedelta(microseconds=1), data.draw(BITS))
    first, last = make_delivery_id(since, 0), make_delivery_id(since + length, (1 << 74) - 1)
    assert is_in(filters, other) is (first <= other <= last)
    assert all(parse_ranges(each).is_bounded for each in filters)


def test_the_index_of_open_deliveries_begins_with_what_is_due_first() -> None:
    soon, later = NOW, NOW + timedelta(days=400)
    ids = [make_delivery_id(NOW, number) for number in (2, 1)]
    keys = [build_index_key(ids[0], soon), build_index_key(ids[1], later)]
    assert keys == sorted(keys)
    assert [parse_index_key(key) for key in keys] == ids


@limit_examples(100)
@given(MOMENTS, BITS)
def test_the_moment_of_a_delivery_can_be_read_from_its_id(moment: datetime, bits: int) -> None:
    # An id keeps milliseconds, from a float: never a later moment, and at most one less.
    lost = moment - parse_accepted_time(make_delivery_id(moment, bits))
    assert timedelta(0) <= lost <= timedelta(milliseconds=1)


def test_days_between_two_moments_are_a_range_of_partitions() -> None:
    def listed(id_: str, since: datetime | None, until: datetime | None) -> bool:
        """What that filter says of one delivery."""
        key = f"'{build_delivery_key(id_)[0]}'"
        bounds = build_days_filter(since, until).split(" and ")
        newest, oldest = [bounds[0].split()[-1], *(each.split()[-1] for each in bounds[1:])], key
        return newest[0] <= key and all(oldest <= each for each in newest[1:])

    dice = make_random(7)
    for _ in range(300):
        at, since, until = (NOW + timedelta(hours=dice.randrange(-99, 99)) for _ in range(3))
        id_ = make_delivery_id(at, dice.getrandbits(74))
        for bounds in ((None, None), (since, None), (None, until), (since, until)):
            if is_between(id_, *bounds):
                assert listed(id_, *bounds)
        first, last = since.astimezone(UTC).date(), until.astimezone(UTC).date()
        assert listed(id_, since, until) is (first <= at.astimezone(UTC).date() <= last)


def test_both_ends_of_a_time_belong_to_it() -> None:
    id_ = make_delivery_id(NOW, 5)
    assert is_between(id_, NOW, NOW)
    assert not is_between(id_, NOW + timedelta(milliseconds=1), None)
    assert not is_between(id_, None, NOW - timedelta(milliseconds=1))


def test_a_row_is_keyed_by_table_and_resource() -> None:
    outcome = RowResult(
        delivery="d", resource="Patient/a-1.b", table="contact", row=None, action="created"
    )
    assert build_row_key(outcome) == "contact Patient a-1.b"
