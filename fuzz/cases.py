"""One delivery from a number. The same seed and number make the same bytes, wherever."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from fuzz import raw
from fuzz.seeds import FORMATS, LINES, Seed, seeds
from fuzz.tree import Harmed
from integration.core.errors import Rejected
from integration.core.model import DeliveryRequest, Policy
from integration.fhir import bundle
from integration.fhir.units import Limits
from integration.intake.http_request import IncomingRequest

MAX_BYTES = 5_000_000

_LIMITS = (
    Limits(),
    Limits(entries=4),
    Limits(entries=3, bytes=20_000),
    Limits(entries=1, bytes=3_000),
    Limits(entries=4, over="reject"),
)

# So many lines of NDJSON at most, but rarely all.
_LINES = 30


@dataclass(frozen=True, slots=True)
class Case:
    """A delivery and how its receiver is set up. `more`: what a server answers a fetch with;
    `size`: of the work that it asks for, in bytes."""

    number: int
    name: str
    ask: IncomingRequest
    limits: Limits
    policy: Policy
    order: str
    validate: bool
    more: bytes
    max_bytes: int = MAX_BYTES

    @property
    def size(self) -> int:
        """At least a kilobyte, so that what every delivery costs is no matter."""
        packed = "content-encoding" in self.ask.headers
        return 1000 + len(self.more) + (self.max_bytes if packed else 0) + len(self.ask.body)


def case(seed: str, number: int) -> Case:
    """The case of this number."""
    chance = Random(f"{seed}/{number}")
    begin = _drawn(chance)
    body = _harmed(begin, chance)
    other = _harmed(_drawn(chance), chance) if chance.random() < 0.1 else b""
    ask = raw.asked(begin, body, chance, MAX_BYTES)
    policy = Policy(
        messages="refuse" if chance.random() < 0.05 else "resources",
        documents=chance.choice(("bundle", "resources", "both")),
        dangling=chance.choice(("refuse", "note", "note")),
    )
    order = chance.choice(("arrival", "lastUpdated", "version", "off"))
    validate = chance.random() < 0.05 and len(body) < 20_000
    limits = chance.choice(_LIMITS)
    return Case(number, begin.name, ask, limits, policy, order, validate, other)


@cache
def _seeds() -> tuple[Sequence[Seed], Sequence[Seed]]:
    """Those that are taken as they are, and the others."""
    everything = seeds()
    sound = [seed for seed in everything if _is_sound(seed)]
    return sound, [seed for seed in everything if seed not in sound]


def _is_sound(seed: Seed) -> bool:
    type_, id_ = (*seed.address, None, None)[:2]
    try:
        bundle.read(seed.body, DeliveryRequest(seed.method, type_, id_, FORMATS[seed.media]))
    except Rejected:
        return False
    return True


def _drawn(chance: Random) -> Seed:
    """One that is taken as it is, mostly: the others have less to say."""
    sound, unsound = _seeds()
    return chance.choice(unsound if unsound and chance.random() < 0.1 else sound)


def _harmed(seed: Seed, chance: Random) -> bytes:
    body = _lines(seed.body, chance) if seed.media == LINES else _tree(seed.body, chance)
    times = chance.choice((*[0] * 13, 1, 1, 4))
    for _ in range(times):
        body = raw.harmed(body, chance)
    return body


def _tree(body: bytes, chance: Random) -> bytes:
    """Some are no JSON from the beginning, or harmed beyond reading."""
    try:
        root = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return Harmed(root, chance).harm(chance.choice((0, 1, 1, 1, 1, 2, 2, 3, 8)))


def _lines(body: bytes, chance: Random) -> bytes:
    lines = body.splitlines()
    begin = chance.randrange(len(lines))
    kept = lines[begin : begin + chance.randint(1, _LINES)]
    for _ in range(chance.randrange(4)):
        number = chance.randrange(len(kept))
        kept[number] = _tree(kept[number], chance)
    return chance.choice((b"\n", b"\n", b"\r\n", b"\n\n", b"\r")).join(kept)
