"""Small deliveries of every kind that the relay takes, as streams. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from faults.deliveries import Asked, Json, Maker, Sent, Stream, bundle, entry, resource
from integration.core import decimal_json


def streams(make: Maker) -> Iterator[Stream]:
    """Without end, of all kinds in turn, in an order of chance."""
    kinds = list(KINDS)
    while True:
        make.random.shuffle(kinds)
        yield from (kind(make) for kind in kinds)


def some(make: Maker, number: int) -> list[Stream]:
    return list(islice(streams(make), number))


def chart(make: Maker, size: int, does: str = "sets") -> tuple[list[Asked], list[Json]]:
    """A patient and what refers to it, all by placeholders."""
    who, where = make.guid(), make.guid()
    patient, clinic = make.asked(does, make.thing("Patient")), make.asked("ensures", make.clinic())
    rest = [make.asked(does, make.thing("Observation")) for _ in range(size - 2)]
    here = {"managingOrganization": {"reference": f"urn:uuid:{where}"}}
    entries = [
        entry(patient, f"urn:uuid:{who}", **here),
        entry(clinic, f"urn:uuid:{where}"),
        *(entry(asked, subject=f"urn:uuid:{who}") for asked in rest),
    ]
    return [patient, clinic, *rest], entries


def transaction(make: Maker) -> Stream:
    asked, entries = chart(make, 5)
    return [Sent("transaction", bundle("transaction", entries), tuple(asked))]


def keyed(make: Maker) -> Stream:
    """Sent twice with one key."""
    asked, entries = chart(make, 4)
    key = {"idempotency-key": make.guid()}
    body = bundle("transaction", entries)
    return [Sent("transaction with a key", body, tuple(asked), headers=key, times=2)]


def twice(make: Maker) -> Stream:
    """The same bytes twice, without a key."""
    asked = make.asked("sets", make.thing("Patient"))
    return [Sent("the same bytes twice", bundle("batch", [entry(asked)]), (asked,), times=2)]


def large(make: Maker) -> Stream:
    """Above the limit, and all of one piece."""
    asked, entries = chart(make, 14)
    return [Sent("split transaction", bundle("transaction", entries), tuple(asked))]


def parts(make: Maker) -> Stream:
    """Above the limit, in pieces that do not know each other."""
    asked: list[Asked] = []
    entries = []
    for _ in range(4):
        who = make.guid()
        patient = make.asked("sets", make.thing("Patient"))
        rest = [make.asked("sets", make.thing("Observation")) for _ in range(2)]
        entries.append(entry(patient, f"urn:uuid:{who}"))
        entries += [entry(each, subject=f"urn:uuid:{who}") for each in rest]
        asked += [patient, *rest]
    return [Sent("fanned-out transaction", bundle("transaction", entries), tuple(asked))]


def batch(make: Maker) -> Stream:
    """Creates, updates, a conditional update; then deletes of some of it."""
    one, other = make.thing("Patient", given=True), make.thing("Observation", given=True)
    found = make.thing("Patient")
    asked = [make.asked("sets", thing) for thing in (one, other, make.thing("Observation"), found)]
    entries = [entry(each) for each in asked]
    entries[3]["request"] = {"method": "PUT", "url": f"Patient?{found.query}"}
    gone = [make.asked("deletes", one), make.asked("deletes", other)]
    new = make.asked("sets", make.thing("Patient"))
    then = [*gone, new]
    return [
        Sent("batch", bundle("batch", entries), tuple(asked)),
        Sent("batch that deletes", bundle("batch", [entry(each) for each in then]), tuple(then)),
    ]


def updates(make: Maker) -> Stream:
    """One patient again and again, each time as a single resource."""
    thing = make.thing("Patient", given=True)
    path = f"/{thing.identity}"
    stream = []
    for number in range(4):
        asked = make.asked("deletes" if number == 2 else "sets", thing)
        body = b"" if asked.does == "deletes" else decimal_json.encode(resource(asked))
        method = "DELETE" if asked.does == "deletes" else "PUT"
        stream.append(Sent("single resource", body, (asked,), method, path))
    return stream


def corrections(make: Maker) -> Stream:
    """The same two resources in a transaction, again in one, in a batch, in one above the limit."""
    things = [make.thing("Patient", given=True), make.thing("Observation", given=True)]
    stream = []
    for kind, more in (("transaction", 0), ("transaction", 0), ("batch", 0), ("transaction", 8)):
        asked = [make.asked("sets", thing) for thing in things]
        asked += [make.asked("sets", make.thing("Observation")) for _ in range(more)]
        subject = things[0].identity
        entries = [entry(asked[0]), *(entry(each, subject=subject) for each in asked[1:])]
        stream.append(Sent(f"correction by {kind}", bundle(kind, entries), tuple(asked)))
    return stream


def conditional(make: Maker) -> Stream:
    """A single conditional create of what others ask for too."""
    asked = make.asked("ensures", make.clinic())
    body = decimal_json.encode(resource(asked))
    headers = {"if-none-exist": asked.thing.query}
    return [Sent("conditional create", body, (asked,), path="/Organization", headers=headers)]


def lines(make: Maker) -> Stream:
    """NDJSON, of which the third line is broken."""
    asked = [
        make.asked("sets", make.thing("Patient", given=True)),
        make.asked("sets", make.thing("Patient")),
        make.asked("fails", make.thing("Patient")),
        make.asked("sets", make.thing("Observation", given=True)),
    ]
    texts = [decimal_json.encode(resource(each)) for each in asked]
    texts[2] = texts[2][:-1]
    headers = {"content-type": "application/fhir+ndjson"}
    return [Sent("ndjson", b"\n".join(texts), tuple(asked), headers=headers)]


def collection(make: Maker) -> Stream:
    asked = [make.asked("sets", make.thing("Patient", given=n > 0)) for n in range(3)]
    return [
        Sent(
            "collection",
            bundle("collection", [{"resource": resource(a)} for a in asked]),
            tuple(asked),
        )
    ]


def history(make: Maker) -> Stream:
    """Three versions of a patient, the newest first."""
    thing = make.thing("Patient", given=True)
    asked = [make.asked("sets", thing, turn) for turn in (3, 2, 1)]
    entries = [entry(each, meta={"versionId": str(each.turn)}) for each in asked]
    return [Sent("history", bundle("history", entries), tuple(asked))]


def wrong(make: Maker) -> Stream:
    """A batch in which one entry is wrong, and a transaction of the same kind."""
    good = [make.asked("sets", make.thing("Patient")) for _ in range(2)]
    bad = make.asked("fails", make.thing("Patient"))
    entries = [entry(good[0]), entry(bad, gender="wrong"), entry(good[1])]
    lost = [make.asked("fails", make.thing("Patient")) for _ in range(2)]
    whole = [entry(lost[0]), entry(lost[1], gender="wrong")]
    return [
        Sent("batch with a wrong entry", bundle("batch", entries), (good[0], bad, good[1])),
        Sent("wrong transaction", bundle("transaction", whole), tuple(lost)),
    ]


KINDS: tuple[Callable[[Maker], Stream], ...] = (
    transaction, keyed, twice, large, parts, batch, updates, corrections,
    conditional, lines, collection, history, wrong,
)  # fmt: skip
