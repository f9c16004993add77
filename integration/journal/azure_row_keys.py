"""The keys of rows in an Azure table: one partition for each resource type and direction."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from azure.core import MatchConditions
from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError
from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.journal.azure_errors import translate_storage_errors
from integration.journal.azure_tables import RETRY_WRITES
from integration.journal.row_keys import RecordedRow

TABLE = "rowkeys"

T = TypeVar("T")

# https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions
_MAX_ENTITIES = 100

# Reads that run at the same time.
_MAX_CONCURRENT = 16

# The characters of an id or a GUID: they need no quoting. https://hl7.org/fhir/R4/datatypes.html#id
_NAME = re.compile(r"[A-Za-z0-9\-.]{1,64}")


@dataclass(frozen=True, slots=True)
class AzureRowKeys:
    """See integration.journal.row_keys.RowKeys for the contract of each method."""

    table: TableClient

    async def add(self, type_: str, keys: Mapping[str, str]) -> None:
        # Reverse first: a key that a client has seen must lead to its resource.
        await self.add_reverse(type_, keys)
        await self._upsert([_to_entity(type_, "id", id_, key) for id_, key in keys.items()])

    async def add_reverse(self, type_: str, keys: Mapping[str, str]) -> None:
        # One entity for each key: a transaction may not name one twice.
        ids = {key: id_ for id_, key in keys.items()}
        await self._upsert([_to_entity(type_, "key", key, id_) for key, id_ in ids.items()])

    async def find_keys(self, type_: str, ids: Collection[str]) -> Mapping[str, str]:
        return await self._find(f"{type_}|id", ids)

    async def find_ids(self, type_: str, keys: Collection[str]) -> Mapping[str, str]:
        return await self._find(f"{type_}|key", keys)

    async def read(self, type_: str, id_: str) -> RecordedRow:
        async with translate_storage_errors():
            try:
                entity = await self.table.get_entity(f"{type_}|id", id_)
            except ResourceNotFoundError:
                return RecordedRow()
        return RecordedRow(
            entity.get("value"), entity.get("concern") or None, entity.metadata["etag"]
        )

    async def name_concern(self, type_: str, id_: str, concern: str) -> None:
        entity = {"PartitionKey": f"{type_}|id", "RowKey": id_, "concern": concern}
        async with translate_storage_errors():
            await self.table.upsert_entity(entity, mode=UpdateMode.MERGE, **RETRY_WRITES)

    async def unname_concern(self, type_: str, id_: str, seen: RecordedRow) -> bool:
        keys = {"PartitionKey": f"{type_}|id", "RowKey": id_}
        unchanged: Any = {"etag": seen.etag, "match_condition": MatchConditions.IfNotModified}
        async with translate_storage_errors():
            try:
                if seen.key is None:
                    await self.table.delete_entity(f"{type_}|id", id_, **unchanged)
                else:
                    await self.table.update_entity(
                        {**keys, "concern": ""}, mode=UpdateMode.MERGE, **unchanged
                    )
            except (ResourceModifiedError, ResourceNotFoundError):
                return False
        return True

    async def _upsert(self, entities: Sequence[Mapping[str, str]]) -> None:
        async with translate_storage_errors():
            await asyncio.gather(*map(self._upsert_part, _split(entities, _MAX_ENTITIES)))

    async def _upsert_part(self, entities: Sequence[Mapping[str, str]]) -> None:
        if len(entities) == 1:
            await self.table.upsert_entity(dict(entities[0]), mode=UpdateMode.MERGE)
        else:
            options = {"mode": UpdateMode.MERGE}  # the concern of a row stays
            await self.table.submit_transaction([("upsert", dict(e), options) for e in entities])

    async def _find(self, partition: str, names: Collection[str]) -> Mapping[str, str]:
        """Read each name by its point: names joined by `or` would be a scan of the partition.

        https://learn.microsoft.com/azure/storage/tables/table-storage-design-for-query
        """
        legal = [name for name in dict.fromkeys(names) if _NAME.fullmatch(name)]
        semaphore = asyncio.Semaphore(_MAX_CONCURRENT)

        async def read(name: str) -> str | None:
            async with semaphore:
                try:
                    return (await self.table.get_entity(partition, name)).get("value")
                except ResourceNotFoundError:
                    return None

        async with translate_storage_errors():
            values = await asyncio.gather(*map(read, legal))
        return {name: value for name, value in zip(legal, values, strict=True) if value is not None}


def _to_entity(type_: str, direction: str, name: str, value: str) -> dict[str, str]:
    return {"PartitionKey": f"{type_}|{direction}", "RowKey": name, "value": value}


def _split(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
