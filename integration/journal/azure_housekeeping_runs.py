"""The last run of housekeeping, as one row beside the index of open deliveries.

It has a partition of its own there: a table of one row would be one thing more to create.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.journal.azure_errors import translate_storage_errors
from integration.journal.azure_tables import RETRY_WRITES
from integration.journal.housekeeping_runs import HousekeepingRun

TABLE = "opendeliveries"

_NAMES = tuple(field.name for field in fields(HousekeepingRun))
_KEYS = {"PartitionKey": "housekeeping", "RowKey": "last"}


@dataclass(frozen=True, slots=True)
class AzureHousekeepingRuns:
    """See integration.journal.housekeeping_runs for the contract of each method."""

    table: TableClient

    async def save_last_run(self, run: HousekeepingRun) -> None:
        async with translate_storage_errors():
            await self.table.upsert_entity(
                {**_KEYS, **asdict(run)}, mode=UpdateMode.REPLACE, **RETRY_WRITES
            )

    async def get_last_run(self) -> HousekeepingRun | None:
        async with translate_storage_errors():
            try:
                return _from_entity(await self.table.get_entity(*_KEYS.values()))
            except ResourceNotFoundError:
                return None


def _from_entity(entity: Mapping[str, Any]) -> HousekeepingRun:
    # A row of an earlier or later version of this app may have fewer or more counts.
    values = {name: entity[name] for name in _NAMES if name in entity}
    for moment in ("began", "ended"):
        values[moment] = datetime.fromisoformat(values[moment].isoformat())
    return HousekeepingRun(**values)
