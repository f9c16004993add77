"""Planning takes memory in proportion to the bytes of a delivery, and not much more of it."""

from __future__ import annotations

import tracemalloc

from integration.core import decimal_json
from integration.core.model import DeliveryRequest
from integration.fhir import bundle
from integration.fhir.plan import plan
from integration.fhir.resource_ids import Naming
from local.samples import build_transaction


def test_a_delivery_is_never_held_parsed_as_a_whole() -> None:
    """Parsed, this one takes almost four times its bytes, and the units are as long again."""
    body = decimal_json.encode(build_transaction([2_000], seed="memory"))
    tracemalloc.start()
    try:
        planned = plan(bundle.read(body, DeliveryRequest("POST")), Naming("sender", "key"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(len(unit.entries) for lane in planned.lanes for unit in lane.units) == 2_000
    assert peak / len(body) < 3.5
