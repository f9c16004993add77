"""The chapter of edits: staff correct contacts while the EHR sends the same patients, services fail
and workers are killed.

Each patient has one telephone number, which both sides change. After each round nobody writes. When
all is calm both sides have to be alike, and each edit is in FHIR's history, or noted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from faults import injected
from faults.deliveries import Delivery, DeliveryFactory
from faults.edit_verdict import EditedPatient, judge_edits
from faults.judge import Report
from faults.kills import SIDES
from faults.mirror_truth import read_all
from faults.proxy import KINDS
from faults.route import PATIENCE, Route, gather_limited
from faults.verdict import AcceptedDelivery, Finding, Tally
from faults.weather import DATAVERSE, FHIR
from integration.core import decimal_json
from local.dataverse.organization import CALLER, NURSE_USER
from local.provisioning import choose_settings, finish_provisioning, launch_provisioning

_COLUMN = "telephone2"
_QUEUES = ("dataverse-edits", "dataverse-edits-poison")
_PEOPLE = 24
_STEPS = 3  # of each patient in a round: an edit, or a delivery
_FAULTS = 36  # in a round
_MAX_REQUEST = 200  # before which the host is killed
_MAX_GAP = 0.4  # seconds between two steps
_PAUSE = 0.3
# A look at the changes each second, and one more that begins when all others have ended.
_LOOKS = 3.0
_SETTINGS = {
    "MAP_PREFIX": "new",
    "MAPS_ENABLED": "map_digest",
    "WRITEBACK": "poll",
    "WRITEBACK_SCHEDULE": "* * * * * *",
    # What lags longer than this is not looked for, and no read lags here.
    "FHIR_MAX_READ_LAG": "1",
}
_REPLACED = "replaced"


def build_settings(_: Path) -> dict[str, str]:
    """Return the app settings of the chapter."""
    return dict(_SETTINGS)


@dataclass(slots=True, kw_only=True)
class _Person:
    name: str
    id: str
    given: list[str] = field(default_factory=list)
    key: str = ""  # of the row
    sent: AcceptedDelivery | None = None  # the last delivery

    @property
    def identity(self) -> str:
        return f"Patient/{self.id}"


@dataclass(slots=True, kw_only=True)
class EditsChapter:
    """Runs the rounds."""

    route: Route
    report: Report
    maker: DeliveryFactory
    folder: Path
    people: list[_Person] = field(default_factory=list)
    _judged: set[tuple[str, str]] = field(default_factory=set)

    async def run(self, number: int) -> None:
        """Have staff and the EHR write, until so many edits have met trouble."""
        await self._prepare()
        while self.report.tally.injected[injected.EDITED] < number:
            await self._run_round()

    async def _prepare(self) -> None:
        """Have the organization's columns made and its changes tracked, and each patient a row."""
        running = self.route.running
        settings = {**running.settings(), **_SETTINGS}
        settings |= choose_settings(settings, f"{self.route.host.url}/api/odata", "")
        provisioning = await asyncio.to_thread(launch_provisioning, settings, self.folder)
        await asyncio.to_thread(finish_provisioning, provisioning)
        await self.route.restart_all()
        ids = [self.maker.make_guid() for _ in range(_PEOPLE)]
        self.people = [_Person(name=f"E{n}", id=id_) for n, id_ in enumerate(ids)]
        await gather_limited([self._send(person) for person in self.people])
        await self._calm()
        keys = {
            row["msemr_azurefhirid"]: row["contactid"]
            async for row in read_all(self.route.http, running, "contacts")
        }
        for person in self.people:
            person.key = keys[person.id]

    async def _run_round(self) -> None:
        edits = 0

        async def live(person: _Person) -> None:
            nonlocal edits
            for _ in range(_STEPS):
                await asyncio.sleep(self.maker.random.uniform(0, _MAX_GAP))
                if self.maker.random.random() < 0.6:
                    await self._edit(person)
                    edits += 1
                else:
                    await self._send(person)

        await self.route.take_injected()
        async with self._bring_trouble() as killed:
            await asyncio.gather(*map(live, self.people))
            await self._calm()
        met = await self.route.take_injected()
        tally = Tally()
        tally.injected.update({injected.EDITED: edits, injected.KILLED: len(killed), **met})
        patients = await gather_limited([self._read(person) for person in self.people])
        self._judge(tally, patients)
        self.report.add_tally(tally)
        written = sum(patient.signed for patient in patients)
        noted = sum(patient.noted for patient in patients)
        self.report.print_progress(f"{edits} edits; of all {written} are in FHIR, {noted} noted")

    # -- who writes ------------------------------------------------------------------------------

    async def _edit(self, person: _Person) -> None:
        """As staff do, in a form; again, where Dataverse has no time. It may have been done all the
        same: so each attempt has a number of its own."""
        url = f"{self.route.running.dataverse_url}/api/data/v9.2/contacts({person.key})"
        while True:
            number = self._give(person, "e")
            with contextlib.suppress(httpx.TransportError):
                answer = await self.route.http.patch(
                    url, json={_COLUMN: number}, headers={CALLER: NURSE_USER}
                )
                if answer.is_success:
                    return
            await asyncio.sleep(_PAUSE)

    async def _send(self, person: _Person) -> None:
        """As the EHR does: the whole patient."""
        telecom = [{"system": "phone", "use": "home", "value": self._give(person, "s")}]
        body = {
            "resourceType": "Patient",
            "id": person.id,
            "name": [{"family": person.name}],
            "telecom": telecom,
        }
        delivery = Delivery(
            name="patient",
            body=decimal_json.encode(body),
            intents=(),
            method="PUT",
            path=f"/{person.identity}",
            headers={"idempotency-key": self.maker.make_guid()},
        )
        (person.sent,) = await self.route.send([delivery])

    def _give(self, person: _Person, letter: str) -> str:
        number = f"{person.name}:{letter}{len(person.given) + 1}"
        person.given.append(number)
        return number

    # -- trouble ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _bring_trouble(self) -> AsyncIterator[list[str]]:
        """Have requests fail at random, and the host killed. Yield where it was killed."""
        killed: list[str] = []
        working = asyncio.create_task(self._trouble(killed))
        try:
            yield killed
        finally:
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
            self.route.disarm()
            await self.route.clear_faults()

    async def _trouble(self, killed: list[str]) -> None:
        random = self.maker.random
        self._arm()
        for _ in range(_FAULTS):
            await asyncio.sleep(random.uniform(0, _MAX_GAP / 4))
            match random.choice(("fhir", "dataverse", "storage")):
                case "storage":
                    self.route.proxy.faults.append(random.choice(KINDS))
                case service:
                    fault = random.choice(FHIR if service == "fhir" else DATAVERSE)
                    await self.route.inject_fault(service, **fault)
        while True:
            if request := self.route.killed_at:
                killed.append(request)
                await self.route.wait_until_ready()
                self._arm()
            await asyncio.sleep(_PAUSE)

    def _arm(self) -> None:
        random = self.maker.random
        order = f"{random.choice(SIDES)}:{random.randint(1, _MAX_REQUEST)}"
        self.route.arm(f"{order} {self.report.next_number()}")

    async def _calm(self) -> None:
        """Wait until no work is left, and none comes of further looks at what was edited."""
        self.route.disarm()
        quiet = 0.0
        async with asyncio.timeout(PATIENCE):
            while quiet < _LOOKS:
                left = await self.route.count_messages(_QUEUES)
                quiet = 0.0 if any(number for _, number in left) else quiet + _PAUSE
                await asyncio.sleep(_PAUSE)
        await self.route.clear_faults()

    # -- the verdict -----------------------------------------------------------------------------

    def _judge(self, tally: Tally, patients: Iterable[EditedPatient]) -> None:
        for patient in patients:
            found = judge_edits(patient)
            tally.counts["entries"] += 1
            tally.counts["written"] += not found
            for harm, what in found:
                if (patient.name, harm) not in self._judged:  # it is found in each later round, too
                    self._judged.add((patient.name, harm))
                    tally.counts[harm] += 1
                    where = f"seed {self.report.seed}, edits: {patient.name}"
                    tally.findings.append(Finding(harm, where, what))

    async def _read(self, person: _Person) -> EditedPatient:
        fhir, dataverse = self.route.running.fhir_url, self.route.running.dataverse_url
        versions = await self._ask(f"{fhir}/{person.identity}/_history?_count=1000")
        stored = [entry["resource"] for entry in reversed(versions["entry"])]
        provenances = await self._ask(f"{fhir}/Provenance?target={person.identity}&_count=1000")
        row = await self._ask(f"{dataverse}/api/data/v9.2/contacts({person.key})")
        states = await self._ask(f"{dataverse}/control/history?table=contact&id={person.key}")
        shown = [state["values"].get(_COLUMN) for state in states]
        notes = await self._ask(
            f"{self.route.host.url}/api/activity?resource={person.identity}&action=compare"
            "&_count=500"
        )
        (outcome,) = await self.route.wait_for_outcomes([person.sent] if person.sent else [])
        return EditedPatient(
            name=person.name,
            history=[resource["telecom"][0]["value"] for resource in stored],
            shown=[number for number in shown if number],
            versions=(stored[-1]["meta"]["versionId"], row["msemr_azurefhirversion"]),
            given=person.given,
            noted=sum(_REPLACED in str(entry["notes"]) for entry in notes["activity"]),
            signed=len(provenances.get("entry", ())),
            answer=str(outcome.answers or outcome.state),
        )

    async def _ask(self, url: str) -> Any:
        answer = await self.route.http.get(url, headers={"cache-control": "no-cache"})
        answer.raise_for_status()
        return answer.json()
