"""What a request asks for, by address and headers, and its body without any encoding."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from integration.core.errors import Issue, MethodNotAllowed, Rejected
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

_ALLOWED_METHODS = {  # by what the address names
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


def parse_request(request: IncomingRequest) -> DeliveryRequest:
    """What is asked, once the address and the headers are in order."""
    allowed = _ALLOWED_METHODS[request.type is not None, request.id is not None]
    if request.method not in allowed:
        raise MethodNotAllowed(*allowed)
    if request.type is not None and not is_type(request.type):
        raise Rejected(
            Issue("not-found", "the address names no resource type of FHIR R4"), status=404
        )
    if request.id is not None and not is_id(request.id):
        raise Rejected(
            Issue("value", "the id in the address must be 1 to 64 letters, digits, - and .")
        )
    format_ = "json" if request.method == "DELETE" else _parse_format(request)
    if format_ == "json-patch" and request.method != "PATCH":
        raise Rejected(Issue("not-supported", f"{JSON_PATCH} goes with PATCH alone"), status=415)
    if format_ == "ndjson" and request.type is not None:
        raise Rejected(
            Issue("not-supported", "NDJSON goes to the base address, /api/fhir"), status=415
        )
    return DeliveryRequest(
        method=request.method,
        type=request.type,
        id=request.id,
        format=format_,
        if_match=get_header(request, "if-match"),
        if_none_match=get_header(request, "if-none-match"),
        if_none_exist=get_header(request, "if-none-exist"),
    )


def _parse_format(request: IncomingRequest) -> str:
    media, *parameters = (
        part.strip().lower() for part in _require_content_type(request).split(";")
    )
    charsets = [
        part.partition("=")[2].strip('"') for part in parameters if part.startswith("charset=")
    ]
    if media not in _FORMATS or any(charset not in ("utf-8", "utf8") for charset in charsets):
        text = "send application/fhir+json, application/json or application/fhir+ndjson, in UTF-8"
        raise Rejected(Issue("not-supported", text), status=415)
    return _FORMATS[media]


def _require_content_type(request: IncomingRequest) -> str:
    value = get_header(request, "content-type")
    if value is None:
        raise Rejected(Issue("required", "the Content-Type header is missing"), status=415)
    return value


def decode_body(request: IncomingRequest, max_bytes: int) -> bytes:
    """The body without its content encoding, never more than `max_bytes` of it in memory."""
    encoding = (get_header(request, "content-encoding") or "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise Rejected(Issue("not-supported", "send the body as it is, or with gzip"), status=415)
    try:
        body = decompress(request.body, max_bytes) if encoding == "gzip" else request.body
    except zlib.error:
        raise Rejected(Issue("invalid", "the body is not gzip, as Content-Encoding says")) from None
    if len(body) > max_bytes:
        text = f"larger than the {max_bytes} bytes that are taken at once; send it in parts"
        raise Rejected(Issue("too-long", text), status=413)
    return body


def get_sender(request: IncomingRequest, sender_header: str | None) -> str:
    """Who sends, as a gateway or Easy Auth in front of this app has found out."""
    return (get_header(request, sender_header.lower()) if sender_header else None) or "default"


def get_header(request: IncomingRequest, name: str) -> str | None:
    value = request.headers.get(name, "").strip()
    if len(value) > _MAX_HEADER or not value.isprintable():
        raise Rejected(Issue("too-long", f"the header {name} is too long, or not plain text"))
    return value or None
