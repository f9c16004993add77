"""The due days in an Azure table: one partition for each day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.journal.azure_errors import translate_storage_errors
from integration.journal.due_days import DueResource

TABLE = "duedays"

# The most entities of one answer: https://learn.microsoft.com/rest/api/storageservices/query-timeout-and-pagination
_MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class AzureDueDays:
    """See integration.journal.due_days.DueDays for the contract of each method."""

    table: TableClient

    async def add(self, due: DueResource) -> None:
        day, resource = _encode_keys(due)
        async with translate_storage_errors():
            await self.table.upsert_entity(
                {"PartitionKey": day, "RowKey": resource}, mode=UpdateMode.REPLACE
            )

    async def list_due(self, until: date, limit: int) -> Sequence[DueResource]:
        found: list[DueResource] = []
        async with translate_storage_errors():
            # The partitions are in the order of their days, so none is read that is not due.
            async for entity in self.table.query_entities(
                "PartitionKey le @until",
                parameters={"until": until.isoformat()},
                results_per_page=min(limit, _MAX_PAGE),
            ):
                day = date.fromisoformat(entity["PartitionKey"])
                found.append(DueResource(day, entity["RowKey"].replace("|", "/")))
                if len(found) == limit:
                    break
        return found

    async def remove(self, due: DueResource) -> None:
        async with translate_storage_errors():
            await self.table.delete_entity(*_encode_keys(due))


def _encode_keys(due: DueResource) -> tuple[str, str]:
    """Return both keys: a key may hold no slash, and no id holds a bar."""
    return due.day.isoformat(), due.resource.replace("/", "|")
