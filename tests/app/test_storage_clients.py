"""How the app sends to its storage account."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration.app.settings import InboxSettings, StorageSettings
from integration.app.storage_clients import (
    build_transport_options,
    open_clients,
    open_inbox_blobs,
    open_stores,
)
from local.services import Running


async def test_a_netrc_file_of_the_machine_is_not_read(
    azurite: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read again before each request, and its password would collide with the account's."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login nobody password nothing\n")
    monkeypatch.setenv("NETRC", str(netrc))
    storage = StorageSettings(azurite.storage, "", "", "")
    async with AsyncExitStack() as stack:
        clients = open_clients(storage, None, stack)
        await clients.blobs.create_container("netrc")
        await clients.queues.create_queue("netrc")
        await clients.tables.create_table("netrc")


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert build_transport_options() == {"use_env_settings": True}


@pytest.mark.azurite
async def test_the_inbox_is_in_the_account_of_the_journal_or_in_one_of_its_own(
    azurite: Running,
) -> None:
    storage = StorageSettings(azurite.storage, "", "", "")
    async with AsyncExitStack() as stack:
        own = open_clients(storage, None, stack).blobs
        assert open_inbox_blobs(own, InboxSettings("inbox"), None, stack) is own
        url = "https://files.blob.example"
        other = open_inbox_blobs(own, InboxSettings("inbox", url), None, stack)
        assert other.url == f"{url}/"


@pytest.mark.azurite
async def test_without_the_setting_there_is_no_inbox(azurite: Running) -> None:
    storage = StorageSettings(azurite.storage, "", "", "")
    async with AsyncExitStack() as stack:
        assert (await open_stores(storage, None, stack)).inbox is None
        assert (await open_stores(storage, None, stack, InboxSettings("inbox"))).inbox is not None
