"""However edits in Dataverse, changes in FHIR and deliveries cross, and whatever is lost or comes
twice: both sides end alike, no edit is lost without a note, and nothing goes round in circles."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from integration.change_events.from_dataverse import queue_edits
from integration.core.errors import IntegrationError
from integration.core.model import WorkItem
from integration.core.state_version import get_version
from integration.journal.guard_store import MemoryGuardStore
from integration.journal.store import MemoryJournal
from integration.mapping.model import Conflict
from integration.mirror import mirror as mirroring
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from tests.builders import Body
from tests.conftest import Route, routed
from tests.doubles import Clock, DataverseDouble, FhirDouble
from tests.mirror.test_row_edits import (
    ANNA,
    DELIVERY,
    SOMEBODY,
    WHO,
    anna,
    build_map,
    get_patient,
    use,
)
from tests.randomness import limit_examples

# Each with another rule: FHIR holds, Dataverse holds.
COLUMNS = ("telephone2", "firstname")
MAP = build_map(firstname=Conflict.DATAVERSE)

SHARES = {"edited": 3, "changed": 2, "delivered": 1, "looked": 3, "mirrored": 4, "repeated": 1}
TROUBLES = {"fhir is lost": 1, "rows are lost": 1, "rows are unheard": 1}
STEP = st.tuples(
    st.sampled_from([what for what, share in (SHARES | TROUBLES).items() for _ in range(share)]),
    st.integers(0, 5),
)
CALM = st.tuples(
    st.sampled_from([what for what, share in SHARES.items() for _ in range(share)]),
    st.integers(0, 5),
)


@dataclass(slots=True)
class Story:
    """What people and senders have done, and what both sides have shown since."""

    route: Route
    edits: dict[str, str] = field(default_factory=dict)  # the last one of each column
    noted: dict[str, int] = field(default_factory=dict)  # notes of the column before that
    shown: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # by FHIR
    given: set[str] = field(default_factory=lambda: {"1", "Anna"})  # by anybody, at any time
    made: int = 0  # edits, changes and deliveries
    looks: int = 0

    def give(self, who: str) -> str:
        """A value that nobody has given before."""
        value = f"{who} {len(self.given)}"
        self.given.add(value)
        return value

    async def edited(self, number: int) -> None:
        column, value = COLUMNS[number % 2], self.give("edit")
        faults = self.route.dataverse_double.app.faults
        kept = [*faults]
        faults.clear()  # they are the app's, not the nurse's
        answer = await self.route.dataverse_double.send(
            "PATCH", f"contacts({ANNA})", {column: value}, headers=SOMEBODY
        )
        assert answer.status_code == 204, answer.text
        faults.extend(kept)
        self.edits[column] = value
        self.noted[column] = count_noted(self.route, column)
        self.made += 1

    async def changed(self, number: int) -> None:
        """By another app: its event is queued."""
        stored = get_patient(self.route)
        if number % 2:
            telecom = [{"system": "phone", "use": "home", "value": self.give("fhir")}]
            self.route.fhir_double.add({**stored, "telecom": telecom})
        else:
            name = {**stored["name"][0], "given": [self.give("fhir")]}
            self.route.fhir_double.add({**stored, "name": [name]})
        await self.note_and_queue()
        self.made += 1

    async def delivered(self, _number: int) -> None:
        """The whole patient, as the EHR has it."""
        name = {"family": "Other", "given": [self.give("ehr")]}
        resource = anna(self.give("ehr"), name=[name])
        entry = {"resource": resource, "request": {"method": "PUT", "url": WHO}}
        await self.route.process_all(
            await self.route.deliver({"resourceType": "Bundle", "type": "batch", "entry": [entry]})
        )
        self.note()
        self.made += 1

    async def looked(self, _number: int = 0) -> None:
        try:
            await queue_edits(self.route.edit_source)
        except IntegrationError:  # the timer comes again
            pass
        self.looks += 1

    async def mirrored(self, number: int = 0) -> None:
        waiting = [each for each in self.route.queue_sender.sent if each[0] == MIRROR_QUEUE]
        if waiting:
            _, item, delay = waiting[number % len(waiting)]
            self.route.queue_sender.sent.remove((MIRROR_QUEUE, item, delay))
            self.route.clock.later(delay)
            await mirroring.mirror_resource(self.route.mirror, item)
            self.note()

    async def repeated(self, _number: int) -> None:
        await mirroring.mirror_resource(self.route.mirror, WorkItem(DELIVERY, resource=WHO))
        self.note()

    async def trouble(self, what: str) -> None:
        if what == "fhir is lost":
            self.route.fhir_double.will_lose_the_reply()
        else:
            kind = {"rows are lost": "reset", "rows are unheard": "lost-reply"}[what]
            self.route.dataverse_double.will_fail(kind=kind, next=1)

    def note(self) -> None:
        values = read_columns(get_patient(self.route))
        for column, value in values.items():
            self.shown[column].add(value)

    async def note_and_queue(self) -> None:
        self.note()
        version = get_version(get_patient(self.route))
        await self.route.queue_sender.send(
            MIRROR_QUEUE, WorkItem(DELIVERY, resource=WHO, version=version)
        )

    async def end(self) -> None:
        """Nothing is lost any more, and all that is queued is done."""
        self.route.fhir_double.script.clear()
        self.route.dataverse_double.app.faults.clear()
        for _ in range(50):
            await self.looked()
            if not [each for each in self.route.queue_sender.sent if each[0] == MIRROR_QUEUE]:
                return
            while [each for each in self.route.queue_sender.sent if each[0] == MIRROR_QUEUE]:
                await self.mirrored()
        raise AssertionError("the work items never end")


def read_columns(resource: Body) -> dict[str, str]:
    (home,) = [each["value"] for each in resource["telecom"] if each["use"] == "home"]
    return {"telephone2": home, "firstname": resource["name"][0]["given"][0]}


def count_noted(route: Route, column: str) -> int:
    """How often the activity log says of a column that an edit was not kept."""
    lost = ("replaced", "not written to FHIR")
    return sum(
        (column in note and note.startswith(lost[0])) or f"{column}: {lost[1]}" in note
        for entry in route.activity.entries
        if entry.action == "compare"
        for note in entry.notes
    )


async def tell(steps: list[tuple[str, int]]) -> Story:
    clock, dataverse = Clock(), DataverseDouble()
    ends: dict[str, Any] = {
        "journal": MemoryJournal(),
        "queue_sender": MemoryQueueSender(),
        "guard_store": MemoryGuardStore(),
    }
    async with routed(FhirDouble(clock), dataverse, clock, **ends) as route:
        use(route, MAP)
        route.fhir_double.add(anna())
        await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=WHO))
        story = Story(route)
        story.note()
        await story.looked()
        fhir, rows = len(route.fhir_double.received), len(dataverse.received)
        for what, number in steps:
            clock.later(1)
            if what in TROUBLES:
                await story.trouble(what)
            else:
                await getattr(story, what)(number)
        await story.end()
        await check_ends(story, dataverse)
        calm = not {what for what, _ in steps} & TROUBLES.keys()
        if calm:
            repeats = sum(what == "repeated" for what, _ in steps)
            # What a work item costs that finds nothing to do is one request to each side.
            least = repeats + story.looks
            assert len(route.fhir_double.received) - fhir <= 4 * story.made + 2 * least
            assert len(dataverse.received) - rows <= 3 * story.made + 2 * least
    dataverse.app.close()
    return story


async def check_ends(story: Story, dataverse: DataverseDouble) -> None:
    route, stored = story.route, get_patient(story.route)
    row = await dataverse.contact()
    values = read_columns(stored)
    assert {name: row[name] for name in COLUMNS} == values, "both sides end alike"
    assert row["msemr_azurefhirversion"] == stored["meta"]["versionId"]
    for column, value in story.edits.items():
        was_written = value in story.shown[column]
        noted = count_noted(route, column) > story.noted[column]
        assert was_written or noted, f"the last edit of {column} is lost without a note"
    for column, values in story.shown.items():
        assert values <= story.given, f"FHIR has a value of {column} that nobody gave it"
    written = len(route.fhir_double.writes)
    await story.end()
    assert len(route.fhir_double.writes) == written, "nothing goes round in circles"


@limit_examples(60, nightly=3000)
@given(st.lists(STEP, min_size=5, max_size=40))
# Both sides change: by the rule of either column.
@example([("edited", 0), ("changed", 1), ("mirrored", 0)])
@example([("edited", 1), ("changed", 0), ("mirrored", 0)])
# The answer to the write of the row is lost, and nobody can tell afterwards.
@example([("edited", 0), ("changed", 1), ("rows are unheard", 0), ("mirrored", 0)])
# FHIR has the first edit, and she corrects it before the row shows that.
@example([("edited", 0), ("looked", 0), ("rows are lost", 0), ("mirrored", 0), ("edited", 0)])
def test_edits_end_alike_on_both_sides_whatever_is_lost(steps: list[tuple[str, int]]) -> None:
    asyncio.run(tell(steps))


@limit_examples(60, nightly=3000)
@given(st.lists(CALM, min_size=5, max_size=40))
def test_an_edit_costs_a_bounded_number_of_requests(steps: list[tuple[str, int]]) -> None:
    asyncio.run(tell(steps))
