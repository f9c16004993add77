"""The app says which version it is, where pyproject.toml is not deployed."""

from __future__ import annotations

import tomllib

from integration.core.version import VERSION
from local.processes import PROJECT


def test_the_version_is_that_of_the_project() -> None:
    assert tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["version"] == (
        VERSION
    )
