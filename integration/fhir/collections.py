"""Bundles that bring resources rather than requests, and histories. Pure.

Each resource is written by its own identity, as a line of NDJSON is:
https://hl7.org/fhir/R4/bundle.html#bundle-unk leaves that to the receiver.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from integration.errors import Issue, Rejected
from integration.fhir.entries import Entry, checked_id, checked_resource
from integration.fhir.grammar import is_type, literal
from integration.fhir.requests import checked_entry, full_url_of, method_of, request_of
from integration.model import Policy

# bdl-11, bdl-12: https://hl7.org/fhir/R4/bundle.html#invs
_FIRST = {"document": "Composition", "message": "MessageHeader"}

_ETAG = re.compile(r'(?:W/)?"(\d+)"')


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


def has_next(bundle: dict[str, Any]) -> bool:
    """Whether there is another page, which nobody follows: its address is the sender's choice."""
    links = bundle.get("link")
    return isinstance(links, list) and any(
        isinstance(link, dict) and link.get("relation") == "next" for link in links
    )


def no_notification(value: Any) -> None:
    """R4 sends a subscription's notifications as histories that begin with its status:
    https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/notifications.html"""
    first = value if isinstance(value, dict) else {}
    resource, request = first.get("resource"), first.get("request")
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    url = request.get("url") if isinstance(request, dict) else None
    of_parameters = kind == "Parameters" and isinstance(url, str) and url.endswith("$status")
    if of_parameters or kind == "SubscriptionStatus":
        text = "this history is the notification of a subscription, which is not carried yet"
        raise Rejected(Issue("not-supported", text, "Bundle.entry[0]"), status=422)


def version(position: int, value: Any) -> Entry:
    """An entry of a history: one version of a resource. The conditions of its request were met
    at the sender's server, and say nothing of ours."""
    where, value = checked_entry(position, value)
    request, full_url = request_of(value, where), full_url_of(value, where)
    method = method_of(request, where)
    if method in ("GET", "HEAD"):
        text = "a history holds what has been written, no reads"
        raise Rejected(Issue("value", text, f"{where}.request.method"))
    resource = None if method == "DELETE" else _resource(value, where)
    named = _named(request.get("url"), where) or literal(full_url or "")
    if resource is None and named is None:
        text = "neither request.url nor fullUrl says which resource was deleted"
        raise Rejected(Issue("required", text, f"{where}.request.url"))
    kind, _, identifier = named[1].partition("/") if named else ("", "", "")
    if resource is None:
        return Entry(position, where, "DELETE", kind, identifier, full_url=full_url)
    if kind and kind != resource["resourceType"]:
        text = "resourceType differs from the type in request.url or fullUrl"
        raise Rejected(Issue("invalid", text, f"{where}.resource"))
    own = checked_id(resource, f"{where}.resource") or identifier
    if not own:
        text = "neither resource.id nor request.url nor fullUrl says which resource this is"
        raise Rejected(Issue("required", text, f"{where}.resource.id"))
    resource = {**resource, "id": own}
    return Entry(
        position, where, "PUT", resource["resourceType"], own, resource=resource, full_url=full_url
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


def _named(url: Any, where: str) -> tuple[str, str, str] | None:
    """What request.url names; a create names a type alone."""
    if not isinstance(url, str) or not url:
        raise Rejected(Issue("required", "request.url is missing", f"{where}.request.url"))
    named = literal(url.removeprefix("/"))
    if named is None and not is_type(url.removeprefix("/").partition("?")[0]):
        text = "request.url names no resource of FHIR R4"
        raise Rejected(Issue("value", text, f"{where}.request.url"))
    return named


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
