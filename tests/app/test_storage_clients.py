"""How the app sends to its storage account."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration.app.settings import StorageSettings
from integration.app.storage_clients import build_transport_options, open_clients
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
