"""Bundles that bring resources rather than requests, and histories. Pure.

Each resource is written by its own identity, as a line of NDJSON is:
https://hl7.org/fhir/R4/bundle.html#bundle-unk leaves that to the receiver.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from integration.core.errors import Issue, Rejected
from integration.core.model import Policy
from integration.fhir import fetched
from integration.fhir.entries import Contents, Entry, check_id, check_resource
from integration.fhir.fetched import FetchedResponse
from integration.fhir.grammar import is_type, parse_literal
from integration.fhir.requests import check_entry, get_full_url, get_method, get_request

# bdl-11, bdl-12: https://hl7.org/fhir/R4/bundle.html#invs
_FIRST = {"document": "Composition", "message": "MessageHeader"}

_ETAG = re.compile(r'(?:W/)?"(\d+)"')


@dataclass(frozen=True, slots=True)
class PagedContents(Contents):
    """Contents whose next page is at an address that the sender has chosen."""

    next_url: str | None = None


@dataclass(frozen=True, slots=True)
class FurtherPage:
    """A further page of a searchset: what it adds, and where the next one is."""

    entries: tuple[Entry, ...]
    next_url: str | None = None


def check_bundle(kind: str, values: Sequence[Any], policy: Policy) -> None:
    """What is asked of the bundle before its entries are looked at."""
    if kind == "message" and policy.messages == "refuse":
        text = "messages are not taken here: the operator has set MESSAGES to refuse"
        raise Rejected(Issue("not-supported", text, "Bundle.type"), status=422)
    first = values[0].get("resource") if isinstance(values[0], dict) else None
    required_type = _FIRST.get(kind)
    if required_type and not (
        isinstance(first, dict) and first.get("resourceType") == required_type
    ):
        text = f"the first entry of a {kind} must be a {required_type}"
        raise Rejected(Issue("invalid", text, "Bundle.entry[0].resource"))


def read_member(position: int, value: Any) -> Entry:
    """An entry without a request: its resource, by the resource's own identity."""
    where, value = check_entry(position, value)
    if "request" in value:
        text = "only a batch, transaction or history has requests; is Bundle.type right?"
        raise Rejected(Issue("invalid", text, f"{where}.request"))
    full_url = get_full_url(value, where)
    resource = _read_resource(value, where)
    return _make_entry(position, where, resource, full_url)


def read_found(position: int, value: Any) -> Entry:
    """An entry of a searchset; what the search says of itself is left out."""
    entry = read_member(position, value)
    if entry.type == "OperationOutcome" or _get_object(value, "search").get("mode") == "outcome":
        left_out = Issue("informational", "left out: search outcome", entry.where, "information")
        return replace(entry, method="", id=None, resource=None, refusal=left_out)
    return entry


def read_whole_bundle(bundle: dict[str, Any], position: int) -> Entry:
    """The bundle itself, as one resource, not to be changed."""
    return _make_entry(position, "Bundle", bundle, None)


def find_next_url(bundle: dict[str, Any]) -> str | None:
    """Where the next page is, if there is one; its address is the sender's choice."""
    links = bundle.get("link")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("relation") == "next":
            return str(link.get("url"))
    return None


def read_further_page(number: int, first: int, response: FetchedResponse) -> FurtherPage:
    """Page `number`, its entries at the positions from `first`. What is wrong with it, or with
    one of them, is refused by itself: the rest of the delivery goes on."""
    where = f"page {number}"
    bundle = fetched.read_resource(response, where)
    if isinstance(bundle, dict) and _get_types(bundle) != ("Bundle", "searchset"):
        bundle = Issue("invalid", "the next page is no searchset", where)
    if isinstance(bundle, Issue):
        return FurtherPage((Entry(first, where, "", "", refusal=bundle),))
    values = bundle.get("entry")
    numbered = enumerate(values if isinstance(values, list) else [])
    entries = tuple(
        _read_page_entry(where, number, first + number, value) for number, value in numbered
    )
    return FurtherPage(entries, find_next_url(bundle))


def _get_types(bundle: dict[str, Any]) -> tuple[Any, Any]:
    return bundle["resourceType"], bundle.get("type")


def _read_page_entry(page: str, number: int, position: int, value: Any) -> Entry:
    where = f"{page}, Bundle.entry[{number}]"
    try:
        entry = read_found(number, value)
    except Rejected as error:
        return Entry(position, where, "", "", refusal=replace(error.issues[0], expression=where))
    left_out = entry.refusal and replace(entry.refusal, expression=where)
    return replace(entry, position=position, where=where, refusal=left_out)


def read_version(position: int, value: Any) -> Entry:
    """An entry of a history: one version of a resource. The conditions of its request were met
    at the sender's server, and say nothing of ours."""
    where, value = check_entry(position, value)
    request = get_request(value, where)
    method = get_method(request, where)
    if method in ("GET", "HEAD"):
        text = "a history holds what has been written, no reads"
        raise Rejected(Issue("value", text, f"{where}.request.method"))
    return read_written(
        position, where, value, method, parse_request_url(request.get("url"), where)
    )


