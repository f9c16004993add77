"""The position at which the next page of a collection begins, as $skiptoken. Pure.

A token names a page of the FHIR server. It is signed, so that the feed searches for nothing but
what it has itself sent to a client, and for an entity set only what it has sent for that one.
"""

from __future__ import annotations

import hmac
from datetime import datetime

import msgspec

from integration.odata.refusals import BadRequest

# Bytes of the signature, which are enough for one that nobody can try out offline:
# https://www.rfc-editor.org/rfc/rfc2104#section-5
_SIGNATURE_LENGTH = 16


class PageCursor(msgspec.Struct, array_like=True, frozen=True):
    """Where a page begins.

    With `path`, a page of the FHIR server: after `position` of its resources. Without: after
    `position` of the gathered rows. From a place of the FHIR server rows may come that were shown:
    see `date_window.Boundary` for `shown_until` and `shown`.
    """

    path: str | None
    position: int
    shown_until: datetime | None = None
    shown: int | None = None


def format_token(cursor: PageCursor, resource: str, key: bytes) -> str:
    """Format a cursor as the value of $skiptoken, signed with `key`."""
    content = msgspec.json.encode(cursor)
    return (_sign(content, resource, key) + content).hex()


def parse_token(text: str, resource: str, key: bytes) -> PageCursor:
    """Parse the value of $skiptoken. Raises Rejected for one that was not signed with `key` for
    rows of this resource type."""
    try:
        signed = bytes.fromhex(text)
        signature, content = signed[:_SIGNATURE_LENGTH], signed[_SIGNATURE_LENGTH:]
        if hmac.compare_digest(signature, _sign(content, resource, key)):
            return msgspec.json.decode(content, type=PageCursor)
    except (ValueError, msgspec.DecodeError):
        pass  # it is none of ours
    raise BadRequest("$skiptoken was not issued by this feed for this set", "$skiptoken")


def _sign(content: bytes, resource: str, key: bytes) -> bytes:
    digest = hmac.digest(key, b"%s?%s" % (resource.encode(), content), "sha256")
    return digest[:_SIGNATURE_LENGTH]
