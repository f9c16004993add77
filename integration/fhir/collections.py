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
from integration.fhir.entries import Contents, Entry, checked_id, checked_resource
from integration.fhir.fetched import Fetched
from integration.fhir.grammar import is_type, literal
from integration.fhir.requests import checked_entry, full_url_of, method_of, request_of

# bdl-11, bdl-12: https://hl7.org/fhir/R4/bundle.html#invs
_FIRST = {"document": "Composition", "message": "MessageHeader"}

_ETAG = re.compile(r'(?:W/)?"(\d+)"')


@dataclass(frozen=True, slots=True)
class PagedContents(Contents):
    """Contents whose next page is at an address that the sender has chosen."""

    next: str | None = None


@dataclass(frozen=True, slots=True)
class FoundPage:
    """A further page of a searchset: what it adds, and where the next one is."""

    entries: tuple[Entry, ...]
    next: str | None = None


def check(kind: str, values: Sequence[Any], policy: Policy) -> None:
    """What is asked of the bundle before its entries are looked at."""
    if kind == "message" and policy.messages == "refuse":
        text = "messages are not taken here: the operator has set MESSAGES to refuse"
        raise Rejected(Issue("not-supported", text, "Bundle.type"), status=422)
    first = values[0].get("resource") if isinstance(values[0], dict) else None
    wanted = _FIRST.get(kind)
    if wanted and not (isinstance(first, dict) and first.get("resourceType") == wanted):
        text = f"the first entry of a {kind} must be a {wanted}"
        raise Rejected(Issue("invalid", text, "Bundle.entry[0].resource"))


def member(position: int, value: Any) -> Entry:
    """An entry without a request: its resource, by the resource's own identity."""
    where, value = checked_entry(position, value)
    if "request" in value:
        text = "only a batch, transaction or history has requests; is Bundle.type right?"
        raise Rejected(Issue("invalid", text, f"{where}.request"))
    full_url = full_url_of(value, where)
    resource = _resource(value, where)
    return _kept(position, where, resource, full_url)


def found(position: int, value: Any) -> Entry:
    """An entry of a searchset; what the search says of itself is left out."""
    entry = member(position, value)
    if entry.type == "OperationOutcome" or _said(value, "search").get("mode") == "outcome":
        left_out = Issue("informational", "left out: search outcome", entry.where, "information")
        return replace(entry, method="", id=None, resource=None, refusal=left_out)
    return entry


def whole(bundle: dict[str, Any], position: int) -> Entry:
    """The bundle itself, as one resource, not to be changed."""
    return _kept(position, "Bundle", bundle, None)


def next_page(bundle: dict[str, Any]) -> str | None:
    """Where the next page is, if there is one; its address is the sender's choice."""
    links = bundle.get("link")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("relation") == "next":
            return str(link.get("url"))
    return None


def further_page(number: int, first: int, answer: Fetched) -> FoundPage:
    """Page `number`, its entries at the positions from `first`. What is wrong with it, or with
    one of them, is refused by itself: the rest of the delivery goes on."""
    where = f"page {number}"
    bundle = fetched.read(answer, where)
    if isinstance(bundle, dict) and _kind(bundle) != ("Bundle", "searchset"):
        bundle = Issue("invalid", "the next page is no searchset", where)
    if isinstance(bundle, Issue):
        return FoundPage((Entry(first, where, "", "", refusal=bundle),))
    values = bundle.get("entry")
    numbered = enumerate(values if isinstance(values, list) else [])
    entries = tuple(_found_on(where, number, first + number, value) for number, value in numbered)
    return FoundPage(entries, next_page(bundle))


def _kind(bundle: dict[str, Any]) -> tuple[Any, Any]:
    return bundle["resourceType"], bundle.get("type")


def _found_on(page: str, number: int, position: int, value: Any) -> Entry:
    where = f"{page}, Bundle.entry[{number}]"
    try:
        entry = found(number, value)
    except Rejected as error:
        return Entry(position, where, "", "", refusal=replace(error.issues[0], expression=where))
    left_out = entry.refusal and replace(entry.refusal, expression=where)
    return replace(entry, position=position, where=where, refusal=left_out)


def version(position: int, value: Any) -> Entry:
    """An entry of a history: one version of a resource. The conditions of its request were met
    at the sender's server, and say nothing of ours."""
    where, value = checked_entry(position, value)
    request = request_of(value, where)
    method = method_of(request, where)
    if method in ("GET", "HEAD"):
        text = "a history holds what has been written, no reads"
        raise Rejected(Issue("value", text, f"{where}.request.method"))
    return written(position, where, value, method, named(request.get("url"), where))


