"""The versions of one resource, and who wrote each: for people who look at it. Pure.

https://hl7.org/fhir/R4/http.html#history
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from integration.fhir import entry_results, write_mark
from integration.fhir.json_objects import get_object
from integration.fhir.write_mark import Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedVersion:
    """A version. `mark`: what the relay left in it; None: somebody else wrote it. `is_kept_mark`:
    the version before has the same mark, so whoever wrote this one had read that one."""

    id: str
    updated: str | None
    is_deleted: bool
    mark: Mark | None = None
    is_kept_mark: bool = False


def list_versions(history: Any) -> list[ListedVersion] | None:
    """Return the versions of a history, newest first as it is; None if it is no history."""
    if not isinstance(history, dict) or history.get("resourceType") != "Bundle":
        return None
    entries = history.get("entry", [])
    if not isinstance(entries, list):
        return None
    versions = [_read(entry) for entry in entries if isinstance(entry, dict)]
    return [
        replace(version, is_kept_mark=_has_mark_of(version, before))
        for version, before in zip_longest(versions, versions[1:])
    ]


def _read(entry: Mapping[str, Any]) -> ListedVersion:
    resource, response = entry.get("resource"), get_object(entry, "response")
    meta = get_object(resource, "meta")
    stated = meta.get("versionId") or entry_results.get_version(response.get("etag"))
    updated = meta.get("lastUpdated") or response.get("lastModified")
    is_deleted = get_object(entry, "request").get("method") == "DELETE" or resource is None
    return ListedVersion(
        id=stated if isinstance(stated, str) else "",
        updated=updated if isinstance(updated, str) else None,
        is_deleted=is_deleted,
        mark=None if is_deleted else write_mark.read_mark(resource),
    )


def _has_mark_of(version: ListedVersion, before: ListedVersion | None) -> bool:
    return before is not None and version.mark is not None and version.mark == before.mark
