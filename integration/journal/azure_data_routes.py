"""The chosen data routes in an Azure table: one partition, a row for each resource type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.journal.azure_errors import storage_errors

TABLE = "routes"

_PARTITION = "route"


@dataclass(frozen=True, slots=True)
class AzureRoutes:
    """See integration.journal.data_routes.KeptRoutes for what each method promises."""

    table: TableClient

    async def all(self) -> Mapping[str, str]:
        async with storage_errors():
            found = self.table.query_entities(f"PartitionKey eq '{_PARTITION}'")
            return {entity["RowKey"]: entity["route"] async for entity in found}

    async def choose(self, type_: str, route: str) -> None:
        entity = {"PartitionKey": _PARTITION, "RowKey": type_, "route": route}
        async with storage_errors():
            await self.table.upsert_entity(entity, mode=UpdateMode.REPLACE)
