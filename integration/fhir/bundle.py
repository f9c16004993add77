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
    check_resource,
    read_ndjson,
    read_resource,
)
from integration.fhir.grammar import fold_url
from integration.fhir.requests import read_batch_entry, read_transaction_entry

REQUEST_TYPES = ("transaction", "batch")
SUPPORTED_TYPES = (
    *REQUEST_TYPES,
    *("history", "collection", "searchset", "message", "document"),
    notifications.R5_TYPE,
)

_RESPONSE_BUNDLE = "this bundle is the answer to a delivery, and no delivery itself"
_UNSUPPORTED = {
    "batch-response": _RESPONSE_BUNDLE,
    "transaction-response": _RESPONSE_BUNDLE,
}


def read(body: bytes, received: DeliveryRequest) -> Contents:
    """Take a delivery apart. Raises Rejected with every issue found, up to a bound.

    Linear in the body; the body's values never reach an issue.
    """
    if received.format == "ndjson":
        return read_ndjson(body)
    if received.method == "DELETE":
        return read_resource({}, received)
    if received.method == "PATCH":
        return patches.read_patch(body, received)
    resource = _parse(body)
    if resource["resourceType"] == "Bundle" and received.type is None:
        return replace(_read_bundle(resource, received.policy), dangling=received.policy.dangling)
    if received.type not in (None, resource["resourceType"]):
        raise Rejected(
            Issue(
                "invalid",
                f"the address says {received.type}, the body is another type of resource",
                "resourceType",
            )
        )
    return replace(read_resource(resource, received), dangling=received.policy.dangling)


def _parse(body: bytes) -> dict[str, Any]:
    if not body.strip():
        raise Rejected(Issue("required", "the body is empty; send a FHIR resource as JSON"))
    # https://www.rfc-editor.org/rfc/rfc8259#section-8.1
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise Rejected(
            Issue("invalid", "the body starts with a byte order mark; send UTF-8 without one")
        )
    try:
        return check_resource(decimal_json.decode(body), None)
    except decimal_json.Malformed as error:
        raise Rejected(Issue("invalid", f"the body is {error}")) from None


def _read_bundle(bundle: dict[str, Any], policy: Policy) -> Contents:
    kind = _check_type(bundle)
    values = bundle.get("entry")
    if not isinstance(values, list) or not values:
        raise Rejected(Issue("required", "the bundle has no entry", "Bundle.entry"))
    if kind in REQUEST_TYPES:
        read_entry = read_transaction_entry if kind == "transaction" else read_batch_entry
        return Contents(kind, tuple(_read_entries(values, kind, read_entry)))
    if notifications.is_notification(kind, values):
        return notifications.read(values)
    if kind == "history":
        entries = _read_entries(values, kind, collections.read_version)
        return Contents(kind, collections.order_versions(entries, values))
    collections.check_bundle(kind, values, policy)
    whole = kind == "document" and policy.documents == "bundle"
    read_entry = collections.read_found if kind == "searchset" else collections.read_member
    entries = [] if whole else _read_entries(values, kind, read_entry)
    if kind == "document" and policy.documents != "resources":
        entries.append(collections.read_whole_bundle(bundle, len(entries)))
    following = collections.find_next_url(bundle)
    if kind == "searchset" and following is not None:
        return collections.PagedContents(
            kind, tuple(entries), has_next_page=True, next_url=following
        )
    return Contents(kind, tuple(entries), has_next_page=following is not None)


def _check_type(bundle: dict[str, Any]) -> str:
    kind = bundle.get("type")
    if kind is None:
        raise Rejected(Issue("required", "the bundle has no type", "Bundle.type"))
    if kind not in SUPPORTED_TYPES:
        text = f"only bundles of type {', '.join(SUPPORTED_TYPES)} are carried, not this type"
        if isinstance(kind, str):
            text = _UNSUPPORTED.get(kind, text)
        raise Rejected(Issue("not-supported", text, "Bundle.type"), status=422)
    return str(kind)


def _read_entries(
    values: list[Any], kind: str, read_entry: Callable[[int, Any], Entry]
) -> list[Entry]:
    entries: list[Entry] = []
    issues: list[Issue] = []
    for position, value in enumerate(values):
        try:
            entries.append(read_entry(position, value))
        except Rejected as error:
            issues.extend(error.issues)
            if len(issues) >= MAX_ISSUES:
                break
    issues.extend(_find_duplicates(entries, kind))
    if issues:
        raise Rejected(*issues[:MAX_ISSUES])
    return entries


def _find_duplicates(entries: list[Entry], kind: str) -> Iterator[Issue]:
    """bdl-7, and https://hl7.org/fhir/R4/http.html#transaction: no resource twice."""
    urls = Counter(_get_folded_url(entry) for entry in entries if entry.full_url)
    targets = Counter(entry.identity for entry in entries if entry.id)
    for entry in entries:
        # A history repeats the fullUrl; its versions are kept apart by their turns.
        if entry.full_url and kind != "history" and urls[_get_folded_url(entry)] > 1:
            yield Issue(
                "duplicate", "fullUrl occurs more than once in the bundle", f"{entry.where}.fullUrl"
            )
        if kind == "transaction" and entry.id and targets[entry.identity] > 1:
            yield Issue(
                "duplicate",
                "a transaction must not touch a resource twice",
                f"{entry.where}.request.url",
            )


def _get_folded_url(entry: Entry) -> str:
    return fold_url(entry.full_url or "")
