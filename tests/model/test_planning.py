"""What holds for every plan, whatever is delivered."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from hypothesis import given

from integration.fhir import units
from integration.fhir.plan import Plan
from integration.fhir.units import Unit, UnitEntry
from tests.model.carrying import planned
from tests.model.deliveries import Sent, sent
from tests.model.links import links_of, with_searches
from tests.model.uncut import asked
from tests.randomness import limit_examples

SENDERS = ("urn:oid:", "urn:uuid:0b6d3d3e-9c4b", "urn:uuid:0B6D3D3E-9C4B")


def each(its_plan: Plan) -> Iterator[tuple[int, int, Unit, UnitEntry]]:
    """(lane, unit, unit, entry) of everything that is sent."""
    for number, lane in enumerate(its_plan.lanes):
        for index, unit in enumerate(lane.units):
            for entry in unit.entries:
                yield number, index, unit, entry


def links(entry: UnitEntry) -> list[str]:
    """Every link in what is sent, also those in its searches."""
    body: dict[str, Any] = json.loads(bytes(entry.body))
    found = links_of(body.get("resource", {}))

    def seen(link: str) -> str:
        found.append(link)
        return link

    with_searches(body, seen)
    return found


@limit_examples(150)
@given(sent())
def test_a_plan_keeps_its_rules(it: Sent) -> None:
    its_plan = planned(it)
    every = list(each(its_plan))

    # The same again, for the same bytes.
    again = planned(it)
    assert [units.encode_lane(lane) for lane in again.lanes] == [
        units.encode_lane(lane) for lane in its_plan.lanes
    ]
    assert [entry for entry, _ in again.refused] == [entry for entry, _ in its_plan.refused]

    # Every entry goes once, or is refused.
    positions = [n for *_, entry in every for n in entry.positions]
    positions += [entry.position for entry, _ in its_plan.refused]
    assert sorted(positions) == list(range(len(asked(it.body, it.ndjson).entries)))

    # No unit is above the limits; what it awaits is put in, and is as long as what stood for it.
    for lane in its_plan.lanes:
        for unit in lane.units:
            same = {name: name for entry in unit.entries for name in entry.awaits}
            body = units.build_request(unit, unit.entries, same).body or b""
            assert 0 < len(unit.entries) <= it.limits.entries
            assert len(body) <= it.limits.bytes

    # A resource is in one lane, and once in a unit.
    lanes, places = defaultdict(set), set()
    for number, index, _, entry in every:
        lanes[entry.target].add(number)
        assert (entry.target, number, index) not in places
        places.add((entry.target, number, index))
    assert all(len(numbers) == 1 for numbers in lanes.values())

    # Of the sender's placeholders nothing is left but those that NDJSON cannot explain.
    ours = {entry.target: (number, index) for number, index, _, entry in every}
    for number, index, unit, entry in every:
        found = [link for link in links(entry) if link.startswith("urn:")]
        assert it.ndjson or not [link for link in found if link.startswith(SENDERS)]
        # One of ours is answered by an earlier unit, or by the server inside a transaction.
        for link in found if not it.ndjson else []:
            place = ours.get(link.partition("#")[0])
            if unit.kind == "transaction" and place == (number, index):
                continue
            assert link.partition("#")[0] in entry.awaits
            if place is not None:  # None: it was refused, and what awaits it will be
                assert place[0] == number
                assert place[1] < index
