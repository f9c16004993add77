"""Planning against the least that anyone must do with a bundle: parse it, and write it again."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import orjson

from bench.route import encoded
from integration.core.model import DeliveryRequest
from integration.fhir import bundle
from integration.fhir.identity import Naming
from integration.fhir.plan import plan
from local.samples import transaction

ENTRIES = 1100
ENTRY_BYTES = 3500
ROUNDS = 9


def over_json() -> float:
    """Seconds to read and plan one large transaction over those of orjson's loads and dumps."""
    body = encoded(transaction([ENTRIES], entry_bytes=ENTRY_BYTES, seed="planning"))
    naming = Naming("bench", "planning")

    def planned() -> None:
        assert plan(bundle.read(body, DeliveryRequest("POST")), naming).lanes

    def copied() -> None:
        assert orjson.dumps(orjson.loads(body))

    pairs = [(_seconds(planned), _seconds(copied)) for _ in range(ROUNDS)]
    return statistics.median(mine / least for mine, least in pairs)


def _seconds(act: Callable[[], None]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun
