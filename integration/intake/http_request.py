"""What a request asks for, by address and headers, and its body without any encoding."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from integration.core.errors import Issue, Rejected, method_not_allowed
from integration.core.gzip import decompress
from integration.core.model import DeliveryRequest
from integration.fhir.grammar import is_id, is_type
from integration.fhir.patches import JSON_PATCH

_FORMATS = {
    "application/fhir+json": "json",
    "application/json": "json",
    "application/fhir+ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/x-ndjson": "ndjson",
    JSON_PATCH: "json-patch",
}

# A header may become part of a request to the FHIR server, or of the blob's metadata.
_MAX_HEADER = 1000

_ALLOWED = {  # by what the address names
    (False, False): ("POST",),
    (True, False): ("POST",),
    (True, True): ("PUT", "PATCH", "DELETE"),
}


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """An HTTP request as it came. Header names are lower case."""

    method: str
    type: str | None
    id: str | None
    headers: Mapping[str, str]
    body: bytes


def received(ask: IncomingRequest) -> DeliveryRequest:
    """What is asked, once the address and the headers are in order."""
    allowed = _ALLOWED[ask.type is not None, ask.id is not None]
    if ask.method not in allowed:
        raise method_not_allowed(*allowed)
    if ask.type is not None and not is_type(ask.type):
        raise Rejected(
            Issue("not-found", "the address names no resource type of FHIR R4"), status=404
        )
    if ask.id is not None and not is_id(ask.id):
        raise Rejected(
            Issue("value", "the id in the address must be 1 to 64 letters, digits, - and .")
        )
    format_ = "json" if ask.method == "DELETE" else _format(ask)
    if format_ == "json-patch" and ask.method != "PATCH":
        raise Rejected(Issue("not-supported", f"{JSON_PATCH} goes with PATCH alone"), status=415)
    if format_ == "ndjson" and ask.type is not None:
        raise Rejected(
            Issue("not-supported", "NDJSON goes to the base address, /api/fhir"), status=415
        )
    return DeliveryRequest(
        method=ask.method,
        type=ask.type,
        id=ask.id,
        format=format_,
        if_match=header(ask, "if-match"),
        if_none_match=header(ask, "if-none-match"),
        if_none_exist=header(ask, "if-none-exist"),
    )


def _format(ask: IncomingRequest) -> str:
    media, *parameters = (part.strip().lower() for part in _required_type(ask).split(";"))
    charsets = [
        part.partition("=")[2].strip('"') for part in parameters if part.startswith("charset=")
    ]
    if media not in _FORMATS or any(charset not in ("utf-8", "utf8") for charset in charsets):
        text = "send application/fhir+json, application/json or application/fhir+ndjson, in UTF-8"
        raise Rejected(Issue("not-supported", text), status=415)
    return _FORMATS[media]


def _required_type(ask: IncomingRequest) -> str:
    value = header(ask, "content-type")
    if value is None:
        raise Rejected(Issue("required", "the Content-Type header is missing"), status=415)
    return value


def decoded(ask: IncomingRequest, max_bytes: int) -> bytes:
    """The body without its content encoding, never more than `max_bytes` of it in memory."""
    encoding = (header(ask, "content-encoding") or "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise Rejected(Issue("not-supported", "send the body as it is, or with gzip"), status=415)
    try:
        body = decompress(ask.body, max_bytes) if encoding == "gzip" else ask.body
    except zlib.error:
        raise Rejected(Issue("invalid", "the body is not gzip, as Content-Encoding says")) from None
    if len(body) > max_bytes:
        text = f"larger than the {max_bytes} bytes that are taken at once; send it in parts"
        raise Rejected(Issue("too-long", text), status=413)
    return body


def sender(ask: IncomingRequest, named_by: str | None) -> str:
    """Who sends, as a gateway or Easy Auth in front of this app has found out."""
    return (header(ask, named_by.lower()) if named_by else None) or "default"


def header(ask: IncomingRequest, name: str) -> str | None:
    value = ask.headers.get(name, "").strip()
    if len(value) > _MAX_HEADER or not value.isprintable():
        raise Rejected(Issue("too-long", f"the header {name} is too long, or not plain text"))
    return value or None
