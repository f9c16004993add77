"""Mutate the bytes of a delivery, its compression, and the request around it."""

from __future__ import annotations

import gzip
import zlib
from functools import cache
from random import Random

from fuzz.seeds import LINES, Seed
from fuzz.values import MARKER, make_text, make_token
from integration.intake.http_request import IncomingRequest

_BAD_UTF8 = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80")
_PREFIXES = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00", b" \n\t", b"\x1f\x8b")

_METHODS = ("POST", "PUT", "PATCH", "DELETE", "GET")
_MEDIA = (
    *("application/json", "application/fhir+json; charset=utf-8", "application/fhir+xml", ""),
    *("application/fhir+json; charset=latin-1", "application/json-patch+json", LINES, ";;;=,\x7f"),
)


def mutate_bytes(body: bytes, random: Random) -> bytes:
    """Return the bytes with one mutation."""
    start, end = sorted(random.randrange(len(body) + 1) for _ in range(2))
    kind = random.randrange(11)
    if kind == 0:
        return body[:start]
    if kind == 1:
        return body[:start] + body[end:]
    if kind == 2:
        return body[:end] + body[start:]
    if kind in (3, 4):
        flipped = bytearray(body)
        for _ in range(random.randint(1, 20) if body else 0):
            flipped[random.randrange(len(body))] ^= 1 << random.randrange(8)
        return bytes(flipped)
    if kind == 5:
        return body[:start] + random.choice(_BAD_UTF8) + body[start:]
    if kind == 6:
        return random.choice(_PREFIXES) + body
    if kind == 7:
        return body.decode("utf-8", "replace").encode(
            random.choice(("utf-16", "utf-32", "cp037")), "replace"
        )
    if kind == 8:
        return body[:start] + random.randbytes(random.randint(1, 60)) + body[start:]
    if kind == 9:
        return body[:start] + MARKER.encode() + body[start:]
    return body[:start] + make_token(random).encode("utf-8", "surrogatepass") + body[start:]


def compress(body: bytes, random: Random, max_bytes: int) -> bytes:
    """Compress the bytes as gzip, valid or not."""
    kind = random.randrange(9)
    whole = gzip.compress(body, 1, mtime=0)
    if kind == 0:
        return whole[: random.randrange(len(whole))]
    if kind == 1:
        return mutate_bytes(whole, random)
    if kind == 2:
        return whole + random.choice((b"\x00", whole, b"rest", b"\x1f\x8b"))
    if kind == 3:
        return zlib.compress(body, 1)
    if kind == 4:
        return gzip.compress(_build_bomb(b" ", max_bytes * 4), 1, mtime=0)
    if kind == 5 and random.random() < 0.2:
        return _build_bomb(random.choice((b" ", b"[", b"\x00")), max_bytes * 4)
    if kind == 6:
        return gzip.compress(b"", 1, mtime=0) * random.randrange(2000) + whole
    return whole


@cache
def _build_bomb(filling: bytes, size: int) -> bytes:
    return gzip.compress(filling * size, 9, mtime=0)


def build_request(seed: Seed, body: bytes, random: Random, max_bytes: int) -> IncomingRequest:
    """Build the request. One of eight has more unusual parts than its body."""
    headers = {"content-type": seed.media}
    method, (type_, id_) = seed.method, (*seed.address, None, None)[:2]
    if random.random() < 0.12:
        headers["content-encoding"] = "gzip"
        body = compress(body, random, max_bytes)
    if random.random() < 0.06:
        method = random.choice(_METHODS)
        type_ = random.choice((None, "Patient", "Observation", make_text(random)))
        id_ = random.choice((None, "p1", make_text(random))) if type_ else None
    if random.random() < 0.04:
        headers["content-type"] = random.choice((*_MEDIA, make_text(random)))
    for name in ("if-match", "if-none-match", "if-none-exist", "idempotency-key"):
        if random.random() < 0.05:
            headers[name] = make_text(random)
    if random.random() < 0.01:
        headers["content-encoding"] = random.choice(("br", "gzip, gzip", make_text(random)))
    return IncomingRequest(method=method, type=type_, id=id_, headers=headers, body=body)
