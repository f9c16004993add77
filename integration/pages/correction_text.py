"""The bytes of a delivery as a text that is edited in a browser, and back. Pure.

A browser changes a text: it sends each end of a line as CR LF, and shows some characters as others
(https://html.spec.whatwg.org/multipage/form-elements.html#the-textarea-element). So only what comes
back as it was is shown as a text.
"""

from __future__ import annotations

import re

import msgspec

from integration.core import decimal_json
from integration.core.model import DeliveryRequest
from integration.fhir.resources import BYTE_ORDER_MARK

# The most bytes of a delivery that are shown as a text, and of that text.
MAX_BYTES = 1_000_000
MAX_TEXT = 4_000_000

# The most characters of a line that is shown to say where the JSON breaks off.
_MAX_LINE = 200

# What an HTML page cannot hold as it is, or a form sends otherwise. JSON may have none of these:
# https://datatracker.ietf.org/doc/html/rfc8259#section-7
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def show_text(body: bytes, request: DeliveryRequest) -> str | None:
    """Return a delivery with a line for each element. Every digit stays as it is, and so does what
    is no JSON. None: it cannot be edited in a browser without a loss."""
    formatted = _format(body, request)
    try:
        text = (formatted if len(formatted) <= MAX_TEXT else body).decode()
    except UnicodeDecodeError:
        return None
    text = _end_lines(text)
    return None if _CONTROLS.search(text) else text


def read_text(typed: str, request: DeliveryRequest, original: bytes | None) -> bytes:
    """Return the bytes of a text that was typed. If it says the same as the original, return that:
    so nobody sends a correction that corrects nothing."""
    body = _end_lines(typed).encode()
    if original is not None and _format(body, request) == _format(original, request):
        return original
    return body


def quote_line(body: bytes, request: DeliveryRequest) -> tuple[int, str] | None:
    """Return the number and the text of the line in which JSON breaks off; None: it does not."""
    if request.format == "ndjson":
        return None  # its refusals name the line, and each may be long
    try:
        decimal_json.decode(body.removeprefix(BYTE_ORDER_MARK))
    except decimal_json.Malformed as error:
        if error.line is None:
            return None
        line = body.split(b"\n", error.line)[error.line - 1].decode(errors="replace").strip()
        return error.line, line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]} …"
    return None


def _end_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _format(body: bytes, request: DeliveryRequest) -> bytes:
    body = body.removeprefix(BYTE_ORDER_MARK).replace(b"\r\n", b"\n").strip()
    if request.format == "ndjson":
        return body  # a resource has one line there
    try:
        return msgspec.json.format(body, indent=2)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body
