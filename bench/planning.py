"""Compare planning with the minimum for any bundle: parse the JSON and write it again."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import orjson

from bench.route import encode
from integration.core.model import DeliveryRequest
from integration.fhir import bundle
from integration.fhir.identity import Naming
from integration.fhir.plan import plan
from local.samples import build_transaction

ENTRIES = 1100
ENTRY_BYTES = 3500
ROUNDS = 9


def compare_with_json() -> float:
    """Return the time to read and plan a large transaction over orjson's loads and dumps."""
    body = encode(build_transaction([ENTRIES], entry_bytes=ENTRY_BYTES, seed="planning"))
    naming = Naming("bench", "planning")

    def plan_once() -> None:
        assert plan(bundle.read(body, DeliveryRequest("POST")), naming).lanes

    def copy_json() -> None:
        assert orjson.dumps(orjson.loads(body))

    pairs = [(_measure_seconds(plan_once), _measure_seconds(copy_json)) for _ in range(ROUNDS)]
    return statistics.median(mine / least for mine, least in pairs)


def _measure_seconds(act: Callable[[], None]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun
