"""Where the next page of a collection goes on, as $skiptoken carries it. Pure."""

from __future__ import annotations

import re

import msgspec

from integration.odata.refusals import BadRequest

# An address without a fragment: https://www.rfc-editor.org/rfc/rfc3986#section-2
_SEARCH = re.compile(r"[!\"$-~]*")


class PageCursor(msgspec.Struct, array_like=True):
    """Where a page goes on: a page of the FHIR server and how much of it has been looked at; or,
    without one, how many of the gathered rows have been told."""

    path: str | None
    position: int


def format_token(mark: PageCursor) -> str:
    return msgspec.json.encode(mark).hex()


def parse_token(text: str | None, resource: str) -> PageCursor | None:
    """Raises Rejected for what this feed has not given, as far as that can be told: what it leads
    to is a search of the same set in any case."""
    if text is None:
        return None
    try:
        mark = msgspec.json.decode(bytes.fromhex(text), type=PageCursor)
    except (ValueError, msgspec.DecodeError):
        raise BadRequest("$skiptoken is none of this feed", "$skiptoken") from None
    # A page of the server has 1,000 resources at most, and FEED_MAX_SCANNED is 50,000 at most.
    most, is_search = 50_000, True
    if mark.path is not None:
        most, is_search = 1000, _SEARCH.fullmatch(mark.path) is not None
        is_search = is_search and mark.path.startswith(f"{resource}?")
    if not is_search or not 0 <= mark.position <= most:
        raise BadRequest("$skiptoken is none of this feed", "$skiptoken")
    return mark
