"""The guard store in two tables of Azure Storage.

The claims are one partition, the locks sixteen. The locks of a large unit go in few entity group
transactions, and the account's limit is reached before that of a partition:
https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions
https://learn.microsoft.com/azure/storage/tables/scalability-targets

Beside each lock is a row that housekeeping finds it by, made in the same transaction: its key
begins with the delivery that used the lock first. So old locks are a range of rows, and the others
are not read.
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
from azure.data.tables.aio import TableClient, TableServiceClient

from integration.journal.azure_errors import translate_storage_errors
from integration.journal.azure_tables import open_table
from integration.journal.guard_store import (
    DIGEST_BYTES,
    MEMORY,
    Claim,
    ClaimTable,
    WriteLock,
    is_old,
)

TABLES = ("writelocks", "writeclaims")

# Begins the key of a row that housekeeping finds a lock by. It sorts after the digests of names.
_BY_AGE = "~"

# The partition of the claims, and in it the row that is none.
_CLAIMS = "claims"
_NEWEST_DELETE = "newest delete"

# Begins the key of a row of names that were written for the first time. It sorts before the claims,
# whose keys begin with a delivery.
_WRITTEN = "!"

# https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions
_MAX_OPERATIONS = 100

# https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions
# Half of them, since a new lock has two rows.
_MAX_ENTITIES = 50

# Rows that are read at the same time.
_MAX_CONCURRENT = 16

_PARTITIONS = "0123456789abcdef"  # the first digit of a name's digest

# How an operation of a transaction fails when another writer was quicker.
_LOST_RACE_STATUSES = (404, 409, 412)


@dataclass(frozen=True, slots=True)
class AzureGuardStore:
    """See integration.journal.guard_store.GuardStore for the contract of each method."""

    table: TableClient
    claims: TableClient

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
        count = await self._delete_expired_claims(now)
        async with translate_storage_errors():
            for partition in _PARTITIONS:
                query = self.table.query_entities(
                    "PartitionKey eq @partition and RowKey ge @first and RowKey lt @last",
                    parameters={
                        "partition": partition,
                        "first": _BY_AGE,
                        "last": f"{_BY_AGE}{before}",
                    },
                )
                async for entity in query:
                    if count >= limit:
                        return count
                    count += await self._delete_if_old(entity, before, now)
        return count

    async def _delete_if_old(self, by_age: Mapping[str, Any], before: str, now: float) -> bool:
        """Delete the lock that this row leads to, if it is old. Return whether it was deleted."""
        partition, key = by_age["PartitionKey"], by_age["key"]
        lock = await self._read_row(key)
        operations: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
            ("delete", {"PartitionKey": partition, "RowKey": by_age["RowKey"]}, {})
        ]
        is_due = lock is None or is_old(lock, before, now)
        if lock is not None and is_due:
            operations.append(("delete", {"PartitionKey": partition, "RowKey": key}, _match(lock)))
        elif lock is not None:
            moved = _build_by_age(key, lock)
            if moved["RowKey"] == by_age["RowKey"]:
                return False  # its lease has not ended yet
            operations.append(("upsert", moved, {"mode": UpdateMode.REPLACE}))
        try:
            await self.table.submit_transaction(operations)
        except TableTransactionError as error:
            if error.status_code not in _LOST_RACE_STATUSES:
                raise
            return False  # it is in use again
        return lock is not None and is_due

    async def _delete_expired_claims(self, now: float) -> int:
        before = now - MEMORY
        await self._delete_forgotten(before)
        table = await self.read_claims(now)
        expired = {unit: claim for unit, claim in table.claims.items() if claim.expires_at < before}
        for unit, claim in expired.items():
            await self.delete_claim(unit, claim)
        return len(expired)

    async def _delete_forgotten(self, before: float) -> None:
        """Delete what was recorded as written before then, in batches."""
        async with translate_storage_errors():
            query = self.claims.query_entities(
                "PartitionKey eq @claims and RowKey ge @first and RowKey lt @last",
                parameters={
                    "claims": _CLAIMS,
                    "first": _WRITTEN,
                    "last": _build_written_key(before, ""),
                },
                select=["PartitionKey", "RowKey"],
            )
            async for page in query.by_page():
                keys = [(row["PartitionKey"], row["RowKey"]) async for row in page]
                for start in range(0, len(keys), _MAX_OPERATIONS):
                    await self.claims.submit_transaction(
                        ("delete", {"PartitionKey": partition, "RowKey": row})
                        for partition, row in keys[start : start + _MAX_OPERATIONS]
                    )

    async def read_claims(self, since: float) -> ClaimTable:
        claims: dict[str, Claim] = {}
        newest_delete = ""
        recent: set[bytes] = set()
        async with translate_storage_errors():
            # One range: what was written since then sorts before the claims.
            rows = self.claims.query_entities(
                "PartitionKey eq @claims and RowKey ge @first",
                parameters={"claims": _CLAIMS, "first": _build_written_key(since, "")},
            )
            async for entity in rows:
                if entity["RowKey"] == _NEWEST_DELETE:
                    newest_delete = entity["delivery"]
                elif entity["RowKey"].startswith(_WRITTEN):
                    recent.update(_split_names(entity["names"]))
                else:
                    claims[entity["RowKey"]] = _read_claim(entity)
        return ClaimTable(claims=claims, newest_delete=newest_delete, recent=frozenset(recent))

    async def write_claim(self, unit: str, claim: Claim) -> Claim | None:
        entity = {
            "PartitionKey": _CLAIMS,
            "RowKey": unit,
            "holder": claim.holder,
            "expires_at": claim.expires_at,
            "names": _join_names(claim.names),
        }
        etag = await self._write_row(entity, claim.etag)
        return None if etag is None else replace(claim, etag=etag)

    async def delete_claim(
        self, unit: str, claim: Claim, written: frozenset[bytes] = frozenset(), now: float = 0
    ) -> None:
        async with translate_storage_errors():
            try:
                if not written:
                    await self.claims.delete_entity(_CLAIMS, unit, **_match(claim))
                    return
                key = {"PartitionKey": _CLAIMS, "RowKey": unit}
                entity = _build_written(unit, written, now)
                await self.claims.submit_transaction(
                    [("upsert", entity), ("delete", key, _match(claim))]
                )
                return
            except (ResourceModifiedError, ResourceNotFoundError):
                return  # it has expired, and another worker has it, or housekeeping has deleted it
            except TableTransactionError as error:
                if error.status_code not in _LOST_RACE_STATUSES:
                    raise
        await self.record_written(unit, written, now)

    async def record_written(self, unit: str, written: frozenset[bytes], now: float) -> None:
        async with translate_storage_errors():
            if written:
                await self.claims.upsert_entity(_build_written(unit, written, now))

    async def record_delete(self, delivery: str) -> None:
        entity = {"PartitionKey": _CLAIMS, "RowKey": _NEWEST_DELETE, "delivery": delivery}
        while True:
            async with translate_storage_errors():
                try:
                    current = await self.claims.get_entity(_CLAIMS, _NEWEST_DELETE)
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
                    return str((await self.claims.create_entity(entity))["etag"])
                answer = await self.claims.update_entity(
                    entity,
                    mode=UpdateMode.REPLACE,
                    etag=etag,
                    match_condition=MatchConditions.IfNotModified,
                )
                return str(answer["etag"])
            except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError):
                return None

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
        by_age: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
            ("upsert", _build_by_age(key, lock), {"mode": UpdateMode.REPLACE})
            for key, lock in locks.items()
            if lock.etag is None
        ]
        try:
            if len(operations) == 1 and not by_age:
                ((_, entity, options),) = operations
                answers = [await self.table.update_entity(entity, **options)]
            else:
                answers = list(await self.table.submit_transaction([*operations, *by_age]))
        except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError):
            return {}
        except TableTransactionError as error:
            if error.status_code not in _LOST_RACE_STATUSES:
                raise
            return {}
        return {
            key: replace(lock, etag=answer["etag"])
            for (key, lock), answer in zip(locks.items(), answers, strict=False)
        }


def _build_operation(key: str, lock: WriteLock) -> tuple[str, dict[str, Any], dict[str, Any]]:
    values = {name: value for name, value in asdict(lock).items() if value is not None}
    values.pop("etag", None)
    entity = {"PartitionKey": _get_partition(key), "RowKey": key, **values}
    if lock.etag is None:
        return "create", entity, {}
    return "update", entity, {"mode": UpdateMode.REPLACE, **_match(lock)}


def _build_by_age(key: str, lock: WriteLock) -> dict[str, Any]:
    """Return the row by which housekeeping finds the lock when its last delivery is old."""
    newest = max(lock.written_by, lock.attempted_by.partition(" ")[0])
    return {
        "PartitionKey": _get_partition(key),
        "RowKey": f"{_BY_AGE}{newest} {key}",
        "key": key,
    }


def _match(row: WriteLock | Claim) -> dict[str, Any]:
    return {"etag": row.etag, "match_condition": MatchConditions.IfNotModified}


def _from_entity(entity: Mapping[str, Any]) -> WriteLock:
    return WriteLock(
        holder=entity["holder"],
        expires_at=entity["expires_at"],
        written_by=entity["written_by"],
        source_version=entity.get("source_version"),
        attempted_by=entity["attempted_by"],
        etag=_get_etag(entity),
    )


def _build_written_key(now: float, unit: str) -> str:
    """Return a key that sorts by time. Milliseconds since 1970 have 13 digits until 2286."""
    return f"{_WRITTEN}{round(now * 1000):015d} {unit}"


def _build_written(unit: str, written: frozenset[bytes], now: float) -> dict[str, Any]:
    return {
        "PartitionKey": _CLAIMS,
        "RowKey": _build_written_key(now, unit),
        "names": _join_names(written),
    }


def _join_names(names: Iterable[bytes]) -> bytes:
    return b"".join(sorted(names))


def _split_names(names: bytes) -> Iterator[bytes]:
    for start in range(0, len(names), DIGEST_BYTES):
        yield names[start : start + DIGEST_BYTES]


def _read_claim(entity: Mapping[str, Any]) -> Claim:
    return Claim(
        holder=entity["holder"],
        expires_at=entity["expires_at"],
        names=frozenset(_split_names(entity["names"])),
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


async def open_guard_store(tables: TableServiceClient) -> AzureGuardStore:
    """Return the guard store of a storage account. Create its tables if missing."""
    locks, claims = await asyncio.gather(*(open_table(tables, name) for name in TABLES))
    return AzureGuardStore(locks, claims)
