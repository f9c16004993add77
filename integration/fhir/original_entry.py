"""One entry of a delivery as its sender wrote it: every digit, name and blank of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from integration.core.model import DeliveryRequest
from integration.fhir.entries import Entry
from integration.fhir.resources import BYTE_ORDER_MARK

# What of `request` is shown: https://hl7.org/fhir/R4/bundle-definitions.html#Bundle.entry.request
_OF_REQUEST = ("method", "url", "ifMatch", "ifNoneMatch", "ifModifiedSince", "ifNoneExist")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryText:
    """An entry: what it asks for, by name, and the text of its resource; None: it has none."""

    request: tuple[tuple[str, str], ...]
    resource: bytes | None


class _Bundle(msgspec.Struct):
    """The entries of a bundle, unread."""

    resourceType: Any = None
    type: Any = None
    entry: list[msgspec.Raw] | None = None


class _Entry(msgspec.Struct):
    """An entry, whose resource is not read."""

    fullUrl: Any = None
    resource: msgspec.Raw = msgspec.Raw(b"")
    request: Any = None


_bundle_decoder = msgspec.json.Decoder(_Bundle)
_entry_decoder = msgspec.json.Decoder(_Entry)


def parse_entry(text: bytes) -> EntryText | None:
    """Return the parts of a serialised entry; None if it is no JSON object."""
    try:
        entry = _entry_decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    request = entry.request if isinstance(entry.request, dict) else {}
    parts = [("fullUrl", entry.fullUrl), *((name, request.get(name)) for name in _OF_REQUEST)]
    return EntryText(
        request=tuple((name, value) for name, value in parts if isinstance(value, str)),
        resource=bytes(entry.resource) or None,
    )


def find_original(
    body: bytes, received: DeliveryRequest, position: int, entry: Entry | None
) -> EntryText | None:
    """Return the entry at a position of a delivery, as it came. None: the delivery holds no such
    entry. `entry`: what was read of it, which tells of one that was fetched; None: nothing."""
    if received.format == "ndjson":
        lines = [line for line in body.split(b"\n") if line.strip()]
        return EntryText(request=(), resource=lines[position]) if position < len(lines) else None
    is_whole = received.type is not None or received.method != "POST"
    texts = None if is_whole else _read_entries(body, received)
    if texts is not None and position < len(texts):
        return parse_entry(texts[position]) or EntryText(request=(), resource=texts[position])
    if entry is not None and entry.content is not None and (texts is not None or position):
        return EntryText(request=(), resource=bytes(entry.content.json))
    if texts is not None or position:
        return None
    return EntryText(request=_list_request(received), resource=body or None)


def _read_entries(body: bytes, received: DeliveryRequest) -> list[bytes] | None:
    """Return the text of each entry; None for what is read as one resource."""
    try:
        bundle = _bundle_decoder.decode(body.removeprefix(BYTE_ORDER_MARK))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    is_stored = bundle.type == "document" and received.policy.documents == "bundle"
    if bundle.resourceType != "Bundle" or bundle.entry is None or is_stored:
        return None
    return [bytes(text) for text in bundle.entry]


def _list_request(received: DeliveryRequest) -> tuple[tuple[str, str], ...]:
    """Return what the address and the headers of a request for one resource have said."""
    address = "/".join(part for part in (received.type, received.id) if part)
    query = f"?{received.query}" if received.query else ""
    parts = (
        ("method", received.method),
        ("url", f"{address}{query}"),
        ("ifMatch", received.if_match),
        ("ifNoneMatch", received.if_none_match),
        ("ifNoneExist", received.if_none_exist),
    )
    return tuple((name, value) for name, value in parts if value)
