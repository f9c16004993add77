"""The ledger in a table of Azure Storage.

Sixteen partitions, so that the rows of a large unit go in few entity group transactions, and one
account's limit is reached before a partition's:
https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions
https://learn.microsoft.com/azure/storage/tables/scalability-targets
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import (
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.data.tables import TableTransactionError, UpdateMode
from azure.data.tables.aio import TableClient

from integration.journal.azure_errors import storage_errors
from integration.journal.guard_store import WriteLock, is_old

TABLE = "turns"

# https://learn.microsoft.com/rest/api/storageservices/querying-tables-and-entities: a filter may
# hold 15 comparisons, and a transaction 100 entities.
_COMPARISONS = 14
_ENTITIES = 100

# What an operation of a transaction fails with when another was quicker.
_LOST_RACE = (404, 409, 412)


@dataclass(frozen=True, slots=True)
class AzureGuardStore:
    """See integration.journal.guard_store.Ledger for what each method promises."""

    table: TableClient

    async def read(self, keys: Sequence[str]) -> dict[str, WriteLock]:
        async with storage_errors():
            parts = await asyncio.gather(
                *(self._some(part) for part in _together(keys, _COMPARISONS))
            )
        return {key: turn for part in parts for key, turn in part.items()}

    async def write(self, turns: Mapping[str, WriteLock]) -> dict[str, WriteLock]:
        async with storage_errors():
            parts = await asyncio.gather(
                *(
                    self._together({key: turns[key] for key in part})
                    for part in _together(turns, _ENTITIES)
                )
            )
        return {key: turn for part in parts for key, turn in part.items()}

    async def forget(self, before: str, now: float, most: int) -> int:
        count = 0
        async with storage_errors():
            query = self.table.query_entities(
                "delivery lt @before and attempted_by lt @before", parameters={"before": before}
            )
            async for entity in query:
                if count == most:
                    break
                if is_old(_turn(entity), before, now):
                    count += await self._removed(entity)
        return count

    async def _removed(self, entity: Mapping[str, Any]) -> bool:
        try:
            await self.table.delete_entity(
                entity["PartitionKey"],
                entity["RowKey"],
                etag=_etag(entity),
                match_condition=MatchConditions.IfNotModified,
            )
        except (ResourceModifiedError, ResourceNotFoundError):
            return False  # it is in use again, or gone
        return True

    async def _some(self, keys: Sequence[str]) -> dict[str, WriteLock]:
        """Of one partition."""
        if len(keys) == 1:
            try:
                entity = await self.table.get_entity(_partition(keys[0]), keys[0])
            except ResourceNotFoundError:
                return {}
            return {keys[0]: _turn(entity)}
        named = " or ".join(f"RowKey eq '{key}'" for key in keys)  # digests need no quoting
        query = f"PartitionKey eq '{_partition(keys[0])}' and ({named})"
        return {
            entity["RowKey"]: _turn(entity) async for entity in self.table.query_entities(query)
        }

    async def _together(self, turns: Mapping[str, WriteLock]) -> dict[str, WriteLock]:
        """Of one partition: all or none."""
        operations = [_operation(key, turn) for key, turn in turns.items()]
        try:
            if len(operations) == 1:
                answers = [await self._alone(*operations[0])]
            else:
                answers = list(await self.table.submit_transaction(operations))
        except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError):
            return {}
        except TableTransactionError as error:
            if error.status_code not in _LOST_RACE:
                raise
            return {}
        return {
            key: replace(turn, etag=answer["etag"])
            for (key, turn), answer in zip(turns.items(), answers, strict=True)
        }

    async def _alone(
        self, kind: str, entity: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        act = self.table.create_entity if kind == "create" else self.table.update_entity
        return await act(entity, **options)


def _operation(key: str, turn: WriteLock) -> tuple[str, dict[str, Any], dict[str, Any]]:
    values = {name: value for name, value in asdict(turn).items() if value is not None}
    values.pop("etag", None)
    entity = {"PartitionKey": _partition(key), "RowKey": key, **values}
    if turn.etag is None:
        return "create", entity, {}
    condition = {"etag": turn.etag, "match_condition": MatchConditions.IfNotModified}
    return "update", entity, {"mode": UpdateMode.REPLACE, **condition}


def _turn(entity: Mapping[str, Any]) -> WriteLock:
    return WriteLock(
        holder=entity["holder"],
        until=entity["until"],
        delivery=entity["delivery"],
        source_version=entity.get("source_version"),
        attempted_by=entity["attempted_by"],
        attempted_at=entity["attempted_at"],
        etag=_etag(entity),
    )


def _etag(entity: Mapping[str, Any]) -> str:
    return str(entity.metadata["etag"])  # type: ignore[attr-defined]


def _partition(key: str) -> str:
    return key[:1]


def _together(keys: Iterable[str], most: int) -> Iterator[list[str]]:
    """The keys of each partition, up to `most` at once."""
    for _, group in groupby(sorted(keys), _partition):
        part = list(group)
        for start in range(0, len(part), most):
            yield part[start : start + most]
