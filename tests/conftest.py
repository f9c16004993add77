"""The characters of the tests: journal, outbox, clock, neighbour, dataverse, and a route of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from itertools import count
from math import inf
from typing import Any
from zlib import crc32

import httpx
import pytest

from integration.core.activity import ActivityRecorder
from integration.core.http import Upstream
from integration.core.model import Delivery, EntryResult, WorkItem
from integration.core.rate_limiter import Limiter, build_full_limit
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.fhir.units import Limits
from integration.intake.accept import Accepted, Intake, accept
from integration.intake.http_request import IncomingRequest
from integration.journal.activity import MemoryActivityLog
from integration.journal.guard_store import MemoryGuardStore
from integration.journal.keys import make_delivery_id
from integration.journal.pending_lookups import MemoryPendingLookups
from integration.journal.store import Journal, MemoryJournal
from integration.journal.write_guard import WriteGuard
from integration.mapping import load
from integration.mapping.load import load_shipped_maps
from integration.mapping.model import EntityMap
from integration.mapping.model import Route as DataRoute
from integration.mirror import web_api_sink
from integration.mirror.mirror import Mirror
from integration.mirror.web_api_sink import WebApiSink
from integration.queues.names import MIRROR_QUEUE, RELAY_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from integration.relay import process
from integration.relay.fetch import NO_SOURCES, Sources
from integration.relay.lane import LaneContext
from integration.relay.process import Relay
from local.dataverse.app import create_app
from local.dataverse.faults import parse_fault
from local.dataverse.tables import Additions
from local.processes import PROJECT
from local.services import Running, free_ports, neighbours

# Stands for everything a patient could be known by: it may be in bytes and rows, nowhere else.
MARKER = "Zaphkiel-7731"

FHIR_JSON = "application/fhir+json"
DAY = 24 * 3600.0
LEASE = 220.0

Body = dict[str, Any]
Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Clock:
    """Stands still until it is told to go on; not in UTC, so that nothing relies on that."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 2, 1, 15, tzinfo=timezone(timedelta(hours=5, minutes=30)))

    def __call__(self) -> datetime:
        return self.now

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Heard:
    """One request, as a neighbour heard it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def asked(self) -> list[tuple[str, str]]:
        """(method, url) of each entry of a bundle."""
        return [(e["request"]["method"], e["request"]["url"]) for e in self.body["entry"]]

    @property
    def writes(self) -> bool:
        return self.method == "POST" and any(method != "GET" for method, _ in self.asked)


class FhirNeighbour:
    """A FHIR server in memory: hears, answers, and follows a script first where it has one.

    `refuses` are the types that it answers 422 to; while `down`, it answers that status to all.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.stored: dict[str, Body] = {}
        self.gone: set[str] = set()
        self.refuses: set[str] = set()
        self.down: int | None = None
        self.page_size = 1000
        self.heard: list[Heard] = []
        self.script: list[Callable[[Handler, httpx.Request], Awaitable[httpx.Response]]] = []
        self.pauses: list[float] = []
        self._ended: dict[str, int] = {}  # the version that a delete has made
        self._ids = count(1)

    # -- what a test tells it --------------------------------------------------------------------

    def will_answer(
        self, status: int, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer the next request with this, and do nothing."""
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()

        async def step(_work: Handler, _request: httpx.Request) -> httpx.Response:
            return httpx.Response(status, content=content, headers=headers)

        self.script.append(step)

    def will_do_as_asked(self) -> None:
        async def step(work: Handler, request: httpx.Request) -> httpx.Response:
            return await work(request)

        self.script.append(step)

    def will_lose_the_reply(self) -> None:
        """Do what the next request asks; its answer is lost on the way."""

        async def step(work: Handler, request: httpx.Request) -> httpx.Response:
            await work(request)
            raise httpx.ReadError(f"connection lost at {request.url}", request=request)

        self.script.append(step)

    def will_say(self, change: Callable[[Body], object]) -> None:
        """Do what the next request asks, and change what is said about it."""

        async def step(work: Handler, request: httpx.Request) -> httpx.Response:
            answer = await work(request)
            body = answer.json()
            change(body)
            return httpx.Response(answer.status_code, json=body, headers=answer.headers)

        self.script.append(step)

    def will_wait_for(self, other: Callable[[], Awaitable[object]]) -> None:
        """Answer the next request, but not before something else has happened."""

        async def step(work: Handler, request: httpx.Request) -> httpx.Response:
            answer = await work(request)
            await other()
            return answer

        self.script.append(step)

    def put(self, resource: Body) -> str:
        """As if somebody else had written it."""
        identity = f"{resource['resourceType']}/{resource['id']}"
        shown = self.stored.get(identity, {}).get("meta", {}).get("versionId", 0)
        version = max(int(shown), self._ended.get(identity, 0)) + 1
        updated = self.clock().astimezone(UTC).isoformat(timespec="milliseconds")
        meta = {"versionId": str(version), "lastUpdated": updated}
        self.stored[identity] = {**deepcopy(resource), "meta": meta}
        self.gone.discard(identity)
        return identity

    def delete(self, identity: str) -> None:
        """As if somebody else had deleted it."""
        found = self.stored.pop(identity, None)
        if found:
            self.gone.add(identity)
            self._ended[identity] = int(found["meta"]["versionId"]) + 1

    # -- what a test asks it ---------------------------------------------------------------------

    @property
    def writes(self) -> list[Heard]:
        """The bundles that wrote, in order."""
        return [each for each in self.heard if each.writes]

    @property
    def versions(self) -> dict[str, int]:
        """How often each resource has been written."""
        return {name: int(each["meta"]["versionId"]) for name, each in self.stored.items()}

    def of(self, type_: str) -> list[Body]:
        return [each for name, each in self.stored.items() if name.startswith(f"{type_}/")]

    # -- how it works ----------------------------------------------------------------------------

    async def hear(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        body = json.loads(content) if content else None
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.heard.append(Heard(request.method, request.url.path, headers, body))
        if self.down:
            return httpx.Response(self.down)
        if self.script:
            return await self.script.pop(0)(self._work, request)
        return await self._work(request)

    async def _work(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/fhir").strip("/")
        if request.method == "GET":
            if path == "metadata":
                return httpx.Response(200, json={"resourceType": "CapabilityStatement"})
            if "/" not in path:
                return self._searched(path, dict(request.url.params))
            status, resource = self._read(path)
            return httpx.Response(status, json=resource or _outcome("not-found"))
        bundle = json.loads(request.content)
        if bundle["type"] == "batch":
            said = [self._entry(entry) for entry in bundle["entry"]]
        else:
            before = deepcopy((self.stored, self.gone))
            said = self._transaction(bundle["entry"])
            failed = [each for each in said if int(each["response"]["status"]) >= 400]
            if failed:
                self.stored, self.gone = before
                return httpx.Response(
                    int(failed[0]["response"]["status"]), json=failed[0]["response"]["outcome"]
                )
        kind = f"{bundle['type']}-response"
        return httpx.Response(200, json={"resourceType": "Bundle", "type": kind, "entry": said})

    def _transaction(self, entries: list[Body]) -> list[Body]:
        """Conditional entries are resolved first, so that references to them can follow."""
        names = {
            entry["fullUrl"]: f"{entry['request']['url'].partition('?')[0]}/{found}"
            for entry in entries
            if "fullUrl" in entry and (found := self._known_or_new(entry))
        }
        text = json.dumps(entries)
        for name, identity in names.items():
            text = text.replace(f'"reference": "{name}"', f'"reference": "{identity}"')
        return [
            self._entry(entry, names.get(entry.get("fullUrl", ""))) for entry in json.loads(text)
        ]

    def _known_or_new(self, entry: Body) -> str | None:
        matches = self._matches(entry)
        return matches[0].partition("/")[2] if matches else f"server-{next(self._ids)}"

    def _matches(self, entry: Body) -> list[str]:
        type_, _, query = entry["request"]["url"].partition("?")
        query = entry["request"].get("ifNoneExist", query)
        value = query.partition("&")[0].rpartition("=")[2].rpartition("|")[2]
        return [
            name
            for name, each in self.stored.items()
            if name.startswith(f"{type_}/")
            and any(one.get("value") == value for one in each.get("identifier", ()))
        ]

    def _entry(self, entry: Body, decided: str | None = None) -> Body:
        method, url = entry["request"]["method"], entry["request"]["url"]
        if method == "GET" and "?" in url:
            found = [{"resource": self.stored[name]} for name in self._matches(entry)]
            searchset = {"resourceType": "Bundle", "type": "searchset", "entry": found}
            return {"resource": searchset, "response": {"status": "200"}}
        if method == "GET":
            status, resource = self._read(url)
            return {"resource": resource or {}, "response": {"status": str(status)}}
        if method == "DELETE":
            self.delete(url)
            return {"response": {"status": "204"}}
        resource = entry["resource"]
        if resource["resourceType"] in self.refuses:
            return _refusal(422, "invariant")
        if "/" not in url:
            matches = self._matches(entry)
            if len(matches) > 1:
                return _refusal(412, "multiple-matches")
            if matches and "ifNoneExist" in entry["request"]:
                return self._said("200", matches[0])
            url = (
                matches[0]
                if matches
                else decided or f"{resource['resourceType']}/server-{next(self._ids)}"
            )
            resource = {**resource, "id": url.partition("/")[2]}
        current = self.stored.get(url)
        wanted = entry["request"].get("ifMatch")
        if wanted and (current is None or wanted != f'W/"{current["meta"]["versionId"]}"'):
            return _refusal(412, "conflict")
        self.put(resource)
        return self._said("200" if current else "201", url)

    def _said(self, status: str, identity: str) -> Body:
        meta = self.stored[identity]["meta"]
        version = meta["versionId"]
        return {
            "response": {
                "status": status,
                "location": f"http://fhir/fhir/{identity}/_history/{version}",
                "etag": f'W/"{version}"',
                "lastModified": meta["lastUpdated"],
            }
        }

    def _searched(self, type_: str, params: dict[str, str]) -> httpx.Response:
        """By `_id` or `_lastUpdated=ge`, in the order of the last update, a page at a time."""
        known = {"_id", "_lastUpdated", "_sort", "_count", "_elements", "ct"}
        if params.keys() - known or params.get("_sort", "_lastUpdated") != "_lastUpdated":
            return httpx.Response(400, json=_outcome("not-supported"))
        since = datetime.fromisoformat(params.get("_lastUpdated", "ge1970-01-01")[2:])
        since = since if since.tzinfo else since.replace(tzinfo=UTC)
        ids = params.get("_id", "").split(",")
        found = [
            each
            for each in self.of(type_)
            if datetime.fromisoformat(each["meta"]["lastUpdated"]) >= since
            and ("_id" not in params or each["id"] in ids)
        ]
        found.sort(key=lambda each: str(each["meta"]["lastUpdated"]))
        start, size = int(params.get("ct", 0)), min(int(params["_count"]), self.page_size)
        searchset: Body = {"resourceType": "Bundle", "type": "searchset"}
        if len(found) > start + size:
            query = httpx.QueryParams({**params, "ct": str(start + size)})
            url = f"http://fhir/fhir/{type_}?{query}"
            searchset["link"] = [{"relation": "next", "url": url}]
        if page := found[start : start + size]:
            searchset["entry"] = [{"resource": each} for each in page]
        return httpx.Response(200, json=searchset)

    def _read(self, identity: str) -> tuple[int, Body | None]:
        if identity in self.gone:
            return 410, None
        found = self.stored.get(identity)
        return (200, found) if found else (404, None)


def _outcome(code: str) -> Body:
    issue = {"severity": "error", "code": code, "diagnostics": "said by the FHIR server"}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def _refusal(status: int, code: str) -> Body:
    return {"response": {"status": str(status), "outcome": _outcome(code)}}


class DataverseNeighbour(httpx.AsyncBaseTransport):
    """The stand-in for Dataverse, heard by a transport that can also step in between."""

    def __init__(self, additions: Additions | None = None) -> None:
        self.app = create_app(additions=additions, now=lambda: datetime(2026, 3, 2, tzinfo=UTC))
        self.heard: list[Heard] = []
        self.before: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        self._asgi = httpx.ASGITransport(app=self.app)
        self._own = httpx.AsyncClient(
            transport=self._asgi, base_url="http://dataverse/api/data/v9.2/"
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        headers = {name.lower(): value for name, value in request.headers.items()}
        told = headers.get("content-type", "").startswith("application/json")
        body = json.loads(content) if content and told else content.decode() or None
        # What a batch does, not how it is sent.
        method = request.method
        if request.url.path.endswith("$batch"):
            method = "PATCH" if b"changeset_" in content else "GET"
        self.heard.append(Heard(method, request.url.path, headers, body))
        if self.before and self.before[0][0] == method:
            await self.before.pop(0)[1]()
        return await self._asgi.handle_async_request(request)

    def will_be_preceded(self, method: str, other: Callable[[], Awaitable[object]]) -> None:
        """Before the next request of this method arrives, something else happens."""
        self.before.append((method, other))

    def will_fail(self, **wish: Any) -> None:
        """A fault of the stand-in: see local.dataverse.control."""
        self.app.faults.append(parse_fault(wish))

    @property
    def writes(self) -> list[Heard]:
        return [each for each in self.heard if each.method != "GET"]

    async def write(self, key: str, **columns: Any) -> None:
        """As if somebody else had written the contact."""
        answer = await self._own.patch(f"contacts({key})", json=columns)
        assert answer.status_code == 204, answer.text

    async def rows(self, entity_set: str) -> list[Body]:
        answer = await self._own.get(entity_set)
        rows: list[Body] = answer.json()["value"]
        return rows

    async def contacts(self) -> list[Body]:
        return await self.rows("contacts")

    async def contact(self) -> Body:
        """The only contact there is."""
        (row,) = await self.contacts()
        return row


def every_map() -> dict[str, EntityMap]:
    """Those too that are shipped, but not in use."""
    named = ["organization", "practitioner", "related_person"]
    return dict(load.load_maps("healthcare", enabled=named).entities)


def mirrored_maps() -> dict[str, EntityMap]:
    """Those of tables that nobody has to choose a route for to have them mirrored."""
    return {
        name: each
        for name, each in load_shipped_maps().items()
        if each.routes[0] is DataRoute.DATAVERSE
    }


async def patients_followed() -> dict[str, str]:
    """Patients are mirrored, and of other resources nobody has to hear."""
    return {"Patient": MIRROR_QUEUE}


@dataclass
class Route:
    """A delivery's route with doubles at both ends: intake, relay, mirror."""

    journal: Any
    outbox: Any
    ledger: Any
    clock: Clock
    neighbour: FhirNeighbour
    dataverse_neighbour: DataverseNeighbour
    fhir: FhirServer
    dataverse: Dataverse
    activity: MemoryActivityLog
    activities: ActivityRecorder
    limits: Limits = field(default_factory=Limits)
    max_age: float = 3 * DAY
    settings: dict[str, Any] = field(default_factory=dict)
    sources: Sources = NO_SOURCES
    waits: list[float] = field(default_factory=list)
    row_waits: MemoryPendingLookups = field(default_factory=MemoryPendingLookups)
    maps: Mapping[str, EntityMap] = field(default_factory=mirrored_maps)
    all_maps: Mapping[str, EntityMap] = field(default_factory=every_map)
    on_delete: str = "deactivate"
    _ids: Iterator[int] = field(default_factory=lambda: count(1))
    _tokens: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def intake(self) -> Intake:
        return Intake(
            journal=self.journal,
            queue=self.outbox,
            now=self.clock,
            new_id=lambda now: make_delivery_id(now, next(self._ids)),
            **{"max_bytes": 1_000_000, **self.settings},
        )

    @property
    def order(self) -> WriteGuard:
        return WriteGuard(
            self.ledger,
            lease=LEASE,
            now=lambda: self.clock().timestamp(),
            token=lambda: f"token {next(self._tokens)}",
            pause=self.wait,
            jitter=lambda: 0.5,
        )

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.later(seconds)

    @property
    def relay(self) -> Relay:
        carrier = LaneContext(
            journal=self.journal,
            queue=self.outbox,
            fhir=self.fhir,
            guard=self.order,
            change_queues=patients_followed,
        )
        limits, age = self.limits, self.max_age
        return Relay(
            context=carrier,
            limits=limits,
            now=self.clock,
            max_age=age,
            sources=self.sources,
            activities=self.activities,
        )

    @property
    def mirror(self) -> Mirror:
        return Mirror(
            self.journal,
            self.outbox,
            partial(web_api_sink.bring_up_to_date, self.web_api),
            self.maps,
            {},
            self.clock,
            self.max_age,
            self.activities,
        )

    @property
    def web_api(self) -> WebApiSink:
        ends = (self.fhir, self.dataverse, self.row_waits, self.outbox)
        return WebApiSink(*ends, self.all_maps, self.on_delete)

    async def ask(self, body: Any, **asked: Any) -> Accepted:
        """What a sender does: `headers`, `method`, `type` and `id` as it likes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": FHIR_JSON, **asked.pop("headers", {})}
        headers = {name: value for name, value in headers.items() if value is not None}
        asked = {"method": "POST", "type": None, "id": None, **asked}
        return await accept(self.intake, IncomingRequest(headers=headers, body=content, **asked))

    async def deliver(self, body: Any, **asked: Any) -> str:
        """Accepted, and its claim taken off the queue: the id of the delivery."""
        accepted = await self.ask(body, **asked)
        self.outbox.sent.remove((RELAY_QUEUE, WorkItem(accepted.delivery), 0))
        return accepted.delivery

    async def carry(self, delivery: str, **claim: Any) -> None:
        await process.process(self.relay, WorkItem(delivery, **claim))

    async def carry_all(self, delivery: str | None = None) -> None:
        """As the queue does it: hand out claims, whatever their delay, until none is left."""
        if delivery is not None:
            await self.carry(delivery)
        for _ in range(1000):
            claim = self.take()
            if claim is None:
                return
            await process.process(self.relay, claim)
        raise AssertionError("the claims never end")

    def take(self) -> WorkItem | None:
        """The next claim for the relay."""
        for message in self.outbox.sent:
            if message[0] == RELAY_QUEUE:
                self.outbox.sent.remove(message)
                return message[1]
        return None

    def queued(self, queue: str = RELAY_QUEUE) -> list[tuple[WorkItem, float]]:
        return [(claim, delay) for name, claim, delay in self.outbox.sent if name == queue]

    @property
    def mirrored(self) -> list[str]:
        """The resources whose mirroring is queued."""
        return [claim.resource for claim, _ in self.queued(MIRROR_QUEUE)]

    async def known(self, delivery: str) -> Delivery:
        found = await self.journal.get_delivery(delivery)
        assert found is not None
        return found

    async def outcomes(self, delivery: str) -> list[EntryResult]:
        """What is noted so far."""
        found: list[EntryResult] = await self.journal.list_entry_results(delivery)
        return found

    async def statuses(self, delivery: str) -> list[int]:
        """What became of each entry, in the sender's order."""
        outcomes = await self.outcomes(delivery)
        assert [each.position for each in outcomes] == list(range(len(outcomes)))
        return [each.status for each in outcomes]


def bundle(*entries: Body, kind: str = "transaction") -> Body:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def entry(resource: Body, full_url: str | None = None, **request: str) -> Body:
    """A create, unless the request says something else."""
    asked = {"method": "POST", "url": resource["resourceType"], **request}
    made: Body = {"resource": resource, "request": asked}
    return {"fullUrl": full_url, **made} if full_url else made


def patient(**elements: Any) -> Body:
    return {"resourceType": "Patient", "name": [{"family": MARKER}], **elements}


def observation(subject: str | None = None, **elements: Any) -> Body:
    about = {"subject": {"reference": subject}} if subject else {}
    code = {"text": MARKER}
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": code,
        **about,
        **elements,
    }


