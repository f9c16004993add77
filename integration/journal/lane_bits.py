"""Sets of lanes as bits, as the row of a delivery holds them: lane 0 is the lowest bit. Pure.

A table has no lists. The largest property has 64 KiB, which is enough for half a million lanes:
https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model
"""

from __future__ import annotations

from collections.abc import Iterable

from integration.core.model import Delivery


def add_lanes(bits: bytes, lanes: Iterable[int]) -> bytes:
    """Return the set with more lanes."""
    value = int.from_bytes(bits, "little")
    for lane in lanes:
        value |= 1 << lane
    return value.to_bytes((value.bit_length() + 7) // 8, "little")


def has_lane(bits: bytes, lane: int) -> bool:
    """Whether the lane is in the set."""
    return bool(int.from_bytes(bits, "little") >> lane & 1)


def count_lanes(bits: bytes) -> int:
    """Return how many lanes are in the set."""
    return int.from_bytes(bits, "little").bit_count()


def list_open_lanes(delivery: Delivery) -> list[int]:
    """Return the lanes of the delivery's plan that are not done."""
    done = int.from_bytes(delivery.done_lanes, "little")
    return [lane for lane in range(delivery.lanes) if not done >> lane & 1]


def list_unqueued_lanes(delivery: Delivery) -> list[int]:
    """Return the lanes of the delivery's plan that are neither queued nor done, as far as is
    recorded: a worker that ended early may have queued more."""
    queued = int.from_bytes(delivery.queued_lanes, "little")
    return [lane for lane in list_open_lanes(delivery) if not queued >> lane & 1]
