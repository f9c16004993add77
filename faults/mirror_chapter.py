"""The mirror's chapter: rounds of trouble between FHIR and Dataverse, each judged when all is calm.

Two workers share the queues. After each round nobody writes; whatever the mirror has queued itself
is waited for, and then the rows must be as FHIR is. Nothing is mirrored again to make it so.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from random import Random

from azure.core.exceptions import ResourceNotFoundError

from faults.injected import CROWD_WAITED, DEFINITIONS_HUNG
from faults.judge import Report
from faults.mirror_people import EVENTS, People, Person
from faults.mirror_troubles import TROUBLES, Trouble, wait_by_the_thousand
from faults.mirror_truth import read_rows, read_states
from faults.mirror_verdict import ShownRow, judge, judge_handed_over
from faults.route import Route
from faults.verdict import Finding, Tally
from integration.mapping.files import MAPS_FOLDER

_PER_ROUND = 48  # people, or faults: some rounds last minutes, however few there are
# Seconds until what is left in the queues counts as stuck: an unheard create is looked for again
# after 150 of them.
_PATIENCE = 240.0
_PATIENCE_EACH = 0.5  # more for each one who is harmed
_PAUSE = 0.3
_WORK = ("relay", "mirror", EVENTS)
_QUEUES = tuple(name for queue in _WORK for name in (queue, f"{queue}-poison"))


def build_settings(folder: Path) -> dict[str, str]:
    """Return the app settings of the chapter: organizations are mirrored, and may be virtual."""
    maps = folder / "maps"
    maps.mkdir(parents=True, exist_ok=True)
    text = (MAPS_FOLDER / "healthcare/organization.toml").read_text("utf-8")
    routes = 'table = "account"\nname_column = "name"\nroutes = ["dataverse", "virtual"]'
    (maps / "organization.toml").write_text(text.replace('table = "account"', routes, 1), "utf-8")
    return {"MAPS": str(maps), "MAPS_ENABLED": "organization"}


@dataclass(slots=True, kw_only=True)
class MirrorChapter:
    """Runs the rounds. `kinds`: the harm found, by the kind of the round's faults."""

    route: Route
    report: Report
    people: People
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    _judged: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    async def open(cls, route: Route, report: Report, seed: str) -> MirrorChapter:
        people = People(route=route, random=Random(seed))
        await people.prepare()
        return cls(route=route, report=report, people=people)

    async def run(self, number: int, crowd: int) -> None:
        """Inject `number` faults, round by round, and then have a crowd wait."""
        await self.begin(_PER_ROUND)
        for kind, trouble in cycle(TROUBLES.items()):
            if self.report.tally.injected.total() >= number and self.has_met_all:
                break
            await self.run_round(kind, trouble, _PER_ROUND)
        await self.run_round(CROWD_WAITED, wait_by_the_thousand, crowd)

    @property
    def has_met_all(self) -> bool:
        return all(self.report.tally.injected[kind] for kind in TROUBLES)

    async def begin(self, number: int) -> None:
        """Have people to harm; the first of them meet a Dataverse that hangs about its tables."""
        await self.route.take_injected()
        hanging = {"kind": "hang", "path": "EntityDefinitions", "next": 6}
        await self.route.inject_fault("dataverse", **hanging)
        for type_, share in (("Patient", 2 * number), ("Organization", 4)):
            for _ in range(share):
                await self.people.update(self.people.make(type_))
        await self._end_round(DEFINITIONS_HUNG, 0)

    async def run_round(self, kind: str, trouble: Trouble, number: int) -> None:
        self.people.touched.clear()
        await self.route.take_injected()
        injected = await trouble(self.people, number)
        await self._end_round(kind, injected, _PATIENCE + number * _PATIENCE_EACH)

    async def _end_round(self, kind: str, injected: int, patience: float = _PATIENCE) -> None:
        """Wait for the end of all work, and judge. What the services injected counts besides."""
        await self.calm(kind, patience)
        met = await self.route.take_injected()
        await self.judge_round(kind, injected + met.total())

    async def calm(self, name: str, patience: float = _PATIENCE) -> None:
        """Wait until no work is left; then nothing lags and no fault waits any more. What is left
        after `patience` seconds is recorded as stuck, and taken away."""
        until = time.monotonic() + patience
        calm = 0
        while calm < 2:  # a message may be on its way between two queues
            left = await self.count_work()
            calm = 0 if left else calm + 1
            if left and time.monotonic() > until:
                stuck = ", ".join(f"{number} in {queue}" for queue, number in left.items())
                self.report.record_stuck_work(f"{name}: after {patience:.0f} s {stuck}")
                self.kinds[name, "unexplained"] += 1
                await self._clear_queues()
                break
            await asyncio.sleep(_PAUSE)
        await self.route.change_fhir(readLag=0)
        await self.route.clear_faults()

    async def count_work(self) -> dict[str, int]:
        """Return what is left to do: messages, and requests that Dataverse finishes later."""
        found: dict[str, int] = {}
        for name in _QUEUES:
            with contextlib.suppress(ResourceNotFoundError):
                properties = await self.route.queues.get_queue_client(name).get_queue_properties()
                if number := int(properties.approximate_message_count or 0):
                    found[name] = number
        stats = await self.route.http.get(f"{self.route.control_urls['dataverse']}/stats")
        if late := int(stats.json()["late"]):
            found["late requests"] = late
        return found

    async def _clear_queues(self) -> None:
        for name in _QUEUES:
            with contextlib.suppress(ResourceNotFoundError):
                await self.route.queues.get_queue_client(name).clear_messages()

    async def judge_round(self, name: str, injected: int) -> None:
        tally = Tally()
        tally.injected[name] += injected
        for type_, table in (("Patient", "contact"), ("Organization", "account")):
            touched = [person for person in self.people.touched.values() if person.type == type_]
            rows = await read_rows(
                self.route.http, self.report.running, table, ids=[person.id for person in touched]
            )
            await self._judge_people(tally, name, touched, rows)
            if table == "contact":
                self._judge_strangers(tally, name, rows)
        self.report.add_tally(tally)
        self.report.print_progress(f"{name}: {injected} faults")

    async def _judge_people(
        self, tally: Tally, name: str, touched: list[Person], rows: list[ShownRow]
    ) -> None:
        by_identity = {person.identity: person for person in touched}
        names = {identity: person.name for identity, person in by_identity.items()}
        for state in await read_states(self.route.http, self.report.running, names):
            person = by_identity[state.identity]
            found = judge(state, [r for r in rows if r.fhir_id == person.id], person.allowed)
            tally.counts["entries"] += 1
            tally.counts["written"] += not found
            for harm, what in found:
                self._record(tally, name, (state.identity, harm), what)

    def _judge_strangers(self, tally: Tally, name: str, rows: list[ShownRow]) -> None:
        by_key = {row.key: row for row in rows}
        for key, (stranger, fhir_id) in self.people.strangers.items():
            for harm, what in judge_handed_over(stranger, fhir_id, by_key.get(key)):
                self._record(tally, name, (key, harm), what)

    def _record(self, tally: Tally, name: str, harmed: tuple[str, str], what: str) -> None:
        """Record a harm once: what is not mended is found in every later round too."""
        if harmed in self._judged:
            return
        self._judged.add(harmed)
        identity, harm = harmed
        self.kinds[name, harm] += 1
        tally.counts[harm] += 1
        where = f"seed {self.report.seed}, {name}: {identity}"
        tally.findings.append(Finding(harm, where, what))
