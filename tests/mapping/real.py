"""Resources from elsewhere, read in place from the folder that BUNDLES_DIR names."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

Resource = dict[str, Any]


def load_resources(kinds: Collection[str]) -> list[Resource]:
    """Those of the kinds anywhere in the files, contained ones too: they have no rows, but shapes.

    Each gets an id of its own: what counts here is the shape, and many a bundle has none.
    """
    if not os.environ.get("BUNDLES_DIR"):
        pytest.skip("BUNDLES_DIR names no folder of bundles")
    found = [each for kind in kinds for each in _by_kind().get(kind, ())]
    return [{**each, "id": f"r-{number}"} for number, each in enumerate(found)]


@cache
def _by_kind() -> dict[str, list[Resource]]:
    found: dict[str, list[Resource]] = {}
    for path in _files():
        for each in _resources(_documents(path)):
            found.setdefault(each["resourceType"], []).append(each)
    return found


def _files() -> Iterator[Path]:
    endings = (".json", ".fhir", ".ndjson", ".json.gz")
    folder = Path(os.environ["BUNDLES_DIR"])
    yield from sorted(path for path in folder.rglob("*") if path.name.endswith(endings))


def _documents(path: Path) -> list[Any]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", "replace")
    parts = text.splitlines() if path.suffix == ".ndjson" else [text]
    try:
        return [json.loads(part) for part in parts if part.strip()]
    except json.JSONDecodeError:
        return []  # some are there to be refused at the door


def _resources(node: Any) -> Iterator[Resource]:
    if isinstance(node, dict):
        if isinstance(node.get("resourceType"), str):
            yield node
        for value in node.values():
            yield from _resources(value)
    elif isinstance(node, list):
        for item in node:
            yield from _resources(item)
