"""Convert ASGI requests to azure.functions, and a function's result to ASGI messages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from azure.functions import meta
from azure.functions.http import HttpRequestConverter, HttpResponseConverter


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


def read_headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return headers by lower-case name, repeated ones joined, as ToRpcHttp does in
    GrpcMessageConversionExtensions.cs of azure-functions-host."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    return headers


def read_query(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return query parameters: names ignore case, repeated values are joined, empty ones dropped,
    as ToRpcHttp does."""
    query: dict[str, str] = {}
    names: dict[str, str] = {}
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    for name, value in pairs:
        first = names.setdefault(name.lower(), name)
        query[first] = f"{query[first]},{value}" if first in query else value
    return {name: value for name, value in query.items() if value}


def build_request(scope: Mapping[str, Any], values: Mapping[str, str], body: bytes) -> Any:
    """Build the HttpRequest with the Python worker's own converter, fed as the host feeds it."""
    received = read_headers(scope)
    suffix = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
    url = f"{scope['scheme']}://{received.get('host', '')}{scope['raw_path'].decode()}{suffix}"
    datum = {
        "method": _encode_text(scope["method"]),
        "url": _encode_text(url),
        "headers": {name: _encode_text(value) for name, value in received.items()},
        "query": {name: _encode_text(value) for name, value in read_query(scope).items()},
        "params": {name: _encode_text(value) for name, value in values.items()},
        "body": meta.Datum(body, "bytes"),
    }
    return HttpRequestConverter.decode(meta.Datum(datum, "http"), trigger_metadata={})


def build_reply(value: object) -> Reply:
    if value is None:  # Functions 2.x and later: no result, 204
        return Reply(204)
    datum = HttpResponseConverter.encode(value, expected_type=None)
    if datum.type == "string":
        plain = ((b"content-type", b"text/plain; charset=utf-8"),)
        return Reply(200, datum.value.encode(), plain)
    answer = datum.value
    headers = [(name, text.value) for name, text in answer["headers"].items()]
    for cookie in answer["cookies"] or ():
        headers += [("set-cookie", morsel.OutputString()) for morsel in cookie.values()]
    encoded = tuple(
        (name.lower().encode("latin-1"), str(v).encode("latin-1")) for name, v in headers
    )
    return Reply(int(answer["status_code"].value), answer["body"].value, encoded)


def build_messages(answer: Reply, method: str) -> list[dict[str, Any]]:
    """Return the ASGI messages of a reply. The content length is the host's, not the function's."""
    framing = (b"content-length", b"transfer-encoding")
    headers = [(name, value) for name, value in answer.headers if name not in framing]
    body = answer.body
    if answer.status in (204, 304) or answer.status < 200:
        body = b""
    else:
        headers.append((b"content-length", str(len(body)).encode()))
    if method == "HEAD":
        body = b""
    return [
        {"type": "http.response.start", "status": answer.status, "headers": headers},
        {"type": "http.response.body", "body": body},
    ]


def _encode_text(value: str) -> meta.Datum:
    return meta.Datum(value, "string")
