"""Bundle: is the envelope sound, and what does each entry ask for? Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Issue, Rejected
from integration.core.model import DeliveryRequest, Policy
from integration.fhir import collections, notifications, patches
from integration.fhir.entries import (
    MAX_ISSUES,
    Contents,
    Entry,
    checked_resource,
    of_lines,
    of_resource,
)
from integration.fhir.grammar import folded
from integration.fhir.requests import requested, requested_together

REQUESTED = ("transaction", "batch")
CARRIED = (
    *REQUESTED,
    *("history", "collection", "searchset", "message", "document"),
    notifications.R5_TYPE,
)

_ANSWER = "this bundle is the answer to a delivery, and no delivery itself"
_NOT_CARRIED = {
    "batch-response": _ANSWER,
    "transaction-response": _ANSWER,
}


def read(body: bytes, received: DeliveryRequest) -> Contents:
    """Take a delivery apart. Raises Rejected with every issue found, up to a bound.

    Linear in the body; the body's values never reach an issue.
    """
    if received.format == "ndjson":
        return of_lines(body)
    if received.method == "DELETE":
        return of_resource({}, received)
    if received.method == "PATCH":
        return patches.of_request(body, received)
    resource = _parse(body)
    if resource["resourceType"] == "Bundle" and received.type is None:
        return replace(_contents(resource, received.policy), dangling=received.policy.dangling)
    if received.type not in (None, resource["resourceType"]):
        raise Rejected(
            Issue(
                "invalid",
                f"the address says {received.type}, the body is another type of resource",
                "resourceType",
            )
        )
    return replace(of_resource(resource, received), dangling=received.policy.dangling)


def _parse(body: bytes) -> dict[str, Any]:
    if not body.strip():
        raise Rejected(Issue("required", "the body is empty; send a FHIR resource as JSON"))
    # https://www.rfc-editor.org/rfc/rfc8259#section-8.1
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise Rejected(
            Issue("invalid", "the body starts with a byte order mark; send UTF-8 without one")
        )
    try:
        return checked_resource(decimal_json.decode(body), None)
    except decimal_json.Malformed as error:
        raise Rejected(Issue("invalid", f"the body is {error}")) from None


def _contents(bundle: dict[str, Any], policy: Policy) -> Contents:
    kind = _kind(bundle)
    values = bundle.get("entry")
    if not isinstance(values, list) or not values:
        raise Rejected(Issue("required", "the bundle has no entry", "Bundle.entry"))
    if kind in REQUESTED:
        one = requested_together if kind == "transaction" else requested
        return Contents(kind, tuple(_sound(values, kind, one)))
    if notifications.is_notification(kind, values):
        return notifications.read(values)
    if kind == "history":
        entries = _sound(values, kind, collections.version)
        return Contents(kind, collections.in_turn(entries, values))
    collections.check(kind, values, policy)
    whole = kind == "document" and policy.documents == "bundle"
    one = collections.found if kind == "searchset" else collections.member
    entries = [] if whole else _sound(values, kind, one)
    if kind == "document" and policy.documents != "resources":
        entries.append(collections.whole(bundle, len(entries)))
    following = collections.next_page(bundle)
    if kind == "searchset" and following is not None:
        return collections.PagedContents(kind, tuple(entries), more=True, next=following)
    return Contents(kind, tuple(entries), more=following is not None)


def _kind(bundle: dict[str, Any]) -> str:
    kind = bundle.get("type")
    if kind is None:
        raise Rejected(Issue("required", "the bundle has no type", "Bundle.type"))
    if kind not in CARRIED:
        text = f"only bundles of type {', '.join(CARRIED)} are carried, not this type"
        if isinstance(kind, str):
            text = _NOT_CARRIED.get(kind, text)
        raise Rejected(Issue("not-supported", text, "Bundle.type"), status=422)
    return str(kind)


def _sound(values: list[Any], kind: str, one: Callable[[int, Any], Entry]) -> list[Entry]:
    entries: list[Entry] = []
    issues: list[Issue] = []
    for position, value in enumerate(values):
        try:
            entries.append(one(position, value))
        except Rejected as error:
            issues.extend(error.issues)
            if len(issues) >= MAX_ISSUES:
                break
    issues.extend(_repeated(entries, kind))
    if issues:
        raise Rejected(*issues[:MAX_ISSUES])
    return entries


def _repeated(entries: list[Entry], kind: str) -> Iterator[Issue]:
    """bdl-7, and https://hl7.org/fhir/R4/http.html#transaction: no resource twice."""
    urls = Counter(_own_url(entry) for entry in entries if entry.full_url)
    targets = Counter(entry.identity for entry in entries if entry.id)
    for entry in entries:
        # A history repeats the fullUrl; its versions are kept apart by their turns.
        if entry.full_url and kind != "history" and urls[_own_url(entry)] > 1:
            yield Issue(
                "duplicate", "fullUrl occurs more than once in the bundle", f"{entry.where}.fullUrl"
            )
        if kind == "transaction" and entry.id and targets[entry.identity] > 1:
            yield Issue(
                "duplicate",
                "a transaction must not touch a resource twice",
                f"{entry.where}.request.url",
            )


def _own_url(entry: Entry) -> str:
    return folded(entry.full_url or "")
