"""The position at which the next page of a collection begins, as $skiptoken. Pure."""

from __future__ import annotations

import re
from datetime import datetime

import msgspec

from integration.odata.refusals import BadRequest

# The characters of a URL without a fragment: https://www.rfc-editor.org/rfc/rfc3986#section-2
_SEARCH = re.compile(r"[!\"$-~]*")


class PageCursor(msgspec.Struct, array_like=True):
    """Where a page begins.

    With `path`, a page of the FHIR server: after `position` of its resources. Without: after
    `position` of the gathered rows. From a place of the FHIR server rows may come that were shown:
    see `date_window.Boundary` for `shown_until` and `shown`.
    """

    path: str | None
    position: int
    shown_until: datetime | None = None
    shown: int | None = None


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
    if not 0 <= (cursor.shown or 0) <= 50_000:
        return False
    if cursor.shown_until is not None and cursor.shown_until.tzinfo is None:
        return False
    if cursor.path is None:
        return 0 <= cursor.position <= 50_000
    is_search = cursor.path.startswith(f"{resource}?") and _SEARCH.fullmatch(cursor.path)
    return bool(is_search) and 0 <= cursor.position <= 1000