def read_written(
    position: int,
    where: str,
    value: dict[str, Any],
    method: str,
    named_resource: tuple[str, str, str] | None,
) -> Entry:
    """What was written at the sender's server: the resource by its identity, or its delete.
    `known`: what the request names."""
    full_url = get_full_url(value, where)
    resource = None if method == "DELETE" else _read_resource(value, where)
    named_resource = named_resource or parse_literal(full_url or "")
    if resource is None and named_resource is None:
        text = "neither request.url nor fullUrl says which resource was deleted"
        raise Rejected(Issue("required", text, f"{where}.request.url"))
    kind, _, identifier = named_resource[1].partition("/") if named_resource else ("", "", "")
    version, updated = _parse_response(value)
    if resource is None:
        return Entry(
            position,
            where,
            "DELETE",
            kind,
            identifier,
            full_url=full_url,
            version=version,
            updated=updated,
        )
    if kind and kind != resource["resourceType"]:
        text = "resourceType differs from the type in request.url or fullUrl"
        raise Rejected(Issue("invalid", text, f"{where}.resource"))
    own_id = check_id(resource, f"{where}.resource") or identifier
    if not own_id:
        text = "neither resource.id nor request.url nor fullUrl says which resource this is"
        raise Rejected(Issue("required", text, f"{where}.resource.id"))
    resource = {**resource, "id": own_id}
    return Entry(
        position,
        where,
        "PUT",
        resource["resourceType"],
        own_id,
        resource=resource,
        full_url=full_url,
        version=version,
        updated=updated,
    )


def order_versions(entries: Sequence[Entry], values: Sequence[Any]) -> tuple[Entry, ...]:
    """The versions of each resource, each with its turn: the oldest first."""
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
    """By version, else by time, else the other way round: a history is newest first."""
    newest_last = list(reversed(positions))
    numbers = {n: _parse_version(values[n]) for n in positions}
    times = {n: _parse_time(values[n]) for n in positions}
    if all(number is not None for number in numbers.values()):
        return sorted(newest_last, key=lambda n: numbers[n] or 0)
    known = [time for time in times.values() if time is not None]
    if len(known) == len(positions):
        return sorted(newest_last, key=lambda n: times[n] or known[0])
    return newest_last


def _parse_version(value: dict[str, Any]) -> int | None:
    stated = _get_object(value, "resource", "meta").get("versionId")
    if isinstance(stated, str) and stated.isascii() and stated.isdigit():
        return int(stated[:18])
    etag = _get_object(value, "response").get("etag")  # all that a deleted version has
    match = _ETAG.fullmatch(etag) if isinstance(etag, str) else None
    return int(match[1][:18]) if match else None


def _parse_response(value: dict[str, Any]) -> tuple[str | None, str | None]:
    """The version and the time that the entry's response states: all that a deletion has."""
    response = _get_object(value, "response")
    etag, modified = response.get("etag"), response.get("lastModified")
    match = _ETAG.fullmatch(etag) if isinstance(etag, str) else None
    return match[1] if match else None, modified if isinstance(modified, str) else None


def _parse_time(value: dict[str, Any]) -> datetime | None:
    stated = _get_object(value, "resource", "meta").get("lastUpdated")
    stated = stated or _get_object(value, "response").get("lastModified")
    try:
        updated = datetime.fromisoformat(stated) if isinstance(stated, str) else None
    except ValueError:
        return None
    return updated if updated and updated.tzinfo else None


def _get_object(value: Any, *names: str) -> dict[str, Any]:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def parse_request_url(url: Any, where: str) -> tuple[str, str, str] | None:
    """What request.url names; a create names a type alone."""
    if not isinstance(url, str) or not url:
        raise Rejected(Issue("required", "request.url is missing", f"{where}.request.url"))
    found = parse_literal(url.removeprefix("/"))
    if found is None and not is_type(url.removeprefix("/").partition("?")[0]):
        text = "request.url names no resource of FHIR R4"
        raise Rejected(Issue("value", text, f"{where}.request.url"))
    return found


def _read_resource(value: dict[str, Any], where: str) -> dict[str, Any]:
    if "resource" not in value:
        raise Rejected(Issue("required", "the entry holds no resource", where))
    return check_resource(value["resource"], f"{where}.resource")


def _make_entry(position: int, where: str, resource: dict[str, Any], full_url: str | None) -> Entry:
    element = f"{where}.resource" if where != "Bundle" else where
    identifier = check_id(resource, element)
    method = "PUT" if identifier else "POST"
    kind = resource["resourceType"]
    return Entry(position, where, method, kind, identifier, resource=resource, full_url=full_url)
