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
    found = [resource for kind in kinds for resource in _load_by_kind().get(kind, ())]
    return [{**resource, "id": f"r-{number}"} for number, resource in enumerate(found)]


@cache
def _load_by_kind() -> dict[str, list[Resource]]:
    found: dict[str, list[Resource]] = {}
    for path in _find_files():
        for resource in _find_resources(_load_documents(path)):
            found.setdefault(resource["resourceType"], []).append(resource)
    return found


def _find_files() -> Iterator[Path]:
    endings = (".json", ".fhir", ".ndjson", ".json.gz")
    folder = Path(os.environ["BUNDLES_DIR"])
    yield from sorted(path for path in folder.rglob("*") if path.name.endswith(endings))


def _load_documents(path: Path) -> list[Any]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", "replace")
    parts = text.splitlines() if path.suffix == ".ndjson" else [text]
    try:
        return [json.loads(part) for part in parts if part.strip()]
    except json.JSONDecodeError:
        return []  # some are there to be refused at intake


def _find_resources(node: Any) -> Iterator[Resource]:
    if isinstance(node, dict):
        if isinstance(node.get("resourceType"), str):
            yield node
        for value in node.values():
            yield from _find_resources(value)
    elif isinstance(node, list):
        for item in node:
            yield from _find_resources(item)
