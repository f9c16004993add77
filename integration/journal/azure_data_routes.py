"""The data routes in an Azure table: one partition, one row for each resource type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.journal.azure_errors import translate_storage_errors
from integration.journal.data_routes import ChosenRoute

TABLE = "dataroutes"

_PARTITION = "route"


@dataclass(frozen=True, slots=True)
class AzureDataRouteStore:
    """See integration.journal.data_routes.DataRouteStore for the contract of each method."""

    table: TableClient

    async def list_routes(self) -> Mapping[str, ChosenRoute]:
        async with translate_storage_errors():
            found = self.table.query_entities(f"PartitionKey eq '{_PARTITION}'")
            return {entity["RowKey"]: _parse_chosen(entity) async for entity in found}

    async def set_route(self, type_: str, chosen: ChosenRoute) -> None:
        entity: dict[str, Any] = {"PartitionKey": _PARTITION, "RowKey": type_}
        entity["route"] = chosen.route
        if chosen.changed_by is not None:
            entity["changed_by"] = chosen.changed_by
        if chosen.changed is not None:
            entity["changed"] = chosen.changed
        async with translate_storage_errors():
            await self.table.upsert_entity(entity, mode=UpdateMode.REPLACE)


def _parse_chosen(entity: Mapping[str, Any]) -> ChosenRoute:
    changed = entity.get("changed")
    # The SDK has a subclass of datetime of its own.
    moment = None if changed is None else datetime.fromisoformat(changed.isoformat())
    return ChosenRoute(entity["route"], entity.get("changed_by"), moment)
