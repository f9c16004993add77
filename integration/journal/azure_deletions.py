"""The deletions in an Azure table: one partition for each resource."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import (
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.core.state_version import StateVersion
from integration.journal.azure_errors import translate_storage_errors
from integration.journal.deletions import is_recorded_later

TABLE = "deletions"

_ROW = "deletion"


@dataclass(frozen=True, slots=True)
class AzureDeletions:
    """See integration.journal.deletions.Deletions for the contract of each method."""

    table: TableClient

    async def record(self, resource: str, deletion: StateVersion) -> None:
        entity = {
            "PartitionKey": _encode_key(resource),
            "RowKey": _ROW,
            "version": deletion.id or "",
            "updated": deletion.updated or "",
        }
        async with translate_storage_errors():
            while True:
                known = await self._get(resource)
                if known is not None and is_recorded_later(deletion, _parse(known)):
                    return
                try:
                    if known is None:
                        await self.table.create_entity(entity)
                    else:
                        await self.table.update_entity(
                            entity,
                            mode=UpdateMode.REPLACE,
                            etag=known.metadata["etag"],
                            match_condition=MatchConditions.IfNotModified,
                        )
                except (ResourceExistsError, ResourceModifiedError):
                    continue  # another worker was quicker
                return

    async def find(self, resource: str) -> StateVersion | None:
        async with translate_storage_errors():
            known = await self._get(resource)
        return None if known is None else _parse(known)

    async def forget(self, resource: str, deletion: StateVersion) -> None:
        async with translate_storage_errors():
            known = await self._get(resource)
            if known is None or _parse(known) != deletion:
                return
            with suppress(ResourceModifiedError, ResourceNotFoundError):  # it is a later one by now
                await self.table.delete_entity(
                    _encode_key(resource),
                    _ROW,
                    etag=known.metadata["etag"],
                    match_condition=MatchConditions.IfNotModified,
                )

    async def _get(self, resource: str) -> Any:
        """Return the row of a resource; None when there is none."""
        try:
            return await self.table.get_entity(_encode_key(resource), _ROW)
        except ResourceNotFoundError:
            return None


def _parse(entity: Mapping[str, Any]) -> StateVersion:
    return StateVersion(
        id=entity["version"] or None, updated=entity["updated"] or None, is_deleted=True
    )


def _encode_key(resource: str) -> str:
    """Return `Type/id` as a key: it may hold no slash, and no id holds a bar."""
    return resource.replace("/", "|")
