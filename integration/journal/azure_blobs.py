"""The part of the journal that is in blobs: all that could identify a patient."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.storage.blob.aio import BlobClient, BlobServiceClient, ContainerClient

from integration.core.model import DeliveryRequest, EntryResult
from integration.journal.azure_errors import translate_storage_errors
from integration.journal.store import NO_LANE, Payload, keep_first_by_position

CONTAINER = "deliveries"

# https://learn.microsoft.com/rest/api/storageservices/append-block: 4 MiB in older versions
_MAX_BLOCK = 4 * 1024 * 1024

# Ends the name of the blob with more results of a lane. It sorts right after the first one.
_MORE = "-more"

# Blobs that are deleted at the same time.
_MAX_DELETED = 16


@dataclass(frozen=True, slots=True)
class _Bases:
    """A line among the results of a lane: see `record_bases`."""

    bases: Mapping[int, str]


_BASES_LINE = b'{"bases"'
_bases_decoder = msgspec.json.Decoder(_Bases)
_result_decoder = msgspec.json.Decoder(EntryResult)
_request_decoder = msgspec.json.Decoder(DeliveryRequest)


@dataclass(frozen=True, slots=True)
class AzureBlobs:
    """See integration.journal.store.Journal for the contract of each method."""

    container: ContainerClient

    async def save_payload(self, id_: str, digest: str, payload: Payload) -> bool:
        """Do the part of `add_delivery` that is in blobs."""
        request = _encode_request(payload.request)
        blob = self.container.get_blob_client(f"{id_}/payload")
        async with translate_storage_errors():
            try:
                await blob.upload_blob(
                    payload.body, metadata={"request": request, "digest": digest}
                )
            except ResourceExistsError:
                properties = await blob.get_blob_properties()
                return bool(properties.metadata.get("digest", "") == digest)
            return True

    async def get_payload(self, id_: str) -> Payload:
        async with translate_storage_errors():
            try:
                download = await self.container.download_blob(f"{id_}/payload")
            except ResourceNotFoundError:
                raise KeyError(id_) from None
            request = _parse_request(download.properties.metadata)
            return Payload(request, await download.readall())

    async def get_request(self, id_: str) -> DeliveryRequest:
        blob = self.container.get_blob_client(f"{id_}/payload")
        async with translate_storage_errors():
            try:
                properties = await blob.get_blob_properties()
            except ResourceNotFoundError:
                raise KeyError(id_) from None
        return _parse_request(properties.metadata)

    async def save_request(self, id_: str, request: DeliveryRequest) -> None:
        blob = self.container.get_blob_client(f"{id_}/payload")
        async with translate_storage_errors():
            try:
                kept = dict((await blob.get_blob_properties()).metadata)
                await blob.set_blob_metadata({**kept, "request": _encode_request(request)})
            except ResourceNotFoundError:
                raise KeyError(id_) from None

    async def save_lane(self, id_: str, plan: int, lane: int, data: bytes) -> None:
        async with translate_storage_errors():
            name = _name_lane_blob(id_, plan, lane)
            await self.container.upload_blob(name, data, overwrite=True)

    async def get_lane(self, id_: str, plan: int, lane: int) -> bytes:
        name = _name_lane_blob(id_, plan, lane)
        data = await self._read(name)
        if data is None:
            raise KeyError(name)
        return data

    async def save_fetched(self, id_: str, number: int, data: bytes) -> bytes:
        async with translate_storage_errors():
            try:
                await self.container.upload_blob(_name_fetched_blob(id_, number), data)
            except ResourceExistsError:
                return await self.get_fetched(id_, number) or data
        return data

    async def get_fetched(self, id_: str, number: int) -> bytes | None:
        return await self._read(_name_fetched_blob(id_, number))

    async def begin_lane(self, id_: str, lane: int) -> bool:
        blob = self.container.get_blob_client(_name_results_blob(id_, lane))
        async with translate_storage_errors():
            return await _create_if_missing(blob)

    async def has_begun(self, id_: str) -> bool:
        async with translate_storage_errors():
            async for name in self.container.list_blob_names(name_starts_with=f"{id_}/"):
                if name != f"{id_}/payload":
                    return True
        return False

    async def add_entry_results(self, id_: str, lane: int, results: Sequence[EntryResult]) -> None:
        await self._append(_name_results_blob(id_, lane), _encode_results(results))

    async def save_entry_results(self, id_: str, lane: int, results: Sequence[EntryResult]) -> None:
        name = _name_results_blob(id_, lane)
        lines = _encode_results(results)
        async with translate_storage_errors():
            try:
                await self.container.upload_blob(name, b"".join(lines))
            except ResourceExistsError:
                # Another worker has begun the lane, or the answer to an earlier try was lost: of
                # results that are there twice the first counts.
                await self._append(name, lines)

    async def record_bases(self, id_: str, lane: int, bases: Mapping[int, str]) -> None:
        line = msgspec.json.encode(_Bases(bases)) + b"\n"
        await self._append(_name_results_blob(id_, lane), [line])

    async def _append(self, name: str, lines: Sequence[bytes]) -> None:
        """Append lines to a blob of results. To one that `save_entry_results` wrote nothing can be
        appended: they go to another, which is read after it."""
        blob = self.container.get_blob_client(name)
        async with translate_storage_errors():
            for block in _split_into_blocks(lines):
                try:
                    await blob.append_block(block)
                except HttpResponseError as error:
                    if _get_code(error) != "InvalidBlobType":
                        raise
                    blob = self.container.get_blob_client(name + _MORE)
                    await _create_if_missing(blob)
                    await blob.append_block(block)

    async def list_bases(self, id_: str, lane: int | None = None) -> dict[int, str]:
        found: dict[int, str] = {}
        for line in await self._read_results(id_, lane):
            if line.startswith(_BASES_LINE):
                for position, version in _bases_decoder.decode(line).bases.items():
                    found.setdefault(position, version)
        return found

    async def list_entry_results(self, id_: str, lane: int | None = None) -> list[EntryResult]:
        lines = await self._read_results(id_, lane)
        return keep_first_by_position(
            [_result_decoder.decode(line) for line in lines if not line.startswith(_BASES_LINE)]
        )

    async def _read_results(self, id_: str, lane: int | None) -> list[bytes]:
        """Return the lines that are recorded for one lane, or for all."""
        if lane is not None:
            names = [_name_results_blob(id_, lane), _name_results_blob(id_, lane) + _MORE]
        else:
            async with translate_storage_errors():
                listing = self.container.list_blob_names(name_starts_with=f"{id_}/results/")
                names = [name async for name in listing]
        read = await asyncio.gather(*(self._read(name) for name in names))
        return [line for data in read if data for line in data.splitlines()]

    async def delete_blobs(self, id_: str, is_over: Callable[[], bool]) -> bool:
        """Do the part of `delete_delivery` that is in blobs."""
        async with translate_storage_errors():
            listing = self.container.list_blob_names(name_starts_with=f"{id_}/")
            names = [name async for name in listing]
            for start in range(0, len(names), _MAX_DELETED):
                if is_over():
                    return False
                await asyncio.gather(
                    *(
                        _delete_if_exists(self.container.delete_blob(name))
                        for name in names[start : start + _MAX_DELETED]
                    )
                )
        return True

    async def _read(self, name: str) -> bytes | None:
        async with translate_storage_errors():
            try:
                return await (await self.container.download_blob(name)).readall()
            except ResourceNotFoundError:
                return None


async def open_container(blobs: BlobServiceClient) -> ContainerClient:
    """Return the container; create it if there is none. Raises Unavailable or Misconfigured."""
    container = blobs.get_container_client(CONTAINER)
    async with translate_storage_errors():
        try:
            await container.create_container()
        except ResourceExistsError:
            pass  # it is created at the first start only
    return container


async def _create_if_missing(blob: BlobClient) -> bool:
    """Create an empty blob that can be appended to. Return False if there is one already."""
    try:
        await blob.create_append_blob(match_condition=MatchConditions.IfMissing)
    except ResourceExistsError:
        return False
    return True


def _get_code(error: HttpResponseError) -> str:
    """Return the service's own code of an error.

    https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
    """
    return str(getattr(error, "error_code", None) or "")


def _encode_results(results: Sequence[EntryResult]) -> list[bytes]:
    return [msgspec.json.encode(result) + b"\n" for result in results]


def _encode_request(request: DeliveryRequest) -> str:
    return base64.b64encode(msgspec.json.encode(request)).decode()


def _parse_request(metadata: Mapping[str, str]) -> DeliveryRequest:
    return _request_decoder.decode(base64.b64decode(metadata["request"]))


def _name_lane_blob(id_: str, plan: int, lane: int) -> str:
    return f"{id_}/lanes/{plan}/{lane}"


def _name_results_blob(id_: str, lane: int) -> str:
    return f"{id_}/results/{'none' if lane == NO_LANE else lane}"


def _name_fetched_blob(id_: str, number: int) -> str:
    return f"{id_}/fetched/{number}"


def _split_into_blocks(lines: Sequence[bytes]) -> Sequence[bytes]:
    blocks: list[bytearray] = []
    for line in lines:
        if not blocks or len(blocks[-1]) + len(line) > _MAX_BLOCK:
            blocks.append(bytearray())
        blocks[-1] += line
    return [bytes(block) for block in blocks]


async def _delete_if_exists(deletion: Awaitable[object]) -> None:
    try:
        await deletion
    except ResourceNotFoundError:
        pass  # another worker has deleted it
