"""The launcher of HAPI's server is compiled once."""

from __future__ import annotations

import pytest

from local.hapi.server import BUILD, build_server, find_obstacle

pytestmark = pytest.mark.hapi


def test_a_second_build_finds_the_first() -> None:
    if obstacle := find_obstacle():
        pytest.skip(obstacle)
    first, written = build_server(), (BUILD / "digest").stat().st_mtime_ns
    assert build_server() == first
    assert (BUILD / "digest").stat().st_mtime_ns == written
