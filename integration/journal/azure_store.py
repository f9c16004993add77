"""The journal on Azure Storage: bytes and outcomes in blobs, the list of deliveries in tables.

Tables and queues hold ids, counts and states; whatever a patient could be known by is in blobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from azure.core.exceptions import (
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.data.tables import TableEntity, UpdateMode
from azure.data.tables.aio import TableClient, TableServiceClient
from azure.storage.blob.aio import BlobServiceClient

from integration.core.model import Delivery, RowResult, Status
from integration.journal import azure_blobs, azure_tables, entities
from integration.journal.azure_blobs import AzureBlobs
from integration.journal.azure_errors import storage_errors
from integration.journal.azure_tables import REPEAT, if_unchanged
from integration.journal.keys import (
    days_between,
    delivery_key,
    is_between,
    older_than,
    row_key,
)
from integration.journal.store import Kept, Page

TABLES = ("deliveries", "deliverykeys", "rows", "subscriptions")


@dataclass(frozen=True, slots=True)
class AzureJournal(AzureBlobs):
    """See integration.journal.store.Journal for what each method promises."""

    deliveries: TableClient
    keys: TableClient
    noted_rows: TableClient
    subscriptions: TableClient

    async def claim_key(self, sender: str, key: str, delivery: str) -> str:
        entity = {"PartitionKey": entities.safe(sender), "RowKey": key, "delivery": delivery}
        async with storage_errors():
            try:
                await self.keys.create_entity(entity, **REPEAT)
            except ResourceExistsError:
                taken = await self.keys.get_entity(entity["PartitionKey"], key)
                return str(taken["delivery"])
        return delivery

    async def claimant(self, sender: str, key: str) -> str | None:
        async with storage_errors():
            try:
                return str((await self.keys.get_entity(entities.safe(sender), key))["delivery"])
            except ResourceNotFoundError:
                return None

    async def keep(self, delivery: Delivery, kept: Kept) -> None:
        await self.keep_bytes(delivery.id, kept)
        async with storage_errors():
            try:
                await self.deliveries.create_entity(entities.entity(delivery), **REPEAT)
            except ResourceExistsError:
                pass  # an earlier try noted it

    async def delivery(self, id_: str) -> Delivery | None:
        partition, row = delivery_key(id_)
        async with storage_errors():
            try:
                return entities.delivery(await self.deliveries.get_entity(partition, row))
            except ResourceNotFoundError:
                return None

    async def change(
        self, id_: str, only_if: frozenset[Status] | None = None, **changes: Any
    ) -> bool:
        partition, row = delivery_key(id_)
        entity = {"PartitionKey": partition, "RowKey": row, **entities.plain(changes)}
        if "reason" in changes and changes["reason"] is None:
            entity["reason"] = ""  # a merge cannot take a property away
        unchanged: dict[str, Any] = {}
        async with storage_errors():
            while True:
                if only_if is not None:
                    try:
                        known = await self.deliveries.get_entity(partition, row)
                    except ResourceNotFoundError:
                        return False
                    if Status(known["status"]) not in only_if:
                        return False
                    unchanged = if_unchanged(known)
                try:
                    await self.deliveries.update_entity(
                        entity, mode=UpdateMode.MERGE, **unchanged, **REPEAT
                    )
                except ResourceModifiedError:
                    continue  # somebody was quicker: look again
                return True

    async def page(self, status: Status | None, top: int, after: str | None) -> Page:
        query = older_than(after)
        if status is not None:
            query = f"({query}) and status eq '{status}'"
        found: list[Delivery] = []
        async with storage_errors():
            async for entity in self.deliveries.query_entities(
                query, results_per_page=min(top + 1, 1000)
            ):
                found.append(entities.delivery(entity))
                if len(found) > top:
                    break
        page = found[:top]
        return Page(tuple(page), page[-1].id if len(found) > top else None)

    async def scan(
        self, statuses: frozenset[Status], since: datetime | None, until: datetime | None
    ) -> AsyncIterator[Delivery]:
        wanted = " or ".join(f"status eq '{status}'" for status in sorted(statuses))
        query = f"{days_between(since, until)} and ({wanted})"
        async with storage_errors():
            async for entity in self.deliveries.query_entities(query):
                delivery = entities.delivery(entity)
                if is_between(delivery.id, since, until):
                    yield delivery

    async def forget(self, id_: str) -> None:
        partition, row = delivery_key(id_)
        await self.forget_bytes(id_)
        async with storage_errors():
            rows = self.noted_rows.query_entities(
                "PartitionKey eq @delivery", parameters={"delivery": id_}, select=["RowKey"]
            )
            async for entity in rows:
                await self.noted_rows.delete_entity(id_, entity["RowKey"])
            # Last, so that what broke off before is found again.
            await self.deliveries.delete_entity(partition, row)

    async def newest_event(self, sender: str, subscription: str) -> int:
        known = await self._subscription(sender, subscription)
        return int(known["newest"]) if known else 0

    async def note_event(self, sender: str, subscription: str, number: int) -> None:
        keys = {"PartitionKey": entities.safe(sender), "RowKey": entities.safe(subscription)}
        # As text: a number of a table has 32 bits.
        entity = {**keys, "newest": str(number)}
        while True:
            known = await self._subscription(sender, subscription)
            if known is not None and int(known["newest"]) >= number:
                return
            async with storage_errors():
                try:
                    if known is None:
                        await self.subscriptions.create_entity(entity, **REPEAT)
                    else:
                        await self.subscriptions.update_entity(
                            entity,
                            mode=UpdateMode.REPLACE,
                            **if_unchanged(known),
                            **REPEAT,
                        )
                except (ResourceExistsError, ResourceModifiedError):
                    continue  # another notification was quicker
            return

    async def lane_done(self, id_: str, lane: int) -> bool:
        """One bit a lane, set with If-Match, so that lanes that end together all count."""
        partition, row = delivery_key(id_)
        async with storage_errors():
            while True:
                entity = await self.deliveries.get_entity(partition, row)
                done = int.from_bytes(entity.get("done", b""), "little") | 1 << lane
                size = (done.bit_length() + 7) // 8
                bits = {"done": done.to_bytes(size, "little"), "lanes_done": done.bit_count()}
                try:
                    await self.deliveries.update_entity(
                        {"PartitionKey": partition, "RowKey": row, **bits},
                        mode=UpdateMode.MERGE,
                        **if_unchanged(entity),
                        **REPEAT,
                    )
                except ResourceModifiedError:
                    continue  # another lane was quicker
                return done.bit_count() >= int(entity["lanes"])

    async def lanes_left(self, id_: str) -> list[int]:
        async with storage_errors():
            entity = await self.deliveries.get_entity(*delivery_key(id_))
        done = int.from_bytes(entity.get("done", b""), "little")
        return [lane for lane in range(int(entity["lanes"])) if not done >> lane & 1]

    async def note_row(self, outcome: RowResult) -> None:
        entity = {
            "PartitionKey": outcome.delivery,
            "RowKey": row_key(outcome),
            "outcome": msgspec.json.encode(outcome).decode(),
        }
        async with storage_errors():
            await self.noted_rows.upsert_entity(entity, mode=UpdateMode.REPLACE)

    async def rows(self, id_: str) -> Sequence[RowResult]:
        async with storage_errors():
            entities = self.noted_rows.query_entities(
                "PartitionKey eq @delivery", parameters={"delivery": id_}
            )
            return [
                msgspec.json.decode(entity["outcome"], type=RowResult) async for entity in entities
            ]

    async def _subscription(self, sender: str, subscription: str) -> TableEntity | None:
        keys = entities.safe(sender), entities.safe(subscription)
        async with storage_errors():
            try:
                return await self.subscriptions.get_entity(*keys)
            except ResourceNotFoundError:
                return None


async def opened(blobs: BlobServiceClient, tables: TableServiceClient) -> AzureJournal:
    """The journal in this storage account, its container and tables made where they are not."""
    made = (azure_tables.made(tables, name) for name in TABLES)
    container, found = await asyncio.gather(azure_blobs.made(blobs), asyncio.gather(*made))
    return AzureJournal(container, *found)
