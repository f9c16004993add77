"""Parse the HTTP request of a sender: its address, its headers and the encoding of its body."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from integration.core.errors import Issue, MethodNotAllowed, Rejected
from integration.core.gzip import decompress
from integration.core.model import DeliveryRequest
from integration.core.offload import offload
from integration.fhir.conditions import HAS_FRAGMENT, has_criterion, list_parameters
from integration.fhir.grammar import is_id, is_type
from integration.fhir.patches import JSON_PATCH
from integration.fhir.server_parameters import find_refusal
from integration.senders.model import ProvenSender, make_unlisted_sender
from integration.senders.read_key import read_content_key

_FORMATS = {
    "application/fhir+json": "json",
    "application/json": "json",
    "application/fhir+ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/x-ndjson": "ndjson",
    JSON_PATCH: "json-patch",
}

# A header may become part of a request to the FHIR server, or of a blob's metadata.
_MAX_HEADER = 1000

# Far beyond a search that a sender means, far below what servers and gateways take.
_MAX_CONDITION = 2000

# By whether the address has a resource type, an id, and a condition:
# https://hl7.org/fhir/R4/http.html#cond-update and the sections after it
_ALLOWED_METHODS = {
    (False, False, False): ("POST",),
    (True, False, False): ("POST",),
    (True, False, True): ("PUT", "PATCH", "DELETE"),
    (True, True, False): ("PUT", "PATCH", "DELETE"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingRequest:
    """An HTTP request as it arrived, and who has proven to have sent it.

    `type` and `id` are from the address, and so is `condition`: its query as it was sent, without
    the parameters that are this app's own. Header names are lower case. `confirm`: a delete that
    its sender has not proven, so that its server is asked first. `answer_to`: the blob of the
    answer, for what came as a file.
    """

    method: str
    type: str | None
    id: str | None
    headers: Mapping[str, str]
    body: bytes
    condition: str | None = None
    confirm: bool = False
    sender: ProvenSender = field(default_factory=make_unlisted_sender)
    answer_to: str | None = None


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request whose address and headers are in order. `body` is without content encoding.

    `idempotency_key`: what its sender gave it; `content_key`: what stands in its body for one.
    """

    request: DeliveryRequest
    body: bytes
    sender: ProvenSender
    idempotency_key: str | None
    content_key: str | None = None


def parse_request(request: IncomingRequest, max_bytes: int) -> ParsedRequest:
    """Parse all of a request but the content of its body. Raises Rejected."""
    delivery_request = _parse_delivery_request(request)
    body = _decode_body(request, max_bytes)
    policy = request.sender.sender.policy
    stated = _get_header(request, policy.idempotency_header.lower())
    key = request.sender.message_id or stated
    return ParsedRequest(delivery_request, body, request.sender, key)


async def add_content_key(parsed: ParsedRequest) -> ParsedRequest:
    """Return the request with the key that stands in its body, if its sender has it there. The
    caller holds a share of the budget for the body."""
    pointers = parsed.sender.sender.policy.idempotency_pointers
    if parsed.idempotency_key is not None or not pointers:
        return parsed
    body = parsed.body
    return replace(
        parsed, content_key=await offload(len(body), lambda: read_content_key(body, pointers))
    )


def _parse_delivery_request(request: IncomingRequest) -> DeliveryRequest:
    condition = request.condition
    place = (request.type is not None, request.id is not None, condition is not None)
    allowed = _ALLOWED_METHODS.get(place)
    if allowed is None:
        text = "a condition belongs to an address of Type?query, without an id"
        raise Rejected(Issue("not-supported", text))
    if request.method not in allowed:
        raise MethodNotAllowed(*allowed)
    if condition is not None:
        _check_condition(condition)
    if request.type is not None and not is_type(request.type):
        text = "the address names no resource type of FHIR R4"
        raise Rejected(Issue("not-found", text), status=404)
    if request.id is not None and not is_id(request.id):
        text = "the id in the address must have 1 to 64 characters: letters, digits, - and ."
        raise Rejected(Issue("value", text))
    format_ = "json" if request.method == "DELETE" else _parse_format(request)
    if format_ == "json-patch" and request.method != "PATCH":
        raise Rejected(Issue("not-supported", f"send {JSON_PATCH} only with PATCH"), status=415)
    if format_ == "ndjson" and request.type is not None:
        text = "send NDJSON to /api/fhir, without a resource type in the address"
        raise Rejected(Issue("not-supported", text), status=415)
    return DeliveryRequest(
        method=request.method,
        type=request.type,
        id=request.id,
        format=format_,
        if_match=_get_header(request, "if-match"),
        if_none_match=_get_header(request, "if-none-match"),
        if_none_exist=_get_header(request, "if-none-exist"),
        query=condition,
        confirm=request.confirm,
        answer_to=request.answer_to,
    )


def _check_condition(condition: str) -> None:
    """Check the query of a conditional update, patch or delete. Raises Rejected."""
    if len(condition) > _MAX_CONDITION or not condition.isprintable():
        text = f"a condition must be plain text of at most {_MAX_CONDITION} characters"
        raise Rejected(Issue("too-long", text))
    if "#" in condition:
        raise Rejected(Issue("value", HAS_FRAGMENT))
    for name, _ in list_parameters(condition):
        if (reason := find_refusal(name)) is not None:
            raise Rejected(Issue("not-supported", reason))
    if not has_criterion(condition):
        text = "Type?query needs criteria with values: this may be any resource of the type"
        raise Rejected(Issue("value", text))


def _parse_format(request: IncomingRequest) -> str:
    content_type = _get_header(request, "content-type")
    if content_type is None:
        raise Rejected(Issue("required", "the Content-Type header is missing"), status=415)
    media, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [
        part.partition("=")[2].strip("\"'") for part in parameters if part.startswith("charset=")
    ]
    if media not in _FORMATS or any(charset not in ("utf-8", "utf8") for charset in charsets):
        text = "send application/fhir+json, application/json or application/fhir+ndjson, in UTF-8"
        raise Rejected(Issue("not-supported", text), status=415)
    return _FORMATS[media]


def _decode_body(request: IncomingRequest, max_bytes: int) -> bytes:
    """Remove the content encoding, with never more than `max_bytes` of the body in memory."""
    encoding = (_get_header(request, "content-encoding") or "identity").lower()
    if encoding not in ("identity", "gzip"):
        text = "send the body without Content-Encoding, or with gzip"
        raise Rejected(Issue("not-supported", text), status=415)
    try:
        body = decompress(request.body, max_bytes) if encoding == "gzip" else request.body
    except zlib.error:
        text = "the body is not valid gzip, but Content-Encoding says that it is"
        raise Rejected(Issue("invalid", text)) from None
    check_size(len(body), max_bytes)
    return body


def check_size(size: int, max_bytes: int) -> None:
    """Raise Rejected for a body that is too large."""
    if size > max_bytes:
        text = f"the body is larger than {max_bytes} bytes; send it in parts"
        raise Rejected(Issue("too-long", text), status=413)


def _get_header(request: IncomingRequest, name: str) -> str | None:
    """Return a header without surrounding blanks. None: it is missing or empty."""
    value = request.headers.get(name, "").strip()
    if len(value) > _MAX_HEADER or not value.isprintable():
        text = f"the header {name} is longer than {_MAX_HEADER} characters, or not plain text"
        raise Rejected(Issue("too-long", text))
    return value or None
