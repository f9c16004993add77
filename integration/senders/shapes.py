"""What the headers of a request look like: signatures, times, ids, tokens. Pure.

Nothing here returns a header's value: only its name, its encoding, and what stands before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from integration.senders.proofs.reading import decode_base64, decode_base64url, decode_hex

_SIGNATURE_NAME = re.compile(r".*(?:signature|hmac|-sig)(?:-|$).*|.*signature.*")
_TIME_NAME = re.compile(r".*(?:timestamp|[-_]time|sent-at)$|timestamp")
_ID_NAME = re.compile(r".*(?:message|event|webhook|delivery|request)-?id$")
_TOKEN_NAME = re.compile(r".*(?:token|api-?key|secret|x-auth|webhook-key).*")
_PREFIX = re.compile(r"(?:(?:hmac-)?sha(?:256|384|512)[=:]|v[0-9]a?[=,])")
_FIELD = re.compile(r" *([A-Za-z][A-Za-z0-9_-]{0,15})=(.*)")

_HASHES = {32: "sha256", 48: "sha384", 64: "sha512"}
_ED25519 = 64

# Headers that hold no proof, whatever they are called.
_OTHERS = frozenset(
    {
        "content-digest",
        "signature-input",
        "authorization",
        "x-functions-key",
        "verification-token",
        "webhook-signature",
        "svix-signature",
        "traceparent",
        "x-amzn-trace-id",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a signature's header looks like, as keys of a scheme's table."""

    header: str
    scheme: str
    keys: Mapping[str, Any]
    bits: int
    timestamp_field: str | None = None
    unit: str | None = None


def find_signatures(headers: Mapping[str, str]) -> Iterator[Shape]:
    """Yield what each header that could hold a signature looks like, the likeliest first."""
    for name, value in headers.items():
        if name not in _OTHERS and _SIGNATURE_NAME.fullmatch(name):
            yield from _find_in_header(name, value.strip())


def _find_in_header(name: str, value: str) -> Iterator[Shape]:
    prefix = found[0] if (found := _PREFIX.match(value)) else ""
    yield from _find_encodings(name, value.removeprefix(prefix), {"prefix": prefix or None})
    fields = [found for part in value.split(",") if (found := _FIELD.fullmatch(part))]
    if prefix and len(fields) < 2:
        return
    times = [field for field in fields if is_time(field[2])]
    for field in fields:
        time = times[0] if len(times) == 1 and times[0] is not field else None
        for shape in _find_encodings(name, field[2], {"signature_field": field[1]}):
            yield Shape(
                header=shape.header,
                scheme=shape.scheme,
                keys=shape.keys,
                bits=shape.bits,
                timestamp_field=time[1] if time else None,
                unit=get_unit(time[2]) if time else None,
            )


def _find_encodings(name: str, text: str, others: Mapping[str, Any]) -> Iterator[Shape]:
    stated = {key: value for key, value in others.items() if value is not None}
    for encoding, decode in (
        ("hex", decode_hex),
        ("base64", decode_base64),
        ("base64url", decode_base64url),
    ):
        value = decode(text)
        if value is None or len(value) not in _HASHES:
            continue
        bits = len(value) * 8
        if len(value) == _ED25519 and encoding != "base64url":
            keys = {"encoding": encoding} if encoding != "base64" else {}
            yield Shape(header=name, scheme="ed25519", keys={**stated, **keys}, bits=bits)
        algorithm = _HASHES[len(value)]
        keys = {"algorithm": algorithm} if algorithm != "sha256" else {}
        keys |= {"encoding": encoding} if encoding != "hex" else {}
        yield Shape(header=name, scheme="hmac", keys={**stated, **keys}, bits=bits)
        return


def is_time(text: str) -> bool:
    """Whether a text is a Unix time of this century, in seconds or milliseconds."""
    return re.fullmatch(r"[1-9][0-9]{9}(?:[0-9]{3})?", text) is not None


def get_unit(text: str) -> str:
    """Return what a Unix time counts."""
    return "milliseconds" if len(text) == 13 else "seconds"


def find_time_header(headers: Mapping[str, str]) -> str | None:
    """Return the header that holds when a request was sent."""
    return next(
        (
            name
            for name, value in headers.items()
            if _TIME_NAME.fullmatch(name) and is_time(value.strip())
        ),
        None,
    )


def find_id_header(headers: Mapping[str, str]) -> str | None:
    """Return the header that holds the id of a message."""
    return next((name for name in headers if _ID_NAME.fullmatch(name)), None)


def find_token_headers(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield the headers that could hold a token that both sides know."""
    for name, value in headers.items():
        is_long = len(value.strip()) >= 16 and " " not in value.strip()
        if name not in _OTHERS and is_long and _TOKEN_NAME.fullmatch(name):
            yield name


def read_token_part(token: str, number: int) -> Mapping[str, Any]:
    """Return the header (0) or the claims (1) of a JSON Web Token, of which nothing is proven;
    nothing, if it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        value = msgspec.json.decode(decode_base64url(parts[number]) or b"")
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
