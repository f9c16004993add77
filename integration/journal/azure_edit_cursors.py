"""How far the edits of each table were followed, as rows beside the index of open deliveries.

They have a partition of their own there, as the last run of housekeeping has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from azure.core import MatchConditions
from azure.core.exceptions import (
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.journal.azure_errors import translate_storage_errors
from integration.journal.edit_cursors import EditCursor, Stage

TABLE = "opendeliveries"

_PARTITION = "edits"


@dataclass(frozen=True, slots=True)
class AzureEditCursors:
    """See integration.journal.edit_cursors for the contract of each method."""

    table: TableClient

    async def read(self, table: str) -> EditCursor:
        async with translate_storage_errors():
            try:
                entity = await self.table.get_entity(_PARTITION, table)
            except ResourceNotFoundError:
                return EditCursor(table=table)
        return EditCursor(
            table=table,
            link=str(entity["link"]),
            stage=Stage(entity["stage"]),
            columns=str(entity["columns"]),
            etag=entity.metadata["etag"],
        )

    async def save(self, cursor: EditCursor) -> EditCursor | None:
        entity = {
            "PartitionKey": _PARTITION,
            "RowKey": cursor.table,
            "link": cursor.link,
            "stage": str(cursor.stage),
            "columns": cursor.columns,
        }
        async with translate_storage_errors():
            try:
                if cursor.etag is None:
                    answer = await self.table.create_entity(entity)
                else:
                    answer = await self.table.update_entity(
                        entity,
                        mode=UpdateMode.REPLACE,
                        etag=cursor.etag,
                        match_condition=MatchConditions.IfNotModified,
                    )
            except (ResourceExistsError, ResourceModifiedError):
                return None
        return replace(cursor, etag=answer["etag"])
