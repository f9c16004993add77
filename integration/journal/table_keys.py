"""Keys of the tables of the journal, made so that the newest come first. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

from integration.core.model import RowResult

_DAY_LENGTH = 86_400_000  # milliseconds
_LAST_DAY = 99_999
_ALL_BITS = (1 << 128) - 1
_LAST_MOMENT = (1 << 56) - 1
_LAST_NUMBER = (1 << 24) - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def make_delivery_id(now: datetime, random_bits: int) -> str:
    """Return a new delivery id: a UUIDv7. It begins with the time, so ids sort by acceptance.

    https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7
    """
    return _build_id(int(now.timestamp() * 1000), random_bits)


def _build_id(milliseconds: int, random_bits: int) -> str:
    tail = random_bits & ((1 << 74) - 1)
    value = milliseconds << 80 | 7 << 76 | (tail >> 62) << 64 | 2 << 62 | tail & ((1 << 62) - 1)
    return str(UUID(int=value))


def build_next_id(id_: str) -> str | None:
    """Return the id right after this one: of all that were accepted later, each is above it. None:
    there is none of the same millisecond."""
    value = UUID(id_).int
    low = (1 << 62) - 1
    tail = (value >> 64 & 0xFFF) << 62 | value & low
    return _build_id(value >> 80, tail + 1) if tail < (1 << 74) - 1 else None


def build_end_id(until: datetime) -> str:
    """Return an id that is above that of each delivery accepted up to `until`, and below others."""
    return _build_id(int(until.timestamp() * 1000) + 1, 0)


def is_delivery_id(text: str) -> bool:
    """Whether `make_delivery_id` could have made it."""
    try:
        return str(UUID(text)) == text and UUID(text).version == 7
    except ValueError:
        return False


def parse_accepted_time(id_: str) -> datetime:
    """Return the time at which a delivery was accepted, from its id."""
    return _EPOCH + timedelta(milliseconds=UUID(id_).int >> 80)


def build_delivery_key(id_: str) -> tuple[str, str]:
    """Return PartitionKey and RowKey of a delivery: a partition for each day, newest first."""
    value = UUID(id_).int
    day = (value >> 80) // _DAY_LENGTH
    return f"{_LAST_DAY - day:05d}", f"{value ^ _ALL_BITS:032x}"


def build_after_filters(after: str | None) -> list[str]:
    """Return the OData filters for deliveries older than `after`: of the same day, then of the days
    before. Keys need no quoting. One filter with `or` would be a scan of the whole table:
    https://learn.microsoft.com/azure/storage/tables/table-storage-design-for-query
    """
    if after is None:
        return ["PartitionKey ge ''"]
    partition, row = build_delivery_key(after)
    return [
        f"PartitionKey eq '{partition}' and RowKey gt '{row}'",
        f"PartitionKey gt '{partition}'",
    ]


def build_window_filters(since: datetime, until: datetime) -> list[str]:
    """Return the OData filters for deliveries accepted from `since` to `until`, both included: a
    range of rows for each day."""
    first, last = (int(moment.timestamp() * 1000) for moment in (since, until))
    filters = []
    for day in range(first // _DAY_LENGTH, last // _DAY_LENGTH + 1):
        start = max(first, day * _DAY_LENGTH)
        end = min(last, (day + 1) * _DAY_LENGTH - 1)
        partition, oldest = build_delivery_key(_build_id(start, 0))
        _, newest = build_delivery_key(_build_id(end, _ALL_BITS))
        rows = f"RowKey ge '{newest}' and RowKey le '{oldest}'"
        filters.append(f"PartitionKey eq '{partition}' and {rows}")
    return filters


def build_newer_filters(since: datetime | None) -> list[str]:
    """Return the OData filters for deliveries accepted from `since` on; None: for all."""
    if since is None:
        return ["PartitionKey ge ''"]
    partition, oldest = build_delivery_key(make_delivery_id(since, 0))
    return [
        f"PartitionKey eq '{partition}' and RowKey le '{oldest}'",
        f"PartitionKey lt '{partition}'",
    ]


def build_index_key(id_: str, due: datetime) -> str:
    """Return the RowKey of a delivery in the index of open ones: the earliest due first."""
    return f"{(due - _EPOCH) // timedelta(milliseconds=1):015d} {id_}"


def parse_index_key(key: str) -> str:
    """Return the delivery of an entry of the index."""
    return key.partition(" ")[2]


def build_days_filter(since: datetime | None, until: datetime | None) -> str:
    """Return the OData filter for the days from `since` to `until`: a range of partitions, so that
    the table reads no others."""
    newest = f"PartitionKey ge '{get_day_partition(until)}'" if until else "PartitionKey ge ''"
    return f"{newest} and PartitionKey le '{get_day_partition(since)}'" if since else newest


def is_between(id_: str, since: datetime | None, until: datetime | None) -> bool:
    """Whether a delivery was accepted from `since` to `until`, both included."""
    moment = parse_accepted_time(id_)
    return (since is None or since <= moment) and (until is None or moment <= until)


def build_row_key(result: RowResult) -> str:
    """Return the RowKey of a row result: one for each table and resource. It may hold no slash."""
    return f"{result.table} {result.resource.replace('/', ' ')}"


def parse_row_resource(key: str) -> str:
    """Return the resource, as `Type id`, of the RowKey of a row result."""
    return key.partition(" ")[2]


def build_activity_key(moment: datetime, number: int | None, token: str = "") -> tuple[str, str]:
    """Return PartitionKey and RowKey of an entry of the activity log: a partition for each day,
    newest first; of entries of one time, the highest `number` first. `number` None: return where
    the entries of that time begin."""
    microseconds = (moment - _EPOCH) // timedelta(microseconds=1)
    row = f"{_LAST_MOMENT - microseconds:014x}"
    return get_day_partition(
        moment
    ), row if number is None else f"{row}{_LAST_NUMBER - number:06x}{token}"


def build_audit_id(moment: datetime, token: str) -> str:
    """Return the id of an entry of the audit log, which is its RowKey: newest first, as in the
    activity log. `token`: hexadecimal, what tells apart entries of one time."""
    return build_activity_key(moment, 0, token)[1]


def is_audit_id(text: str) -> bool:
    """Whether `build_audit_id` could have made it."""
    return re.fullmatch("[0-9a-f]{21,64}", text) is not None


def parse_activity_time(row: str) -> datetime:
    """Return the time of an entry of the activity log or the audit log, from its RowKey."""
    return _EPOCH + timedelta(microseconds=_LAST_MOMENT - int(row[:14], 16))


def get_day_partition(moment: datetime) -> str:
    """Return the PartitionKey of a day, in UTC."""
    return build_delivery_key(make_delivery_id(moment, 0))[0]
