"""From the bytes of a delivery to its contents: what does each entry ask for? Pure.

A bundle's type says which function reads each of its entries; see `_READERS`. What an entry may
hold is checked where it is read (`raw_entry`), once, and an entry that is wrong is refused with the
path of the element: alone, unless it is part of a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice

from integration.core.errors import Rejected
from integration.core.model import DeliveryRequest, FhirResource, Policy
from integration.fhir import (
    collections,
    duplicates,
    history,
    notifications,
    patches,
    requests,
    validation,
)
from integration.fhir.entries import MAX_ISSUES, Contents, Entry, check_count, refuse
from integration.fhir.envelope import Envelope, check_entries, iterate_entries, open_envelope
from integration.fhir.raw_entry import RawEntry, read_entries
from integration.fhir.resources import (
    BYTE_ORDER_MARK,
    check_resource,
    decode_body,
    read_ndjson,
    read_resource,
)
from integration.fhir.rights import refuse_forbidden

_READERS: Mapping[str, Callable[[RawEntry], Entry]] = {
    "transaction": requests.read_transaction_entry,
    "batch": requests.read_batch_entry,
    "history": history.read_version,
    "collection": collections.read_member,
    "searchset": collections.read_found,
    "message": collections.read_member,
    "document": collections.read_member,
}
SUPPORTED_TYPES = (*_READERS, notifications.R5_TYPE)

# The others are read as wholes: they order their entries, or are stored themselves.
_READ_ONE_BY_ONE = frozenset({"transaction", "batch", "collection", "searchset", "message"})

# What a server has found, which may be nothing.
_SEARCHED = ("searchset", "history")

_RESPONSES = ("batch-response", "transaction-response")


def read(body: bytes, received: DeliveryRequest, max_entries: int | None = None) -> Contents:
    """Parse a delivery. Raises Rejected with every issue found, up to MAX_ISSUES.

    Takes time linear in the body. No value of the body reaches an issue. `max_entries`: the most
    entries that a delivery may have; None for one that was accepted before.
    """
    contents = refuse_forbidden(_read(body, received, max_entries), received.rights)
    return validation.refuse_invalid(contents) if received.policy.validate else contents


def _read(body: bytes, received: DeliveryRequest, max_entries: int | None) -> Contents:
    if received.format == "ndjson":
        return read_ndjson(body, max_entries)
    if received.method == "DELETE":
        return read_resource({}, received)
    if received.method == "PATCH":
        return patches.read_patch(body, received)
    if max_entries is not None and received.type is None:
        check_entries(body, max_entries)
    envelope = open_envelope(body, _READ_ONE_BY_ONE) if received.type is None else None
    if envelope is not None:
        contents = _read_envelope(envelope, received.policy, max_entries)
        return replace(contents, dangling=received.policy.dangling)
    resource = _parse(body)
    if resource["resourceType"] == "Bundle" and received.type is None:
        contents = _read_bundle(resource, received.policy, max_entries)
    else:
        contents = _read_typed(resource, received)
    return replace(contents, dangling=received.policy.dangling)


def _parse(body: bytes) -> FhirResource:
    body = body.removeprefix(BYTE_ORDER_MARK)
    if not body.strip():
        refuse("required", "the body is empty; send a FHIR resource as JSON")
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        refuse("invalid", "the body starts with the byte order mark of UTF-16; send UTF-8")
    return check_resource(decode_body(body), body, None)


def _read_typed(resource: FhirResource, received: DeliveryRequest) -> Contents:
    if received.type not in (None, resource["resourceType"]):
        text = f"the address says {received.type}, the body is another type of resource"
        refuse("invalid", text, "resourceType")
    return read_resource(resource, received)


def _read_bundle(bundle: FhirResource, policy: Policy, max_entries: int | None) -> Contents:
    kind = _check_type(bundle)
    values = bundle.get("entry")
    if values in (None, []) and kind in _SEARCHED:
        return collections.add_next_page(kind, [], bundle)
    if not isinstance(values, list) or not values:
        refuse("required", "the bundle has no entry", "Bundle.entry")
    check_count(len(values), max_entries, "Bundle.entry")
    if notifications.is_notification(kind, values):
        return notifications.read(values, policy.fetch_from or ())
    collections.check_bundle(kind, values, policy)
    if kind == "document" and policy.documents == "bundle":
        return collections.add_next_page(kind, [collections.read_whole_bundle(bundle, 0)], bundle)
    entries = read_entries(((n, value, None) for n, value in enumerate(values)), _READERS[kind])
    if kind == "history":
        return Contents(kind, history.order_versions(entries, values))
    entries = duplicates.settle_duplicates(entries)
    if kind == "document" and policy.documents == "both":
        entries.append(collections.read_whole_bundle(bundle, len(entries)))
    return collections.add_next_page(kind, entries, bundle)


def _read_envelope(envelope: Envelope, policy: Policy, max_entries: int | None) -> Contents:
    """Read a bundle whose entries say all about themselves, so that each is parsed by itself."""
    kind = _check_type(envelope.bundle)
    check_count(len(envelope.texts), max_entries, "Bundle.entry")
    parsed = iterate_entries(envelope)
    first = next(parsed)
    collections.check_bundle(kind, [first[1]], policy)
    entries = read_entries(chain([first], parsed), _READERS[kind], atomic=kind == "transaction")
    if kind == "transaction":
        _refuse_duplicates(entries)
        return Contents(kind, tuple(entries))
    entries = duplicates.settle_duplicates(entries)
    if kind == "batch":
        return Contents(kind, tuple(entries))
    return collections.add_next_page(kind, entries, envelope.bundle)


def _check_type(bundle: FhirResource) -> str:
    """Return Bundle.type if bundles of that type are accepted."""
    kind = bundle.get("type")
    if kind is None:
        refuse("required", "the bundle has no type", "Bundle.type")
    if kind not in SUPPORTED_TYPES:
        text = f"only bundles of type {', '.join(SUPPORTED_TYPES)} are accepted, not this type"
        if kind in _RESPONSES:
            text = "this bundle is the response to a delivery; send the request bundle"
        refuse("not-supported", text, "Bundle.type", status=422)
    return str(kind)


def _refuse_duplicates(entries: Sequence[Entry]) -> None:
    """Raise Rejected if a transaction names a resource twice."""
    issues = tuple(islice(duplicates.find_duplicates(entries), MAX_ISSUES))
    if issues:
        raise Rejected(*issues)
