"""Tests that need the storage emulator."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from local.processes import PROJECT

Test = Callable[..., None]


def needs_azurite(test: Test) -> Test:
    """Skipped where the emulator is not installed; `-m azurite` picks or leaves these out."""
    missing = not (PROJECT / "local/node_modules/azurite").is_dir()
    reason = "Azurite is not installed: npm ci --prefix local"
    marked: Test = pytest.mark.azurite(pytest.mark.skipif(missing, reason=reason)(test))
    return marked
