"""The waits in an Azure table: a partition for each resource that is waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.core.model import WorkItem
from integration.journal.azure_errors import storage_errors

TABLE = "waits"

# What one request tells at most: https://learn.microsoft.com/rest/api/storageservices/query-timeout-and-pagination
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class AzureWaits:
    """See integration.journal.waits.Waits for what each method promises."""

    table: TableClient

    async def add(self, target: str, claim: WorkItem) -> None:
        entity = {
            "PartitionKey": _key(target),
            "RowKey": _key(claim.resource or ""),
            "delivery": claim.delivery,
        }
        async with storage_errors():
            await self.table.upsert_entity(entity, mode=UpdateMode.REPLACE)

    async def of(self, target: str) -> Sequence[WorkItem]:
        found: list[WorkItem] = []
        async with storage_errors():
            pages = self.table.query_entities(
                "PartitionKey eq @target",
                parameters={"target": _key(target)},
                results_per_page=_PAGE,
            ).by_page()
            async for page in pages:
                async for entity in page:
                    resource = entity["RowKey"].replace("|", "/")
                    found.append(WorkItem(entity["delivery"], resource=resource))
                break
        return found

    async def remove(self, target: str, claim: WorkItem) -> None:
        async with storage_errors():
            await self.table.delete_entity(_key(target), _key(claim.resource or ""))


def _key(resource: str) -> str:
    """Type/id: a key of a table holds no slash, and no id holds a bar."""
    return resource.replace("/", "|")
