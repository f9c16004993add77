"""What would be sent, without sending it: as JSON and on a terminal."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.__main__ import main
from tests.journeys.route import bundle, connected, entry, observation, patient


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Any]:
    def write(name: str, body: Any) -> str:
        path = tmp_path / name
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return write


def test_a_plan_tells_lanes_units_and_sizes(
    written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", written("whole.json", connected("Whole", 3))]) == 0

    first, unit = capsys.readouterr().out.splitlines()
    assert first == "transaction: entries=3 lanes=1 units=1"
    assert "transaction of 3 entries" in unit
    assert "3 created" in unit


def test_a_plan_tells_what_would_be_lost(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = written("large.json.gz", connected("Large", 12))

    assert main(["plan", file, "--max-entries", "5"]) == 0
    assert "lost:" in capsys.readouterr().out
    assert main(["plan", file, "--max-entries", "5", "--over-limit", "reject"]) == 1
    assert "refused: Bundle.entry[0]" in capsys.readouterr().out


def test_a_plan_tells_what_would_be_refused(
    written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    dangling = bundle("batch", entry(patient("Fine")), entry(observation("urn:uuid:nowhere")))

    assert main(["plan", written("dangling.json", dangling)]) == 1
    assert "refused: Bundle.entry[1]" in capsys.readouterr().out
    assert main(["plan", written("broken.json", b"{")]) == 2
    assert capsys.readouterr().out.startswith("refused: broken.json: the body is")


def test_lines_are_planned_as_ndjson(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "\n".join(json.dumps(patient(f"P{n}", id=f"p{n}")) for n in range(3)).encode()

    assert main(["plan", written("patients.ndjson", lines)]) == 0
    assert capsys.readouterr().out.startswith("ndjson: entries=3")


@pytest.mark.skipif(sys.platform == "win32", reason="the text comes from the system")
def test_a_file_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.json"

    assert main(["plan", str(missing)]) == 2
    assert capsys.readouterr().out == f"{missing}: No such file or directory\n"


def test_no_name_of_a_patient_is_shown(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", written("named.json", connected("Zzyzx", 3))])
    assert "Zzyzx" not in capsys.readouterr().out