def told_by(records: list[Any]) -> str:
    """Everything that log records hold, as text, to be searched."""
    return "\n".join(repr(vars(record)) for record in records)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal() -> Journal:
    return MemoryJournal()


@pytest.fixture
def outbox() -> MemoryQueueSender:
    return MemoryQueueSender()


@pytest.fixture
def ledger() -> MemoryGuardStore:
    return MemoryGuardStore()


@pytest.fixture
def neighbour(clock: Clock) -> FhirNeighbour:
    return FhirNeighbour(clock)


@pytest.fixture
def dataverse() -> Iterator[DataverseNeighbour]:
    found = DataverseNeighbour()
    yield found
    found.app.close()


@pytest.fixture
async def route(
    journal: Journal,
    outbox: MemoryQueueSender,
    ledger: MemoryGuardStore,
    clock: Clock,
    neighbour: FhirNeighbour,
    dataverse: DataverseNeighbour,
) -> AsyncIterator[Route]:
    async with routed(neighbour, dataverse, clock, journal, outbox, ledger) as found:
        yield found


@asynccontextmanager
async def routed(
    neighbour: FhirNeighbour,
    dataverse: httpx.AsyncBaseTransport,
    clock: Clock,
    journal: Any,
    outbox: Any,
    ledger: Any,
    most: int = 4,
) -> AsyncIterator[Route]:
    """A route between these ends; up to `most` requests to each neighbour are under way."""
    started = clock.now

    def moment() -> float:
        return (clock.now - started).total_seconds() + sum(neighbour.pauses)

    async def pause(seconds: float) -> None:
        neighbour.pauses.append(seconds)

    def reached(name: str, base: str, transport: httpx.AsyncBaseTransport) -> Upstream:
        http = httpx.AsyncClient(transport=transport)
        # A claim that a test hands out early waits here, as the queue would have kept it.
        room = Limiter(build_full_limit(most), inf, moment, pause)
        return Upstream(
            name, base, http, room, pause=pause, jitter=lambda: 0.5, activities=activities
        )

    activity = MemoryActivityLog()
    activities = ActivityRecorder(activity.add, clock, moment)
    fhir = reached("FHIR server", "http://fhir/fhir", httpx.MockTransport(neighbour.hear))
    rows = reached("Dataverse", "http://dataverse", dataverse)
    yield Route(
        journal,
        outbox,
        ledger,
        clock,
        neighbour,
        dataverse,
        FhirServer(fhir),
        Dataverse(rows),
        activity,
        activities,
    )
    await fhir.http.aclose()
    await rows.http.aclose()


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The real storage emulator, on ports of its own."""
    if not (PROJECT / "local/node_modules/azurite").is_dir():
        pytest.skip("azurite is not installed: npm ci --prefix local")
    with neighbours(free_ports(), tmp_path_factory.mktemp("azurite"), parts=("storage",)) as it:
        yield it


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses, for containers, tables and queues of its own."""
    return f"t{crc32(request.node.nodeid.encode()):010d}"
