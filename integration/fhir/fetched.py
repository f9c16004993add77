"""Resources fetched for a delivery: which addresses are allowed, what the answer holds. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from integration.core import decimal_json
from integration.core.errors import Issue, Rejected
from integration.core.model import FhirResource
from integration.fhir.entries import Entry, keep
from integration.fhir.resources import check_resource

# Statuses of this app, besides those that a server answers.
NOT_FETCHED = 0  # the address is not below one of FETCH_FROM, or the page limit is reached
TOO_LARGE = 413
TOO_MANY = 1  # no status of HTTP: the entries of all pages are more than a delivery may have

_DELETED = 410
_GONE = (404, _DELETED)

# A continuation token may be long: https://hl7.org/fhir/R4/http.html#paging
_MAX_ADDRESS = 8192

# Only plain segments are allowed below a base: nothing that a client or a server would resolve,
# decode or cut off (https://www.rfc-editor.org/rfc/rfc3986#section-5.2.4). Operations are not
# allowed either, since a GET starts some of them.
_SEGMENT = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._~\-]+")
_QUERY = re.compile(r"[\x21\x24-\x5b\x5d-\x7e]*")


@dataclass(frozen=True, slots=True)
class FetchedResponse:
    """A response as the journal keeps it, so that a repeated work item is planned with the same
    one."""

    status: int
    body: bytes = b""


def encode(response: FetchedResponse) -> bytes:
    """Return the response as bytes for the journal."""
    return b"%d %b" % (response.status, response.body)


def decode(data: bytes) -> FetchedResponse:
    """Parse what `encode` returned."""
    status, _, body = data.partition(b" ")
    return FetchedResponse(int(status), body)


def split_address(address: str, bases: Iterable[str]) -> tuple[str, str] | None:
    """Return (base, path below it) if the address is certainly below one of the bases, else None.

    Compares character by character, up to the end of a segment, so that no other host, user, port
    or folder can start like a base.
    """
    for base in bases:
        rest = address.removeprefix(base)
        if rest != address and rest[:1] in ("/", "?") and _is_plain(rest):
            return base, rest.removeprefix("/")
    return None


def fill_entry(entry: Entry, response: FetchedResponse) -> Entry:
    """Return an entry that only names a resource with that resource, or with the reason why there
    is none."""
    if response.status in _GONE:
        text = "not written: its server does not have the resource, or has deleted it"
        return replace(entry, refusal=Issue("deleted", text, entry.where, "information"))
    resource = read_resource(response, entry.where)
    if (
        isinstance(resource, dict)
        and f"{resource['resourceType']}/{resource.get('id')}" != entry.identity
    ):
        resource = Issue("invalid", "its server returned another resource", entry.where)
    if isinstance(resource, Issue):
        return replace(entry, refusal=resource)
    return replace(entry, method="PUT", content=keep(resource), refusal=None)


def confirm_deleted(entry: Entry, response: FetchedResponse) -> Entry:
    """Return a delete if its server says that it has deleted the resource, else the update that
    makes the FHIR server's copy what its server has.

    404 deletes nothing: it is the answer, too, where the resource has always been another sender's.
    https://hl7.org/fhir/R4/http.html#delete has 410 for what was deleted.
    """
    return entry if response.status == _DELETED else fill_entry(entry, response)


def read_resource(response: FetchedResponse, where: str) -> FhirResource | Issue:
    """Return the resource in a response, or the issue that says why there is none."""
    if response.status == NOT_FETCHED:
        return make_not_fetched_issue(where)
    if response.status == TOO_LARGE:
        text = "the resources fetched for this delivery are larger than MAX_DELIVERY_BYTES"
        return Issue("too-long", text, where)
    if response.status == TOO_MANY:
        text = "the pages of this delivery have more entries than MAX_DELIVERY_ENTRIES"
        return Issue("too-long", text, where)
    if 300 <= response.status < 400:
        text = "its server returned a redirect, and redirects are never followed"
        return Issue("processing", text, where)
    if response.status != 200:
        return Issue("processing", f"its server returned status {response.status}", where)
    try:
        return check_resource(decimal_json.decode(response.body), response.body, where)
    except decimal_json.Malformed:
        return Issue("invalid", "its server returned something other than JSON", where)
    except Rejected as error:
        text = f"the resource that its server returned is refused: {error}"
        return replace(error.issues[0], text=text, expression=where)


def make_not_fetched_issue(where: str) -> Issue:
    """Return the issue of an entry whose resource was not fetched."""
    text = "the entry holds no resource, and its address is not below one that FETCH_FROM allows"
    return Issue("not-supported", text, where)


def _is_plain(rest: str) -> bool:
    path, _, query = rest.removeprefix("/").partition("?")
    plain = not path or all(_SEGMENT.fullmatch(part) for part in path.split("/"))
    return plain and len(rest) <= _MAX_ADDRESS and _QUERY.fullmatch(query) is not None
