"""Bundles that hold resources rather than requests, and the further pages of a searchset. Pure.

Each resource is written by its own identity, as a line of NDJSON is:
https://hl7.org/fhir/R4/bundle.html#bundle-unk leaves that to the receiver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from integration.core.errors import Issue, Rejected
from integration.core.model import FhirResource, Policy
from integration.fhir import fetched
from integration.fhir.entries import Contents, Entry, refuse, refuse_alone
from integration.fhir.fetched import FetchedResponse
from integration.fhir.json_objects import get_object
from integration.fhir.raw_entry import RawEntry, open_entry
from integration.fhir.resources import make_entry

# bdl-11, bdl-12: https://hl7.org/fhir/R4/bundle.html#invs
_FIRST = {"document": "Composition", "message": "MessageHeader"}


@dataclass(frozen=True, slots=True)
class PagedContents(Contents):
    """Contents whose next page is at an address that the sender has chosen."""

    next_url: str | None = None


@dataclass(frozen=True, slots=True)
class FurtherPage:
    """A further page of a searchset: the entries it adds, and the address of the next one."""

    entries: tuple[Entry, ...]
    next_url: str | None = None


def check_bundle(kind: str, values: Sequence[Any], policy: Policy) -> None:
    """Check the bundle before its entries are read. Raises Rejected."""
    if kind == "message" and policy.messages == "refuse":
        text = "messages are not accepted here: the operator has set MESSAGES to refuse"
        refuse("not-supported", text, "Bundle.type", status=422)
    required_type = _FIRST.get(kind)
    if required_type and get_object(values[0], "resource").get("resourceType") != required_type:
        text = f"the first entry of a {kind} must be a {required_type}"
        refuse("invalid", text, "Bundle.entry[0].resource")


def read_member(raw: RawEntry) -> Entry:
    """Read an entry without a request: the write of its resource, by the resource's identity."""
    if "request" in raw.value:
        text = "only a batch, transaction or history has requests; is Bundle.type right?"
        raw.refuse("invalid", text, "request")
    full_url, resource = raw.get_full_url(), raw.get_resource()
    element = f"{raw.where}.resource"
    entry = make_entry(raw.position, raw.where, resource, element=element, json=raw.json)
    return replace(entry, full_url=full_url)


def read_found(raw: RawEntry) -> Entry:
    """Read an entry of a searchset. What the server says about the search itself is left out."""
    entry = read_member(raw)
    mode = get_object(raw.value, "search").get("mode")
    if entry.type == "OperationOutcome" or mode == "outcome":
        left_out = Issue("informational", "left out: search outcome", entry.where, "information")
        return replace(entry, method="", id=None, content=None, refusal=left_out)
    return entry


def read_whole_bundle(bundle: FhirResource, position: int) -> Entry:
    """Return the write of the bundle itself, as one resource that stays as it is."""
    return make_entry(position, "Bundle", bundle, element="Bundle")


def add_next_page(kind: str, entries: Sequence[Entry], bundle: FhirResource) -> Contents:
    """Return the contents, with the next page if the bundle names one. Only a searchset's further
    pages are fetched."""
    next_url = find_next_url(bundle)
    if kind == "searchset" and next_url is not None:
        return PagedContents(kind, tuple(entries), has_next_page=True, next_url=next_url)
    return Contents(kind, tuple(entries), has_next_page=next_url is not None)


def find_next_url(bundle: FhirResource) -> str | None:
    """Return the address of the next page, if there is one. The sender has chosen it."""
    links = bundle.get("link")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("relation") == "next":
            return str(link.get("url"))
    return None


def read_further_page(number: int, first: int, response: FetchedResponse) -> FurtherPage:
    """Read page `number`, whose entries get the positions from `first`.

    A page, or an entry of it, that is wrong is refused alone: the rest of the delivery goes on.
    """
    where = f"page {number}"
    bundle = fetched.read_resource(response, where)
    if not isinstance(bundle, Issue) and not _is_searchset(bundle):
        bundle = Issue("invalid", "the next page is no searchset", where)
    if isinstance(bundle, Issue):
        return FurtherPage((refuse_alone(first, where, bundle),))
    values = bundle.get("entry")
    numbered = enumerate(values if isinstance(values, list) else [])
    entries = (_read_page_entry(where, index, first + index, value) for index, value in numbered)
    return FurtherPage(tuple(entries), find_next_url(bundle))


def _is_searchset(bundle: FhirResource) -> bool:
    return (bundle["resourceType"], bundle.get("type")) == ("Bundle", "searchset")


def _read_page_entry(page: str, index: int, position: int, value: Any) -> Entry:
    where = f"{page}, Bundle.entry[{index}]"
    try:
        return read_found(open_entry(position, where, value))
    except Rejected as error:
        return refuse_alone(position, where, replace(error.issues[0], expression=where))
