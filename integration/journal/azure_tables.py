"""What all tables of the journal share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables import TableEntity, TableTransactionError
from azure.data.tables.aio import TableClient, TableServiceClient

from integration.journal.azure_errors import translate_storage_errors

# By itself the SDK does not repeat a POST or PATCH whose answer was lost. Ours may be repeated: an
# insert that happened is answered "exists", and a merge sets the same values again.
RETRY_WRITES: Any = {"retry_on_methods": frozenset({"GET", "POST", "PATCH", "PUT", "DELETE"})}


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
