"""Harm to the bytes of a delivery, to how they are packed, and to the request around them."""

from __future__ import annotations

import gzip
import zlib
from functools import cache
from random import Random

from fuzz.seeds import LINES, Seed
from fuzz.values import MARKER, text, token
from integration.intake.http_request import IncomingRequest

_BAD_UTF8 = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80")
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00", b" \n\t", b"\x1f\x8b")

_METHODS = ("POST", "PUT", "PATCH", "DELETE", "GET")
_MEDIA = (
    *("application/json", "application/fhir+json; charset=utf-8", "application/fhir+xml", ""),
    *("application/fhir+json; charset=latin-1", "application/json-patch+json", LINES, ";;;=,\x7f"),
)


def harmed(body: bytes, chance: Random) -> bytes:
    """The bytes with one harm done to them."""
    at, end = sorted(chance.randrange(len(body) + 1) for _ in range(2))
    kind = chance.randrange(11)
    if kind == 0:
        return body[:at]
    if kind == 1:
        return body[:at] + body[end:]
    if kind == 2:
        return body[:end] + body[at:]
    if kind in (3, 4):
        flipped = bytearray(body)
        for _ in range(chance.randint(1, 20) if body else 0):
            flipped[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        return bytes(flipped)
    if kind == 5:
        return body[:at] + chance.choice(_BAD_UTF8) + body[at:]
    if kind == 6:
        return chance.choice(_MARKS) + body
    if kind == 7:
        return body.decode("utf-8", "replace").encode(
            chance.choice(("utf-16", "utf-32", "cp037")), "replace"
        )
    if kind == 8:
        return body[:at] + chance.randbytes(chance.randint(1, 60)) + body[at:]
    if kind == 9:
        return body[:at] + MARKER.encode() + body[at:]
    return body[:at] + token(chance).encode("utf-8", "surrogatepass") + body[at:]


def packed(body: bytes, chance: Random, most: int) -> bytes:
    """As gzip, sound or not."""
    kind = chance.randrange(9)
    whole = gzip.compress(body, 1, mtime=0)
    if kind == 0:
        return whole[: chance.randrange(len(whole))]
    if kind == 1:
        return harmed(whole, chance)
    if kind == 2:
        return whole + chance.choice((b"\x00", whole, b"rest", b"\x1f\x8b"))
    if kind == 3:
        return zlib.compress(body, 1)
    if kind == 4:
        return gzip.compress(_bomb(b" ", most * 4), 1, mtime=0)
    if kind == 5 and chance.random() < 0.2:
        return _bomb(chance.choice((b" ", b"[", b"\x00")), most * 4)
    if kind == 6:
        return gzip.compress(b"", 1, mtime=0) * chance.randrange(2000) + whole
    return whole


@cache
def _bomb(filling: bytes, size: int) -> bytes:
    return gzip.compress(filling * size, 9, mtime=0)


def asked(seed: Seed, body: bytes, chance: Random, most: int) -> IncomingRequest:
    """The request; one of eight is odd in more than its body."""
    headers = {"content-type": seed.media}
    method, (type_, id_) = seed.method, (*seed.address, None, None)[:2]
    if chance.random() < 0.12:
        headers["content-encoding"] = "gzip"
        body = packed(body, chance, most)
    if chance.random() < 0.06:
        method = chance.choice(_METHODS)
        type_ = chance.choice((None, "Patient", "Observation", text(chance)))
        id_ = chance.choice((None, "p1", text(chance))) if type_ else None
    if chance.random() < 0.04:
        headers["content-type"] = chance.choice((*_MEDIA, text(chance)))
    for name in ("if-match", "if-none-match", "if-none-exist", "idempotency-key"):
        if chance.random() < 0.05:
            headers[name] = text(chance)
    if chance.random() < 0.01:
        headers["content-encoding"] = chance.choice(("br", "gzip, gzip", text(chance)))
    return IncomingRequest(method, type_, id_, headers, body)
