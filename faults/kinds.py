"""Build a small stream of every kind of delivery that the relay accepts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

from faults.deliveries import (
    Delivery,
    DeliveryFactory,
    EntryIntent,
    Json,
    Stream,
    build_bundle,
    build_entry,
    build_resource,
)
from integration.core import decimal_json


def generate_streams(factory: DeliveryFactory) -> Iterator[Stream]:
    """Yield streams of all kinds without end, shuffled in each round."""
    kinds = list(KINDS)
    while True:
        factory.random.shuffle(kinds)
        yield from (kind(factory) for kind in kinds)


def take_streams(factory: DeliveryFactory, number: int) -> list[Stream]:
    return list(islice(generate_streams(factory), number))


def make_chart(
    factory: DeliveryFactory, size: int, does: str = "sets"
) -> tuple[list[EntryIntent], list[Json]]:
    """Return a patient and resources that refer to it by `urn:uuid:` placeholders."""
    who, where = factory.make_guid(), factory.make_guid()
    patient, clinic = (
        factory.make_intent(does, factory.make_resource("Patient")),
        factory.make_intent("ensures", factory.make_clinic()),
    )
    rest = [
        factory.make_intent(does, factory.make_resource("Observation")) for _ in range(size - 2)
    ]
    here = {"managingOrganization": {"reference": f"urn:uuid:{where}"}}
    entries = [
        build_entry(patient, f"urn:uuid:{who}", **here),
        build_entry(clinic, f"urn:uuid:{where}"),
        *(build_entry(intent, subject=f"urn:uuid:{who}") for intent in rest),
    ]
    return [patient, clinic, *rest], entries


def make_transaction(factory: DeliveryFactory) -> Stream:
    intents, entries = make_chart(factory, 5)
    return [
        Delivery(
            name="transaction", body=build_bundle("transaction", entries), intents=tuple(intents)
        )
    ]


def make_keyed(factory: DeliveryFactory) -> Stream:
    """A transaction, sent twice with one idempotency key."""
    intents, entries = make_chart(factory, 4)
    key = {"idempotency-key": factory.make_guid()}
    body = build_bundle("transaction", entries)
    return [
        Delivery(
            name="transaction with a key", body=body, intents=tuple(intents), headers=key, times=2
        )
    ]


def make_repeated(factory: DeliveryFactory) -> Stream:
    """The same bytes twice, without a key."""
    intent = factory.make_intent("sets", factory.make_resource("Patient"))
    return [
        Delivery(
            name="the same bytes twice",
            body=build_bundle("batch", [build_entry(intent)]),
            intents=(intent,),
            times=2,
        )
    ]


def make_large(factory: DeliveryFactory) -> Stream:
    """A transaction over the entry limit whose entries are all connected."""
    intents, entries = make_chart(factory, 14)
    return [
        Delivery(
            name="split transaction",
            body=build_bundle("transaction", entries),
            intents=tuple(intents),
        )
    ]


def make_parts(factory: DeliveryFactory) -> Stream:
    """A transaction over the entry limit, in parts that do not refer to each other."""
    intents: list[EntryIntent] = []
    entries = []
    for _ in range(4):
        who = factory.make_guid()
        patient = factory.make_intent("sets", factory.make_resource("Patient"))
        rest = [factory.make_intent("sets", factory.make_resource("Observation")) for _ in range(2)]
        entries.append(build_entry(patient, f"urn:uuid:{who}"))
        entries += [build_entry(intent, subject=f"urn:uuid:{who}") for intent in rest]
        intents += [patient, *rest]
    return [
        Delivery(
            name="fanned-out transaction",
            body=build_bundle("transaction", entries),
            intents=tuple(intents),
        )
    ]


def make_batch(factory: DeliveryFactory) -> Stream:
    """Creates, updates and a conditional update; then deletes of two of these resources."""
    patient, observation = (
        factory.make_resource("Patient", given=True),
        factory.make_resource("Observation", given=True),
    )
    found = factory.make_resource("Patient")
    intents = [
        factory.make_intent("sets", thing)
        for thing in (patient, observation, factory.make_resource("Observation"), found)
    ]
    entries = [build_entry(intent) for intent in intents]
    entries[3]["request"] = {"method": "PUT", "url": f"Patient?{found.query}"}
    deletions = [
        factory.make_intent("deletes", patient),
        factory.make_intent("deletes", observation),
    ]
    new = factory.make_intent("sets", factory.make_resource("Patient"))
    then = [*deletions, new]
    return [
        Delivery(name="batch", body=build_bundle("batch", entries), intents=tuple(intents)),
        Delivery(
            name="batch that deletes",
            body=build_bundle("batch", [build_entry(intent) for intent in then]),
            intents=tuple(then),
        ),
    ]


def make_updates(factory: DeliveryFactory) -> Stream:
    """Four writes of one patient, each as a single resource."""
    thing = factory.make_resource("Patient", given=True)
    path = f"/{thing.identity}"
    stream = []
    for number in range(4):
        intent = factory.make_intent("deletes" if number == 2 else "sets", thing)
        body = b"" if intent.action == "deletes" else decimal_json.encode(build_resource(intent))
        method = "DELETE" if intent.action == "deletes" else "PUT"
        stream.append(
            Delivery(name="single resource", body=body, intents=(intent,), method=method, path=path)
        )
    return stream


def make_corrections(factory: DeliveryFactory) -> Stream:
    """The same two resources in two transactions, a batch and a transaction over the limit."""
    things = [
        factory.make_resource("Patient", given=True),
        factory.make_resource("Observation", given=True),
    ]
    stream = []
    for kind, more in (("transaction", 0), ("transaction", 0), ("batch", 0), ("transaction", 8)):
        intents = [factory.make_intent("sets", thing) for thing in things]
        intents += [
            factory.make_intent("sets", factory.make_resource("Observation")) for _ in range(more)
        ]
        subject = things[0].identity
        entries = [
            build_entry(intents[0]),
            *(build_entry(intent, subject=subject) for intent in intents[1:]),
        ]
        stream.append(
            Delivery(
                name=f"correction by {kind}",
                body=build_bundle(kind, entries),
                intents=tuple(intents),
            )
        )
    return stream


def make_conditional(factory: DeliveryFactory) -> Stream:
    """A single conditional create of a resource that other streams create, too."""
    intent = factory.make_intent("ensures", factory.make_clinic())
    body = decimal_json.encode(build_resource(intent))
    headers = {"if-none-exist": intent.tracked.query}
    return [
        Delivery(
            name="conditional create",
            body=body,
            intents=(intent,),
            path="/Organization",
            headers=headers,
        )
    ]


def make_lines(factory: DeliveryFactory) -> Stream:
    """NDJSON with a broken third line."""
    intents = [
        factory.make_intent("sets", factory.make_resource("Patient", given=True)),
        factory.make_intent("sets", factory.make_resource("Patient")),
        factory.make_intent("fails", factory.make_resource("Patient")),
        factory.make_intent("sets", factory.make_resource("Observation", given=True)),
    ]
    texts = [decimal_json.encode(build_resource(intent)) for intent in intents]
    texts[2] = texts[2][:-1]
    headers = {"content-type": "application/fhir+ndjson"}
    return [
        Delivery(name="ndjson", body=b"\n".join(texts), intents=tuple(intents), headers=headers)
    ]


def make_collection(factory: DeliveryFactory) -> Stream:
    intents = [
        factory.make_intent("sets", factory.make_resource("Patient", given=n > 0)) for n in range(3)
    ]
    return [
        Delivery(
            name="collection",
            body=build_bundle("collection", [{"resource": build_resource(a)} for a in intents]),
            intents=tuple(intents),
        )
    ]


def make_history(factory: DeliveryFactory) -> Stream:
    """A history bundle with three versions of a patient, newest first."""
    thing = factory.make_resource("Patient", given=True)
    intents = [factory.make_intent("sets", thing, turn) for turn in (3, 2, 1)]
    entries = [build_entry(intent, meta={"versionId": str(intent.sequence)}) for intent in intents]
    return [Delivery(name="history", body=build_bundle("history", entries), intents=tuple(intents))]


def make_wrong(factory: DeliveryFactory) -> Stream:
    """A batch and a transaction, each with one invalid entry."""
    good = [factory.make_intent("sets", factory.make_resource("Patient")) for _ in range(2)]
    bad = factory.make_intent("fails", factory.make_resource("Patient"))
    entries = [build_entry(good[0]), build_entry(bad, gender="wrong"), build_entry(good[1])]
    lost = [factory.make_intent("fails", factory.make_resource("Patient")) for _ in range(2)]
    whole = [build_entry(lost[0]), build_entry(lost[1], gender="wrong")]
    return [
        Delivery(
            name="batch with a wrong entry",
            body=build_bundle("batch", entries),
            intents=(good[0], bad, good[1]),
        ),
        Delivery(
            name="wrong transaction", body=build_bundle("transaction", whole), intents=tuple(lost)
        ),
    ]


def make_unparsable(factory: DeliveryFactory) -> Stream:
    """A batch with two entries that do not parse: a server may refuse the batch whole."""
    intents = [factory.make_intent("sets", factory.make_resource("Observation")) for _ in range(8)]
    places = factory.random.sample(range(len(intents)), 2)
    wrongs = ({"issued": "yesterday"}, {"weight": 70}, {"note": {"text": "no list"}})
    entries = [build_entry(intent) for intent in intents]
    for place in places:
        intents[place] = replace(intents[place], action="fails")
        entries[place]["resource"] |= factory.random.choice(wrongs)
    return [
        Delivery(
            name="batch that does not parse",
            body=build_bundle("batch", entries),
            intents=tuple(intents),
        )
    ]


KINDS: tuple[Callable[[DeliveryFactory], Stream], ...] = (
    make_transaction, make_keyed, make_repeated, make_large, make_parts, make_batch,
    make_updates, make_corrections, make_conditional, make_lines, make_collection,
    make_history, make_wrong, make_unparsable,
)  # fmt: skip
