"""What the tables of Azure Storage have in common."""

from __future__ import annotations

from typing import Any

from azure.core import MatchConditions
from azure.data.tables import TableEntity
from azure.data.tables.aio import TableClient, TableServiceClient

from integration.journal.azure_errors import translate_storage_errors

# The SDK repeats no POST or PATCH whose answer was lost, since it cannot know that ours may be:
# an insert that happened says "exists", a merge sets the same values again.
RETRY_WRITES: Any = {"retry_on_methods": frozenset({"GET", "POST", "PATCH", "PUT", "DELETE"})}


async def open_table(tables: TableServiceClient, name: str) -> TableClient:
    """The table, made where it is not. Raises Unavailable or Misconfigured."""
    async with translate_storage_errors():
        return await tables.create_table_if_not_exists(name)


def match_etag(entity: TableEntity) -> dict[str, Any]:
    """Write only what nobody has written since it was read."""
    return {
        "etag": entity.metadata["etag"],
        "match_condition": MatchConditions.IfNotModified,
    }
