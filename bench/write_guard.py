"""Measure the cost of the write guard: the same updates with and without it."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass
from typing import Any

from bench.route import HEADERS, SENDER_HEADER, MeasuredRoute, deliver_all, encode
from bench.watch import count_storage_operations

ROUNDS = 3
DELIVERIES = 16
ENTRIES = 250
UNGUARDED = "unguarded"  # as the WRITE_ORDER of the bench says


async def measure_first_writes(route: MeasuredRoute) -> float:
    """Return the time with the guard over the time without it, for resources that are new."""
    ratios = []
    for number in range(ROUNDS):
        without = await _deliver(route, f"without-{number}", UNGUARDED)
        ratios.append(await _deliver(route, f"with-{number}") / without)
    return statistics.median(ratios)


async def measure_updates(route: MeasuredRoute) -> float:
    """Return the same for resources that exist, each time with another content."""
    await _deliver(route, "existing-without", UNGUARDED)
    await _deliver(route, "existing-with")
    ratios = []
    for version in range(1, ROUNDS + 1):
        without = await _deliver(route, "existing-without", UNGUARDED, version)
        ratios.append(await _deliver(route, "existing-with", version=version) / without)
    return statistics.median(ratios)


@dataclass(frozen=True, slots=True)
class AddedOperations:
    """The storage operations that the guard adds to a delivery that writes one resource: the
    first time, and again."""

    first_write: float
    update: float


async def measure_operations(route: MeasuredRoute) -> AddedOperations:
    """Return the storage operations that the guard adds to a delivery with one update."""
    first, update = [
        await _count_operations(route, "", version)
        - await _count_operations(route, UNGUARDED, version)
        for version in (0, 1)
    ]
    return AddedOperations(first, update)


async def _deliver(route: MeasuredRoute, seed: str, sender: str = "", version: int = 0) -> float:
    """Return the seconds to deliver the updates. `version` 0 creates the resources."""
    bodies = [_make_body(f"{seed}-{number}", version) for number in range(DELIVERIES)]
    status = "200" if version else "201"
    return await deliver_all(route, bodies, sender=sender, status=status)


async def _count_operations(route: MeasuredRoute, sender: str, version: int) -> float:
    """Return the storage operations of a delivery that updates one resource, without polls."""
    counted = count_storage_operations(route.log)
    for number in range(DELIVERIES):
        body = encode(_make_observation(f"one-{sender}-{number}", version))
        headers = {**HEADERS, SENDER_HEADER: sender}
        await route.http.post(f"{route.host}/api/fhir", content=body, headers=headers)
    await asyncio.sleep(6)  # until the last delivery is done and its message deleted
    return (count_storage_operations(route.log) - counted) / DELIVERIES


def _make_body(seed: str, version: int) -> bytes:
    resources = [_make_observation(f"{seed}-{number}", version) for number in range(ENTRIES)]
    entries = [
        {"resource": resource, "request": {"method": "PUT", "url": f"Observation/{resource['id']}"}}
        for resource in resources
    ]
    return encode({"resourceType": "Bundle", "type": "batch", "entry": entries})


def _make_observation(identifier: str, version: int) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": identifier,
        "status": "final",
        "code": {"text": "Heart rate"},
        "valueInteger": 60 + version,
    }
