"""The script of docs/migrating.md posts the files of a folder, and can be run again."""

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


class Endpoint(HTTPServer):
    """Answers by the text of the body, and keeps each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[tuple[str, str]] = []
        self.away = False


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

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
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as endpoint:
        thread = threading.Thread(target=endpoint.serve_forever, args=(0.01,))
        thread.start()
        yield endpoint
        endpoint.shutdown()
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


def drain(folder: Path, endpoint: Endpoint) -> subprocess.CompletedProcess[str]:
    page = (PROJECT / "docs/migrating.md").read_text("utf-8")
    (script,) = re.findall(r"```sh drain\n(.*?)```", page, re.S)
    env = {**os.environ, "RELAY": f"http://127.0.0.1:{endpoint.server_port}/api", "KEY": KEY}
    return subprocess.run(
        ["sh", "-c", script], cwd=folder, env=env, capture_output=True, text=True, timeout=30
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_bundle_is_sent_once_the_oldest_first(folder: Path, endpoint: Endpoint) -> None:
    done = drain(folder, endpoint)
    assert done.returncode == 0, done.stderr
    assert endpoint.received == [
        ("drain/c.json", "first"),
        ("drain/b.json", "wrong"),
        ("drain/a b.json", "third"),
    ]
    assert names(folder / "sent") == ["a b.json", "c.json"]
    assert names(folder / "refused") == ["b.json", "b.json.answer.json"]
    assert names(folder / "backlog") == ["c_result.json"]
    assert not (folder / "answer.json").exists()


def test_a_failure_ends_the_run_and_a_second_run_sends_the_same_keys(
    folder: Path, endpoint: Endpoint
) -> None:
    endpoint.away = True
    done = drain(folder, endpoint)
    assert done.returncode == 1
    assert "c.json: answered 503" in done.stderr
    assert [key for key, _ in endpoint.received] == ["drain/c.json"]
    assert len(names(folder / "backlog")) == 4
    endpoint.away = False
    assert drain(folder, endpoint).returncode == 0
    assert [key for key, _ in endpoint.received][:2] == ["drain/c.json", "drain/c.json"]
    assert names(folder / "sent") == ["a b.json", "c.json"]


def test_without_an_endpoint_no_file_is_moved(folder: Path, endpoint: Endpoint) -> None:
    endpoint.server_close()
    assert drain(folder, endpoint).returncode == 1
    assert len(names(folder / "backlog")) == 4
