"""From what a sender sends to what it reads in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from integration.core.model import DeliveryRequest
from integration.fhir import bundle
from integration.fhir.identity import Naming
from integration.fhir.plan import Plan, plan
from tests.model.deliveries import SentDelivery
from tests.model.uncut import RequestedDelivery
from tests.model.world import World


async def run_delivery(world: World, sent: SentDelivery, requested: RequestedDelivery) -> list[int]:
    """The statuses that the sender reads in the end, one for each entry, in the sender's order."""
    async with world.open():
        delivery = await world.accepts(sent.body, sent.ndjson)
        await world.carries()
        results = await world.told(delivery)
    assert [url for url, _ in results] == [entry.get("fullUrl") for entry in requested.entries]
    return [status for _, status in results]


async def run_deliveries(world: World, both: tuple[SentDelivery, SentDelivery]) -> list[list[int]]:
    """What the senders read in the end."""
    async with world.open():
        ids = [await world.accepts(sent.body, sent.ndjson) for sent in both]
        await world.carries()
        return [[status for _, status in await world.told(id_)] for id_ in ids]


def make_plan(sent: SentDelivery) -> Plan:
    received = DeliveryRequest("POST", format="ndjson" if sent.ndjson else "json")
    return plan(bundle.read(sent.body, received), Naming("clinic", "key"), sent.limits)


def make_order(seed: int) -> Callable[[Sequence[int]], Sequence[int]]:
    """An order for the entries of a batch."""

    def mixed(positions: Sequence[int]) -> Sequence[int]:
        shuffled = list(positions)
        Random(seed).shuffle(shuffled)
        return shuffled if seed else positions

    return mixed
