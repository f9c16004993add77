"""What is fetched for a delivery: may its address be asked, and what does the answer say? Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Issue, Rejected
from integration.fhir.entries import Entry, check_resource

# Statuses of ours, beside those of the server that was asked.
NOT_FETCHED = 0  # the address is not below one of FETCH_FROM, or there are pages enough
TOO_LARGE = 413

_GONE = (404, 410)

# A continuation token may be long: https://hl7.org/fhir/R4/http.html#paging
_MAX_ADDRESS = 8192

# Below a base there are plain segments only: nothing that a client or a server would resolve,
# decode or cut off (https://www.rfc-editor.org/rfc/rfc3986#section-5.2.4). No operation either:
# some are started by a GET.
_SEGMENT = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._~\-]+")
_QUERY = re.compile(r"[\x21\x24-\x5b\x5d-\x7e]*")


@dataclass(frozen=True, slots=True)
class FetchedResponse:
    """An answer, as the journal keeps it: a claim that comes again plans with the same one."""

    status: int
    body: bytes = b""


def encode(response: FetchedResponse) -> bytes:
    """The answer as bytes."""
    return b"%d %b" % (response.status, response.body)


def decode(data: bytes) -> FetchedResponse:
    """The answer that `kept` made the bytes from."""
    status, _, body = data.partition(b" ")
    return FetchedResponse(int(status), body)


def split_address(address: str, bases: Iterable[str]) -> tuple[str, str] | None:
    """(base, what follows it) of an address that is certainly below one of the bases.

    Compared character by character, up to the end of a segment: no other host, user, port or
    folder can begin as a base does.
    """
    for base in bases:
        rest = address.removeprefix(base)
        if rest != address and rest[:1] in ("/", "?") and _is_plain(rest):
            return base, rest.removeprefix("/")
    return None


def fill_entry(entry: Entry, response: FetchedResponse) -> Entry:
    """An entry that names a resource, with that resource; or with the reason why there is none."""
    if response.status in _GONE:
        text = "not written: its server has it no more, or never had it"
        return replace(entry, refusal=Issue("deleted", text, entry.where, "information"))
    resource = read_resource(response, entry.where)
    if (
        isinstance(resource, dict)
        and f"{resource['resourceType']}/{resource.get('id')}" != entry.identity
    ):
        resource = Issue("invalid", "its server answered with another resource", entry.where)
    if isinstance(resource, Issue):
        return replace(entry, refusal=resource)
    return replace(entry, method="PUT", resource=resource, refusal=None)


def read_resource(response: FetchedResponse, where: str) -> dict[str, Any] | Issue:
    """The resource in an answer, or why there is none."""
    if response.status == NOT_FETCHED:
        return make_not_fetched_issue(where)
    if response.status == TOO_LARGE:
        text = "what is fetched for this delivery is larger than MAX_DELIVERY_BYTES"
        return Issue("too-long", text, where)
    if 300 <= response.status < 400:
        text = "its server answered with a redirect, which is never followed"
        return Issue("processing", text, where)
    if response.status != 200:
        return Issue("processing", f"its server answered {response.status}", where)
    try:
        return check_resource(decimal_json.decode(response.body), where)
    except decimal_json.Malformed:
        return Issue("invalid", "its server answered with no JSON", where)
    except Rejected as error:
        text = f"what its server answered is refused: {error}"
        return replace(error.issues[0], text=text, expression=where)


def make_not_fetched_issue(where: str) -> Issue:
    """What is said as long as nothing was fetched."""
    text = "holds no resource, and is fetched only from an address that FETCH_FROM names"
    return Issue("not-supported", text, where)


def _is_plain(rest: str) -> bool:
    path, _, query = rest.removeprefix("/").partition("?")
    plain = not path or all(_SEGMENT.fullmatch(part) for part in path.split("/"))
    return plain and len(rest) <= _MAX_ADDRESS and _QUERY.fullmatch(query) is not None
