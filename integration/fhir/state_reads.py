"""Ask the FHIR server for the states of many resources at once, and read its responses. Pure.

Two questions, each for one batch: what is there now (`build_state_searches`, `read_states`), and
what has been there (`build_history_read`, `read_history`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from integration.core.state_version import NEVER_SEEN, StateVersion
from integration.fhir import entry_results, write_mark
from integration.fhir.json_objects import get_object
from integration.fhir.resource_states import ResourceState, ResourceVersion

# Resources in one search: their ids make an address of 4 KB, which every server takes.
_MAX_IDS = 100

# Versions that are looked through. More than this many changes while an answer was lost are
# unheard of; then the oldest that is known counts as the first.
MAX_VERSIONS = 100

# Statuses that do not answer the question.
_INCONCLUSIVE = (401, 403, 408, 409, 429)


def build_state_searches(names: Iterable[str]) -> list[str]:
    """Return searches that find the states of these Type/id."""
    by_type: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        type_, _, id_ = name.partition("/")
        by_type[type_].append(id_)
    return [
        build_state_search(f"{type_}?_id={','.join(ids[start : start + _MAX_IDS])}")
        for type_, ids in by_type.items()
        for start in range(0, len(ids), _MAX_IDS)
    ]


def build_state_search(query: str) -> str:
    """Return the search for the states of what a query matches."""
    return f"{query}&_elements=id,meta&_count={_MAX_IDS}"


def read_states(query: str, response: Any) -> dict[str, ResourceState] | None:
    """Return the states that a search has found, by Type/id; None if it was not answered.

    A search that the server refuses has no matches: it will refuse the condition as well.
    """
    status = entry_results.get_status(response)
    if status is not None and 400 <= status < 500 and status not in _INCONCLUSIVE:
        return {}
    bundle = response.get("resource") if isinstance(response, dict) else None
    entries = bundle.get("entry", []) if isinstance(bundle, dict) else None
    if status != 200 or not isinstance(entries, list):
        return None
    type_ = query.partition("?")[0]
    states: dict[str, ResourceState] = {}
    for entry in entries:
        resource = get_object(entry, "resource")
        if resource.get("resourceType") == type_ and isinstance(resource.get("id"), str):
            meta = get_object(resource, "meta")
            states[f"{type_}/{resource['id']}"] = ResourceState(
                version=str(meta.get("versionId", "")),
                meta=meta,
                mark=write_mark.read_mark(resource),
                is_delete_announced=write_mark.is_delete_announced(resource),
            )
    return states


def build_history_read(name: str, newest: int = MAX_VERSIONS) -> str:
    """Return the address of the newest versions of Type/id."""
    return f"{name}/_history?_count={newest}"


def read_history(response: Any) -> list[ResourceVersion] | None:
    """Return the versions of a resource, newest first: none if it never existed. None: the server
    has not answered."""
    status = entry_results.get_status(response)
    if status in (404, 410):
        return []
    bundle = response.get("resource") if isinstance(response, dict) else None
    entries = bundle.get("entry", []) if isinstance(bundle, dict) else None
    if status != 200 or not isinstance(entries, list):
        return None
    return [_read_version(entry) for entry in entries if isinstance(entry, dict)]


def _read_version(entry: Mapping[str, Any]) -> ResourceVersion:
    resource = entry.get("resource")
    if get_object(entry, "request").get("method") == "DELETE" or not isinstance(resource, dict):
        etag = get_object(entry, "response").get("etag")
        return ResourceVersion(version=entry_results.get_version(etag) or "")
    version = str(get_object(resource, "meta").get("versionId", ""))
    return ResourceVersion(
        version=version,
        resource=resource,
        mark=write_mark.read_mark(resource),
        is_delete_announced=write_mark.is_delete_announced(resource),
        edited=write_mark.read_edited_version(resource),
    )


def read_newest_deletion(history: Any) -> StateVersion | None:
    """Return the deletion that a history begins with; None if it begins with something else."""
    entries = history.get("entry") if isinstance(history, dict) else None
    if not isinstance(entries, list):
        return None
    if not entries:
        return NEVER_SEEN
    if get_object(entries[0], "request").get("method") != "DELETE":
        return None
    response, meta = get_object(entries[0], "response"), get_object(entries[0], "resource", "meta")
    # Some servers add a resource that has nothing but id and meta.
    version = entry_results.get_version(response.get("etag")) or meta.get("versionId")
    updated = response.get("lastModified") or meta.get("lastUpdated")
    return StateVersion(
        id=version if isinstance(version, str) else None,
        updated=updated if isinstance(updated, str) else None,
        is_deleted=True,
    )
