"""Several requests in one HTTP request, and their responses. Pure.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/execute-batch-operations-using-web-api
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP

from integration.core.model import Request, Response
from integration.dataverse.requests import API

# Dataverse refuses a batch of more requests as a whole.
MAX_REQUESTS = 1000

_HEADERS = {"accept": "application/json", "odata-version": "4.0", "odata-maxversion": "4.0"}


def build_batch(requests: Sequence[Request]) -> Request:
    """Return a batch of requests that change nothing. Each is answered by itself."""
    return _build_request(map(_encode_part, requests), {"prefer": "odata.continue-on-error"})


def build_change_set(changes: Sequence[Request]) -> Request:
    """Return a batch that applies all of these changes, in this order, or none of them."""
    boundary = _derive_boundary(b"changeset", changes)
    parts = (
        _encode_part(change, b"Content-ID: %d\r\n" % number)
        for number, change in enumerate(changes, 1)
    )
    return _build_request([_build_multipart(boundary, parts)], {})


def parse_responses(response: Response) -> list[Response]:
    """Return the response to each request, in their order; a single one when a change set failed.

    Raises ValueError when the response is not that of a batch.
    """
    content_type = response.headers.get("content-type", "")
    if not content_type.startswith("multipart/mixed"):
        raise ValueError("not multipart/mixed")
    whole = b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + response.body
    return list(_iterate_responses(BytesParser(policy=HTTP).parsebytes(whole)))


def _build_request(parts: Iterable[bytes], headers: dict[str, str]) -> Request:
    listed = list(parts)
    boundary = _derive_boundary(b"batch", listed)
    body = b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in listed)
    content_type = f"multipart/mixed; boundary={boundary.decode()}"
    return Request(
        "POST",
        f"{API}/$batch",
        body + b"--%s--\r\n" % boundary,
        {**_HEADERS, **headers, "content-type": content_type},
    )


def _build_multipart(boundary: bytes, parts: Iterable[bytes]) -> bytes:
    head = b"Content-Type: multipart/mixed; boundary=%s\r\n\r\n" % boundary
    return b"".join((head, *(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts))) + (
        b"--%s--\r\n" % boundary
    )


def _encode_part(request: Request, more: bytes = b"") -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return b"".join(
        (
            b"Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n",
            more,
            f"\r\n{request.method} /{request.path} HTTP/1.1\r\n{headers}\r\n".encode(),
            request.body or b"",
        )
    )


def _derive_boundary(kind: bytes, parts: Sequence[bytes | Request]) -> bytes:
    """Return a boundary that no part can contain: a digest of the parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else _encode_part(part))
    return b"%s_%s" % (kind, digest.hexdigest()[:32].encode())


def _iterate_responses(message: Message) -> Iterator[Response]:
    """Iterate over all parts, those of change sets included."""
    parts = [part for part in message.walk() if not part.is_multipart()]
    for part in parts:
        if part.get_content_type() != "application/http":
            raise ValueError("a part is not application/http")
        payload = part.get_payload(decode=True)
        yield _parse_response(payload if isinstance(payload, bytes) else b"")


def _parse_response(payload: bytes) -> Response:
    head, separator, body = payload.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    version, _, status = line.partition(" ")
    if not separator or not version.startswith("HTTP/") or not status[:3].isdigit():
        raise ValueError("a part has no status line")
    pairs = (field.partition(":") for field in fields)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Response(int(status[:3]), headers, body)
