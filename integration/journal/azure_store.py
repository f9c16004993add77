"""The journal on Azure Storage: bytes and results in blobs, the list of deliveries in tables.

Tables and queues hold ids, counts and states. All that could identify a patient is in blobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from azure.core import MatchConditions
from azure.core.exceptions import (
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.data.tables import TableEntity, UpdateMode
from azure.data.tables.aio import TableClient, TableServiceClient
from azure.storage.blob.aio import BlobServiceClient

from integration.core.model import OPEN, Delivery, RowResult, Status
from integration.journal import azure_blobs, azure_tables, delivery_entity
from integration.journal.azure_attention import AzureAttention
from integration.journal.azure_errors import translate_storage_errors
from integration.journal.azure_tables import RETRY_WRITES, match_etag
from integration.journal.bases import encode_bases
from integration.journal.bounds import bound_row_result
from integration.journal.delivery_filter import DeliveryFilter, matches
from integration.journal.lane_bits import add_lanes, count_lanes
from integration.journal.store import ROWS_PER_BATCH, Page, Payload, never
from integration.journal.table_keys import (
    build_after_filters,
    build_days_filter,
    build_delivery_key,
    build_end_id,
    build_row_key,
    is_between,
    parse_accepted_time,
    parse_row_resource,
)

TABLES = ("deliveries", "opendeliveries", "attention", "deliverykeys", "rows", "subscriptions")

# Rows that are deleted at the same time, in batches. A partition takes 2,000 in a second:
# https://learn.microsoft.com/azure/storage/tables/scalability-targets
_MAX_DELETED = 4 * ROWS_PER_BATCH

# The most rows that one page of the list reads to find those with a status.
_MAX_SCANNED = 5000
# Of open deliveries each is read by itself, and only its row tells whether it waits.
_MAX_SCANNED_OPEN = 48


@dataclass(frozen=True, slots=True)
class AzureJournal(AzureAttention):
    """See integration.journal.store.Journal for the contract of each method."""

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

    async def add_delivery(self, delivery: Delivery, payload: Payload) -> Delivery | None:
        if not await self.save_payload(delivery.id, delivery.digest, payload):
            return None
        async with translate_storage_errors():
            try:
                added = await self.deliveries.create_entity(
                    delivery_entity.to_entity(delivery), **RETRY_WRITES
                )
            except ResourceExistsError:
                return delivery  # an earlier attempt has added it
        return replace(delivery, etag=str(added["etag"]))

    async def update_delivery(
        self,
        id_: str,
        only_if: frozenset[Status] | None = None,
        *,
        only_plan: int | None = None,
        unless_corrected: bool = False,
        only_attention: str | None = None,
        seen: Delivery | None = None,
        **changes: Any,
    ) -> bool:
        if only_if is None and only_plan is None and not unless_corrected:
            async with translate_storage_errors():
                await self._merge(id_, changes)
            return True

        def choose(delivery: Delivery) -> Mapping[str, Any] | None:
            is_status = only_if is None or delivery.status in only_if
            is_plan = only_plan is None or delivery.plan == only_plan
            is_uncorrected = not unless_corrected or delivery.corrected_by is None
            is_named = only_attention is None or delivery.attention == only_attention
            return changes if is_status and is_plan and is_uncorrected and is_named else None

        return await self._change(id_, choose, seen) is not None

    async def update_deliveries(
        self, changes: Sequence[tuple[Delivery, Mapping[str, Any]]]
    ) -> list[bool]:
        rows: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            seen.id: (
                _build_merge(seen.id, values),
                {"etag": seen.etag, "match_condition": MatchConditions.IfNotModified},
            )
            for seen, values in changes
            if seen.etag
        }
        merged = await azure_tables.merge_entities(self.deliveries, list(rows.values()))
        done = dict(zip(rows, merged, strict=True))
        return [done.get(seen.id, False) for seen, _ in changes]

    async def mark_queued(self, ids: Sequence[str]) -> None:
        changes = {"unqueued": False}
        await azure_tables.merge_entities(
            self.deliveries, [(_build_merge(id_, changes), {}) for id_ in sorted(set(ids))]
        )

    async def begin_plan(self, id_: str, plan: int, **changes: Any) -> bool:
        unplanned: dict[str, Any] = {
            "queued_lanes": b"",
            "done_lanes": b"",
            "lanes": 0,
            "lanes_done": 0,
        }
        return await self.update_delivery(
            id_, only_plan=plan - 1, plan=plan, **unplanned, **changes
        )

    async def begin_delivery(self, seen: Delivery, bases: Mapping[int, str]) -> Delivery | None:
        changes: dict[str, Any] = {"begun": True, "bases": encode_bases(bases)}
        async with translate_storage_errors():
            try:
                etag = await self._merge(seen.id, changes, seen.etag or "")
            except (ResourceModifiedError, ResourceNotFoundError):
                return None
        return replace(seen, **changes, etag=etag)

    async def record_queued_lanes(self, id_: str, plan: int, lanes: Collection[int]) -> None:
        def choose(delivery: Delivery) -> Mapping[str, Any] | None:
            queued = add_lanes(delivery.queued_lanes, lanes)
            return {"queued_lanes": queued} if delivery.plan == plan else None

        await self._change(id_, choose)

    async def finish_lane(self, id_: str, plan: int, lane: int) -> bool:
        def choose(delivery: Delivery) -> Mapping[str, Any] | None:
            done = add_lanes(delivery.done_lanes, (lane,))
            changes = {"done_lanes": done, "lanes_done": count_lanes(done)}
            return changes if delivery.plan == plan else None

        changed = await self._change(id_, choose)
        return changed is not None and changed.lanes_done >= changed.lanes

    async def _change(
        self,
        id_: str,
        choose: Callable[[Delivery], Mapping[str, Any] | None],
        seen: Delivery | None = None,
    ) -> Delivery | None:
        """Set what `choose` returns for the delivery as it is, with If-Match, so that no change
        that another worker makes meanwhile is lost. Return the changed delivery; None: it does not
        exist, or `choose` returned None."""
        current = seen if seen is not None and seen.etag else await self.get_delivery(id_)
        while current is not None:
            changes = choose(current)
            if changes is None:
                return None
            async with translate_storage_errors():
                try:
                    await self._merge(id_, changes, current.etag)
                except ResourceModifiedError:
                    current = await self.get_delivery(id_)  # another writer was quicker
                    continue
                except ResourceNotFoundError:
                    return None
            return replace(current, **changes, etag=None)
        return None

    async def _merge(self, id_: str, changes: Mapping[str, Any], etag: str | None = None) -> str:
        """Set these fields, with `etag` only if the row still has it. Return its new etag."""
        condition: dict[str, Any] = {}
        if etag is not None:
            condition = {"etag": etag, "match_condition": MatchConditions.IfNotModified}
        answer = await self.deliveries.update_entity(
            _build_merge(id_, changes), mode=UpdateMode.MERGE, **condition, **RETRY_WRITES
        )
        return str(answer["etag"])

    async def list_deliveries(
        self, criteria: DeliveryFilter, limit: int, after: str | None
    ) -> Page:
        found: list[Delivery] = []
        scanned = 0
        async for delivery in self._scan_older(criteria, limit, after):
            scanned += 1
            if criteria.since is not None and not is_between(delivery.id, criteria.since, None):
                break
            if matches(delivery, criteria):
                found.append(delivery)
            if len(found) > limit:
                break
            if scanned == (_MAX_SCANNED_OPEN if criteria.waiting else _MAX_SCANNED):
                return Page(tuple(found), delivery.id)
        page = found[:limit]
        return Page(tuple(page), page[-1].id if len(found) > limit else None)

    async def _scan_older(
        self, criteria: DeliveryFilter, limit: int, after: str | None
    ) -> AsyncIterator[Delivery]:
        """Iterate over deliveries after `after`, newest first: those that may match."""
        if criteria.until is not None:
            after = min(after or "~", build_end_id(criteria.until))
        if criteria.status in OPEN or criteria.waiting:
            until = None if after is None else parse_accepted_time(after)
            statuses = OPEN if criteria.status is None else frozenset({criteria.status})
            async for delivery in self.scan_deliveries(statuses, criteria.since, until):
                if after is None or delivery.id < after:
                    yield delivery
            return
        is_exact = replace(criteria, since=None, until=None) == DeliveryFilter()
        size = min(limit + 1, 1000) if is_exact else 1000
        for keys in build_after_filters(after):
            async with translate_storage_errors():
                async for entity in self.deliveries.query_entities(keys, results_per_page=size):
                    yield delivery_entity.from_entity(entity)

    async def scan_deliveries(
        self, statuses: frozenset[Status], since: datetime | None, until: datetime | None
    ) -> AsyncIterator[Delivery]:
        if statuses <= OPEN:
            async for delivery in self.scan_open(statuses, since, until):
                yield delivery
            return
        condition = " or ".join(f"status eq '{status}'" for status in sorted(statuses))
        query = f"{build_days_filter(since, until)} and ({condition})"
        async with translate_storage_errors():
            async for entity in self.deliveries.query_entities(query):
                delivery = delivery_entity.from_entity(entity)
                if is_between(delivery.id, since, until):
                    yield delivery

    async def delete_delivery(self, id_: str, is_over: Callable[[], bool] = never) -> bool:
        partition, row = build_delivery_key(id_)
        if not await self.delete_blobs(id_, is_over):
            return False
        async with translate_storage_errors():
            pages = self.row_results.query_entities(
                "PartitionKey eq @delivery",
                parameters={"delivery": id_},
                select=["PartitionKey", "RowKey"],
                results_per_page=_MAX_DELETED,
            ).by_page()
            async for page in pages:
                if is_over():
                    return False
                rows = [dict(entity) async for entity in page]
                await asyncio.gather(
                    *(
                        azure_tables.delete_entities(
                            self.row_results, rows[start : start + ROWS_PER_BATCH]
                        )
                        for start in range(0, len(rows), ROWS_PER_BATCH)
                    )
                )
            # Last, so that a deletion that breaks off before is found and repeated.
            await self.deliveries.delete_entity(partition, row)
        return True

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

    async def count_mirrored(self, id_: str) -> int:
        async with translate_storage_errors():
            entities = self.row_results.query_entities(
                "PartitionKey eq @delivery", parameters={"delivery": id_}, select=["RowKey"]
            )
            return len({parse_row_resource(entity["RowKey"]) async for entity in entities})

    async def _read_subscription(self, sender: str, subscription: str) -> TableEntity | None:
        keys = delivery_entity.hash_key(sender), delivery_entity.hash_key(subscription)
        async with translate_storage_errors():
            try:
                return await self.subscriptions.get_entity(*keys)
            except ResourceNotFoundError:
                return None


def _build_merge(id_: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    partition, row = build_delivery_key(id_)
    keys = {"PartitionKey": partition, "RowKey": row}
    return {**keys, **delivery_entity.to_changes(changes)}


async def open_journal(blobs: BlobServiceClient, tables: TableServiceClient) -> AzureJournal:
    """Return the journal of a storage account. Create its container and tables if missing."""
    open_tables = (azure_tables.open_table(tables, name) for name in TABLES)
    container, found = await asyncio.gather(
        azure_blobs.open_container(blobs), asyncio.gather(*open_tables)
    )
    return AzureJournal(container, *found)


def build_journal(blobs: BlobServiceClient, tables: TableServiceClient) -> AzureJournal:
    """Return the same journal, and ask storage for nothing: whoever only reads creates nothing."""
    container = blobs.get_container_client(azure_blobs.CONTAINER)
    return AzureJournal(container, *(tables.get_table_client(name) for name in TABLES))
