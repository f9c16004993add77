"""The journal on Azure Storage: bytes and results in blobs, the list of deliveries in tables.

Tables and queues hold ids, counts and states. All that could identify a patient is in blobs.
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
from integration.journal import azure_blobs, azure_tables, delivery_entity
from integration.journal.azure_blobs import AzureBlobs
from integration.journal.azure_errors import translate_storage_errors
from integration.journal.azure_tables import RETRY_WRITES, match_etag
from integration.journal.bounds import bound_row_result
from integration.journal.store import Page, Payload
from integration.journal.table_keys import (
    build_after_filter,
    build_days_filter,
    build_delivery_key,
    build_row_key,
    is_between,
)

TABLES = ("deliveries", "deliverykeys", "rows", "subscriptions")


@dataclass(frozen=True, slots=True)
class AzureJournal(AzureBlobs):
    """See integration.journal.store.Journal for the contract of each method."""

    deliveries: TableClient
    keys: TableClient
    row_results: TableClient
    subscriptions: TableClient

    async def claim_key(self, sender: str, key: str, delivery: str) -> str:
        entity = {
            "PartitionKey": delivery_entity.hash_key(sender),
            "RowKey": key,
            "delivery": delivery,
        }
        async with translate_storage_errors():
            try:
                await self.keys.create_entity(entity, **RETRY_WRITES)
            except ResourceExistsError:
                taken = await self.keys.get_entity(entity["PartitionKey"], key)
                return str(taken["delivery"])
        return delivery

    async def find_delivery_by_key(self, sender: str, key: str) -> str | None:
        async with translate_storage_errors():
            try:
                return str(
                    (await self.keys.get_entity(delivery_entity.hash_key(sender), key))["delivery"]
                )
            except ResourceNotFoundError:
                return None

    async def add_delivery(self, delivery: Delivery, payload: Payload) -> None:
        await self.save_payload(delivery.id, payload)
        async with translate_storage_errors():
            try:
                await self.deliveries.create_entity(
                    delivery_entity.to_entity(delivery), **RETRY_WRITES
                )
            except ResourceExistsError:
                pass  # an earlier attempt has added it

    async def get_delivery(self, id_: str) -> Delivery | None:
        partition, row = build_delivery_key(id_)
        async with translate_storage_errors():
            try:
                return delivery_entity.from_entity(await self.deliveries.get_entity(partition, row))
            except ResourceNotFoundError:
                return None

    async def update_delivery(
        self, id_: str, only_if: frozenset[Status] | None = None, **changes: Any
    ) -> bool:
        partition, row = build_delivery_key(id_)
        entity = {
            "PartitionKey": partition,
            "RowKey": row,
            **delivery_entity.to_properties(changes),
        }
        if "reason" in changes and changes["reason"] is None:
            entity["reason"] = ""  # a merge cannot remove a property
        unchanged: dict[str, Any] = {}
        async with translate_storage_errors():
            while True:
                if only_if is not None:
                    try:
                        current = await self.deliveries.get_entity(partition, row)
                    except ResourceNotFoundError:
                        return False
                    if Status(current["status"]) not in only_if:
                        return False
                    unchanged = match_etag(current)
                try:
                    await self.deliveries.update_entity(
                        entity, mode=UpdateMode.MERGE, **unchanged, **RETRY_WRITES
                    )
                except ResourceModifiedError:
                    continue  # another writer was quicker: read it again
                return True

    async def list_deliveries(self, status: Status | None, limit: int, after: str | None) -> Page:
        query = build_after_filter(after)
        if status is not None:
            query = f"({query}) and status eq '{status}'"
        found: list[Delivery] = []
        async with translate_storage_errors():
            async for entity in self.deliveries.query_entities(
                query, results_per_page=min(limit + 1, 1000)
            ):
                found.append(delivery_entity.from_entity(entity))
                if len(found) > limit:
                    break
        page = found[:limit]
        return Page(tuple(page), page[-1].id if len(found) > limit else None)

    async def scan_deliveries(
        self, statuses: frozenset[Status], since: datetime | None, until: datetime | None
    ) -> AsyncIterator[Delivery]:
        condition = " or ".join(f"status eq '{status}'" for status in sorted(statuses))
        query = f"{build_days_filter(since, until)} and ({condition})"
        async with translate_storage_errors():
            async for entity in self.deliveries.query_entities(query):
                delivery = delivery_entity.from_entity(entity)
                if is_between(delivery.id, since, until):
                    yield delivery

    async def delete_delivery(self, id_: str) -> None:
        partition, row = build_delivery_key(id_)
        await self.delete_blobs(id_)
        async with translate_storage_errors():
            rows = self.row_results.query_entities(
                "PartitionKey eq @delivery", parameters={"delivery": id_}, select=["RowKey"]
            )
            async for entity in rows:
                await self.row_results.delete_entity(id_, entity["RowKey"])
            # Last, so that a deletion that breaks off before is found and repeated.
            await self.deliveries.delete_entity(partition, row)

    async def get_newest_event(self, sender: str, subscription: str) -> int:
        subscription_entity = await self._read_subscription(sender, subscription)
        return int(subscription_entity["newest"]) if subscription_entity else 0

    async def record_event(self, sender: str, subscription: str, number: int) -> None:
        keys = {
            "PartitionKey": delivery_entity.hash_key(sender),
            "RowKey": delivery_entity.hash_key(subscription),
        }
        # As text: a whole number of a table has 32 bits.
        entity = {**keys, "newest": str(number)}
        while True:
            current = await self._read_subscription(sender, subscription)
            if current is not None and int(current["newest"]) >= number:
                return
            async with translate_storage_errors():
                try:
                    if current is None:
                        await self.subscriptions.create_entity(entity, **RETRY_WRITES)
                    else:
                        await self.subscriptions.update_entity(
                            entity,
                            mode=UpdateMode.REPLACE,
                            **match_etag(current),
                            **RETRY_WRITES,
                        )
                except (ResourceExistsError, ResourceModifiedError):
                    continue  # another notification was quicker
            return

    async def finish_lane(self, id_: str, lane: int) -> bool:
        """Set the bit of the lane with If-Match, so that no lane is lost that ends meanwhile."""
        partition, row = build_delivery_key(id_)
        async with translate_storage_errors():
            while True:
                entity = await self.deliveries.get_entity(partition, row)
                done = int.from_bytes(entity.get("done", b""), "little") | 1 << lane
                size = (done.bit_length() + 7) // 8
                bits = {"done": done.to_bytes(size, "little"), "lanes_done": done.bit_count()}
                try:
                    await self.deliveries.update_entity(
                        {"PartitionKey": partition, "RowKey": row, **bits},
                        mode=UpdateMode.MERGE,
                        **match_etag(entity),
                        **RETRY_WRITES,
                    )
                except ResourceModifiedError:
                    continue  # another lane was quicker
                return done.bit_count() >= int(entity["lanes"])

    async def list_open_lanes(self, id_: str) -> list[int]:
        async with translate_storage_errors():
            entity = await self.deliveries.get_entity(*build_delivery_key(id_))
        done = int.from_bytes(entity.get("done", b""), "little")
        return [lane for lane in range(int(entity["lanes"])) if not done >> lane & 1]

    async def record_row_result(self, result: RowResult) -> None:
        entity = {
            "PartitionKey": result.delivery,
            "RowKey": build_row_key(result),
            "result": msgspec.json.encode(bound_row_result(result)).decode(),
        }
        async with translate_storage_errors():
            await self.row_results.upsert_entity(entity, mode=UpdateMode.REPLACE)

    async def list_row_results(self, id_: str) -> Sequence[RowResult]:
        async with translate_storage_errors():
            entities = self.row_results.query_entities(
                "PartitionKey eq @delivery", parameters={"delivery": id_}
            )
            return [
                msgspec.json.decode(entity["result"], type=RowResult) async for entity in entities
            ]

    async def _read_subscription(self, sender: str, subscription: str) -> TableEntity | None:
        keys = delivery_entity.hash_key(sender), delivery_entity.hash_key(subscription)
        async with translate_storage_errors():
            try:
                return await self.subscriptions.get_entity(*keys)
            except ResourceNotFoundError:
                return None


async def open_journal(blobs: BlobServiceClient, tables: TableServiceClient) -> AzureJournal:
    """Return the journal of a storage account. Create its container and tables if missing."""
    open_tables = (azure_tables.open_table(tables, name) for name in TABLES)
    container, found = await asyncio.gather(
        azure_blobs.open_container(blobs), asyncio.gather(*open_tables)
    )
    return AzureJournal(container, *found)
