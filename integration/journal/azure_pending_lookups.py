"""The pending lookups in an Azure table: two partitions for each resource that is referred to, one
for those that wait for its row and one for those that point at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.journal.azure_errors import translate_storage_errors
from integration.journal.pending_lookups import LookupState

TABLE = "pendinglookups"

# The most entities of one answer: https://learn.microsoft.com/rest/api/storageservices/query-timeout-and-pagination
_MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class AzurePendingLookups:
    """See integration.journal.pending_lookups.PendingLookups for the contract of each method."""

    table: TableClient

    async def add(self, target: str, resource: str, state: LookupState) -> None:
        entity = {"PartitionKey": _encode_target(target, state), "RowKey": _encode_key(resource)}
        async with translate_storage_errors():
            await self.table.upsert_entity(entity, mode=UpdateMode.REPLACE)

    async def list_resources(self, target: str, state: LookupState) -> Sequence[str]:
        async with translate_storage_errors():
            pages = self.table.query_entities(
                "PartitionKey eq @target",
                parameters={"target": _encode_target(target, state)},
                results_per_page=_MAX_PAGE,
            ).by_page()
            # A page may be empty, and still not be the last one.
            async for page in pages:
                found = [entity["RowKey"].replace("|", "/") async for entity in page]
                if found:
                    return found
        return ()

    async def remove(self, target: str, resource: str, state: LookupState) -> None:
        async with translate_storage_errors():
            await self.table.delete_entity(_encode_target(target, state), _encode_key(resource))


def _encode_target(target: str, state: LookupState) -> str:
    return f"{state}|{_encode_key(target)}"


def _encode_key(resource: str) -> str:
    """Return `Type/id` as a key: it may hold no slash, and no id holds a bar."""
    return resource.replace("/", "|")
