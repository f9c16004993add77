"""The mark in a resource that names the entry which wrote it. Pure.

Each PUT and PATCH of the relay leaves an extension in `meta`: the delivery, the position of the
entry, a digest of what was sent, and the source's own version. So a look at the resource, or at
its history, tells exactly whether a request with a lost answer was done, and whose state stands.
Servers rewrite what they are sent (`Z` becomes `+00:00`, a conditional reference becomes a literal
one), so content would not tell it; their clocks differ from ours, so times would not either.

    "meta": {"extension": [{"url": "urn:…:written-by", "valueString": "<delivery> <position> …"}]}

https://hl7.org/fhir/R4/extensibility.html: what does not know the extension keeps or drops it.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from integration.core import decimal_json
from integration.core.model import FhirResource
from integration.core.write_order import WriteRank
from integration.fhir.json_objects import get_object

URL = "urn:fhir-dataverse-relay:written-by"

# Beside the mark: a delete is about to be sent, which no server makes conditional on a version. Who
# writes the resource meanwhile waits for the lock of its name.
DELETE_URL = "urn:fhir-dataverse-relay:delete-announced-by"

# Beside the mark: the version that an edit from Dataverse has taken the place of.
EDIT_URL = "urn:fhir-dataverse-relay:edited-version"
_OURS = (URL, DELETE_URL, EDIT_URL)

# Where the text of the mark goes in a serialised entry: its extension comes first in `meta`, which
# comes right after the type of the resource, so that no text of the sender comes before it.
_VALUE = b'"valueString":"'

# The source version of a mark that takes no part in any order: see WRITE_ORDER=off.
_UNORDERED = "off"
_NONE = "-"
_DIGEST_LENGTH = 16

# What a server sets itself, and ignores in a request: https://hl7.org/fhir/R4/http.html#update. It
# is not sent, so that it makes no difference to the digest.
_SET_BY_SERVER = ("versionId", "lastUpdated")
_NOT_SENT = frozenset({"extension", *_SET_BY_SERVER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Which entry wrote a resource. `digest`: of its content, see `units.compute_digest`."""

    delivery: str
    position: int
    digest: str = ""
    source_version: str | None = None
    ordered: bool = True  # False: no other write is earlier or later than this one

    @property
    def rank(self) -> WriteRank | None:
        """Return its place among the writes of the resource; None if it has none."""
        return WriteRank(self.delivery, self.source_version) if self.ordered else None


def read_mark(resource: Any) -> Mark | None:
    """Return the mark of a resource; None if it has none that can be read."""
    for extension in _list_extensions(get_object(resource, "meta")):
        if isinstance(extension, dict) and extension.get("url") == URL:
            return _parse(extension.get("valueString"))
    return None


def read_edited_version(resource: Any) -> str | None:
    """Return the version that an edit from Dataverse has taken the place of, if that wrote the
    resource last; whoever keeps extensions may have written it since."""
    for extension in _list_extensions(get_object(resource, "meta")):
        if isinstance(extension, dict) and extension.get("url") == EDIT_URL:
            version = extension.get("valueString")
            return version if isinstance(version, str) else None
    return None


def add_edit(resource: FhirResource, version: str) -> FhirResource:
    """Return a changed resource as an edit from Dataverse writes it in the place of `version`.

    It keeps the mark that is there, as others do who change what they have read: an edit changes a
    few elements of a delivery's state, and must not keep out a delivery that brings another state
    of all.
    """
    meta = get_object(resource, "meta")
    others = [item for item in _list_extensions(meta) if not _has_url(item, (EDIT_URL,))]
    rest = {name: value for name, value in meta.items() if name not in _NOT_SENT}
    extensions = [*others, {"url": EDIT_URL, "valueString": version}]
    return {**resource, "meta": {"extension": extensions, **rest}}


def is_delete_announced(resource: Any) -> bool:
    """Whether a delivery is about to delete the resource."""
    extensions = _list_extensions(get_object(resource, "meta"))
    return any(isinstance(item, dict) and item.get("url") == DELETE_URL for item in extensions)


def build_announcement(meta: Mapping[str, Any], delivery: str) -> FhirResource:
    """Return the JSON patch that announces a delete. `meta`: of the resource as it is now."""
    existing = [item for item in _list_extensions(meta) if not _has_url(item, (DELETE_URL,))]
    value = [*existing, {"url": DELETE_URL, "valueString": delivery}]
    return _build_json_patch([{"op": "add", "path": "/meta/extension", "value": value}])


