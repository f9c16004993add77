"""Measure the cost of the write guard: the same updates with and without it."""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

from bench.route import HEADERS, SENDER_HEADER, MeasuredRoute, deliver_all, encode
from bench.watch import count_storage_operations

ROUNDS = 3
DELIVERIES = 16
ENTRIES = 250
UNGUARDED = "unguarded"  # as the WRITE_ORDER of the bench says


async def measure_cost(route: MeasuredRoute) -> tuple[float, float]:
    """Return the time with the guard over the time without it, and the storage operations that it
    adds to a delivery with one update."""
    ratios = []
    for number in range(ROUNDS):
        without = await deliver_all(
            route, _make_bodies(f"without-{number}", DELIVERIES), sender=UNGUARDED
        )
        guarded = await deliver_all(route, _make_bodies(f"with-{number}", DELIVERIES))
        ratios.append(guarded / without)
    return statistics.median(ratios), await _count_operations(route, "") - await _count_operations(
        route, UNGUARDED
    )


async def _count_operations(route: MeasuredRoute, sender: str) -> float:
    """Return the storage operations of a delivery that updates one resource, without polls."""
    counted = count_storage_operations(route.log)
    for number in range(DELIVERIES):
        body = encode(_make_observation(f"one-{sender}-{number}"))
        headers = {**HEADERS, SENDER_HEADER: sender}
        await route.http.post(f"{route.host}/api/fhir", content=body, headers=headers)
    await asyncio.sleep(6)  # until the last delivery is done and its message deleted
    return (count_storage_operations(route.log) - counted) / DELIVERIES


def _make_bodies(seed: str, number: int) -> list[bytes]:
    return [
        encode(
            {"resourceType": "Bundle", "type": "batch", "entry": _make_updates(f"{seed}-{index}")}
        )
        for index in range(number)
    ]


def _make_updates(seed: str) -> list[dict[str, Any]]:
    resources = [_make_observation(f"{seed}-{number}") for number in range(ENTRIES)]
    return [
        {"resource": resource, "request": {"method": "PUT", "url": f"Observation/{resource['id']}"}}
        for resource in resources
    ]


def _make_observation(identifier: str) -> dict[str, Any]:
    code = {"text": "Heart rate"}
    return {"resourceType": "Observation", "id": identifier, "status": "final", "code": code}
