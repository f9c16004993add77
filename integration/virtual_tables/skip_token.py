"""The position at which the next page of a collection begins, as $skiptoken. Pure.

A token names a page of the FHIR server, or of Dataverse. It is sealed: the feed searches for
nothing but what it has itself sent to a client, and for an entity set only what it has sent for
that one. And who sees the address of a page learns nothing from it: Dataverse's own name of a page
holds values of its rows.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from integration.odata.refusals import BadRequest


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
    """Format a cursor as the value of $skiptoken, sealed with `key`, of 32 bytes."""
    return AESSIV(key).encrypt(msgspec.json.encode(cursor), [resource.encode()]).hex()


def parse_token(text: str, resource: str, key: bytes) -> PageCursor:
    """Parse the value of $skiptoken. Raises Rejected for one that was not sealed with `key` for
    rows of this resource type.

    AES-SIV needs no random number: https://www.rfc-editor.org/rfc/rfc5297
    """
    try:
        content = AESSIV(key).decrypt(bytes.fromhex(text), [resource.encode()])
        return msgspec.json.decode(content, type=PageCursor)
    except (InvalidTag, ValueError, msgspec.DecodeError):  # it is none of ours
        text = "$skiptoken was not issued by this feed for this set"
        raise BadRequest(text, "$skiptoken") from None
