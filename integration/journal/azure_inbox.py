"""The inbox in blobs: a container of files, and one of answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import (
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import ContentSettings
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from integration.journal.azure_errors import translate_storage_errors
from integration.journal.inbox_files import ANSWERS, InboxFile

# How the Blob service shows a folder of an account with a hierarchical namespace:
# https://learn.microsoft.com/azure/storage/blobs/data-lake-storage-known-issues
_IS_FOLDER = "hdi_isfolder"

_JSON = ContentSettings(content_type="application/fhir+json")


@dataclass(frozen=True, slots=True)
class AzureInboxFiles:
    """See integration.journal.inbox_files.InboxFiles for the contract of each method."""

    files: ContainerClient
    answers: ContainerClient

    async def find(self, name: str) -> InboxFile | None:
        async with translate_storage_errors():
            try:
                properties = await self.files.get_blob_client(name).get_blob_properties()
            except ResourceNotFoundError:
                return None
        return _build_file(properties)

    async def read(self, file: InboxFile) -> bytes | None:
        blob = self.files.get_blob_client(file.name)
        async with translate_storage_errors():
            try:
                # Of a large blob, the SDK asks for each part under the same condition.
                download = await blob.download_blob(**_build_condition(file))
                content: bytes = await download.readall()
                return content
            except (ResourceNotFoundError, ResourceModifiedError):
                return None

    async def delete(self, file: InboxFile) -> bool:
        blob = self.files.get_blob_client(file.name)
        async with translate_storage_errors():
            try:
                await blob.delete_blob(delete_snapshots="include", **_build_condition(file))
            except (ResourceNotFoundError, ResourceModifiedError):
                return False
        return True

    async def list_files(self, folder: str) -> AsyncIterator[InboxFile]:
        async with translate_storage_errors():
            listing = self.files.list_blobs(name_starts_with=f"{folder}/", include=["metadata"])
            async for properties in listing:
                file = _build_file(properties)
                if file is not None:
                    yield file

    async def write_answer(self, name: str, body: bytes) -> None:
        async with translate_storage_errors():
            await self.answers.upload_blob(name, body, overwrite=True, content_settings=_JSON)


async def open_inbox(blobs: BlobServiceClient, container: str) -> AzureInboxFiles:
    """Return the inbox; create its containers if they are not there.

    Raises Unavailable or Misconfigured.
    """
    containers = [blobs.get_container_client(name) for name in (container, ANSWERS)]
    for client in containers:
        async with translate_storage_errors():
            # Asked first: in Azure the app has a role on each container, and may make none.
            if await client.exists():
                continue
            try:
                await client.create_container()
            except ResourceExistsError:
                pass  # another worker was faster
    return AzureInboxFiles(*containers)


def _build_file(properties: Any) -> InboxFile | None:
    if (properties.metadata or {}).get(_IS_FOLDER) == "true":
        return None
    return InboxFile(
        name=properties.name,
        etag=properties.etag,
        size=properties.size,
        modified=properties.last_modified,
    )


def _build_condition(file: InboxFile) -> dict[str, Any]:
    return {"etag": file.etag, "match_condition": MatchConditions.IfNotModified}