def format_mark(mark: Mark) -> str:
    """Return the text of a mark."""
    source = (mark.source_version or _NONE) if mark.ordered else _UNORDERED
    return f"{mark.delivery} {mark.position} {mark.digest or _NONE} {source}"


def add_mark(resource: FhirResource, mark: Mark) -> FhirResource:
    """Return the resource with this mark instead of an earlier one."""
    return _add_text(resource, format_mark(mark))


def add_empty_mark(resource: FhirResource) -> FhirResource:
    """Return the resource with a mark without text, which `fill_mark` fills in.

    A mark that came with it is of an earlier write: a sender may send back what it has read.
    """
    return _add_text(resource, "")


def _add_text(resource: FhirResource, text: str) -> FhirResource:
    meta = get_object(resource, "meta")
    others = [extension for extension in _list_extensions(meta) if not _has_url(extension, _OURS)]
    extensions = [{"url": URL, "valueString": text}, *others]
    rest = {name: value for name, value in meta.items() if name not in _NOT_SENT}
    # A name keeps the place where it came first.
    marked = {"resourceType": None, "meta": None, **resource}
    marked["meta"] = {"extension": extensions, **rest}
    return marked


def locate_mark(body: bytes) -> int:
    """Return where the text of the empty mark in a serialised entry goes."""
    return body.index(_VALUE) + len(_VALUE)


def compute_digest(body: bytes) -> str:
    """Return a digest of serialised content: the same for two that are the same."""
    return hashlib.sha256(body).hexdigest()[:_DIGEST_LENGTH]


def fill_mark(body: bytes, at: int, mark: Mark) -> bytes:
    """Return the serialised entry with the text of its mark, which `locate_mark` has placed."""
    return b"".join((body[:at], format_mark(mark).encode(), body[at:]))


def add_mark_to_patch(entry: Mapping[str, Any], meta: Mapping[str, Any], mark: Mark) -> Any:
    """Return the entry of a patch with operations that set the mark.

    `meta`: of the resource as it is now; the patch must be sent on condition of that version.
    """
    patch = entry["resource"]
    existing = _list_extensions(meta)
    value = {"url": URL, "valueString": format_mark(mark)}
    if patch["resourceType"] == "Parameters":
        type_ = entry["request"]["url"].partition("/")[0].partition("?")[0]
        operations = _build_operations(type_, value, existing)
        marked = {**patch, "parameter": [*patch["parameter"], *operations]}
    else:
        extensions = [
            value,
            *(extension for extension in existing if not _has_url(extension, _OURS)),
        ]
        change = {"op": "add", "path": "/meta/extension", "value": extensions}
        changes = [*decimal_json.decode(binascii.a2b_base64(patch["data"])), change]
        marked = {**patch, **_build_json_patch(changes)}
    return {**entry, "resource": marked}


def _build_operations(
    type_: str, value: Mapping[str, str], existing: Sequence[Any]
) -> list[dict[str, Any]]:
    """Return operations that replace the mark: https://hl7.org/fhir/R4/fhirpatch.html"""
    deletes = [
        [
            {"name": "type", "valueCode": "delete"},
            {"name": "path", "valueString": f"{type_}.meta.extension.where(url = '{url}')"},
        ]
        for url in _OURS
        if any(_has_url(item, (url,)) for item in existing)
    ]
    parts = [
        {"name": "url", "valueUri": value["url"]},
        {"name": "value", "valueString": value["valueString"]},
    ]
    add = [
        {"name": "type", "valueCode": "add"},
        {"name": "path", "valueString": f"{type_}.meta"},
        {"name": "name", "valueString": "extension"},
        {"name": "value", "part": parts},
    ]
    return [{"name": "operation", "part": part} for part in (*deletes, add)]


def _build_json_patch(operations: list[Any]) -> FhirResource:
    data = binascii.b2a_base64(decimal_json.encode(operations), newline=False).decode()
    return {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": data}


def _parse(text: Any) -> Mark | None:
    words = text.split(" ") if isinstance(text, str) else []
    if len(words) != 4 or not (words[1].isascii() and words[1].isdigit()):
        return None
    delivery, position, digest, source = words
    return Mark(
        delivery=delivery,
        position=int(position),
        digest="" if digest == _NONE else digest,
        source_version=None if source in (_NONE, _UNORDERED) else source,
        ordered=source != _UNORDERED,
    )


def _list_extensions(meta: Mapping[str, Any]) -> list[Any]:
    extensions = meta.get("extension")
    return extensions if isinstance(extensions, list) else []


def _has_url(extension: Any, urls: Sequence[str]) -> bool:
    return isinstance(extension, dict) and extension.get("url") in urls
