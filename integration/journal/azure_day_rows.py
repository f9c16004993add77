"""What the logs in tables share: each day is a partition, and within it the newest row comes first.

https://learn.microsoft.com/azure/storage/tables/table-storage-design-patterns#log-tail-pattern
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables import TableTransactionError
from azure.data.tables.aio import TableClient

from integration.journal.azure_errors import translate_storage_errors
from integration.journal.table_keys import get_day_partition

# https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions: 100
# entities and 4 MiB.
_MAX_ENTITIES = 100

# Requests that one page of a list may cost. In each, the table searches for five seconds at most:
# https://learn.microsoft.com/rest/api/storageservices/query-timeout-and-pagination
MAX_REQUESTS = 10
MAX_PAGE = 1000  # entities in one answer


def split_into_transactions(entities: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Split into what one transaction takes: entities of one partition, up to its limit."""
    for _, group in groupby(entities, lambda entity: entity["PartitionKey"]):
        part = list(group)
        for start in range(0, len(part), _MAX_ENTITIES):
            yield part[start : start + _MAX_ENTITIES]


async def delete_days_before(table: TableClient, before: datetime, limit: int) -> int:
    """Delete up to `limit` rows of the days before that of `before`. Return how many were deleted.
    Raises Unavailable or Misconfigured."""
    count = 0
    async with translate_storage_errors():
        pages = table.query_entities(
            "PartitionKey gt @day",
            parameters={"day": get_day_partition(before)},
            select=["PartitionKey", "RowKey"],
            results_per_page=MAX_PAGE,
        ).by_page()
        async for page in pages:
            for group in split_into_transactions([dict(entity) async for entity in page]):
                part = group[: limit - count]
                if not part or not await _delete(table, part):
                    return count
                count += len(part)
    return count


async def _delete(table: TableClient, entities: Sequence[Mapping[str, Any]]) -> bool:
    """Delete these entities. Return False when another instance is deleting them."""
    try:
        await table.submit_transaction([("delete", entity) for entity in entities])
    except (ResourceNotFoundError, TableTransactionError) as error:
        if error.status_code != 404:
            raise
        return False
    return True


def encode_position(position: Mapping[str, str | None]) -> str:
    """Return where a list goes on, such as the table's continuation token, as text for a URL."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def decode_position(after: str) -> dict[str, str | None]:
    """Return what `encode_position` was given. Raises ValueError for any other text."""
    position = json.loads(base64.b64decode(after.encode(), altchars=b"-_", validate=True))
    if not isinstance(position, dict):
        raise ValueError("no page has returned this position")
    return position


def is_continuation(position: Mapping[str, str | None]) -> bool:
    """Whether it is a continuation token of the table."""
    return position.keys() == {"PartitionKey", "RowKey"}
