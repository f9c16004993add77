"""The activity log in a table of Azure Storage.

A partition for each day, the newest first in it: a page is a range of keys, whose other conditions
the table checks on the way, and what is forgotten is forgotten by whole days.
https://learn.microsoft.com/azure/storage/tables/table-storage-design-patterns#log-tail-pattern
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables import TableTransactionError, UpdateMode
from azure.data.tables.aio import TableClient

from integration.core.model import Activity, Category
from integration.journal.activity import ActivityPage, Wanted
from integration.journal.azure_errors import storage_errors
from integration.journal.keys import activity_key, activity_time, day_of

TABLE = "activity"

# https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions: 100
# entities and 4 MiB.
_ENTITIES = 100
_NOTES = 4000  # characters of one entry

# Requests that one page may cost. Each looks through what a table gets through in five seconds:
# https://learn.microsoft.com/rest/api/storageservices/query-timeout-and-pagination
_LOOKS = 10
_MOST = 1000  # entities in one answer


@dataclass(frozen=True, slots=True)
class AzureActivityLog:
    """See integration.journal.activity.ActivityLog for what each method promises."""

    table: TableClient

    async def note(self, entries: Sequence[Activity]) -> None:
        token = secrets.token_hex(4)  # other workers note at the same time
        found = [_entity(entry, number, token) for number, entry in enumerate(entries)]
        async with storage_errors():
            for group in _groups(found):
                await self._added(group)

    async def _added(self, entities: Sequence[dict[str, Any]]) -> None:
        # Upserts, since a request may be repeated whose answer was lost.
        if len(entities) == 1:
            await self.table.upsert_entity(entities[0], mode=UpdateMode.REPLACE)
            return
        options = {"mode": UpdateMode.REPLACE}
        await self.table.submit_transaction([("upsert", each, options) for each in entities])

    async def page(self, wanted: Wanted, top: int, after: str | None) -> ActivityPage:
        query, parameters = _query(wanted)
        position: Any = None if after is None else _position(after)
        found: list[Activity] = []
        async with storage_errors():
            for _ in range(_LOOKS):
                pages = self.table.query_entities(
                    query, parameters=parameters, results_per_page=min(top - len(found), _MOST)
                ).by_page(position)
                async for page in pages:
                    found += [_activity(entity) async for entity in page]
                    break
                position = pages.continuation_token  # type: ignore[attr-defined]
                if not position or len(found) == top:
                    break
        return ActivityPage(tuple(found), _after(position) if position else None)

    async def forget(self, before: datetime, most: int) -> int:
        count = 0
        async with storage_errors():
            pages = self.table.query_entities(
                "PartitionKey gt @day",
                parameters={"day": day_of(before)},
                select=["PartitionKey", "RowKey"],
                results_per_page=_MOST,
            ).by_page()
            async for page in pages:
                for group in _groups([dict(entity) async for entity in page]):
                    part = group[: most - count]
                    if not part or not await self._removed(part):
                        return count
                    count += len(part)
        return count

    async def _removed(self, entities: Sequence[Mapping[str, Any]]) -> bool:
        """Whether they are; else another instance is at it."""
        try:
            await self.table.submit_transaction([("delete", each) for each in entities])
        except (ResourceNotFoundError, TableTransactionError) as error:
            if error.status_code != 404:
                raise
            return False
        return True


def _groups(entities: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """What may go in one transaction: entities of one partition."""
    for _, group in groupby(entities, lambda entity: entity["PartitionKey"]):
        part = list(group)
        for start in range(0, len(part), _ENTITIES):
            yield part[start : start + _ENTITIES]


def _entity(entry: Activity, number: int, token: str) -> dict[str, Any]:
    day, row = activity_key(entry.time, number, token)
    values = {name: value for name, value in asdict(entry).items() if value is not None}
    values |= {"category": str(entry.category), "notes": _text(entry.notes)}
    del values["time"]
    return {"PartitionKey": day, "RowKey": row, **values}


def _text(notes: Sequence[str]) -> str:
    """One to a line, as many as there is room for; the rest is in the delivery's answer."""
    text = "\n".join(notes)
    if len(text) <= _NOTES:
        return text
    whole = text[:_NOTES].rpartition("\n")[0]
    return f"{whole}\nand {len(notes) - len(whole.splitlines())} more"


def _activity(entity: Mapping[str, Any]) -> Activity:
    said = entity.get
    return Activity(
        activity_time(entity["RowKey"]),
        Category(entity["category"]),
        entity["upstream"],
        entity["action"],
        entity["status"],
        said("delivery"),
        said("resource"),
        said("table"),
        said("row"),
        tuple(entity["notes"].splitlines()),
        entity["duration"],
    )


def _query(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    """The OData filter, and its parameters, which the SDK quotes."""
    conditions, parameters = ["PartitionKey ge ''"], dict[str, Any]()

    def add(condition: str, value: Any) -> None:
        name = f"p{len(parameters)}"
        conditions.append(condition.replace("?", f"@{name}"))
        parameters[name] = value

    if wanted.until is not None:
        day, row = activity_key(wanted.until, None)
        add("PartitionKey ge ?", day)
        add("RowKey ge ?", row)
    if wanted.since is not None:
        day, row = activity_key(wanted.since, None)
        add("PartitionKey le ?", day)
        add("RowKey le ?", f"{row}~")
    for name in ("category", "upstream", "delivery", "table", "row", "status"):
        value = getattr(wanted, name)
        if value is not None:
            add(f"{name} eq ?", str(value))
    if wanted.resource is not None and "/" in wanted.resource:
        add("resource eq ?", wanted.resource)
    elif wanted.resource is not None:
        add("resource ge ?", f"{wanted.resource}/")
        add("resource lt ?", f"{wanted.resource}0")  # the character behind the slash
    if wanted.action:
        add("action ge ?", wanted.action)
        add("action lt ?", f"{wanted.action}\uffff")
    if wanted.duration is not None:
        add("duration ge ?", wanted.duration)
    return " and ".join(conditions), parameters


def _after(position: Mapping[str, str | None]) -> str:
    """Where the table goes on, in its own words."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def _position(after: str) -> dict[str, str | None]:
    position = json.loads(base64.b64decode(after.encode(), altchars=b"-_", validate=True))
    if not isinstance(position, dict) or position.keys() != {"PartitionKey", "RowKey"}:
        raise ValueError("no page has given this")
    return position
