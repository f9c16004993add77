"""From the bytes of a delivery to its contents: what does each entry ask for? Pure.

A bundle's type says which function reads each of its entries; see `_READERS`. What an entry may
hold is checked where it is read (`raw_entry`), once, and an entry that is wrong is refused with the
path of the element.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from integration.core.errors import Issue, Rejected
from integration.core.model import DeliveryRequest, FhirResource, Policy
from integration.fhir import collections, history, notifications, patches, requests
from integration.fhir.entries import MAX_ISSUES, Contents, Entry, refuse
from integration.fhir.grammar import fold_url
from integration.fhir.raw_entry import RawEntry, read_entries
from integration.fhir.resources import check_resource, decode_body, read_ndjson, read_resource

REQUEST_TYPES = ("transaction", "batch")

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

_RESPONSES = ("batch-response", "transaction-response")


def read(body: bytes, received: DeliveryRequest) -> Contents:
    """Parse a delivery. Raises Rejected with every issue found, up to MAX_ISSUES.

    Takes time linear in the body. No value of the body reaches an issue.
    """
    if received.format == "ndjson":
        return read_ndjson(body)
    if received.method == "DELETE":
        return read_resource({}, received)
    if received.method == "PATCH":
        return patches.read_patch(body, received)
    resource = _parse(body)
    if resource["resourceType"] == "Bundle" and received.type is None:
        contents = _read_bundle(resource, received.policy)
    else:
        contents = _read_typed(resource, received)
    return replace(contents, dangling=received.policy.dangling)


def _parse(body: bytes) -> FhirResource:
    if not body.strip():
        refuse("required", "the body is empty; send a FHIR resource as JSON")
    # https://www.rfc-editor.org/rfc/rfc8259#section-8.1
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        refuse("invalid", "the body starts with a byte order mark; send UTF-8 without one")
    return check_resource(decode_body(body), None)


def _read_typed(resource: FhirResource, received: DeliveryRequest) -> Contents:
    if received.type not in (None, resource["resourceType"]):
        text = f"the address says {received.type}, the body is another type of resource"
        refuse("invalid", text, "resourceType")
    return read_resource(resource, received)


def _read_bundle(bundle: FhirResource, policy: Policy) -> Contents:
    kind = _check_type(bundle)
    values = bundle.get("entry")
    if not isinstance(values, list) or not values:
        refuse("required", "the bundle has no entry", "Bundle.entry")
    if notifications.is_notification(kind, values):
        return notifications.read(values)
    collections.check_bundle(kind, values, policy)
    if kind == "document" and policy.documents == "bundle":
        return collections.add_next_page(kind, [collections.read_whole_bundle(bundle, 0)], bundle)
    entries, issues = read_entries(enumerate(values), _READERS[kind])
    issues.extend(_find_duplicates(entries, kind))
    if issues:
        raise Rejected(*issues[:MAX_ISSUES])
    if kind in REQUEST_TYPES:
        return Contents(kind, tuple(entries))
    if kind == "history":
        return Contents(kind, history.order_versions(entries, values))
    if kind == "document" and policy.documents == "both":
        entries.append(collections.read_whole_bundle(bundle, len(entries)))
    return collections.add_next_page(kind, entries, bundle)


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


def _find_duplicates(entries: Sequence[Entry], kind: str) -> Iterator[Issue]:
    """bdl-7, and https://hl7.org/fhir/R4/http.html#transaction: no resource twice."""
    urls = Counter(fold_url(entry.full_url) for entry in entries if entry.full_url)
    targets = Counter(entry.identity for entry in entries if entry.id)
    for entry in entries:
        # A history repeats the fullUrl; its versions are kept apart by their write positions.
        if entry.full_url and kind != "history" and urls[fold_url(entry.full_url)] > 1:
            text = "fullUrl occurs more than once in the bundle"
            yield Issue("duplicate", text, f"{entry.where}.fullUrl")
        if kind == "transaction" and entry.id and targets[entry.identity] > 1:
            text = "a transaction must not touch a resource twice"
            yield Issue("duplicate", text, f"{entry.where}.request.url")
