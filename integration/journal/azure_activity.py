"""The activity log in a table of Azure Storage.

Each day is a partition, with the newest entry first. A page is a range of keys; the table checks
the other conditions on the way. Old entries are deleted by whole days.
https://learn.microsoft.com/azure/storage/tables/table-storage-design-patterns#log-tail-pattern
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.core.model import HEALTH_ACTION, Activity, Category
from integration.journal.activity_log import ActivityFilter, ActivityPage
from integration.journal.azure_day_rows import (
    DayQuery,
    build_day_query,
    decode_continuation,
    delete_days_before,
    encode_position,
    read_rows,
    split_into_transactions,
)
from integration.journal.azure_errors import translate_storage_errors
from integration.journal.bounds import bound_notes
from integration.journal.table_keys import (
    build_activity_key,
    parse_activity_time,
)

TABLE = "activity"


@dataclass(frozen=True, slots=True)
class AzureActivityLog:
    """See integration.journal.activity_log.ActivityLog for what each method promises."""

    table: TableClient

    async def add(self, entries: Sequence[Activity]) -> None:
        token = secrets.token_hex(4)  # other workers add entries at the same time
        found = [_to_entity(entry, number, token) for number, entry in enumerate(entries)]
        async with translate_storage_errors():
            for group in split_into_transactions(found):
                await self._upsert(group)

    async def _upsert(self, entities: Sequence[dict[str, Any]]) -> None:
        # Upserts, since the SDK repeats a request whose answer was lost.
        if len(entities) == 1:
            await self.table.upsert_entity(entities[0], mode=UpdateMode.REPLACE)
            return
        options = {"mode": UpdateMode.REPLACE}
        await self.table.submit_transaction([("upsert", entity, options) for entity in entities])

    async def list_entries(
        self, criteria: ActivityFilter, limit: int, after: str | None
    ) -> ActivityPage:
        token = None if after is None else decode_continuation(after)
        query = _build_query(criteria)
        found, token = await read_rows(self.table, query, token, limit, _from_entity)
        return ActivityPage(tuple(found), encode_position(token) if token else None)

    async def delete_before(self, before: datetime, limit: int) -> int:
        return await delete_days_before(self.table, before, limit)


def _to_entity(entry: Activity, number: int, token: str) -> dict[str, Any]:
    day, row = build_activity_key(entry.time, number, token)
    values = {name: value for name, value in asdict(entry).items() if value is not None}
    values |= {"category": str(entry.category), "notes": "\n".join(bound_notes(entry.notes))}
    del values["time"]
    return {"PartitionKey": day, "RowKey": row, **values}


def _from_entity(entity: Mapping[str, Any]) -> Activity:
    get = entity.get
    return Activity(
        time=parse_activity_time(entity["RowKey"]),
        category=Category(entity["category"]),
        upstream=entity["upstream"],
        action=entity["action"],
        status=entity["status"],
        delivery=get("delivery"),
        resource=get("resource"),
        table=get("table"),
        row=get("row"),
        notes=tuple(entity["notes"].splitlines()),
        duration=entity["duration"],
        operation=get("operation"),
    )


def _build_query(criteria: ActivityFilter) -> DayQuery:
    """Return the query of a list."""
    query = build_day_query(criteria.since, criteria.until)
    for name in ("category", "upstream", "delivery", "table", "row", "status", "operation"):
        value = getattr(criteria, name)
        if value is not None:
            query.add(f"{name} eq ?", str(value))
    if criteria.resource is not None and "/" in criteria.resource:
        query.add("resource eq ?", criteria.resource)
    elif criteria.resource is not None:
        query.add("resource ge ?", f"{criteria.resource}/")
        query.add("resource lt ?", f"{criteria.resource}0")  # the character behind the slash
    if criteria.action:
        query.add("action ge ?", criteria.action)
        query.add("action lt ?", f"{criteria.action}\uffff")
    if criteria.hides_health:
        query.add("action ne ?", HEALTH_ACTION)
    if criteria.duration is not None:
        query.add("duration ge ?", criteria.duration)
    return query
