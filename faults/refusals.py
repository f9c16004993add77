"""Build deliveries of which something is refused, by every cause that a sender can have. Pure.

Each kind returns a stream: a delivery with refusals, and what prepares or corrects them. Most
entries are good, as they are in life.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faults import injected
from faults.deliveries import (
    MARKER_SYSTEM,
    TRACKED_SYSTEM,
    Delivery,
    DeliveryFactory,
    EntryIntent,
    Json,
    Stream,
    build_bundle,
    build_entry,
)

MAX_UNIT_BYTES = 100_000
_TOO_LONG = "x" * (MAX_UNIT_BYTES + 1)
_IN_A_TRANSACTION = 20  # entries: all of it goes as one unit
_SHARED_SYSTEM = "urn:faults:shared"

# The name of a delivery that corrects an earlier one.
CORRECTION = "correction"

NORTH, FEED = "north", "feed"
NORTH_TOKEN, FEED_TOKEN = "made-up-token-of-the-north", "made-up-token-of-a-feed"
_SENDERS = """
[default.proof]
scheme = "function-key"
[north.proof]
scheme = "bearer"
secrets = ["NORTH_TOKEN"]
[north.rights]
types = [{types}]
[feed.proof]
scheme = "bearer"
secrets = ["FEED_TOKEN"]
[feed.policy]
refused_deliveries = "hold"
refused_entries = "hold"
"""

Made = tuple[EntryIntent, Json]
Refusal = Callable[[DeliveryFactory, int], Stream]


def build_senders(*, is_generous: bool) -> str:
    """Return the file of senders. `is_generous`: the sender in the north may write everything."""
    types = ["Patient", "Observation", *(["Organization"] if is_generous else [])]
    return _SENDERS.format(types=", ".join(f'"{type_}"' for type_ in types))


def _make_good(factory: DeliveryFactory, type_: str = "Observation") -> Made:
    given = factory.random.random() < 0.5
    intent = factory.make_intent("sets", factory.make_resource(type_, given=given))
    return intent, build_entry(intent)


def _make_bad(
    factory: DeliveryFactory, type_: str = "Observation", *, given: bool = False, **content: Any
) -> Made:
    intent = factory.make_intent("fails", factory.make_resource(type_, given=given))
    return intent, build_entry(intent, **content)


def _build(
    factory: DeliveryFactory, name: str, size: int, bad: list[Made], **more: Any
) -> Delivery:
    """Return a batch of this size with the bad entries somewhere in it."""
    made = [_make_good(factory) for _ in range(max(size - len(bad) - 1, 1))]
    made += [_make_good(factory, "Patient"), *bad]
    factory.random.shuffle(made)
    intents, entries = zip(*made, strict=True)
    return Delivery(name=name, body=build_bundle("batch", entries), intents=intents, **more)


def _refuse_values(
    name: str, number: int, type_: str, **content: Any
) -> Callable[[DeliveryFactory, int], Stream]:
    """Return a kind: a batch of which so many entries have this content."""

    def make(factory: DeliveryFactory, size: int) -> Stream:
        bad = [_make_bad(factory, type_, given=n % 2 > 0, **content) for n in range(number)]
        return [_build(factory, name, size, bad)]

    return make


def _refuse_many(factory: DeliveryFactory, size: int) -> Stream:
    """Half of the entries: more than a line of the list names."""
    bad = [_make_bad(factory, status="wrong") for _ in range(size // 2)]
    return [_build(factory, injected.BAD_CODE, size, bad)]


def _refuse_references(factory: DeliveryFactory, size: int) -> Stream:
    bad = [_make_bad(factory, subject=f"urn:uuid:{factory.make_guid()}") for _ in range(2)]
    return [_build(factory, injected.DANGLING, size, bad)]


def _refuse_transaction(factory: DeliveryFactory, size: int) -> Stream:
    bad = [_make_bad(factory) for _ in range(min(size, _IN_A_TRANSACTION) - 1)]
    bad.append(_make_bad(factory, "Patient", gender="wrong"))
    intents, entries = zip(*bad, strict=True)
    body = build_bundle("transaction", entries)
    return [Delivery(name=injected.TRANSACTION_REFUSED, body=body, intents=intents)]


def _refuse_versions(factory: DeliveryFactory, size: int) -> Stream:
    things = [factory.make_resource("Observation", given=True) for _ in range(3)]
    first = [factory.make_intent("sets", thing) for thing in things]
    before = Delivery(
        name="what others update",
        body=build_bundle("batch", [build_entry(intent) for intent in first]),
        intents=tuple(first),
    )
    bad = []
    for thing in things:
        intent = factory.make_intent("fails", thing)
        entry = build_entry(intent)
        bad.append((intent, {**entry, "request": {**entry["request"], "ifMatch": 'W/"99"'}}))
    return [before, _build(factory, injected.VERSION_CONFLICT, size, bad)]


def _refuse_matches(factory: DeliveryFactory, size: int) -> Stream:
    shared = {"system": _SHARED_SYSTEM, "value": factory.make_guid()}
    first = [factory.make_intent("sets", factory.make_resource("Observation")) for _ in range(2)]
    before = Delivery(
        name="two of one number",
        body=build_bundle("batch", [build_entry(i, identifier=_number(i, shared)) for i in first]),
        intents=tuple(first),
    )
    intent, entry = _make_bad(factory)
    condition = f"identifier={_SHARED_SYSTEM}|{shared['value']}"
    bad = (intent, {**entry, "request": {**entry["request"], "ifNoneExist": condition}})
    return [before, _build(factory, injected.SEVERAL_MATCHES, size, [bad])]


def _number(intent: EntryIntent, *more: Json) -> list[Json]:
    tracked = {"system": TRACKED_SYSTEM, "value": intent.tracked.name}
    return [tracked, {"system": MARKER_SYSTEM, "value": intent.marker}, *more]


def _refuse_rights(factory: DeliveryFactory, size: int) -> Stream:
    bad = [_make_bad(factory, "Organization", name="Clinic") for _ in range(2)]
    headers = {"authorization": f"Bearer {NORTH_TOKEN}"}
    return [_build(factory, injected.NO_RIGHTS, size, bad, sender=NORTH, headers=headers)]


def _hold_entries(factory: DeliveryFactory, size: int) -> Stream:
    bad = [_make_bad(factory, status="wrong")]
    headers = {"authorization": f"Bearer {FEED_TOKEN}"}
    return [_build(factory, injected.HELD_ENTRIES, size, bad, sender=FEED, headers=headers)]


def _hold_body(factory: DeliveryFactory, size: int) -> Stream:
    intent, _ = _make_bad(factory)
    headers = {"authorization": f"Bearer {FEED_TOKEN}"}
    body = f'{{"resourceType": "Bundle", "{intent.marker}'.encode()
    return [
        Delivery(
            name=injected.HELD_BODY, body=body, intents=(intent,), headers=headers, sender=FEED
        )
    ]


def _correct(factory: DeliveryFactory, size: int) -> Stream:
    """Bad entries of resources that a later delivery writes as they should be."""
    bad = [_make_bad(factory, given=True, status="wrong") for _ in range(3)]
    before = _build(factory, injected.CORRECTED, size, bad)
    good = [factory.make_intent("sets", intent.tracked) for intent, _ in bad]
    entries = [build_entry(intent) for intent in good]
    after = Delivery(name=CORRECTION, body=build_bundle("batch", entries), intents=tuple(good))
    return [before, after]


REFUSALS: dict[str, Refusal] = {
    injected.BAD_DATE: _refuse_values(injected.BAD_DATE, 3, "Patient", birthDate="2026-02-31"),
    injected.BAD_CODE: _refuse_many,
    injected.UNKNOWN_ELEMENT: _refuse_values(injected.UNKNOWN_ELEMENT, 2, "Observation", weight=70),
    injected.BAD_INSTANT: _refuse_values(
        injected.BAD_INSTANT, 2, "Observation", issued="yesterday"
    ),
    injected.DANGLING: _refuse_references,
    injected.TRANSACTION_REFUSED: _refuse_transaction,
    injected.VERSION_CONFLICT: _refuse_versions,
    injected.SEVERAL_MATCHES: _refuse_matches,
    injected.NO_RIGHTS: _refuse_rights,
    injected.TOO_LARGE: _refuse_values(
        injected.TOO_LARGE, 1, "Observation", note=[{"text": _TOO_LONG}]
    ),
    injected.HELD_BODY: _hold_body,
    injected.HELD_ENTRIES: _hold_entries,
    injected.CORRECTED: _correct,
}
