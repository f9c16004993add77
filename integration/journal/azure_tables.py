"""What all tables of the journal share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError
from azure.data.tables import TableEntity, TableTransactionError, UpdateMode
from azure.data.tables.aio import TableClient, TableServiceClient

from integration.journal.azure_errors import translate_storage_errors

# By itself the SDK does not repeat a POST or PATCH whose answer was lost. Ours may be repeated: an
# insert that happened is answered "exists", and a merge sets the same values again.
RETRY_WRITES: Any = {"retry_on_methods": frozenset({"GET", "POST", "PATCH", "PUT", "DELETE"})}

# Of one request: https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions
_MAX_ENTITIES = 100


async def open_table(tables: TableServiceClient, name: str) -> TableClient:
    """Return the table; create it if there is none. Raises Unavailable or Misconfigured."""
    async with translate_storage_errors():
        return await tables.create_table_if_not_exists(name)


def match_etag(entity: TableEntity) -> dict[str, Any]:
    """Return options that make a write fail if the entity has changed since it was read."""
    return {
        "etag": entity.metadata["etag"],
        "match_condition": MatchConditions.IfNotModified,
    }


async def delete_entities(table: TableClient, entities: Sequence[Mapping[str, Any]]) -> None:
    """Delete up to 100 entities of one partition in one request. What another instance is deleting
    at the same time is deleted one by one."""
    try:
        await table.submit_transaction([("delete", entity) for entity in entities])
    except (ResourceNotFoundError, TableTransactionError) as error:
        if error.status_code != 404:
            raise
        for entity in entities:  # of one that is not there the SDK says nothing
            await table.delete_entity(entity["PartitionKey"], entity["RowKey"])


async def merge_entities(
    table: TableClient, merges: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> list[bool]:
    """Merge entities, each with the options of its write, such as those of `match_etag`. Return for
    each whether its row was there and met the condition. Raises Unavailable or Misconfigured.

    A hundred of one partition go in one request, which is done as a whole or not at all. Where one
    of them does not meet its condition, they are merged one by one:
    https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions
    """
    merged: list[bool] = []
    for _, group in groupby(merges, lambda merge: merge[0]["PartitionKey"]):
        part = list(group)
        for start in range(0, len(part), _MAX_ENTITIES):
            merged += await _merge_part(table, part[start : start + _MAX_ENTITIES])
    return merged


async def _merge_part(
    table: TableClient, part: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> list[bool]:
    operations = [
        ("update", entity, {"mode": UpdateMode.MERGE, **options}) for entity, options in part
    ]
    async with translate_storage_errors():
        try:
            await table.submit_transaction(operations, **RETRY_WRITES)
        except (TableTransactionError, ResourceModifiedError, ResourceNotFoundError) as error:
            if error.status_code not in (404, 412):
                raise
        else:
            return [True] * len(part)
    return list(await asyncio.gather(*(_merge(table, *merge) for merge in part)))


async def _merge(table: TableClient, entity: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    async with translate_storage_errors():
        try:
            await table.update_entity(entity, mode=UpdateMode.MERGE, **options, **RETRY_WRITES)
        except (ResourceModifiedError, ResourceNotFoundError):
            return False
    return True
