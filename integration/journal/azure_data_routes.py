"""The data routes in an Azure table: one partition, one row for each resource type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.journal.azure_errors import translate_storage_errors

TABLE = "dataroutes"

_PARTITION = "route"


@dataclass(frozen=True, slots=True)
class AzureDataRouteStore:
    """See integration.journal.data_routes.DataRouteStore for the contract of each method."""

    table: TableClient

    async def list_routes(self) -> Mapping[str, str]:
        async with translate_storage_errors():
            found = self.table.query_entities(f"PartitionKey eq '{_PARTITION}'")
            return {entity["RowKey"]: entity["route"] async for entity in found}

    async def set_route(self, type_: str, route: str) -> None:
        entity = {"PartitionKey": _PARTITION, "RowKey": type_, "route": route}
        async with translate_storage_errors():
            await self.table.upsert_entity(entity, mode=UpdateMode.REPLACE)
