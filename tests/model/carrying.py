"""From what a sender sends to what it reads in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from integration.core.model import DeliveryRequest
from integration.fhir import bundle
from integration.fhir.plan import Plan, plan
from integration.fhir.resource_ids import Naming
from tests.model.deliveries import Sent
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
