"""Histories: versions of resources, as they were written at the sender's server. Pure.

https://hl7.org/fhir/R4/http.html#history -- the conditions of a request were met there, and mean
nothing here, so each version becomes an update or a delete by id.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from integration.core.model import FhirResource
from integration.fhir.entries import Entry
from integration.fhir.grammar import LiteralReference, is_type, parse_literal
from integration.fhir.json_objects import get_object
from integration.fhir.raw_entry import RawEntry
from integration.fhir.resources import check_id
from integration.fhir.source_version import parse_version_number

_ETAG = re.compile(r'(?:W/)?"(\d+)"')


def read_version(raw: RawEntry) -> Entry:
    """Read an entry of a history: one version of a resource, or its deletion."""
    method = raw.get_method()
    if method in ("GET", "HEAD"):
        raw.refuse("value", "a history holds what has been written, no reads", "request.method")
    return read_written(raw, method, parse_request_url(raw))


def parse_request_url(raw: RawEntry) -> LiteralReference | None:
    """Return the resource that request.url names; None for a create, which names a type alone."""
    url = raw.get_url().removeprefix("/")
    named = parse_literal(url)
    if named is None and not is_type(url.partition("?")[0]):
        raw.refuse("value", "request.url names no resource of FHIR R4", "request.url")
    return named


def read_written(raw: RawEntry, method: str, named: LiteralReference | None) -> Entry:
    """Return the write of the entry's resource by its identity, or its delete.

    `named` is what the request names; fullUrl stands in for it.
    """
    full_url = raw.get_full_url()
    resource = None if method == "DELETE" else raw.get_resource()
    named = named or parse_literal(full_url or "")
    kind, _, identifier = named.identity.partition("/") if named else ("", "", "")
    if resource is not None:
        identifier = _find_id(raw, resource, kind, identifier)
        kind, resource = resource["resourceType"], {**resource, "id": identifier}
    elif named is None:
        text = "neither request.url nor fullUrl says which resource was deleted"
        raw.refuse("required", text, "request.url")
    version, updated = _parse_response(raw.value)
    return Entry(
        position=raw.position,
        where=raw.where,
        method="DELETE" if resource is None else "PUT",
        type=kind,
        id=identifier,
        content=None if resource is None else raw.keep(resource),
        full_url=full_url,
        version=version,
        updated=updated,
    )


def _find_id(raw: RawEntry, resource: FhirResource, kind: str, identifier: str) -> str:
    """Return the id of a version. `kind` and `identifier` are what the entry names, or empty."""
    if kind and kind != resource["resourceType"]:
        text = "resourceType differs from the type in request.url or fullUrl"
        raw.refuse("invalid", text, "resource")
    found = check_id(resource, f"{raw.where}.resource") or identifier
    if not found:
        text = "neither resource.id nor request.url nor fullUrl says which resource this is"
        raw.refuse("required", text, "resource.id")
    return found


def order_versions(entries: Sequence[Entry], values: Sequence[Any]) -> tuple[Entry, ...]:
    """Give the versions of each resource their write positions, the oldest first.

    `values` are the entries as they were sent, by position.
    """
    versions: dict[str | None, list[int]] = defaultdict(list)
    for entry in entries:
        versions[entry.identity].append(entry.position)
    write_positions: dict[int, int] = {}
    for positions in versions.values():
        write_positions.update(zip(_sort_oldest_first(positions, values), positions, strict=True))
    return tuple(
        replace(entry, write_position=write_positions[entry.position]) for entry in entries
    )


def _sort_oldest_first(positions: Sequence[int], values: Sequence[Any]) -> list[int]:
    """By version, else by time, else in reverse order: a history is newest first."""
    newest_last = list(reversed(positions))
    numbers = {n: _parse_version(values[n]) for n in positions}
    times = {n: _parse_time(values[n]) for n in positions}
    if all(number is not None for number in numbers.values()):
        return sorted(newest_last, key=lambda n: numbers[n] or 0)
    stated = [time for time in times.values() if time is not None]
    if len(stated) == len(positions):
        return sorted(newest_last, key=lambda n: times[n] or stated[0])
    return newest_last


def _parse_version(value: dict[str, Any]) -> int | None:
    number = parse_version_number(get_object(value, "resource", "meta").get("versionId"))
    return parse_version_number(_parse_response(value)[0]) if number is None else number


def _parse_response(value: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the version and time that the entry's response states: all that a deletion has."""
    response = get_object(value, "response")
    etag, modified = response.get("etag"), response.get("lastModified")
    match = _ETAG.fullmatch(etag) if isinstance(etag, str) else None
    return match[1] if match else None, modified if isinstance(modified, str) else None


def _parse_time(value: dict[str, Any]) -> datetime | None:
    stated = get_object(value, "resource", "meta").get("lastUpdated")
    stated = stated or get_object(value, "response").get("lastModified")
    try:
        updated = datetime.fromisoformat(stated) if isinstance(stated, str) else None
    except ValueError:
        updated = None
    return updated if updated and updated.tzinfo else None
