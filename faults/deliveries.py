"""What is sent, each entry marked so that it is found again. Pure.

A thing is what an entry is about: one resource, whoever gives it its id. Its identifier is in
every version of it; a second identifier, the mark, tells which entry wrote the version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

from integration.core import decimal_json

THING = "urn:faults:thing"
MARK = "urn:faults:mark"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Thing:
    """One resource; `identity` is Type/id where the sender gives it."""

    type: str
    name: str
    identity: str | None = None

    @property
    def query(self) -> str:
        return f"identifier={THING}|{self.name}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What one entry wants: `sets` a state, `ensures` that there is one, `deletes`, or `fails`,
    because it, or what it depends on, is wrong. `turn` orders the entries about one thing."""

    does: str
    thing: Thing
    mark: str
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """One delivery. `times`: how often the sender sends it, whatever the answer."""

    name: str
    body: bytes
    asked: tuple[Asked, ...]
    method: str = "POST"
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1


# Deliveries that one sender sends one after the other, each once the last is accepted.
Stream = Sequence[Sent]


class Maker:
    """Makes things, ids and wishes; the same for the same seed."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.random = Random(seed)
        self._numbers = count(1)

    def guid(self) -> str:
        return str(UUID(int=self.random.getrandbits(128), version=4))

    def thing(self, type_: str, *, given: bool = False) -> Thing:
        name = f"{self.seed}-{next(self._numbers)}"
        return Thing(type_, name, f"{type_}/{self.guid()}" if given else None)

    def asked(self, does: str, thing: Thing, turn: int = 0) -> Asked:
        return Asked(does, thing, f"{thing.name}.{next(self._numbers)}", turn)

    def clinic(self) -> Thing:
        """One of a few that many deliveries ask for."""
        return Thing("Organization", f"{self.seed}-clinic-{self.random.randrange(3)}")


def resource(asked: Asked, subject: str | None = None, **more: Any) -> Json:
    """The resource in the state that the entry wants."""
    thing = asked.thing
    made: Json = {"resourceType": thing.type}
    if thing.identity:
        made["id"] = thing.identity.partition("/")[2]
    made["identifier"] = [
        {"system": THING, "value": thing.name},
        {"system": MARK, "value": asked.mark},
    ]
    match thing.type:
        case "Patient":
            made |= {"name": [{"family": asked.mark, "given": ["Ada"]}], "gender": "female"}
        case "Organization":
            made |= {"name": "Clinic"}
        case "Observation":
            made |= {"status": "final", "code": {"text": "weight"}}
            made |= {"subject": {"reference": subject}} if subject else {}
    return made | more


def entry(asked: Asked, full_url: str | None = None, **content: Any) -> Json:
    """As a batch or a transaction asks for it: a create, or by the identity that is given."""
    thing = asked.thing
    if asked.does == "deletes":
        return {"request": {"method": "DELETE", "url": thing.identity}}
    request = {"method": "POST", "url": thing.type}
    if thing.identity:
        request = {"method": "PUT", "url": thing.identity}
    if asked.does == "ensures":
        request["ifNoneExist"] = thing.query
    named = {"fullUrl": full_url} if full_url else {}
    return {**named, "resource": resource(asked, **content), "request": request}


def bundle(kind: str, entries: Sequence[Json]) -> bytes:
    return decimal_json.encode({"resourceType": "Bundle", "type": kind, "entry": list(entries)})
