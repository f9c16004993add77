"""`$batch`: run many requests in order; change sets are atomic.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/execute-batch-operations-using-web-api
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from uuid import uuid4

from local.dataverse import refusals, router
from local.dataverse.wire import Call, Refusal, Reply
from local.dataverse.world import World

MAX_REQUESTS = 1000
CRLF = b"\r\n"
BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^";\s]+))', re.IGNORECASE)
ROOT = re.compile(r"^(?:https?://[^/]+)?/?api/data/v9\.\d+/")
# Impersonation headers apply to the whole batch, all other headers to one operation.
INHERITED = ("callerobjectid", "mscrmcallerid")
REFERENCE = re.compile(r"/?\$(\w+)")


@dataclass(frozen=True, slots=True)
class Part:
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Request:
    call: Call
    content_id: str | None


@dataclass(frozen=True, slots=True)
class ChangeSet:
    requests: list[Request]


def answer(world: World, call: Call) -> Reply:
    try:
        steps = list(_parse_steps(call))
        _check_size(steps)
    except Refusal as refusal:
        return refusal.build_reply()
    continue_on_error = "odata.continue-on-error" in call.preferences
    boundary = f"batchresponse_{uuid4()}"
    parts: list[bytes] = []
    status = 200
    for step in steps:
        code, part = (
            _run_request(world, step) if isinstance(step, Request) else _run_change_set(world, step)
        )
        parts.append(part)
        if code >= 400 and not continue_on_error:
            status = code
            break
    headers = {"Content-Type": f"multipart/mixed; boundary={boundary}"}
    return Reply(status, raw=_format_multipart(boundary, parts), headers=headers)


def _run_request(world: World, request: Request) -> tuple[int, bytes]:
    reply = router.answer(world, request.call)
    return reply.status, _format_part(reply, request.content_id)


def _run_change_set(world: World, change_set: ChangeSet) -> tuple[int, bytes]:
    """Run all requests or none. The reply to a failed change set is the error alone."""
    log: deque[dict[str, object]] = deque()
    addresses: dict[str, str] = {}
    parts: list[bytes] = []
    try:
        with world.store.transaction():
            for request in change_set.requests:
                call = _resolve_references(request.call, addresses)
                reply = router.answer(replace(world, log=log), call)
                if reply.status >= 400:
                    raise _ChangeSetFailed(reply, request.content_id)
                if request.content_id and "OData-EntityId" in reply.headers:
                    addresses[request.content_id] = reply.headers["OData-EntityId"]
                parts.append(_format_part(reply, request.content_id))
    except Refusal as refusal:
        return refusal.status, _format_part(refusal.build_reply(), None)
    except _ChangeSetFailed as failed:
        return failed.reply.status, _format_failed(world.settings.failed_change_sets, failed)
    world.log.extend(log)
    return 200, _format_change_set(parts)


def _format_failed(form: str, failed: _ChangeSetFailed) -> bytes:
    """Format the response to a failed change set in one of settings.FAILED_CHANGE_SETS."""
    part = _format_part(failed.reply, None if form == "anonymous" else failed.content_id)
    return _format_change_set([part]) if form == "multipart" else part


def _format_change_set(parts: list[bytes]) -> bytes:
    boundary = f"changesetresponse_{uuid4()}"
    head = f"Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n".encode()
    return head + _format_multipart(boundary, parts)


class _ChangeSetFailed(Exception):
    """Raised to roll the transaction back."""

    def __init__(self, reply: Reply, content_id: str | None) -> None:
        super().__init__(reply.status)
        self.reply = reply
        self.content_id = content_id


def _parse_steps(call: Call) -> Iterator[Request | ChangeSet]:
    for part in _parse_parts(call.headers.get("content-type", ""), call.body):
        if part.headers.get("content-type", "").startswith("multipart/mixed"):
            inner = _parse_parts(part.headers["content-type"], part.body)
            requests = [_parse_request(call, inner_part) for inner_part in inner]
            for request in requests:
                if request.call.method == "GET":
                    raise refusals.bad_query(
                        "An invalid HTTP method 'GET' was detected for a request in a change set. "
                        "Requests in change sets only support the HTTP methods 'POST', 'PUT', "
                        "'DELETE', and 'PATCH'."
                    )
            content_ids = [request.content_id for request in requests if request.content_id]
            if len(set(content_ids)) != len(content_ids):
                raise refusals.bad_query("A Content-ID is found more than once in a change set.")
            yield ChangeSet(requests)
        else:
            yield _parse_request(call, part)


def _check_size(steps: list[Request | ChangeSet]) -> None:
    requests = sum(1 if isinstance(step, Request) else len(step.requests) for step in steps)
    if requests > MAX_REQUESTS:
        raise refusals.bad_query(
            "The current batch message contains too many parts. Only batch messages with a "
            f"maximum number of '{MAX_REQUESTS}' query operations and change sets are allowed."
        )


def _parse_parts(content_type: str, body: bytes) -> list[Part]:
    match = BOUNDARY.search(content_type)
    if match is None or not content_type.startswith("multipart/mixed"):
        raise refusals.bad_query("A batch needs Content-Type: multipart/mixed with a boundary.")
    delimiter = b"--" + (match[1] or match[2]).encode()
    _, *sections = (CRLF + body).split(CRLF + delimiter)
    if not sections or not sections[-1].startswith(b"--"):
        # Lines must end in CRLF; with LF alone the boundary is never found:
        # https://learn.microsoft.com/troubleshoot/power-platform/power-apps/dataverse/web-api-client-errors
        raise refusals.bad_payload("$batch", "Stream was not readable.")
    return [
        Part(*_parse_message(section.lstrip(b" \t").removeprefix(CRLF)))
        for section in sections[:-1]
    ]


def _parse_message(text: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = text.partition(CRLF + CRLF)
    lines = head.decode("utf-8", "replace").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}, body


def _parse_request(outer: Call, part: Part) -> Request:
    if not part.headers.get("content-type", "").startswith("application/http"):
        raise refusals.bad_query("A part of a batch needs Content-Type: application/http.")
    line, _, rest = part.body.lstrip().partition(CRLF)
    words = line.decode("utf-8", "replace").split()
    if len(words) != 3 or b"\n" in line:
        raise refusals.bad_payload("$batch", "Stream was not readable.")
    method, url, _ = words
    headers, body = _parse_message(rest) if not rest.startswith(CRLF) else ({}, rest[2:])
    inherited = {name: outer.headers[name] for name in INHERITED if name in outer.headers}
    path, _, query = ROOT.sub("", url).lstrip("/").partition("?")
    if path == "$batch":
        raise refusals.bad_query("A batch cannot contain another batch.")
    return Request(
        Call(
            method=method,
            path=path,
            query=query,
            headers={**inherited, **headers},
            body=body,
            root=outer.root,
        ),
        part.headers.get("content-id"),
    )


def _resolve_references(call: Call, addresses: dict[str, str]) -> Call:
    """Replace `$1` in the URL or in references of the body by the row created as Content-ID 1."""

    def resolve(reference: re.Match[str]) -> str:
        if reference[1] not in addresses:
            raise refusals.bad_query(
                f"Content-ID Reference: '${reference[1]}' does not exist in the batch context."
            )
        return ROOT.sub("", addresses[reference[1]])

    path = REFERENCE.sub(resolve, call.path, count=1) if call.path.startswith("$") else call.path
    if b"$" not in call.body:
        return replace(call, path=path)
    payload = router.read_body(call, path)
    for name, value in payload.items():
        if name.endswith(("@odata.bind", "@odata.id")) and isinstance(value, str):
            match = REFERENCE.fullmatch(value)
            payload[name] = resolve(match) if match else value
    return replace(call, path=path, body=json.dumps(payload).encode())


def _format_part(reply: Reply, content_id: str | None) -> bytes:
    outer = {"Content-Type": "application/http", "Content-Transfer-Encoding": "binary"}
    if content_id is not None:
        outer["Content-ID"] = content_id
    status = f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\n"
    head = (
        _format_headers(outer) + "\r\n" + status + _format_headers(reply.build_headers()) + "\r\n"
    )
    return head.encode() + reply.encode()


def _format_headers(headers: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _format_multipart(boundary: str, parts: list[bytes]) -> bytes:
    delimiter = f"--{boundary}".encode()
    return b"".join(delimiter + CRLF + part + CRLF for part in parts) + delimiter + b"--" + CRLF