def written(
    position: int,
    where: str,
    value: dict[str, Any],
    method: str,
    known: tuple[str, str, str] | None,
) -> Entry:
    """What was written at the sender's server: the resource by its identity, or its delete.
    `known`: what the request names."""
    full_url = full_url_of(value, where)
    resource = None if method == "DELETE" else _resource(value, where)
    known = known or literal(full_url or "")
    if resource is None and known is None:
        text = "neither request.url nor fullUrl says which resource was deleted"
        raise Rejected(Issue("required", text, f"{where}.request.url"))
    kind, _, identifier = known[1].partition("/") if known else ("", "", "")
    version, updated = _stated(value)
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
    own = checked_id(resource, f"{where}.resource") or identifier
    if not own:
        text = "neither resource.id nor request.url nor fullUrl says which resource this is"
        raise Rejected(Issue("required", text, f"{where}.resource.id"))
    resource = {**resource, "id": own}
    return Entry(
        position,
        where,
        "PUT",
        resource["resourceType"],
        own,
        resource=resource,
        full_url=full_url,
        version=version,
        updated=updated,
    )


def in_turn(entries: Sequence[Entry], values: Sequence[Any]) -> tuple[Entry, ...]:
    """The versions of each resource, each with its turn: the oldest first."""
    versions: dict[str | None, list[int]] = defaultdict(list)
    for entry in entries:
        versions[entry.identity].append(entry.position)
    turns: dict[int, int] = {}
    for positions in versions.values():
        turns.update(zip(_oldest_first(positions, values), positions, strict=True))
    return tuple(replace(entry, turn=turns[entry.position]) for entry in entries)


def _oldest_first(positions: Sequence[int], values: Sequence[Any]) -> list[int]:
    """By version, else by time, else the other way round: a history is newest first."""
    newest_last = list(reversed(positions))
    numbers = {n: _number(values[n]) for n in positions}
    times = {n: _time(values[n]) for n in positions}
    if all(number is not None for number in numbers.values()):
        return sorted(newest_last, key=lambda n: numbers[n] or 0)
    known = [time for time in times.values() if time is not None]
    if len(known) == len(positions):
        return sorted(newest_last, key=lambda n: times[n] or known[0])
    return newest_last


def _number(value: dict[str, Any]) -> int | None:
    stated = _said(value, "resource", "meta").get("versionId")
    if isinstance(stated, str) and stated.isascii() and stated.isdigit():
        return int(stated[:18])
    etag = _said(value, "response").get("etag")  # all that a deleted version has
    match = _ETAG.fullmatch(etag) if isinstance(etag, str) else None
    return int(match[1][:18]) if match else None


def _stated(value: dict[str, Any]) -> tuple[str | None, str | None]:
    """The version and the time that the entry's response states: all that a deletion has."""
    response = _said(value, "response")
    etag, modified = response.get("etag"), response.get("lastModified")
    match = _ETAG.fullmatch(etag) if isinstance(etag, str) else None
    return match[1] if match else None, modified if isinstance(modified, str) else None


def _time(value: dict[str, Any]) -> datetime | None:
    stated = _said(value, "resource", "meta").get("lastUpdated")
    stated = stated or _said(value, "response").get("lastModified")
    try:
        moment = datetime.fromisoformat(stated) if isinstance(stated, str) else None
    except ValueError:
        return None
    return moment if moment and moment.tzinfo else None


def _said(value: Any, *names: str) -> dict[str, Any]:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def named(url: Any, where: str) -> tuple[str, str, str] | None:
    """What request.url names; a create names a type alone."""
    if not isinstance(url, str) or not url:
        raise Rejected(Issue("required", "request.url is missing", f"{where}.request.url"))
    found = literal(url.removeprefix("/"))
    if found is None and not is_type(url.removeprefix("/").partition("?")[0]):
        text = "request.url names no resource of FHIR R4"
        raise Rejected(Issue("value", text, f"{where}.request.url"))
    return found


def _resource(value: dict[str, Any], where: str) -> dict[str, Any]:
    if "resource" not in value:
        raise Rejected(Issue("required", "the entry holds no resource", where))
    return checked_resource(value["resource"], f"{where}.resource")


def _kept(position: int, where: str, resource: dict[str, Any], full_url: str | None) -> Entry:
    element = f"{where}.resource" if where != "Bundle" else where
    identifier = checked_id(resource, element)
    method = "PUT" if identifier else "POST"
    kind = resource["resourceType"]
    return Entry(position, where, method, kind, identifier, resource=resource, full_url=full_url)
