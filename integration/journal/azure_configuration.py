"""The configuration in a table and a container of Azure Storage.

A row for each version, in one partition, the newest first: the version in use is its first row. A
version is added only if no row has its number, so of two people who publish at once one is told.
Documents are blobs with their digests as names, and are never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from azure.core import MatchConditions
from azure.core.exceptions import (
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient, TableServiceClient
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from integration.journal.azure_errors import translate_storage_errors
from integration.journal.azure_tables import RETRY_WRITES, open_table
from integration.journal.configuration import (
    ConfigurationVersion,
    Draft,
    bound_version,
    compute_digest,
)
from integration.journal.table_keys import is_audit_id

TABLE = "configuration"
CONTAINER = "configuration"

_VERSIONS, _DRAFTS = "version", "draft"

# A later version has a lower key.
_LAST_NUMBER = 9_999_999_999

_documents_decoder = msgspec.json.Decoder(dict[str, str])
_changes_decoder = msgspec.json.Decoder(dict[str, str | None])


@dataclass(frozen=True, slots=True)
class AzureConfigurationStore:
    """See integration.journal.configuration.ConfigurationStore for the contract of each method."""

    table: TableClient
    container: ContainerClient

    async def read_latest(self) -> ConfigurationVersion:
        found = await self.list_versions(1, None)
        return found[0] if found else ConfigurationVersion()

    async def read_version(self, number: int) -> ConfigurationVersion | None:
        if number == 0:
            return ConfigurationVersion()
        async with translate_storage_errors():
            try:
                entity = await self.table.get_entity(_VERSIONS, _build_key(number))
            except ResourceNotFoundError:
                return None
        return _parse_version(entity)

    async def list_versions(self, limit: int, before: int | None) -> Sequence[ConfigurationVersion]:
        last = "" if before is None else f" and RowKey gt '{_build_key(before)}'"
        query = f"PartitionKey eq '{_VERSIONS}'{last}"
        found: list[ConfigurationVersion] = []
        async with translate_storage_errors():
            try:
                async for entity in self.table.query_entities(query, results_per_page=limit):
                    found.append(_parse_version(entity))
                    if len(found) == limit:
                        break
            except ResourceNotFoundError:
                pass  # the table: nothing was ever published here
        return found

    async def add_version(self, version: ConfigurationVersion) -> bool:
        version = bound_version(version)
        entity = {
            "PartitionKey": _VERSIONS,
            "RowKey": _build_key(version.number),
            "documents": msgspec.json.encode(dict(version.documents)).decode(),
            "published": version.published,
            "published_by": version.published_by,
            "why": version.why,
            "restores": version.restores,
        }
        given = {name: value for name, value in entity.items() if value is not None}
        async with translate_storage_errors():
            try:
                await self.table.create_entity(given)
            except ResourceExistsError:
                # An answer that was lost, or somebody else was faster.
                return await self.read_version(version.number) == version
        return True

    async def add_document(self, text: str) -> str:
        digest = compute_digest(text)
        async with translate_storage_errors():
            try:
                await self.container.upload_blob(digest, text.encode())
            except ResourceExistsError:
                pass  # it has the same content, since it has the same digest
        return digest

    async def read_document(self, digest: str) -> str | None:
        async with translate_storage_errors():
            try:
                download = await self.container.download_blob(digest)
            except ResourceNotFoundError:
                return None
            data: bytes = await download.readall()
        return data.decode()

    async def save_draft(self, draft: Draft) -> Draft | None:
        entity = {
            "PartitionKey": _DRAFTS,
            "RowKey": draft.id,
            "base": draft.base,
            "changes": msgspec.json.encode(dict(draft.changes)).decode(),
            "saved": draft.saved,
            "saved_by": draft.saved_by,
        }
        async with translate_storage_errors():
            try:
                if draft.etag is None:
                    saved = await self.table.create_entity(entity)
                else:
                    saved = await self.table.update_entity(
                        entity,
                        mode=UpdateMode.REPLACE,
                        etag=draft.etag,
                        match_condition=MatchConditions.IfNotModified,
                    )
            except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError):
                return None
        return replace(draft, etag=str(saved["etag"]))

    async def read_draft(self, id_: str) -> Draft | None:
        if not is_audit_id(id_):
            return None
        async with translate_storage_errors():
            try:
                return _parse_draft(await self.table.get_entity(_DRAFTS, id_))
            except ResourceNotFoundError:
                return None

    async def list_drafts(self) -> Sequence[Draft]:
        async with translate_storage_errors():
            rows = self.table.query_entities(f"PartitionKey eq '{_DRAFTS}'")
            return [_parse_draft(entity) async for entity in rows]

    async def delete_draft(self, id_: str) -> None:
        if not is_audit_id(id_):
            return
        async with translate_storage_errors():
            # Of one that is not there the SDK says nothing.
            await self.table.delete_entity(_DRAFTS, id_, **RETRY_WRITES)


def build_configuration_store(
    blobs: BlobServiceClient, tables: TableServiceClient
) -> AzureConfigurationStore:
    """Build the store, and create nothing: for who may only look."""
    return AzureConfigurationStore(
        tables.get_table_client(TABLE), blobs.get_container_client(CONTAINER)
    )


async def open_configuration_store(
    blobs: BlobServiceClient, tables: TableServiceClient
) -> AzureConfigurationStore:
    """Open the store, and create what does not exist. Raises Unavailable or Misconfigured."""
    table = await open_table(tables, TABLE)
    container = blobs.get_container_client(CONTAINER)
    async with translate_storage_errors():
        try:
            await container.create_container()
        except ResourceExistsError:
            pass  # as at every start but the first
    return AzureConfigurationStore(table, container)


def _build_key(number: int) -> str:
    return f"{_LAST_NUMBER - number:010d}"


def _parse_version(entity: Mapping[str, Any]) -> ConfigurationVersion:
    return ConfigurationVersion(
        number=_LAST_NUMBER - int(entity["RowKey"]),
        documents=_documents_decoder.decode(entity["documents"]),
        published=_parse_time(entity.get("published")),
        published_by=entity.get("published_by", ""),
        why=entity.get("why", ""),
        restores=entity.get("restores"),
    )


def _parse_draft(entity: Mapping[str, Any]) -> Draft:
    saved = _parse_time(entity["saved"])
    assert saved is not None, "a draft is never saved without its time"
    return Draft(
        id=entity["RowKey"],
        base=entity["base"],
        changes=_changes_decoder.decode(entity["changes"]),
        saved=saved,
        saved_by=entity.get("saved_by", ""),
        etag=getattr(entity, "metadata", {}).get("etag"),
    )


def _parse_time(value: Any) -> datetime | None:
    # The SDK has a subclass of datetime of its own.
    return None if value is None else datetime.fromisoformat(value.isoformat())
