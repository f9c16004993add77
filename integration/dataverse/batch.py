"""Several requests in one HTTP request, and their responses. Pure.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/execute-batch-operations-using-web-api
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from integration.core.model import Request, Response
from integration.dataverse.requests import API

# Dataverse refuses a batch of more requests as a whole.
MAX_REQUESTS = 1000

_BOUNDARY = re.compile(
    r"""multipart/mixed\s*;.*?\bboundary\s*=\s*("[^"]+"|[^\s;"]+)""", re.I | re.S
)

# The header of a part that says which request it belongs to: `build_change_set` counts from 1.
_CONTENT_ID = "content-id"

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
    Where a part has a Content-ID it is among the headers.

    Raises ValueError when the response is not that of a batch.
    """
    return list(_iterate_responses(response.headers, response.body))


def get_position(response: Response, count: int) -> int | None:
    """Return which of `count` changes of a change set this is the response to, from 0; None: it
    does not say. Dataverse names the change that failed by its Content-ID:
    https://github.com/MicrosoftDocs/powerapps-docs/issues/2843
    """
    number = response.headers.get(_CONTENT_ID, "")
    if number.isascii() and number.isdigit() and len(number) <= 4 and 1 <= int(number) <= count:
        return int(number) - 1
    return None


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


def _iterate_responses(headers: Mapping[str, str], body: bytes) -> Iterator[Response]:
    """Iterate over all parts of a multipart body, those of change sets included."""
    for part in _split_multipart(headers.get("content-type", ""), body):
        # A part may have no headers: then its first line is empty.
        head, _, content = part.partition(b"\r\n\r\n")
        part_headers = _parse_fields(head)
        kind = part_headers.get("content-type", "").lower()
        if kind.startswith("multipart/"):
            yield from _iterate_responses(part_headers, content)
        elif kind.partition(";")[0].strip() == "application/http":
            response = _parse_response(content)
            if number := part_headers.get(_CONTENT_ID):
                response = replace(response, headers={**response.headers, _CONTENT_ID: number})
            yield response
        else:
            raise ValueError("a part is not application/http")


def _split_multipart(content_type: str, body: bytes) -> list[bytes]:
    """Return the parts between the delimiters, each from the end of its delimiter's line.

    https://www.rfc-editor.org/rfc/rfc2046#section-5.1.1 -- email.parser does this too, in ten times
    the time.
    """
    found = _BOUNDARY.match(content_type)
    if found is None:
        raise ValueError("not multipart/mixed")
    boundary = re.escape(found[1].strip('"').encode())
    delimiter = re.compile(rb"\r\n--" + boundary + rb"(--)?[ \t]*(?=\r\n|\Z)")
    _, *pieces = delimiter.split(b"\r\n" + body)
    # The pattern's group is in the list before each piece: the last delimiter ends with `--`.
    ends, parts = pieces[::2], pieces[1::2]
    if b"--" not in ends:
        raise ValueError("the multipart body is cut off")
    return parts[: ends.index(b"--")]


def _parse_response(payload: bytes) -> Response:
    head, separator, body = payload.partition(b"\r\n\r\n")
    line, _, fields = head.partition(b"\r\n")
    version, _, status = line.decode("latin-1").partition(" ")
    if not separator or not version.startswith("HTTP/") or not status[:3].isdigit():
        raise ValueError("a part has no status line")
    return Response(int(status[:3]), _parse_fields(fields), body)


def _parse_fields(text: bytes) -> dict[str, str]:
    """Parse the header fields of a part. Names are lower case."""
    pairs = (line.partition(":") for line in text.decode("latin-1").split("\r\n") if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
