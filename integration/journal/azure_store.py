"""The journal on Azure Storage: bytes and outcomes in blobs, the list of deliveries in tables.

Tables and queues hold ids, counts and states; whatever a patient could be known by is in blobs.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
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
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from integration.journal import entities
from integration.journal.keys import (
    days_between,
    delivery_key,
    is_between,
    older_than,
    row_key,
)
from integration.journal.store import NO_LANE, Kept, Page, first_of_each
from integration.model import Delivery, Outcome, Received, RowOutcome, Status
from integration.storage_errors import storage_errors

CONTAINER = "deliveries"
TABLES = ("deliveries", "deliverykeys", "rows", "subscriptions")

# https://learn.microsoft.com/rest/api/storageservices/append-block: 4 MiB in older versions
_BLOCK = 4 * 1024 * 1024

# The SDK repeats no POST or PATCH whose answer was lost, since it cannot know that ours may be:
# an insert that happened says "exists", a merge sets the same values again.
_REPEAT: Any = {"retry_on_methods": frozenset({"GET", "POST", "PATCH", "PUT", "DELETE"})}

_outcome = msgspec.json.Decoder(Outcome)
_received = msgspec.json.Decoder(Received)


@dataclass(frozen=True, slots=True)
class AzureJournal:
    """See integration.journal.store.Journal for what each method promises."""

    container: ContainerClient
    deliveries: TableClient
    keys: TableClient
    noted_rows: TableClient
    subscriptions: TableClient

    async def claim_key(self, sender: str, key: str, delivery: str) -> str:
        entity = {"PartitionKey": entities.safe(sender), "RowKey": key, "delivery": delivery}
        async with storage_errors():
            try:
                await self.keys.create_entity(entity, **_REPEAT)
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
        received = base64.b64encode(msgspec.json.encode(kept.received)).decode()
        blob = self.container.get_blob_client(f"{delivery.id}/payload")
        async with storage_errors():
            try:
                await blob.upload_blob(kept.body, metadata={"received": received})
            except ResourceExistsError:
                pass  # an earlier try kept the same bytes
            try:
                await self.deliveries.create_entity(entities.entity(delivery), **_REPEAT)
            except ResourceExistsError:
                pass  # and noted them

    async def delivery(self, id_: str) -> Delivery | None:
        partition, row = delivery_key(id_)
        async with storage_errors():
            try:
                return entities.delivery(await self.deliveries.get_entity(partition, row))
            except ResourceNotFoundError:
                return None

    async def kept(self, id_: str) -> Kept:
        async with storage_errors():
            try:
                download = await self.container.download_blob(f"{id_}/payload")
            except ResourceNotFoundError:
                raise KeyError(id_) from None
            metadata = download.properties.metadata["received"]
            received = _received.decode(base64.b64decode(metadata))
            return Kept(received, await download.readall())

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
                    unchanged = _if_unchanged(known)
                try:
                    await self.deliveries.update_entity(
                        entity, mode=UpdateMode.MERGE, **unchanged, **_REPEAT
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
        async with storage_errors():
            names = self.container.list_blob_names(name_starts_with=f"{id_}/")
            async for name in names:
                await _gone(self.container.delete_blob(name))
            rows = self.noted_rows.query_entities(
                "PartitionKey eq @delivery", parameters={"delivery": id_}, select=["RowKey"]
            )
            async for entity in rows:
                await self.noted_rows.delete_entity(id_, entity["RowKey"])
            # Last, so that what broke off before is found again.
            await self.deliveries.delete_entity(partition, row)

    async def keep_lane(self, id_: str, lane: int, data: bytes) -> None:
        async with storage_errors():
            await self.container.upload_blob(f"{id_}/lanes/{lane}", data, overwrite=True)

    async def lane(self, id_: str, lane: int) -> bytes:
        data = await self._read(f"{id_}/lanes/{lane}")
        if data is None:
            raise KeyError(f"{id_}/{lane}")
        return data

    async def keep_fetched(self, id_: str, number: int, data: bytes) -> bytes:
        async with storage_errors():
            try:
                await self.container.upload_blob(_fetched(id_, number), data)
            except ResourceExistsError:
                return await self.fetched(id_, number) or data
        return data

    async def fetched(self, id_: str, number: int) -> bytes | None:
        return await self._read(_fetched(id_, number))

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
                        await self.subscriptions.create_entity(entity, **_REPEAT)
                    else:
                        await self.subscriptions.update_entity(
                            entity,
                            mode=UpdateMode.REPLACE,
                            **_if_unchanged(known),
                            **_REPEAT,
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
                        **_if_unchanged(entity),
                        **_REPEAT,
                    )
                except ResourceModifiedError:
                    continue  # another lane was quicker
                return done.bit_count() >= int(entity["lanes"])

    async def lanes_left(self, id_: str) -> list[int]:
        async with storage_errors():
            entity = await self.deliveries.get_entity(*delivery_key(id_))
        done = int.from_bytes(entity.get("done", b""), "little")
        return [lane for lane in range(int(entity["lanes"])) if not done >> lane & 1]

    async def begin(self, id_: str, lane: int, now: float) -> float | None:
        blob = self.container.get_blob_client(_outcomes(id_, lane))
        async with storage_errors():
            try:
                await blob.create_append_blob(
                    metadata={"began": str(now)}, match_condition=MatchConditions.IfMissing
                )
            except ResourceExistsError:
                properties = await blob.get_blob_properties()
                return float(properties.metadata["began"])
        return None

    async def begun(self, id_: str) -> bool:
        async with storage_errors():
            async for name in self.container.list_blob_names(name_starts_with=f"{id_}/"):
                if name != f"{id_}/payload":
                    return True
        return False

    async def note(self, id_: str, lane: int, outcomes: Sequence[Outcome]) -> None:
        blob = self.container.get_blob_client(_outcomes(id_, lane))
        lines = [msgspec.json.encode(outcome) + b"\n" for outcome in outcomes]
        async with storage_errors():
            for block in _blocks(lines):
                await blob.append_block(block)

    async def outcomes(self, id_: str, lane: int | None = None) -> list[Outcome]:
        if lane is not None:
            names = [_outcomes(id_, lane)]
        else:
            async with storage_errors():
                listing = self.container.list_blob_names(name_starts_with=f"{id_}/outcomes/")
                names = [name async for name in listing]
        read = await asyncio.gather(*(self._read(name) for name in names))
        lines = [line for data in read if data for line in data.splitlines()]
        return first_of_each([_outcome.decode(line) for line in lines])

    async def note_row(self, outcome: RowOutcome) -> None:
        entity = {
            "PartitionKey": outcome.delivery,
            "RowKey": row_key(outcome),
            "outcome": msgspec.json.encode(outcome).decode(),
        }
        async with storage_errors():
            await self.noted_rows.upsert_entity(entity, mode=UpdateMode.REPLACE)

    async def rows(self, id_: str) -> Sequence[RowOutcome]:
        async with storage_errors():
            entities = self.noted_rows.query_entities(
                "PartitionKey eq @delivery", parameters={"delivery": id_}
            )
            return [
                msgspec.json.decode(entity["outcome"], type=RowOutcome) async for entity in entities
            ]

    async def _subscription(self, sender: str, subscription: str) -> TableEntity | None:
        keys = entities.safe(sender), entities.safe(subscription)
        async with storage_errors():
            try:
                return await self.subscriptions.get_entity(*keys)
            except ResourceNotFoundError:
                return None

    async def _read(self, name: str) -> bytes | None:
        async with storage_errors():
            try:
                return await (await self.container.download_blob(name)).readall()
            except ResourceNotFoundError:
                return None


async def opened(blobs: BlobServiceClient, tables: TableServiceClient) -> AzureJournal:
    """The journal in this storage account, its container and tables made where they are not."""
    container = blobs.get_container_client(CONTAINER)

    async def made_container() -> None:
        try:
            await container.create_container()
        except ResourceExistsError:
            pass  # as in every start but the first

    async with storage_errors():
        await asyncio.gather(
            made_container(), *(tables.create_table_if_not_exists(name) for name in TABLES)
        )
    return AzureJournal(container, *(tables.get_table_client(name) for name in TABLES))


def _outcomes(id_: str, lane: int) -> str:
    return f"{id_}/outcomes/{'none' if lane == NO_LANE else lane}"


def _fetched(id_: str, number: int) -> str:
    return f"{id_}/fetched/{number}"


def _blocks(lines: Sequence[bytes]) -> Sequence[bytes]:
    blocks: list[bytearray] = []
    for line in lines:
        if not blocks or len(blocks[-1]) + len(line) > _BLOCK:
            blocks.append(bytearray())
        blocks[-1] += line
    return [bytes(block) for block in blocks]


async def _gone(deletion: Awaitable[object]) -> None:
    try:
        await deletion
    except ResourceNotFoundError:
        pass  # another worker is at it too


def _if_unchanged(entity: TableEntity) -> dict[str, Any]:
    """Write only what nobody has written since it was read."""
    return {
        "etag": entity.metadata["etag"],
        "match_condition": MatchConditions.IfNotModified,
    }
