"""The outside of a bundle: its entries are parsed one after the other, not all at once. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from integration.core import decimal_json
from integration.core.model import FhirResource
from integration.fhir.entries import check_count, refuse
from integration.fhir.raw_entry import ParsedEntry
from integration.fhir.resources import BYTE_ORDER_MARK, check_names, count_names, decode_body

_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])


class _EntryText(msgspec.Struct):
    """The text of an entry's resource. All else of the entry is skipped."""

    resource: msgspec.Raw


_resource_decoder = msgspec.json.Decoder(_EntryText)

# The shortest entry and the comma behind it: `{},`
_MIN_ENTRY = 3

# How msgspec names an entry that is no object.
_ENTRY_PATH = "`$.entry["


class _TooMany(Exception):
    """There are more entries than may be."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A bundle without its entries, and the text of each of them."""

    body: bytes
    bundle: FhirResource
    texts: list[decimal_json.Raw]


def check_entries(body: bytes, max_entries: int) -> None:
    """Raise Rejected if a bundle has more entries than this, before any of them is built.

    An entry takes 3 bytes at least, and when parsed 70. So entries are counted while their text is
    skipped, which costs a tenth of parsing; and only where there are enough commas for so many.
    """
    if has_more_entries(body, max_entries):
        check_count(max_entries + 1, max_entries, "Bundle.entry")


def has_more_entries(body: bytes, max_entries: int) -> bool:
    """Whether a bundle has more than `max_entries` entries. What is no sound bundle has none.

    Raises Rejected if there may be so many and one is no object: what it holds would be built.
    """
    if len(body) <= _MIN_ENTRY * max_entries or body.count(b",") < max_entries:
        return False
    try:
        counted = msgspec.json.decode(
            body.removeprefix(BYTE_ORDER_MARK), type=_count_to(max_entries)
        )
    except _TooMany:
        return True
    except (ValueError, RecursionError) as error:
        if _ENTRY_PATH in str(error):
            refuse("structure", "each entry must be an object", "Bundle.entry")
        return False  # what parses it says what is wrong
    return len(counted.entry) > max_entries  # those that are null, too


def _count_to(max_entries: int) -> type[Any]:
    """Return a type of bundle whose decoding ends at the entry after `max_entries`."""
    ticks = iter(range(max_entries))

    class CountedEntry(msgspec.Struct):
        def __post_init__(self) -> None:
            if next(ticks, None) is None:
                raise _TooMany

    # As a class, its annotations would be looked up where CountedEntry is not known.
    return msgspec.defstruct("CountedBundle", [("entry", list[CountedEntry | None], [])])


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
