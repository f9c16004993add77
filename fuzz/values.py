"""Hostile values, as JSON text: some are not valid JSON."""

from __future__ import annotations

import json
from random import Random

# Stands for patient data: it must appear in no issue, no error and no log.
MARKER = "Tzaphqiel-9137"

# Names that the relay reads, where a mutation is most likely to matter.
NAMES = tuple(
    """
    address contained contentType data div entry etag eventNumber events-since-subscription-start
    eventsSinceSubscriptionStart focus fullUrl id identifier ifMatch ifModifiedSince ifNoneExist
    ifNoneMatch lastModified lastUpdated link meta method mode name notificationEvent parameter
    part query reference relation request resource resourceType response search subject
    subscription system text type uri url value valueReference valueUri versionId
    """.split()
)

_ID = "0f0e0d0c-0b0a-4900-8807-060504030201"

_TEXTS = (
    "",
    " ",
    "\x00",
    "\x7f\x1b[2J",
    "\ud800",
    "\udfff\ud800",
    "\ufeff",
    "\u202e\u2066",
    "e\u0301" * 50,
    "\U0010ffff",
    "\u0130\u1e9e",
    "²",
    "٣",
    "NaN",
    "null",
    ".",
    "..",
    "../..",
    "%2e%2e/%2F",
    "a" * 64,
    "a" * 65,
    "1" * 5000,
    "Patient",
    "Bundle",
    "patient",
    "Patient/",
    "Patient/p1",
    "/Patient/p1",
    "//Patient/p1",
    "Patient//p1",
    "Patient/..",
    "Patient/p1/_history/1",
    "Patient/p1/_history",
    "Patient/p1/$everything",
    "Patient/_search",
    "Patient?",
    "Patient?_id=p1",
    "Patient?identifier=urn:x|1",
    "Patient?identifier=%7C%00&&&=&_count=1",
    f"Patient?identifier={_ID}",
    f"Observation?subject=urn:uuid:{_ID}",
    f"Observation?subject=urn%3Auuid%3A{_ID}",
    "identifier=urn:x|1",
    "_count=1",
    "?",
    "&",
    "#",
    "#p1",
    "Patient/p1#p1",
    f"urn:uuid:{_ID}",
    f"URN:UUID:{_ID.upper()}",
    f"urn:uuid:{_ID}#x",
    "urn:uuid:",
    "urn:oid:1.2.3",
    "urn:",
    "http://",
    "http:///Patient/p1",
    "https://fhir.example/r4/Patient/p1",
    "https://user@fhir.example:99999/Patient/p1",
    "https://fhir.example/../Patient/p1?x#y",
    "http://[::1/Patient/p1",
    "file:///etc/passwd",
    "javascript:alert(1)",
    'W/"1"',
    'W/"' + "9" * 40 + '"',
    '"1"',
    "9" * 19,
    "2026-01-02T03:04:05Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999999-23:59",
    "2026-02-30T25:61:61Z",
    "20260102T030405Z",
    "transaction",
    "batch",
    "history",
    "collection",
    "searchset",
    "document",
    "message",
    "subscription-notification",
    "handshake",
    "heartbeat",
    "event-notification",
    "query-status",
    "application/json-patch+json",
    "next",
    "outcome",
    *("POST PUT PATCH DELETE GET HEAD TRACE put".split()),
    *("Parameters SubscriptionStatus Binary MessageHeader Composition OperationOutcome".split()),
    "W10=",
    "W3sib3AiOiJ0ZXN0In1d",
    "=====",
    f'<div><a href="urn:uuid:{_ID}">x</a><img src=\'#a\'/><a href="x</div>',
    "<a href=" * 40,
)

_TOKENS = (
    *("null", "true", "false", "0", "-0", "-0.0", "1", "-1", "1.10", "1e2", "1E-7"),
    *("1e308", "1e309", "1e999999", "-1e-999999"),
    *("9007199254740993", "18446744073709551616", "-9223372036854775809", "1" * 400),
    *("1" * 5000, "0." + "1" * 5000, "1" * 5000 + ".5"),
    *("{}", "[]", "[[]]", "[null]", "[{}]", '{"":""}', '{"resourceType":"Patient"}', '["Patient"]'),
    *('{"reference":"#"}', '[{"reference":"Patient/p1"}]', '"2026"', "[[[]]]", '{"a":{"b":[1.0]}}'),
)

_BROKEN = (
    *("1e9999999999999999999", "0e99999999999", "NaN", "Infinity", "-Infinity", "-"),
    *("01", "1.", ".5", "+1", "0x10", "1_000", "'x'", "undefined", "//", "[1,]", "{,}"),
    *('"\\ud800"', '"\\u0000"', '"\\x"', '"\\u12"', '"\t"', '"', "\x00", "\ufeff1"),
)


def make_token(random: Random) -> str:
    """Return JSON text, mostly valid."""
    drawn = random.random()
    if drawn < 0.5:
        return json.dumps(make_text(random), ensure_ascii=True)
    if drawn < 0.87:
        return random.choice(_TOKENS)
    if drawn < 0.9:
        return random.choice(_BROKEN)
    if drawn < 0.95:
        depth = random.choice((5, 90, 99, 100, 101, 150, 600, 5000, 60_000))
        return _nest(depth, random)
    element = random.choice(_TOKENS[:12])
    return f"[{','.join([element] * random.choice((3, 100, 3000)))}]"


def make_text(random: Random) -> str:
    """Return a string, mostly with the marker."""
    drawn = random.random()
    found = random.choice(_TEXTS)
    if drawn < 0.2:
        return found
    if drawn < 0.22:
        return (found or "x") * random.choice((10, 1000, 100_000 // max(len(found), 1)))
    return found + MARKER if drawn < 0.8 else MARKER + found


def _nest(depth: int, random: Random) -> str:
    if random.random() < 0.1:
        return "[" * depth  # and never closed
    begin, end = random.choice((("[", "]"), ('{"a":', "}"), ('[{"contained":', "}]")))
    return begin * depth + json.dumps(MARKER) + end * depth
