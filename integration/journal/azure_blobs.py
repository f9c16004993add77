"""What of a delivery is in blobs: whatever a patient could be known by."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

import msgspec
from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from integration.core.model import DeliveryRequest, EntryResult
from integration.journal.azure_errors import storage_errors
from integration.journal.store import NO_LANE, Kept, first_of_each

CONTAINER = "deliveries"

# https://learn.microsoft.com/rest/api/storageservices/append-block: 4 MiB in older versions
_BLOCK = 4 * 1024 * 1024

_outcome = msgspec.json.Decoder(EntryResult)
_received = msgspec.json.Decoder(DeliveryRequest)


@dataclass(frozen=True, slots=True)
class AzureBlobs:
    """See integration.journal.store.Journal for what each method promises."""

    container: ContainerClient

    async def keep_bytes(self, id_: str, kept: Kept) -> None:
        """The part of `keep` that is in blobs."""
        received = base64.b64encode(msgspec.json.encode(kept.received)).decode()
        blob = self.container.get_blob_client(f"{id_}/payload")
        async with storage_errors():
            try:
                await blob.upload_blob(kept.body, metadata={"received": received})
            except ResourceExistsError:
                pass  # an earlier try kept the same bytes

    async def kept(self, id_: str) -> Kept:
        async with storage_errors():
            try:
                download = await self.container.download_blob(f"{id_}/payload")
            except ResourceNotFoundError:
                raise KeyError(id_) from None
            metadata = download.properties.metadata["received"]
            received = _received.decode(base64.b64decode(metadata))
            return Kept(received, await download.readall())

    async def keep_lane(self, id_: str, lane: int, data: bytes) -> None:
        async with storage_errors():
            await self.container.upload_blob(f"{id_}/lanes/{lane}", data, overwrite=True)

    async def lane(self, id_: str, lane: int) -> bytes:
        data = await self._read(f"{id_}/lanes/{lane}")
        if data is None:
            raise KeyError(f"{id_}/{lane}")
        return data

    async def keep_fetched(self, id_: str, number: int, data: bytes) -> bytes:
        async with storage_errors():
            try:
                await self.container.upload_blob(_fetched(id_, number), data)
            except ResourceExistsError:
                return await self.fetched(id_, number) or data
        return data

    async def fetched(self, id_: str, number: int) -> bytes | None:
        return await self._read(_fetched(id_, number))

    async def begin(self, id_: str, lane: int, now: float) -> float | None:
        blob = self.container.get_blob_client(_outcomes(id_, lane))
        async with storage_errors():
            try:
                await blob.create_append_blob(
                    metadata={"began": str(now)}, match_condition=MatchConditions.IfMissing
                )
            except ResourceExistsError:
                properties = await blob.get_blob_properties()
                return float(properties.metadata["began"])
        return None

    async def begun(self, id_: str) -> bool:
        async with storage_errors():
            async for name in self.container.list_blob_names(name_starts_with=f"{id_}/"):
                if name != f"{id_}/payload":
                    return True
        return False

    async def note(self, id_: str, lane: int, outcomes: Sequence[EntryResult]) -> None:
        blob = self.container.get_blob_client(_outcomes(id_, lane))
        lines = [msgspec.json.encode(outcome) + b"\n" for outcome in outcomes]
        async with storage_errors():
            for block in _blocks(lines):
                await blob.append_block(block)

    async def outcomes(self, id_: str, lane: int | None = None) -> list[EntryResult]:
        if lane is not None:
            names = [_outcomes(id_, lane)]
        else:
            async with storage_errors():
                listing = self.container.list_blob_names(name_starts_with=f"{id_}/outcomes/")
                names = [name async for name in listing]
        read = await asyncio.gather(*(self._read(name) for name in names))
        lines = [line for data in read if data for line in data.splitlines()]
        return first_of_each([_outcome.decode(line) for line in lines])

    async def forget_bytes(self, id_: str) -> None:
        """The part of `forget` that is in blobs."""
        async with storage_errors():
            async for name in self.container.list_blob_names(name_starts_with=f"{id_}/"):
                await _gone(self.container.delete_blob(name))

    async def _read(self, name: str) -> bytes | None:
        async with storage_errors():
            try:
                return await (await self.container.download_blob(name)).readall()
            except ResourceNotFoundError:
                return None


async def made(blobs: BlobServiceClient) -> ContainerClient:
    """The container, made where it is not. Raises Unavailable or Misconfigured."""
    container = blobs.get_container_client(CONTAINER)
    async with storage_errors():
        try:
            await container.create_container()
        except ResourceExistsError:
            pass  # as in every start but the first
    return container


def _outcomes(id_: str, lane: int) -> str:
    return f"{id_}/outcomes/{'none' if lane == NO_LANE else lane}"


def _fetched(id_: str, number: int) -> str:
    return f"{id_}/fetched/{number}"


def _blocks(lines: Sequence[bytes]) -> Sequence[bytes]:
    blocks: list[bytearray] = []
    for line in lines:
        if not blocks or len(blocks[-1]) + len(line) > _BLOCK:
            blocks.append(bytearray())
        blocks[-1] += line
    return [bytes(block) for block in blocks]


async def _gone(deletion: Awaitable[object]) -> None:
    try:
        await deletion
    except ResourceNotFoundError:
        pass  # another worker is at it too
