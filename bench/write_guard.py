"""What the order of deliveries costs: the same updates with the guard, and without it."""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

from bench.route import HEADERS, SENDER_HEADER, Measured, carried, encoded
from bench.watch import storage_operations

ROUNDS = 3
DELIVERIES = 16
ENTRIES = 250
UNGUARDED = "unguarded"  # as the WRITE_ORDER of the bench says


async def price(it: Measured) -> tuple[float, float]:
    """Seconds with the guard over those without; storage operations that it adds to a delivery
    with one update."""
    ratios = []
    for number in range(ROUNDS):
        without = await carried(it, _bodies(f"without-{number}", DELIVERIES), sender=UNGUARDED)
        guarded = await carried(it, _bodies(f"with-{number}", DELIVERIES))
        ratios.append(guarded / without)
    return statistics.median(ratios), await _operations(it, "") - await _operations(it, UNGUARDED)


async def _operations(it: Measured, sender: str) -> float:
    """For a delivery that updates one resource, nobody asking what became of it."""
    counted = storage_operations(it.log)
    for number in range(DELIVERIES):
        body = encoded(_observation(f"one-{sender}-{number}"))
        headers = {**HEADERS, SENDER_HEADER: sender}
        await it.http.post(f"{it.host}/api/fhir", content=body, headers=headers)
    await asyncio.sleep(6)  # until the last is done, and its message deleted
    return (storage_operations(it.log) - counted) / DELIVERIES


def _bodies(seed: str, number: int) -> list[bytes]:
    return [
        encoded({"resourceType": "Bundle", "type": "batch", "entry": _updates(f"{seed}-{index}")})
        for index in range(number)
    ]


def _updates(seed: str) -> list[dict[str, Any]]:
    resources = [_observation(f"{seed}-{number}") for number in range(ENTRIES)]
    return [
        {"resource": each, "request": {"method": "PUT", "url": f"Observation/{each['id']}"}}
        for each in resources
    ]


def _observation(identifier: str) -> dict[str, Any]:
    code = {"text": "Heart rate"}
    return {"resourceType": "Observation", "id": identifier, "status": "final", "code": code}
