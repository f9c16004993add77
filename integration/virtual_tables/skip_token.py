"""The position at which the next page of a collection begins, as $skiptoken. Pure."""

from __future__ import annotations

import re

import msgspec

from integration.odata.refusals import BadRequest

# The characters of a URL without a fragment: https://www.rfc-editor.org/rfc/rfc3986#section-2
_SEARCH = re.compile(r"[!\"$-~]*")


class PageCursor(msgspec.Struct, array_like=True):
    """Where a page begins.

    With `path`, a page of the FHIR server: after `position` of its resources. Without: after
    `position` of the gathered rows.
    """

    path: str | None
    position: int


def format_token(cursor: PageCursor) -> str:
    """Format a cursor as the value of $skiptoken."""
    return msgspec.json.encode(cursor).hex()


def parse_token(text: str | None, resource: str) -> PageCursor | None:
    """Parse the value of $skiptoken.

    Raises Rejected for a token that this feed cannot have issued. Any other token leads to a search
    for the same resource type.
    """
    if text is None:
        return None
    try:
        cursor = msgspec.json.decode(bytes.fromhex(text), type=PageCursor)
    except (ValueError, msgspec.DecodeError):
        raise BadRequest("$skiptoken was not issued by this feed", "$skiptoken") from None
    if not _is_plausible(cursor, resource):
        raise BadRequest("$skiptoken was not issued by this feed", "$skiptoken")
    return cursor


def _is_plausible(cursor: PageCursor, resource: str) -> bool:
    # FEED_MAX_SCANNED is 50,000 at most, and a page of the server has 1,000 resources at most.
    if cursor.path is None:
        return 0 <= cursor.position <= 50_000
    is_search = cursor.path.startswith(f"{resource}?") and _SEARCH.fullmatch(cursor.path)
    return bool(is_search) and 0 <= cursor.position <= 1000
