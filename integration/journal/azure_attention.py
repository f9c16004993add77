"""What needs attention, in a table of Azure Storage.

One row for each concern, in the partition of the day since when it is one, the newest first. A list
is a range of keys of this table alone, which holds nothing of what is well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.journal.attention import ConcernFilter, ConcernPage, matches
from integration.journal.azure_day_rows import (
    DayQuery,
    build_day_query,
    decode_continuation,
    encode_position,
    read_rows,
    split_into_transactions,
)
from integration.journal.azure_errors import translate_storage_errors
from integration.journal.azure_open_deliveries import AzureOpenDeliveries
from integration.journal.azure_tables import RETRY_WRITES, delete_entities
from integration.journal.concern import Concern, ConcernKind
from integration.journal.table_keys import (
    get_day_partition,
    is_audit_id,
    parse_activity_time,
)


@dataclass(frozen=True, slots=True)
class AzureAttention(AzureOpenDeliveries):
    """See integration.journal.attention.Concerns for the contract of each method."""

    attention: TableClient

    async def put_concern(self, concern: Concern) -> None:
        async with translate_storage_errors():
            await self.attention.upsert_entity(
                _to_entity(concern), mode=UpdateMode.REPLACE, **RETRY_WRITES
            )

    async def delete_concern(self, id_: str) -> None:
        async with translate_storage_errors():
            # Of one that is not there the SDK says nothing.
            await self.attention.delete_entity(
                get_day_partition(parse_activity_time(id_)), id_, **RETRY_WRITES
            )

    async def delete_concerns(self, ids: Sequence[str]) -> None:
        keys = [
            {"PartitionKey": get_day_partition(parse_activity_time(id_)), "RowKey": id_}
            for id_ in sorted(set(ids))
        ]
        async with translate_storage_errors():
            for part in split_into_transactions(keys):
                await delete_entities(self.attention, part)

    async def list_concerns(
        self, criteria: ConcernFilter, limit: int, after: str | None
    ) -> ConcernPage:
        last, token = _parse_position(after)

        def parse(entity: Mapping[str, Any]) -> Concern | None:
            concern = _from_entity(entity)
            return concern if matches(concern, criteria) else None

        query = _build_query(criteria, last)
        found, token = await read_rows(self.attention, query, token, limit, parse)
        return ConcernPage(tuple(found), encode_position(token) if token else None)


def _parse_position(after: str | None) -> tuple[str | None, Any]:
    """Return the last concern of the page before, or the table's continuation token."""
    if after is None:
        return None, None
    if is_audit_id(after):
        return after, None
    return None, decode_continuation(after)


def _to_entity(concern: Concern) -> dict[str, Any]:
    values = {
        "since": concern.since,
        "kind": str(concern.kind),
        "delivery": concern.delivery,
        "sender": concern.sender,
        "reason": concern.reason,
        "lane": concern.lane,
        "positions": " ".join(map(str, concern.positions)),
        "number": concern.number,
        "resource": concern.resource,
        "table": concern.table,
        "attempts": concern.attempts or None,
        "next_attempt": concern.next_attempt,
    }
    day = get_day_partition(parse_activity_time(concern.id))
    keys = {"PartitionKey": day, "RowKey": concern.id}
    return keys | {name: value for name, value in values.items() if value is not None}


def _from_entity(entity: Mapping[str, Any]) -> Concern:
    due = entity.get("next_attempt")
    return Concern(
        id=entity["RowKey"],
        since=datetime.fromisoformat(entity["since"].isoformat()),
        kind=ConcernKind(entity["kind"]),
        delivery=entity["delivery"],
        sender=entity["sender"],
        reason=entity["reason"],
        lane=entity.get("lane"),
        positions=tuple(int(text) for text in entity["positions"].split()),
        number=entity["number"],
        resource=entity.get("resource"),
        table=entity.get("table"),
        attempts=entity.get("attempts", 0),
        next_attempt=None if due is None else datetime.fromisoformat(due.isoformat()),
    )


def _build_query(criteria: ConcernFilter, last: str | None) -> DayQuery:
    """Return the query of a list: 15 comparisons at most, as many as a table takes.

    https://learn.microsoft.com/rest/api/storageservices/querying-tables-and-entities
    """
    query = build_day_query(criteria.since, criteria.until, last)
    if criteria.sender is not None:
        query.add("sender eq ?", criteria.sender)
    if criteria.resource is not None:
        query.add("resource eq ?", criteria.resource)
    if criteria.reason is not None:
        query.add("reason eq ?", criteria.reason)
    if criteria.kinds != frozenset(ConcernKind):
        kinds = sorted(map(str, criteria.kinds))
        query.add(f"( {' or '.join(['kind eq ?'] * len(kinds))} )", *kinds)
    return query
