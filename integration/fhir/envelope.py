"""The outside of a bundle: its entries are parsed one after the other, not all at once. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from integration.core import decimal_json
from integration.core.model import FhirResource
from integration.fhir.raw_entry import ParsedEntry
from integration.fhir.resources import check_names, count_names, decode_body

_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])


class _EntryText(msgspec.Struct):
    """The text of an entry's resource. All else of the entry is skipped."""

    resource: msgspec.Raw


_resource_decoder = msgspec.json.Decoder(_EntryText)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A bundle without its entries, and the text of each of them."""

    body: bytes
    bundle: FhirResource
    texts: list[decimal_json.Raw]


def open_envelope(body: bytes, types: frozenset[str]) -> Envelope | None:
    """Return the bundle if it is of one of these types and has entries; None for anything else."""
    try:
        members = _members_decoder.decode(body)
        texts = _list_decoder.decode(members.pop("entry"))
        bundle = {name: decimal_json.decode(text) for name, text in members.items()}
    except (KeyError, ValueError, RecursionError):
        return None
    kind = bundle.get("type")
    is_known = bundle.get("resourceType") == "Bundle" and isinstance(kind, str) and kind in types
    return Envelope(body, bundle, texts) if is_known and texts else None


def iterate_entries(envelope: Envelope) -> Iterator[ParsedEntry]:
    """Yield each entry parsed, with its position and the text of its resource.

    Raises Rejected for what makes the whole body unsound, wherever in it that is.
    """
    names = count_names(envelope.bundle) + 1  # `entry` itself
    depth = decimal_json.MAX_DEPTH - 2  # inside the bundle and its list
    for position, text in enumerate(envelope.texts):
        value, json = _parse_entry(envelope, text)
        names += count_names(value, depth)
        yield position, value, json
    check_names(envelope.body, names, "Bundle", None)


def _parse_entry(envelope: Envelope, text: decimal_json.Raw) -> tuple[Any, decimal_json.Raw | None]:
    try:
        value = decimal_json.decode(text)
    except decimal_json.Malformed:
        decode_body(envelope.body)  # raises Rejected with the place in the whole body
        raise
    is_found = isinstance(value, dict) and "resource" in value
    return value, _resource_decoder.decode(text).resource if is_found else None
