"""What the logs in tables share: each day is a partition, and within it the newest row comes first.

https://learn.microsoft.com/azure/storage/tables/table-storage-design-patterns#log-tail-pattern
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any, TypeVar

from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables import TableTransactionError
from azure.data.tables.aio import TableClient

from integration.journal.azure_errors import translate_storage_errors
from integration.journal.table_keys import (
    build_activity_key,
    get_day_partition,
    parse_activity_time,
)

Row = TypeVar("Row")

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


@dataclass(slots=True)
class DayQuery:
    """The OData filter of a list, newest first, and its parameters, which the SDK quotes.

    The SDK finds parameters between spaces, so there is one beside each bracket. A table takes 15
    comparisons: https://learn.microsoft.com/rest/api/storageservices/querying-tables-and-entities
    """

    conditions: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)

    def add(self, condition: str, *values: Any) -> None:
        """Add a condition, with a value for each `?` in it."""
        for value in values:
            name = f"p{len(self.parameters)}"
            condition = condition.replace("?", f"@{name}", 1)
            self.parameters[name] = value
        self.conditions.append(condition)

    @property
    def text(self) -> str:
        """The filter."""
        return " and ".join(self.conditions)


def build_day_query(
    since: datetime | None, until: datetime | None, last: str | None = None
) -> DayQuery:
    """Return the query of the rows between two times, and behind the row with the key `last`."""
    query = DayQuery()
    if last is not None:
        day = get_day_partition(parse_activity_time(last))
        query.add("PartitionKey ge ? and RowKey gt ?", day, last)
    elif until is not None:
        query.add("PartitionKey ge ? and RowKey ge ?", *build_activity_key(until, None))
    else:
        query.add("PartitionKey ge ?", "")
    if since is not None:
        day, row = build_activity_key(since, None)
        query.add("PartitionKey le ? and RowKey le ?", day, f"{row}~")
    return query


async def read_rows(
    table: TableClient,
    query: DayQuery,
    token: Any,
    limit: int,
    parse: Callable[[Mapping[str, Any]], Row | None],
    *,
    page_size: int | None = None,
) -> tuple[list[Row], Any]:
    """Return up to `limit` rows for which `parse` returns something, and the table's continuation
    token; None: there are no more. Rows may be fewer, or none, and have more behind them.

    `page_size`: rows that the table is asked for at once, where `parse` drops many; there may then
    be more than `limit`.
    """
    found: list[Row] = []
    async with translate_storage_errors():
        for _ in range(MAX_REQUESTS):
            pages = table.query_entities(
                query.text,
                parameters=query.parameters,
                results_per_page=page_size or min(limit - len(found), MAX_PAGE),
            ).by_page(token)
            async for page in pages:
                parsed = [parse(entity) async for entity in page]
                found += [row for row in parsed if row is not None]
                break
            token = pages.continuation_token  # type: ignore[attr-defined]
            if not token or len(found) >= limit:
                break
    return found, token


def encode_position(position: Mapping[str, str | None]) -> str:
    """Return where a list goes on, such as the table's continuation token, as text for a URL."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def decode_position(after: str) -> dict[str, str | None]:
    """Return what `encode_position` was given. Raises ValueError for any other text."""
    position = json.loads(base64.b64decode(after.encode(), altchars=b"-_", validate=True))
    if not isinstance(position, dict):
        raise ValueError("no page has returned this position")
    return position


def decode_continuation(after: str) -> dict[str, str | None]:
    """Return the continuation token of which `encode_position` made a text. Raises ValueError."""
    position = decode_position(after)
    if not is_continuation(position):
        raise ValueError("no page has returned this position")
    return position


def is_continuation(position: Mapping[str, str | None]) -> bool:
    """Whether it is a continuation token of the table."""
    return position.keys() == {"PartitionKey", "RowKey"}
