"""HAPI's server is for machines that can run it: others are told why they cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from local.processes import PROJECT


def test_without_java_and_maven_a_command_is_skipped_and_the_reason_told(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    command = [sys.executable, "-c", f"open({str(ran)!r}, 'w')"]
    ended = subprocess.run(
        [sys.executable, "-m", "local.hapi", *command],
        cwd=PROJECT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == (
        "skipped: HAPI needs Java 17 and Maven: java, javac, mvn not found on the PATH\n"
    )
    assert not ran.exists()
