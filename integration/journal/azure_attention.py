"""What needs attention, in a table of Azure Storage.

One row for each concern, in the partition of the day since when it is one, the newest first. A list
is a range of keys of this table alone, which holds nothing of what is well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.journal.attention import ConcernFilter, ConcernPage, matches
from integration.journal.azure_day_rows import (
    MAX_PAGE,
    MAX_REQUESTS,
    decode_position,
    encode_position,
    is_continuation,
)
from integration.journal.azure_errors import translate_storage_errors
from integration.journal.azure_open_deliveries import AzureOpenDeliveries
from integration.journal.azure_tables import RETRY_WRITES
from integration.journal.concern import Concern, ConcernKind
from integration.journal.table_keys import (
    build_activity_key,
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

    async def list_concerns(
        self, criteria: ConcernFilter, limit: int, after: str | None
    ) -> ConcernPage:
        last, token = _parse_position(after)
        query, parameters = _build_query(criteria, last)
        found: list[Concern] = []
        async with translate_storage_errors():
            for _ in range(MAX_REQUESTS):
                pages = self.attention.query_entities(
                    query,
                    parameters=parameters,
                    results_per_page=min(limit - len(found), MAX_PAGE),
                ).by_page(token)
                async for page in pages:
                    concerns = [_from_entity(entity) async for entity in page]
                    found += [concern for concern in concerns if matches(concern, criteria)]
                    break
                token = pages.continuation_token  # type: ignore[attr-defined]
                if not token or len(found) >= limit:
                    break
        return ConcernPage(tuple(found), encode_position(token) if token else None)


def _parse_position(after: str | None) -> tuple[str | None, Any]:
    """Return the last concern of the page before, or the table's continuation token."""
    if after is None:
        return None, None
    if is_audit_id(after):
        return after, None
    position = decode_position(after)
    if not is_continuation(position):
        raise ValueError("no page has returned this position")
    return None, position


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
    }
    day = get_day_partition(parse_activity_time(concern.id))
    keys = {"PartitionKey": day, "RowKey": concern.id}
    return keys | {name: value for name, value in values.items() if value is not None}


def _from_entity(entity: Mapping[str, Any]) -> Concern:
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
    )


def _build_query(criteria: ConcernFilter, last: str | None) -> tuple[str, dict[str, Any]]:
    """Return the OData filter and its parameters, which the SDK quotes: 14 comparisons at most, and
    the table takes 15.

    The SDK finds parameters between spaces, so there is one beside each bracket.
    """
    conditions, parameters = ["PartitionKey ge ''"], dict[str, Any]()

    def add(condition: str, *values: Any) -> None:
        for value in values:
            name = f"p{len(parameters)}"
            condition = condition.replace("?", f"@{name}", 1)
            parameters[name] = value
        conditions.append(condition)

    if last is not None:
        conditions.clear()
        day = get_day_partition(parse_activity_time(last))
        add("PartitionKey ge ? and RowKey gt ?", day, last)
    elif criteria.until is not None:
        conditions.clear()
        day, row = build_activity_key(criteria.until, None)
        add("PartitionKey ge ? and RowKey ge ?", day, row)
    if criteria.since is not None:
        day, row = build_activity_key(criteria.since, None)
        add("PartitionKey le ? and RowKey le ?", day, f"{row}~")
    if criteria.sender is not None:
        add("sender eq ?", criteria.sender)
    if criteria.resource is not None:
        add("resource eq ?", criteria.resource)
    if criteria.kinds != frozenset(ConcernKind):
        kinds = sorted(map(str, criteria.kinds))
        add(f"( {' or '.join(['kind eq ?'] * len(kinds))} )", *kinds)
    return " and ".join(conditions), parameters
