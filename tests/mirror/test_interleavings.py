"""However claims come, twice, late, side by side or not at all but one, Dataverse ends as FHIR is,
and on the way there shows no state older than one it has shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
from hypothesis import given
from hypothesis import strategies as st

from integration.core.model import WorkItem
from integration.core.state_version import StateVersion, get_version
from integration.journal.guard_store import MemoryGuardStore
from integration.journal.store import MemoryJournal
from integration.mirror import mirror as mirroring
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from tests.builders import Body, patient
from tests.conftest import Route, routed
from tests.doubles import Clock, DataverseDouble, FhirDouble
from tests.randomness import limit_examples

WHO = "Patient/1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
DELIVERY = "019caaee-c260-7000-8000-000000000001"
ROUNDS = 20  # of the event loop: more than any step between two requests takes

# What happens next: FHIR moves on, or a claim is handed out, or handed out once more, or FHIR is read
# from a copy that lags, or a request arrives, or is lost.
SHARES = {
    "written": 3,
    "deleted": 1,
    "claimed": 4,
    "repeated": 1,
    "lags": 1,
    "arrives": 12,
    "lost": 1,
    "unheard": 1,
}
STEPS = st.lists(
    st.tuples(
        st.sampled_from([what for what, share in SHARES.items() for _ in range(share)]),
        st.integers(0, 7),
    ),
    min_size=20,
    max_size=60,
)


class Gated(httpx.AsyncBaseTransport):
    """Requests wait until they are let through; each may be lost, or its answer."""

    def __init__(self, inner: DataverseDouble) -> None:
        self.inner = inner
        self.waiting: list[asyncio.Future[str]] = []
        self.states: list[tuple[int, list[str]]] = []  # (version, identifiers) after each request

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if "EntityDefinitions" in request.url.path:
            return await self.inner.handle_async_request(request)
        turn: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        fate = await turn
        if fate == "lost":
            raise httpx.ReadError("lost", request=request)
        answer = await self.inner.handle_async_request(request)
        await self.look()
        if fate == "unheard":
            raise httpx.ReadError("lost", request=request)
        return answer

    async def look(self) -> None:
        for row in await self.inner.contacts():
            numbers = await self.inner.rows("msemr_medicalidentifiers")
            told = sorted(number["msemr_value"] for number in numbers)
            # A deletion is a version, too.
            version = (row["msemr_azurefhirversion"] or "0").removeprefix("deleted ")
            self.states.append((int(version), told))


class Story:
    """A patient in FHIR, its claims, and what the FHIR server has said of each version."""

    def __init__(self, route: Route, gate: Gated) -> None:
        self.route, self.gate = route, gate
        self.working: set[asyncio.Task[None]] = set()
        self.versions: dict[int, list[str]] = {}
        self.claims: list[WorkItem] = []  # one for each change, until it is handed out

    def written(self, chosen: int) -> None:
        numbers = [str(n) for n in range(3) if chosen >> n & 1]
        resource = patient(
            id=WHO.partition("/")[2],
            identifier=[{"system": "urn:mrn", "value": number} for number in numbers],
            active=bool(chosen % 2),
        )
        self.route.fhir_double.add(resource)
        version = int(self.route.fhir_double.stored[WHO]["meta"]["versionId"])
        self.versions[version] = numbers
        self.changed(get_version(self.route.fhir_double.stored[WHO]))

    def deleted(self) -> None:
        self.route.fhir_double.delete(WHO)
        etag = self.route.fhir_double.past[WHO][-1]["response"]["etag"]
        self.changed(StateVersion(id=etag[3:-1], is_deleted=True))

    def changed(self, version: StateVersion) -> None:
        """As the relay queues it, or an event tells of it."""
        self.claims.append(WorkItem(DELIVERY, resource=WHO, version=version))

    def lags(self, chosen: int) -> None:
        """The next read shows an earlier version."""
        past = [
            each["resource"]
            for each in self.route.fhir_double.past.get(WHO, ())[:-1]
            if "resource" in each
        ]
        if past:
            self.route.fhir_double.will_answer(200, past[chosen % len(past)])

    def claimed(self, claim: WorkItem) -> None:
        self.working.add(asyncio.ensure_future(mirroring.mirror_resource(self.route.mirror, claim)))

    async def settle(self) -> None:
        for _ in range(ROUNDS):
            await asyncio.sleep(0)

    async def end(self) -> None:
        """Each change has its one claim; what was put back is handed out again."""
        for claim in self.claims:
            self.claimed(claim)
        for _ in range(1500):
            await self.settle()
            if self.gate.waiting:
                self.gate.waiting.pop(0).set_result("well")
            elif claims := [
                each for each in self.route.queue_sender.sent if each[0] == MIRROR_QUEUE
            ]:
                self.route.queue_sender.sent.remove(claims[0])
                self.route.clock.later(claims[0][2])
                task = mirroring.mirror_resource(self.route.mirror, claims[0][1])
                self.working.add(asyncio.ensure_future(task))
            elif all(task.done() for task in self.working):
                await asyncio.gather(*self.working)
                return
        raise AssertionError("the claims never end")


@limit_examples(30, nightly=5000)
@given(STEPS)
def test_dataverse_ends_as_fhir_is_and_never_goes_back(steps: list[tuple[str, int]]) -> None:
    asyncio.run(_told(iter(steps)))


async def _told(steps: Iterator[tuple[str, int]]) -> None:
    clock, dataverse = Clock(), DataverseDouble()
    gate = Gated(dataverse)
    ends = {
        "journal": MemoryJournal(),
        "queue_sender": MemoryQueueSender(),
        "guard_store": MemoryGuardStore(),
    }
    async with routed(FhirDouble(clock), gate, clock, **ends, most=50) as route:
        story = Story(route, gate)
        for what, number in steps:
            clock.later(1)
            if what == "written":
                story.written(number)
            elif what == "deleted" and WHO in route.fhir_double.stored:
                story.deleted()
            elif what == "claimed" and story.claims:
                story.claimed(story.claims.pop(number % len(story.claims)))
            elif what == "repeated":
                story.claimed(WorkItem(DELIVERY, resource=WHO))
            elif what == "lags":
                story.lags(number)
            elif gate.waiting:
                place = number % len(gate.waiting)
                fate = {"arrives": "well"}.get(what, what)
                gate.waiting.pop(place).set_result(fate)
            await story.settle()
        await story.end()
        shown = [version for version, _ in gate.states if version]
        assert shown == sorted(shown)
        for version, numbers in gate.states:
            assert numbers == story.versions.get(version, numbers)
        await _ends(route, dataverse)
    dataverse.app.close()


async def _ends(route: Route, dataverse: DataverseDouble) -> None:
    now: Body | None = route.fhir_double.stored.get(WHO)
    rows = await dataverse.contacts()
    if now is None:
        assert all(row["statecode"] == 1 for row in rows)
        return
    (row,) = rows
    assert row["msemr_azurefhirversion"] == now["meta"]["versionId"]
    assert row["statecode"] == (0 if now["active"] else 1)
    numbers = await dataverse.rows("msemr_medicalidentifiers")
    wanted = sorted(each["value"] for each in now["identifier"])
    assert sorted(number["msemr_value"] for number in numbers) == wanted
