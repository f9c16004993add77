"""What `make start` runs is provisioned, so that the check that it recommends fails nowhere."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from integration.cli.main import main
from local.host.settings import CannotStart
from local.processes import Child, Part
from local.provisioning import choose_settings, finish_provisioning, launch_provisioning
from local.services import ADDRESS, find_free_ports, run_services, start_host
from local.settings_file import collect_settings
from local.storage_setup import create_storage
from tests.local.emulator import needs_azurite

FEED = "http://127.0.0.1:7071/api/odata/"


def test_virtual_tables_get_a_prefix_and_the_address_of_the_local_feed() -> None:
    chosen = choose_settings({"FEED_URL": "https://elsewhere.example", "MAP_PREFIX": ""}, FEED, "")
    assert (chosen["MAP_PREFIX"], chosen["FEED_URL"]) == ("new", FEED)
    assert chosen["FEED_KEY"]  # provision asks for it at the terminal otherwise


def test_a_prefix_that_is_set_stays() -> None:
    assert choose_settings({"MAP_PREFIX": "abc"}, FEED, "")["MAP_PREFIX"] == "abc"


def test_the_feed_gets_a_key_that_opens_it() -> None:
    chosen = choose_settings({}, FEED, "health/x=one;default=two")
    assert chosen["FEED_KEY"] == "two"


def test_provisioning_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = ("sh", "-c", "echo 'stopped: no such prefix'; exit 2")
    log = tmp_path / "provision.log"
    child = Child(Part(name="provision", command=command, env={}, ready=(), log=log))
    child.launch()
    with pytest.raises(CannotStart, match=r"provision ended with 2(.|\n)*no such prefix"):
        finish_provisioning(child)


@pytest.mark.slow
@needs_azurite
def test_every_check_passes_on_what_make_start_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = find_free_ports()
    with run_services(ports, tmp_path) as running:
        feed = f"http://{ADDRESS}:{ports.host}/api/odata/"
        collected = collect_settings(running.settings(), {})
        settings = {**running.settings(), **choose_settings(collected, feed, "")}
        with launch_provisioning(settings, tmp_path) as provisioning:
            asyncio.run(create_storage(running))
            with start_host(settings, ports.host, tmp_path):
                finish_provisioning(provisioning)
                for name, value in collect_settings(settings, os.environ).items():
                    monkeypatch.setenv(name, value)
                assert main(["check"]) == 0
    assert " failed=0 " in capsys.readouterr().out
