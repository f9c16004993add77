"""What was sent, and what a server holds of it, for the judges."""

from __future__ import annotations

from collections.abc import Sequence

from faults.deliveries import Delivery, EntryIntent, TrackedResource
from faults.verdict import AcceptedDelivery, EntryAnswer, StoredResource

WHO = TrackedResource("Patient", "who", "Patient/who")


def make_accepted(
    *intents: EntryIntent, answers: Sequence[EntryAnswer] | None = None, id_: str = "1"
) -> AcceptedDelivery:
    given = [EntryAnswer(200)] * len(intents) if answers is None else answers
    return AcceptedDelivery(
        Delivery(name="batch", body=b"", intents=tuple(intents)),
        f"http://host/deliveries/{id_}",
        given,
    )


def make_held(
    *markers: str | None, thing: TrackedResource = WHO
) -> dict[TrackedResource, StoredResource]:
    """What the server holds of a thing, one version after the other."""
    numbered = tuple((str(n), marker) for n, marker in enumerate(markers, 1))
    return {thing: StoredResource((thing.identity or f"{thing.type}/1",), numbered)}
