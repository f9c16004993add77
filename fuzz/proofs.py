"""Hostile proofs: requests that are proven, changed in up to three places.

Whatever comes is proven or Unproven. What is proven still has all that its proof covers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

from fuzz.proof_seeds import NOW, Seed, build_seeds
from integration.senders.proofs.proof import Proven, SignedRequest, Unproven
from integration.senders.proofs.registry import SCHEMES

ACCEPTED, REFUSED, FORGED, BROKEN = "accepted", "refused", "forged", "exception"

_CASES_PER_TASK = 500
_MAX_CHANGES = 3

# What trips parsers: digits that are none, half characters, ends of lines, deep and huge values.
_ODD = (
    "\x00",
    "\n",
    "\r\n ",
    "\t",
    " ",
    "\x7f",
    "\u0661",  # an Arabic digit, for which str.isdigit is true
    "\uff11",
    "\ud800",
    "\u2028",
    "é",
    "'",
    '"',
    ",",
    ";",
    "=",
    ".",
    "-",
    "+",
    "%",
    "_",
    "\\",
    ":",
    "{",
    "(",
    "1e9",
    "0x1",
    "inf",
    "nan",
    "9" * 30,
    "9" * 5000,
    "A" * 9000,
    "[" * 2000,
    "=" * 100,
    "v1,",
    "v1a,",
    "sha1=",
    "alg=none",
    "bnVsbA==",
)
# Tokens without a signature, with a shared key, and with a header as deep as a header may be.
_TOKENS = (
    "Bearer eyJhbGciOiJub25lIiwia2lkIjoiZWMtMSJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIn0.",
    "Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6InJzYS0xIn0.e30.AAAA",
    "Bearer " + "W1tb" * 2000 + ".e30.AAAA",
    "Bearer ..",
    "bearer",
    "Basic dXNlcjpwYXNz",
)
_METHODS = ("GET", "PUT", "DELETE", "post", "", "PO ST", "P\u00d6ST", "\ud800")
_URLS = (
    "https://relay.example/api/fhir?x=1",
    "https://relay.example/api/fhir#x",
    "https://user@relay.example/api/fhir",
    "https://relay.example:443/api/fhir",
    "https://other.example/api/fhir",
    "https://relay.example/api/fhir/../fhir",
    "https://relay.example/api/%66hir?a=1",
    "https://[::1/api/fhir",
    "/api/fhir",
    "",
    "\ud800",
)


@dataclass(frozen=True, slots=True)
class ProofCase:
    """One request, and the seed that it was made of."""

    number: int
    seed: Seed
    request: SignedRequest


@dataclass(frozen=True, slots=True)
class ProofResult:
    """What became of a case. `why` quotes nothing of the request."""

    number: int
    scheme: str
    outcome: str
    why: str


def make_proof_case(seed: str, number: int) -> ProofCase:
    """Make the case of a number: the same one each time, but for signatures that differ each time
    that they are made."""
    chance = random.Random(f"proof/{seed}/{number}")
    origin = chance.choice(build_seeds())
    request = origin.request
    for _ in range(chance.randint(0, _MAX_CHANGES)):
        request = _change(request, chance)
    return ProofCase(number, origin, request)


def try_proof_case(case: ProofCase) -> ProofResult:
    """Verify a case, and judge the result."""
    seed = case.seed
    table, scheme = seed.read_table(), SCHEMES[seed.scheme]
    expected = scheme.verify(table, seed.secrets, seed.request, NOW)
    try:
        found: Proven = scheme.verify(table, seed.secrets, case.request, NOW)
    except Unproven as error:
        return ProofResult(case.number, seed.scheme, REFUSED, str(error))
    except Exception as error:
        return ProofResult(case.number, seed.scheme, BROKEN, f"{seed.name}: {error!r}")
    changed = [
        part
        for part in seed.covered
        if take_part(case.request, part) != take_part(seed.request, part)
    ]
    if changed or found != expected:
        why = f"{seed.name}: {', '.join(changed) or 'another result'}"
        return ProofResult(case.number, seed.scheme, FORGED, why)
    return ProofResult(case.number, seed.scheme, ACCEPTED, "")


def take_part(request: SignedRequest, part: str) -> object:
    """What of a request a seed calls covered. White space around a header is none of it."""
    parts: Mapping[str, object] = {
        "body": request.body,
        "method": request.method,
        "method:lower": request.method.lower(),
        "url": request.url,
        "url:path": request.url.partition("://")[2].partition("/")[2],
    }
    return parts[part] if part in parts else request.headers.get(part, "").strip(" \t")


def run_proofs(seed: str, cases: int, processes: int) -> int:
    """Try this many cases, print what became of them, and return how many of them are faults."""
    build_seeds()
    starts = range(0, cases, _CASES_PER_TASK)
    ends = [min(start + _CASES_PER_TASK, cases) for start in starts]
    outcomes: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    with ProcessPoolExecutor(processes) as pool:
        for results in pool.map(_run_range, [seed] * len(starts), starts, ends):
            for result in results:
                outcomes[result.outcome] += 1
                accepted[result.scheme] += result.outcome == ACCEPTED
                if result.outcome in (FORGED, BROKEN):
                    print(f"proof {result.number}: {result.outcome}: {result.why}", flush=True)
    print(f"proofs accepted: {' '.join(f'{n}={k}' for n, k in sorted(accepted.items()))}")
    print(
        f"proofs: cases={cases} refused={outcomes[REFUSED]} accepted={outcomes[ACCEPTED]} "
        f"exceptions={outcomes[BROKEN]} forged={outcomes[FORGED]}"
    )
    return outcomes[BROKEN] + outcomes[FORGED]


def _run_range(seed: str, start: int, end: int) -> list[ProofResult]:
    return [try_proof_case(make_proof_case(seed, number)) for number in range(start, end)]


def _change(request: SignedRequest, chance: random.Random) -> SignedRequest:
    match chance.choices(("header", "body", "line"), (7, 2, 1))[0]:
        case "body":
            return replace(request, body=_change_bytes(request.body, chance))
        case "line":
            if chance.random() < 0.5:
                return replace(request, method=chance.choice(_METHODS))
            return replace(request, url=chance.choice(_URLS))
        case _:
            return replace(request, headers=_change_headers(request.headers, chance))


def _change_headers(headers: Mapping[str, str], chance: random.Random) -> dict[str, str]:
    changed = dict(headers)
    if not changed or chance.random() < 0.05:
        other = chance.choice(build_seeds()).request
        return {**changed, **other.headers}
    name = chance.choice(sorted(changed))
    kind = chance.randrange(8)
    if kind == 0:
        del changed[name]
    elif kind == 1:
        changed[name] = chance.choice((*_ODD, *_TOKENS, ""))
    elif kind == 2:
        changed[name] = chance.choice(list(chance.choice(build_seeds()).request.headers.values()))
    else:
        changed[name] = "".join(_change_text(changed[name], chance))
    return changed


def _change_text(text: str, chance: random.Random) -> Iterator[str]:
    """The text with something put in, taken away, turned round, or written otherwise."""
    start = chance.randrange(len(text) + 1)
    end = min(start + chance.choice((1, 1, 1, 2, 8, 40)), len(text))
    kind = chance.randrange(7)
    if kind == 0:
        yield from (text[:start], chance.choice(_ODD), text[start:])
    elif kind == 1:
        yield from (text[:start], text[end:])
    elif kind == 2:
        yield from (text[:start], chr(chance.randrange(33, 127)), text[start + 1 :])
    elif kind == 3:
        yield from (text[:start], text[start:end].swapcase(), text[end:])
    elif kind == 4:
        yield from (chance.choice((" ", "\t", "  ")), text, chance.choice((" ", "\t", "")))
    elif kind == 5:
        yield from (text[:start], text[start:end] * 2, text[end:])
    else:
        yield from (text, chance.choice((",", ", ", ";", " ")), text)


def _change_bytes(body: bytes, chance: random.Random) -> bytes:
    position = chance.randrange(len(body) + 1)
    match chance.randrange(5):
        case 0:
            return body[:position]
        case 1:
            return body + chance.choice((b"\n", b" ", b"\x00", b"."))
        case 2:
            return chance.randbytes(chance.randrange(64))
        case 3:
            return body[:position] + b" " + body[position:]
        case _:
            changed = bytearray(body or b"x")
            changed[position % len(changed)] ^= 1 << chance.randrange(8)
            return bytes(changed)
