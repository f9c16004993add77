"""What the inbox promises, held by the in-memory double and by Azure Storage alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from integration.core.errors import Misconfigured, Unavailable
from integration.journal.azure_inbox import AzureInboxFiles, open_inbox
from integration.journal.inbox_files import InboxFile, InboxFiles, MemoryInboxFiles
from local.host.emulator import build_connection_string
from local.services import Running, find_free_ports

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
NAME = "lab/jour férié +%20&.json"


@dataclass(frozen=True)
class Storage:
    """The inbox, what a sender does, and what it reads."""

    files: InboxFiles
    put: Callable[[str, bytes], Awaitable[object]]
    answer: Callable[[str], Awaitable[bytes]]


@pytest.fixture(params=["memory", pytest.param("azure", marks=pytest.mark.azurite)])
async def storage(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Storage]:
    if request.param == "memory":
        memory = MemoryInboxFiles(lambda: NOW)

        async def put(name: str, content: bytes) -> None:
            memory.put(name, content)

        async def answer(name: str) -> bytes:
            return memory.answers[name]

        yield Storage(memory, put, answer)
        return
    connection = request.getfixturevalue("azurite").storage
    async with BlobServiceClient.from_connection_string(connection) as blobs:
        files = await blobs.create_container(f"{namespace}-files")
        answers = await blobs.create_container(f"{namespace}-answers")

        async def put_blob(name: str, content: bytes) -> None:
            await files.upload_blob(name, content, overwrite=True)

        async def read_answer(name: str) -> bytes:
            return await (await answers.download_blob(name)).readall()

        yield Storage(AzureInboxFiles(files, answers), put_blob, read_answer)


async def found(storage: Storage, name: str = NAME) -> InboxFile:
    file = await storage.files.find(name)
    assert file is not None
    return file


async def listed(storage: Storage, folder: str) -> list[str]:
    return [file.name async for file in storage.files.list_files(folder)]


async def test_a_file_is_found_read_and_deleted(storage: Storage) -> None:
    await storage.put(NAME, b"content")
    file = await found(storage)
    assert (file.name, file.size) == (NAME, 7)
    assert await storage.files.read(file) == b"content"
    assert await storage.files.delete(file)
    assert await storage.files.find(NAME) is None


async def test_a_file_that_has_changed_is_neither_read_nor_deleted(storage: Storage) -> None:
    await storage.put(NAME, b"content")
    file = await found(storage)
    await storage.put(NAME, b"another")
    assert await storage.files.read(file) is None
    assert not await storage.files.delete(file)
    assert await storage.files.read(await found(storage)) == b"another"


async def test_a_file_that_is_gone_is_neither_read_nor_deleted(storage: Storage) -> None:
    await storage.put(NAME, b"content")
    file = await found(storage)
    await storage.files.delete(file)
    assert await storage.files.read(file) is None
    assert not await storage.files.delete(file)
    assert await storage.files.find("lab/never.json") is None


async def test_the_files_of_a_folder_are_listed_and_no_others(storage: Storage) -> None:
    for name in ("lab/a", "lab/b/c", "lab2/d", "other/lab/e", "lab"):
        await storage.put(name, b"")
    assert await listed(storage, "lab") == ["lab/a", "lab/b/c"]
    assert await listed(storage, "none") == []


async def test_a_listed_file_is_the_same_as_a_found_one(storage: Storage) -> None:
    """So that it can be read and deleted: etags are written in two ways."""
    await storage.put(NAME, b"content")
    (file,) = [file async for file in storage.files.list_files("lab")]
    assert (file.size, file.name) == (7, NAME)
    assert file.modified == (await found(storage)).modified
    assert await storage.files.read(file) == b"content"
    assert await storage.files.delete(file)


async def test_an_answer_replaces_an_earlier_one(storage: Storage) -> None:
    await storage.files.write_answer(f"{NAME}.json", b"one")
    await storage.files.write_answer(f"{NAME}.json", b"two")
    assert await storage.answer(f"{NAME}.json") == b"two"


# --- in a storage account ----------------------------------------------------------------------


@pytest.fixture
async def blobs(azurite: Running) -> AsyncIterator[BlobServiceClient]:
    async with BlobServiceClient.from_connection_string(azurite.storage) as client:
        yield client


@pytest.mark.azurite
async def test_containers_are_made_if_they_are_not_there(
    blobs: BlobServiceClient, namespace: str
) -> None:
    for _ in range(2):
        files = await open_inbox(blobs, namespace)
    await files.write_answer("lab/a.json", b"{}")
    answer = await blobs.get_blob_client("results", "lab/a.json").download_blob()
    assert answer.properties.content_settings.content_type == "application/fhir+json"


@pytest.mark.azurite
async def test_a_folder_of_a_hierarchical_namespace_is_no_file(
    blobs: BlobServiceClient, namespace: str
) -> None:
    files = await open_inbox(blobs, namespace)
    marks = {"hdi_isfolder": "true"}
    await files.files.upload_blob("lab/day", b"", metadata=marks)
    assert await files.find("lab/day") is None
    assert [file async for file in files.list_files("lab")] == []


@pytest.mark.azurite
async def test_a_large_file_that_changes_between_two_parts_is_not_read(
    azurite: Running, namespace: str
) -> None:
    """The SDK reads what is large in parts: no file of two halves may come of it."""
    small: dict[str, int] = {"max_single_get_size": 1000, "max_chunk_get_size": 1000}
    async with BlobServiceClient.from_connection_string(azurite.storage, **small) as blobs:
        files = await open_inbox(blobs, namespace)
        await files.files.upload_blob("lab/a", b"1" * 3000)
        file = await files.find("lab/a")
        assert file is not None
        assert await files.read(file) == b"1" * 3000
        between = replace(files, files=Overwriting(files.files))
        assert await between.read(file) is None


class Overwriting:
    """A container in which a file is overwritten after its first part was read."""

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def get_blob_client(self, name: str) -> Overwriting:
        return self

    async def download_blob(self, **condition: object) -> object:
        blob = self._container.get_blob_client("lab/a")
        download = await blob.download_blob(**condition)
        await blob.upload_blob(b"2" * 3000, overwrite=True)
        return download


async def test_storage_that_is_down_is_unavailable() -> None:
    ports = find_free_ports()
    connection = build_connection_string(ports.blob, ports.queue, ports.table)
    async with BlobServiceClient.from_connection_string(connection, retry_total=0) as blobs:
        containers = [blobs.get_container_client(name) for name in ("inbox", "results")]
        files = AzureInboxFiles(*containers)
        file = InboxFile(name="lab/a", etag="1", size=1, modified=NOW)
        works: list[Awaitable[object]] = [
            files.find("lab/a"),
            files.read(file),
            files.delete(file),
            anext(files.list_files("lab")),
            files.write_answer("lab/a.json", b""),
            open_inbox(blobs, "inbox"),
        ]
        for work in works:
            with pytest.raises(Unavailable):
                await work


@pytest.mark.azurite
async def test_an_identity_without_a_role_is_an_operators_matter(azurite: Running) -> None:
    wrong = azurite.storage.replace("AccountKey=Eby8", "AccountKey=Wrng")
    async with BlobServiceClient.from_connection_string(wrong, retry_total=0) as blobs:
        with pytest.raises(Misconfigured):
            await open_inbox(blobs, "inbox")
