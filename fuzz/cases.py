"""Make one case from a number. The same seed and number make the same bytes on any machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from fuzz import raw
from fuzz.seeds import FORMATS, LINES, Seed, load_seeds
from fuzz.tree import MutatedTree
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

# The most lines of NDJSON in one case.
_LINES = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request and the configuration of its receiver. `fetched` is the body that a server
    returns when the relay fetches something for this delivery."""

    number: int
    name: str
    request: IncomingRequest
    limits: Limits
    policy: Policy
    write_order: str
    fetched: bytes
    max_bytes: int = MAX_BYTES

    @property
    def size(self) -> int:
        """The bytes to be processed. A kilobyte is added for the fixed cost of any delivery."""
        is_compressed = "content-encoding" in self.request.headers
        return (
            1000
            + len(self.fetched)
            + (self.max_bytes if is_compressed else 0)
            + len(self.request.body)
        )


def make_case(seed: str, number: int) -> Case:
    """Make the case of this number."""
    random = Random(f"{seed}/{number}")
    drawn = _draw_seed(random)
    body = _mutate(drawn, random)
    fetched = _mutate(_draw_seed(random), random) if random.random() < 0.1 else b""
    request = raw.build_request(drawn, body, random, MAX_BYTES)
    policy = Policy(
        messages="refuse" if random.random() < 0.05 else "resources",
        documents=random.choice(("bundle", "resources", "both")),
        dangling=random.choice(("refuse", "note", "note")),
        validate=random.random() < 0.05 and len(body) < 20_000,
    )
    write_order = random.choice(("arrival", "lastUpdated", "version", "off"))
    limits = random.choice(_LIMITS)
    return Case(
        number=number,
        name=drawn.name,
        request=request,
        limits=limits,
        policy=policy,
        write_order=write_order,
        fetched=fetched,
    )


@cache
def _split_seeds() -> tuple[Sequence[Seed], Sequence[Seed]]:
    """Return the seeds that can be read, and the others."""
    everything = load_seeds()
    sound = [seed for seed in everything if _is_sound(seed)]
    return sound, [seed for seed in everything if seed not in sound]


def _is_sound(seed: Seed) -> bool:
    type_, id_ = (*seed.address, None, None)[:2]
    try:
        bundle.read(
            seed.body, DeliveryRequest(seed.method, type=type_, id=id_, format=FORMATS[seed.media])
        )
    except Rejected:
        return False
    return True


def _draw_seed(random: Random) -> Seed:
    """Draw a seed, mostly one that can be read: the others exercise less."""
    sound, unsound = _split_seeds()
    return random.choice(unsound if unsound and random.random() < 0.1 else sound)


def _mutate(seed: Seed, random: Random) -> bytes:
    body = (
        _mutate_lines(seed.body, random) if seed.media == LINES else _mutate_tree(seed.body, random)
    )
    times = random.choice((*[0] * 13, 1, 1, 4))
    for _ in range(times):
        body = raw.mutate_bytes(body, random)
    return body


def _mutate_tree(body: bytes, random: Random) -> bytes:
    """Mutate JSON. A body that is not JSON stays as it is."""
    try:
        root = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return MutatedTree(root, random).mutate(random.choice((0, 1, 1, 1, 1, 2, 2, 3, 8)))


def _mutate_lines(body: bytes, random: Random) -> bytes:
    lines = body.splitlines()
    begin = random.randrange(len(lines))
    chosen = lines[begin : begin + random.randint(1, _LINES)]
    for _ in range(random.randrange(4)):
        number = random.randrange(len(chosen))
        chosen[number] = _mutate_tree(chosen[number], random)
    return random.choice((b"\n", b"\n", b"\r\n", b"\n\n", b"\r")).join(chosen)
