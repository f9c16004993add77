"""The guard store in a table of Azure Storage.

The claims are in one partition, the locks in sixteen. The locks of a large unit go in few entity
group transactions, and the account's limit is reached before that of a partition:
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

from integration.journal.azure_errors import translate_storage_errors
from integration.journal.guard_store import DIGEST_BYTES, Claim, ClaimTable, WriteLock, is_old

TABLE = "writelocks"

# The partition of the claims, and in it the row that is none.
_CLAIMS = "claims"
_NEWEST_DELETE = "newest delete"

# https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions
_MAX_ENTITIES = 100

# Rows that are read at the same time.
_MAX_CONCURRENT = 16

# How an operation of a transaction fails when another writer was quicker.
_LOST_RACE_STATUSES = (404, 409, 412)


@dataclass(frozen=True, slots=True)
class AzureGuardStore:
    """See integration.journal.guard_store.GuardStore for the contract of each method."""

    table: TableClient

    async def read(self, keys: Sequence[str]) -> dict[str, WriteLock]:
        places = asyncio.Semaphore(_MAX_CONCURRENT)

        async def read_row(key: str) -> WriteLock | None:
            async with places:
                return await self._read_row(key)

        async with translate_storage_errors():
            rows = await asyncio.gather(*map(read_row, keys))
        return {key: row for key, row in zip(keys, rows, strict=True) if row is not None}

    async def write(self, locks: Mapping[str, WriteLock]) -> dict[str, WriteLock]:
        async with translate_storage_errors():
            parts = await asyncio.gather(
                *(
                    self._write_partition({key: locks[key] for key in part})
                    for part in _split_by_partition(locks, _MAX_ENTITIES)
                )
            )
        return {key: lock for part in parts for key, lock in part.items()}

    async def delete_old(self, before: str, now: float, limit: int) -> int:
        count = 0
        async with translate_storage_errors():
            query = self.table.query_entities(
                "written_by lt @before and attempted_by lt @before", parameters={"before": before}
            )
            async for entity in query:
                if count == limit:
                    break
                if is_old(_from_entity(entity), before, now):
                    count += await self._delete(entity)
            expired = self.table.query_entities(
                "PartitionKey eq @claims and expires_at lt @now",
                parameters={"claims": _CLAIMS, "now": now},
            )
            async for entity in expired:
                count += await self._delete(entity)
        return count

    async def read_claims(self) -> ClaimTable:
        claims: dict[str, Claim] = {}
        newest_delete = ""
        async with translate_storage_errors():
            rows = self.table.query_entities(
                "PartitionKey eq @claims", parameters={"claims": _CLAIMS}
            )
            async for entity in rows:
                if entity["RowKey"] == _NEWEST_DELETE:
                    newest_delete = entity["delivery"]
                else:
                    claims[entity["RowKey"]] = _read_claim(entity)
        return ClaimTable(claims=claims, newest_delete=newest_delete)

    async def write_claim(self, unit: str, claim: Claim) -> Claim | None:
        entity = {
            "PartitionKey": _CLAIMS,
            "RowKey": unit,
            "holder": claim.holder,
            "expires_at": claim.expires_at,
            "names": b"".join(sorted(claim.names)),
        }
        etag = await self._write_row(entity, claim.etag)
        return None if etag is None else replace(claim, etag=etag)

    async def delete_claim(self, unit: str, claim: Claim) -> None:
        async with translate_storage_errors():
            try:
                await self.table.delete_entity(
                    _CLAIMS, unit, etag=claim.etag, match_condition=MatchConditions.IfNotModified
                )
            except (ResourceModifiedError, ResourceNotFoundError):
                pass  # it has expired, and another worker has it, or housekeeping has deleted it

    async def record_delete(self, delivery: str) -> None:
        entity = {"PartitionKey": _CLAIMS, "RowKey": _NEWEST_DELETE, "delivery": delivery}
        while True:
            async with translate_storage_errors():
                try:
                    current = await self.table.get_entity(_CLAIMS, _NEWEST_DELETE)
                except ResourceNotFoundError:
                    current = None
            if current is not None and current["delivery"] >= delivery:
                return
            if await self._write_row(entity, None if current is None else _get_etag(current)):
                return

    async def _write_row(self, entity: Mapping[str, Any], etag: str | None) -> str | None:
        """Write a row if nobody has written it since it was read. Return its new etag, or None."""
        async with translate_storage_errors():
            try:
                if etag is None:
                    return str((await self.table.create_entity(entity))["etag"])
                answer = await self.table.update_entity(
                    entity,
                    mode=UpdateMode.REPLACE,
                    etag=etag,
                    match_condition=MatchConditions.IfNotModified,
                )
                return str(answer["etag"])
            except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError):
                return None

    async def _delete(self, entity: Mapping[str, Any]) -> bool:
        try:
            await self.table.delete_entity(
                entity["PartitionKey"],
                entity["RowKey"],
                etag=_get_etag(entity),
                match_condition=MatchConditions.IfNotModified,
            )
        except (ResourceModifiedError, ResourceNotFoundError):
            return False  # it is in use again, or deleted
        return True

    async def _read_row(self, key: str) -> WriteLock | None:
        """Read one row by its keys: a query for several of them would scan their partition.
        https://learn.microsoft.com/azure/storage/tables/table-storage-design-for-query
        """
        try:
            return _from_entity(await self.table.get_entity(_get_partition(key), key))
        except ResourceNotFoundError:
            return None

    async def _write_partition(self, locks: Mapping[str, WriteLock]) -> dict[str, WriteLock]:
        """Write rows of one partition: all or none."""
        operations = [_build_operation(key, lock) for key, lock in locks.items()]
        try:
            if len(operations) == 1:
                answers = [await self._write_entity(*operations[0])]
            else:
                answers = list(await self.table.submit_transaction(operations))
        except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError):
            return {}
        except TableTransactionError as error:
            if error.status_code not in _LOST_RACE_STATUSES:
                raise
            return {}
        return {
            key: replace(lock, etag=answer["etag"])
            for (key, lock), answer in zip(locks.items(), answers, strict=True)
        }

    async def _write_entity(
        self, kind: str, entity: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        write = self.table.create_entity if kind == "create" else self.table.update_entity
        return await write(entity, **options)


def _build_operation(key: str, lock: WriteLock) -> tuple[str, dict[str, Any], dict[str, Any]]:
    values = {name: value for name, value in asdict(lock).items() if value is not None}
    values.pop("etag", None)
    entity = {"PartitionKey": _get_partition(key), "RowKey": key, **values}
    if lock.etag is None:
        return "create", entity, {}
    condition = {"etag": lock.etag, "match_condition": MatchConditions.IfNotModified}
    return "update", entity, {"mode": UpdateMode.REPLACE, **condition}


def _from_entity(entity: Mapping[str, Any]) -> WriteLock:
    return WriteLock(
        holder=entity["holder"],
        expires_at=entity["expires_at"],
        written_by=entity["written_by"],
        source_version=entity.get("source_version"),
        attempted_by=entity["attempted_by"],
        etag=_get_etag(entity),
    )


def _read_claim(entity: Mapping[str, Any]) -> Claim:
    names = entity["names"]
    return Claim(
        holder=entity["holder"],
        expires_at=entity["expires_at"],
        names=frozenset(names[at : at + DIGEST_BYTES] for at in range(0, len(names), DIGEST_BYTES)),
        etag=_get_etag(entity),
    )


def _get_etag(entity: Mapping[str, Any]) -> str:
    return str(entity.metadata["etag"])  # type: ignore[attr-defined]


def _get_partition(key: str) -> str:
    return key[:1]


def _split_by_partition(keys: Iterable[str], limit: int) -> Iterator[list[str]]:
    """Split into keys of one partition, up to `limit` of them."""
    for _, group in groupby(sorted(keys), _get_partition):
        part = list(group)
        for start in range(0, len(part), limit):
            yield part[start : start + limit]
