"""The bundles from elsewhere that BUNDLES_DIR names, folder by folder."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest

ENDINGS = (".json", ".fhir", ".ndjson", ".json.gz")


def list_groups() -> list[Any]:
    """Return a parameter for each folder directly below BUNDLES_DIR that holds bundles, to be one case.

    All of them take minutes. A change that breaks one of them breaks one of the samples, too,
    nearly always: so they are left to `make check`.
    """
    if not os.environ.get("BUNDLES_DIR"):
        reason = "BUNDLES_DIR names no folder of bundles"
        return [pytest.param("", marks=pytest.mark.skip(reason=reason), id="no folder")]
    top = find_root()
    found = {path.relative_to(top).parts[0] for path in list_files() if path.parent != top}
    names = sorted(found) + ["."] * any(path.parent == top for path in list_files())
    assert names, f"BUNDLES_DIR={top} holds no bundles"
    return [pytest.param(name, marks=pytest.mark.slow, id=name) for name in names]


def find_root() -> Path:
    """Return the folder that BUNDLES_DIR names."""
    return Path(os.environ["BUNDLES_DIR"])


def list_files(group: str | None = None) -> list[Path]:
    """Return the files of one group, or of all groups, sorted."""
    top = find_root()
    paths = top.glob("*") if group == "." else (top / (group or "")).rglob("*")
    return sorted(path for path in paths if path.name.endswith(ENDINGS))


def read_body(path: Path) -> bytes:
    """Return the content of a file, unpacked."""
    return unpack(path.read_bytes())


def unpack(data: bytes) -> bytes:
    """Return the data without the packing of gzip, if it has one."""
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
