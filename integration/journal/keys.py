"""How deliveries are keyed in a table, so that the newest come first. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from integration.core.model import RowResult

_DAY = 86_400_000  # milliseconds
_LAST_DAY = 99_999
_ONES = (1 << 128) - 1
_LAST_MOMENT = (1 << 56) - 1
_LAST_NUMBER = (1 << 24) - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_delivery_id(now: datetime, random_bits: int) -> str:
    """A UUIDv7: it begins with the moment of acceptance, so ids sort as deliveries came.

    https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7
    """
    milliseconds = int(now.timestamp() * 1000)
    tail = random_bits & ((1 << 74) - 1)
    value = milliseconds << 80 | 7 << 76 | (tail >> 62) << 64 | 2 << 62 | tail & ((1 << 62) - 1)
    return str(UUID(int=value))


def is_delivery_id(text: str) -> bool:
    """Whether `delivery_id` could have made it."""
    try:
        return str(UUID(text)) == text and UUID(text).version == 7
    except ValueError:
        return False


def accepted_at(id_: str) -> datetime:
    """The moment that `delivery_id` made it from."""
    return _EPOCH + timedelta(milliseconds=UUID(id_).int >> 80)


def delivery_key(id_: str) -> tuple[str, str]:
    """(PartitionKey, RowKey): a partition a day, newest first; the id alone gives both."""
    value = UUID(id_).int
    day = (value >> 80) // _DAY
    return f"{_LAST_DAY - day:05d}", f"{value ^ _ONES:032x}"


def older_than(after: str | None) -> str:
    """The OData filter for deliveries before `after`; keys are digits and need no quoting."""
    if after is None:
        return "PartitionKey ge ''"
    partition, row = delivery_key(after)
    same_day = f"(PartitionKey eq '{partition}' and RowKey gt '{row}')"
    return f"PartitionKey gt '{partition}' or {same_day}"


def days_between(since: datetime | None, until: datetime | None) -> str:
    """The OData filter for the whole days that hold these moments: a range of partitions, which a
    table reads without looking at others."""
    newest = f"PartitionKey ge '{day_of(until)}'" if until else "PartitionKey ge ''"
    return f"{newest} and PartitionKey le '{day_of(since)}'" if since else newest


def is_between(id_: str, since: datetime | None, until: datetime | None) -> bool:
    """Whether a delivery was accepted in this time, both ends included."""
    moment = accepted_at(id_)
    return (since is None or since <= moment) and (until is None or moment <= until)


def row_key(outcome: RowResult) -> str:
    """One note for each resource and table; a key may hold no slash."""
    return f"{outcome.table} {outcome.resource.replace('/', ' ')}"


def activity_key(time: datetime, number: int | None, token: str = "") -> tuple[str, str]:
    """(PartitionKey, RowKey) of an entry of the activity log: a partition a day, newest first, and
    of one moment the highest `number` first. None: where the entries of that moment begin."""
    microseconds = (time - _EPOCH) // timedelta(microseconds=1)
    row = f"{_LAST_MOMENT - microseconds:014x}"
    return day_of(time), row if number is None else f"{row}{_LAST_NUMBER - number:06x}{token}"


def activity_time(row: str) -> datetime:
    """The moment that `activity_key` made it from."""
    return _EPOCH + timedelta(microseconds=_LAST_MOMENT - int(row[:14], 16))


def day_of(moment: datetime) -> str:
    """The partition of a moment's day, in UTC."""
    return delivery_key(new_delivery_id(moment, 0))[0]
