"""The Bicep files are checked by what is there to check them."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.infra.templates import INFRA

ABLE = bool(os.environ.get("BICEP_CHECK") or shutil.which("bicep"))


@pytest.mark.skipif(not ABLE, reason="neither BICEP_CHECK nor a compiler on the PATH")
def test_the_templates_have_no_finding() -> None:
    done = subprocess.run([INFRA / "check.sh"], capture_output=True, text=True, check=False)
    print(done.stdout)  # noqa: T201
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nchecked by" in done.stdout
