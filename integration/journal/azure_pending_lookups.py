"""The pending lookups in an Azure table: one partition for each resource that is waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.core.model import WorkItem
from integration.journal.azure_errors import translate_storage_errors

TABLE = "pendinglookups"

# The most entities of one answer: https://learn.microsoft.com/rest/api/storageservices/query-timeout-and-pagination
_MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class AzurePendingLookups:
    """See integration.journal.pending_lookups.PendingLookups for the contract of each method."""

    table: TableClient

    async def add(self, target: str, item: WorkItem) -> None:
        entity = {
            "PartitionKey": _encode_key(target),
            "RowKey": _encode_key(item.resource or ""),
            "delivery": item.delivery,
        }
        async with translate_storage_errors():
            await self.table.upsert_entity(entity, mode=UpdateMode.REPLACE)

    async def list_waiting(self, target: str) -> Sequence[WorkItem]:
        found: list[WorkItem] = []
        async with translate_storage_errors():
            pages = self.table.query_entities(
                "PartitionKey eq @target",
                parameters={"target": _encode_key(target)},
                results_per_page=_MAX_PAGE,
            ).by_page()
            async for page in pages:
                async for entity in page:
                    resource = entity["RowKey"].replace("|", "/")
                    found.append(WorkItem(entity["delivery"], resource=resource))
                break
        return found

    async def remove(self, target: str, item: WorkItem) -> None:
        async with translate_storage_errors():
            await self.table.delete_entity(_encode_key(target), _encode_key(item.resource or ""))


def _encode_key(resource: str) -> str:
    """Return `Type/id` as a key: it may hold no slash, and no id holds a bar."""
    return resource.replace("/", "|")
