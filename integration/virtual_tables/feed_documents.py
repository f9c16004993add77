"""The service document and $metadata, built once for the tables that the feed shows. Pure.

Each has an ETag, so that a client that has it already is told so in a few bytes:
https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from integration.core import decimal_json
from integration.mapping.same_object import SameObject
from integration.odata import metadata
from integration.odata.headers import Format
from integration.odata.model import EntityType

# Documents that are kept: for each format and address of the feed, and after each change of a data
# route.
_MAX_DOCUMENTS = 16


@dataclass(frozen=True, slots=True)
class FeedDocument:
    """A document, and the version of what it says."""

    body: bytes
    version: str


def build_service_document(types: Sequence[EntityType], root: str, format_: Format) -> FeedDocument:
    """Return the list of entity sets."""
    return _build_service_document(_identify(types), root, format_)


def build_csdl(types: Sequence[EntityType], format_: str) -> FeedDocument:
    """Return $metadata as `xml` or `json`."""
    return _build_csdl(_identify(types), format_)


@lru_cache(maxsize=_MAX_DOCUMENTS)
def _build_service_document(
    types: tuple[SameObject, ...], root: str, format_: Format
) -> FeedDocument:
    document = metadata.build_service_document([held.value for held in types], root, format_)
    return _give_version(decimal_json.encode(document))


@lru_cache(maxsize=_MAX_DOCUMENTS)
def _build_csdl(types: tuple[SameObject, ...], format_: str) -> FeedDocument:
    shown: list[EntityType] = [held.value for held in types]
    if format_ == "xml":
        return _give_version(metadata.build_csdl_xml(shown))
    return _give_version(decimal_json.encode(metadata.build_csdl_json(shown)))


def _identify(types: Sequence[EntityType]) -> tuple[SameObject, ...]:
    return tuple(SameObject(type_) for type_ in types)


def _give_version(body: bytes) -> FeedDocument:
    return FeedDocument(body, sha256(body).hexdigest()[:16])
