"""The script of docs/migrating.md empties a folder into the door, and can be run again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from local.processes import PROJECT

KEY = "a-key"


class Door(HTTPServer):
    """Answers by what the body says; keeps what it heard."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[tuple[str, str]] = []
        self.away = False


class Handler(BaseHTTPRequestHandler):
    server: Door

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        assert (self.path, self.headers["x-functions-key"]) == ("/api/fhir", KEY)
        self.server.received.append((self.headers["idempotency-key"], body))
        self.send_response(503 if self.server.away else 422 if body == "wrong" else 202)
        self.end_headers()
        self.wfile.write(b'{"resourceType": "OperationOutcome"}')

    def log_message(self, *_: object) -> None:
        """Nothing to anybody."""


@pytest.fixture
def door() -> Iterator[Door]:
    with Door() as door:
        thread = threading.Thread(target=door.serve_forever, args=(0.01,))
        thread.start()
        yield door
        door.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if not shutil.which("curl"):
        pytest.skip("curl is not on the PATH")
    (tmp_path / "backlog").mkdir()
    # The oldest has the last name.
    for age, (name, text) in enumerate(
        [("a b.json", "third"), ("b.json", "wrong"), ("c.json", "first"), ("c_result.json", "no")]
    ):
        path = tmp_path / "backlog" / name
        path.write_text(text, "utf-8")
        os.utime(path, (1e9 - age, 1e9 - age))
    return tmp_path


def drain(folder: Path, door: Door) -> subprocess.CompletedProcess[str]:
    page = (PROJECT / "docs/migrating.md").read_text("utf-8")
    (script,) = re.findall(r"```sh drain\n(.*?)```", page, re.S)
    env = {**os.environ, "RELAY": f"http://127.0.0.1:{door.server_port}/api", "KEY": KEY}
    return subprocess.run(
        ["sh", "-c", script], cwd=folder, env=env, capture_output=True, text=True, timeout=30
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_bundle_is_sent_once_the_oldest_first(folder: Path, door: Door) -> None:
    done = drain(folder, door)
    assert done.returncode == 0, done.stderr
    assert door.received == [
        ("drain/c.json", "first"),
        ("drain/b.json", "wrong"),
        ("drain/a b.json", "third"),
    ]
    assert names(folder / "sent") == ["a b.json", "c.json"]
    assert names(folder / "refused") == ["b.json", "b.json.answer.json"]
    assert names(folder / "backlog") == ["c_result.json"]
    assert not (folder / "answer.json").exists()


def test_trouble_ends_it_and_a_second_run_sends_the_same_keys(folder: Path, door: Door) -> None:
    door.away = True
    done = drain(folder, door)
    assert done.returncode == 1
    assert "c.json: answered 503" in done.stderr
    assert [key for key, _ in door.received] == ["drain/c.json"]
    assert len(names(folder / "backlog")) == 4
    door.away = False
    assert drain(folder, door).returncode == 0
    assert [key for key, _ in door.received][:2] == ["drain/c.json", "drain/c.json"]
    assert names(folder / "sent") == ["a b.json", "c.json"]


def test_a_door_that_is_not_there_moves_nothing(folder: Path, door: Door) -> None:
    door.server_close()
    assert drain(folder, door).returncode == 1
    assert len(names(folder / "backlog")) == 4
