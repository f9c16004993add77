"""The index of open deliveries, in a table: what housekeeping and replays look through.

Deliveries that end within minutes, nearly all, are never in it: it is filled from what was accepted
since it was filled last, less what has ended by then. So it costs intake and relay nothing, and no
question about open deliveries reads the others. Keys begin with the time when housekeeping looks
next, so that what is due is a range.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.core.model import OPEN, Delivery, Status
from integration.journal import delivery_entity
from integration.journal.azure_blobs import AzureBlobs
from integration.journal.azure_day_rows import split_into_transactions
from integration.journal.azure_errors import translate_storage_errors
from integration.journal.azure_tables import RETRY_WRITES
from integration.journal.store import IndexEntry
from integration.journal.table_keys import (
    build_delivery_key,
    build_index_key,
    build_newer_filters,
    build_window_filters,
    is_between,
    parse_accepted_time,
    parse_index_key,
)

_OPEN_PARTITION = "open"
_CURSOR = {"PartitionKey": "cursor", "RowKey": "accepted"}

# How far back the index is filled when there is none yet.
_FIRST_PERIOD = timedelta(days=31)

# Operations that run at the same time.
_MAX_CONCURRENT = 16


@dataclass(frozen=True, slots=True)
class AzureOpenDeliveries(AzureBlobs):
    """See integration.journal.store.Journal for the contract of each method."""

    deliveries: TableClient
    open_deliveries: TableClient

    async def get_delivery(self, id_: str) -> Delivery | None:
        partition, row = build_delivery_key(id_)
        async with translate_storage_errors():
            try:
                return delivery_entity.from_entity(await self.deliveries.get_entity(partition, row))
            except ResourceNotFoundError:
                return None

    async def index_open(self, until: datetime) -> None:
        since = await self.get_indexed_until() or until - _FIRST_PERIOD
        if since >= until:
            return
        ids = [id_ async for id_ in self._scan_ids(build_window_filters(since, until))]
        for part in _split(ids):
            await asyncio.gather(*(self.index_delivery(i, parse_accepted_time(i)) for i in part))
        async with translate_storage_errors():
            # Last: if this ends before, the same deliveries are added once more.
            await self.open_deliveries.upsert_entity(
                {**_CURSOR, "until": until}, mode=UpdateMode.REPLACE, **RETRY_WRITES
            )

    async def index_delivery(self, id_: str, due: datetime) -> None:
        entity = {"PartitionKey": _OPEN_PARTITION, "RowKey": build_index_key(id_, due)}
        async with translate_storage_errors():
            await self.open_deliveries.upsert_entity(
                entity, mode=UpdateMode.REPLACE, **RETRY_WRITES
            )

    async def index_deliveries(self, ids: Sequence[str], due: datetime) -> None:
        rows = [
            {"PartitionKey": _OPEN_PARTITION, "RowKey": build_index_key(id_, due)}
            for id_ in sorted(set(ids))
        ]
        async with translate_storage_errors():
            for part in split_into_transactions(rows):
                await self.open_deliveries.submit_transaction(
                    [("upsert", row, {"mode": UpdateMode.REPLACE}) for row in part], **RETRY_WRITES
                )

    async def scan_index(self, due: datetime | None) -> AsyncIterator[IndexEntry]:
        query = f"PartitionKey eq '{_OPEN_PARTITION}'"
        if due is not None:
            query = f"{query} and RowKey lt '{build_index_key('~', due)}'"
        async with translate_storage_errors():
            async for entity in self.open_deliveries.query_entities(query, select=["RowKey"]):
                yield IndexEntry(entity["RowKey"], parse_index_key(entity["RowKey"]))

    async def move_index_entry(self, entry: IndexEntry, due: datetime | None) -> None:
        if due is not None:
            if build_index_key(entry.delivery, due) == entry.key:
                return
            await self.index_delivery(entry.delivery, due)
        async with translate_storage_errors():
            await self.open_deliveries.delete_entity(_OPEN_PARTITION, entry.key)

    async def scan_open(
        self, statuses: frozenset[Status], since: datetime | None, until: datetime | None
    ) -> AsyncIterator[Delivery]:
        """Do the part of `scan_deliveries` that is for open deliveries."""
        chosen = await self.list_open(since, until)
        for part in _split(chosen[::-1]):
            for delivery in await asyncio.gather(*(self.get_delivery(id_) for id_ in part)):
                if delivery is not None and delivery.status in statuses:
                    yield delivery

    async def list_open(self, since: datetime | None, until: datetime | None) -> list[str]:
        ids = {entry.delivery async for entry in self.scan_index(None)}
        newer = build_newer_filters(await self.get_indexed_until())
        ids |= {id_ async for id_ in self._scan_ids(newer)}
        return sorted(id_ for id_ in ids if is_between(id_, since, until))

    async def _scan_ids(self, filters: Iterable[str]) -> AsyncIterator[str]:
        """Iterate over the ids of the open deliveries in these ranges of keys."""
        is_open = " or ".join(f"status eq '{status}'" for status in sorted(OPEN))
        for keys in filters:
            async with translate_storage_errors():
                found = self.deliveries.query_entities(f"{keys} and ({is_open})", select=["id"])
                async for entity in found:
                    yield str(entity["id"])

    async def get_indexed_until(self) -> datetime | None:
        async with translate_storage_errors():
            try:
                cursor: Any = await self.open_deliveries.get_entity(*_CURSOR.values())
            except ResourceNotFoundError:
                return None
        return datetime.fromisoformat(cursor["until"].isoformat())


def _split(ids: list[str]) -> Iterable[list[str]]:
    return (ids[start : start + _MAX_CONCURRENT] for start in range(0, len(ids), _MAX_CONCURRENT))
