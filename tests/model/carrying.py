"""From what a sender sends to what it reads in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from integration.core.model import DeliveryRequest, Status
from integration.fhir import bundle
from integration.fhir.plan import Plan, plan
from integration.fhir.resource_ids import Naming
from tests.model.deliveries import Corrected, Sent
from tests.model.uncut import Asked
from tests.model.world import World


async def carried(world: World, it: Sent, asked: Asked) -> list[int]:
    """The statuses that the sender reads in the end, one for each entry, in the sender's order."""
    async with world.open():
        delivery = await world.accepts(it.body, it.ndjson)
        await world.carries()
        told = await world.told(delivery)
    assert [url for url, _ in told] == [each.get("fullUrl") for each in asked.entries]
    return [status for _, status in told]


async def carried_together(world: World, both: tuple[Sent, Sent]) -> list[list[int]]:
    """What the senders read in the end."""
    async with world.open():
        ids = [await world.accepts(it.body, it.ndjson) for it in both]
        await world.carries()
        return [[status for _, status in await world.told(each)] for each in ids]


@dataclass(frozen=True)
class Read:
    """The statuses of the correction and of the newer delivery, as both are read in the end."""

    corrected: list[int] | None  # None: there was nothing to correct
    newer: list[int]
    was_parked: bool


async def carried_and_corrected(
    world: World, it: Corrected, *, is_parked: bool, is_late: bool
) -> Read:
    """Carry the first delivery, then the newer one, and correct the first: `is_late`, after the
    newer one has ended, or else at the same time. `is_parked`: the first is given up as soon as a
    neighbour is away."""
    async with world.open():
        world.gives_up(at_once=is_parked)
        first = await world.accepts(it.first.body, it.first.ndjson)
        await world.carries()
        world.gives_up(at_once=False)
        known = await world.journal.get_delivery(first)
        assert known is not None
        newer = await world.accepts(it.newer.body, it.newer.ndjson)
        if is_late:
            await world.carries()
        correction = await world.corrects(first, it.mended.body, it.mended.ndjson)
        is_well = known.status is Status.DONE and not known.refused
        assert (correction is None) == is_well
        await world.carries()
        told = [status for _, status in await world.told(correction)] if correction else None
        return Read(
            corrected=told,
            newer=[status for _, status in await world.told(newer)],
            was_parked=known.status is Status.PARKED,
        )


def planned(it: Sent) -> Plan:
    received = DeliveryRequest("POST", format="ndjson" if it.ndjson else "json")
    return plan(bundle.read(it.body, received), Naming("clinic", "key"), it.limits)


def mixing(seed: int) -> Callable[[Sequence[int]], Sequence[int]]:
    """An order for the entries of a batch."""

    def mixed(positions: Sequence[int]) -> Sequence[int]:
        shuffled = list(positions)
        Random(seed).shuffle(shuffled)
        return shuffled if seed else positions

    return mixed
