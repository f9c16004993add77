"""Signing keys in an Azure table: a row for each."""

from __future__ import annotations

from dataclasses import dataclass

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.data.tables.aio import TableClient

from integration.journal.azure_errors import translate_storage_errors
from integration.journal.azure_tables import RETRY_WRITES

TABLE = "signingkeys"

_PARTITION = "key"


@dataclass(frozen=True, slots=True)
class AzureSigningKeys:
    """See integration.journal.signing_keys.SigningKeys for the contract of each method."""

    table: TableClient

    async def read_or_add(self, name: str, new_key: bytes) -> bytes:
        async with translate_storage_errors():
            try:
                return await self._read(name)
            except ResourceNotFoundError:
                pass  # as at the first start
            entity = {"PartitionKey": _PARTITION, "RowKey": name, "value": new_key.hex()}
            try:
                await self.table.create_entity(entity, **RETRY_WRITES)
            except ResourceExistsError:
                return await self._read(name)  # another worker was quicker
        return new_key

    async def _read(self, name: str) -> bytes:
        return bytes.fromhex((await self.table.get_entity(_PARTITION, name))["value"])
