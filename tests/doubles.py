"""What stands for the clock, for a FHIR server and for Dataverse in tests without services.

The FHIR server is the model of one in `tests/model/server.py`, which is written from the specification.
Dataverse is the one of `local/dataverse`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx

from local.dataverse.app import create_app
from local.dataverse.faults import parse_fault
from local.dataverse.tables import Additions
from tests.builders import Body
from tests.model.server import Server

Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]
Step = Callable[[Handler, httpx.Request], Awaitable[httpx.Response]]


# An organisation in which a test can merge contacts, as Dataverse alone does: the subordinate is
# inactive, says that it was merged, and keeps its other columns.
# https://learn.microsoft.com/power-apps/developer/data-platform/merge-records
MERGEABLE: Additions = {
    "contact": {
        "columns": {"merged": {"type": "Boolean", "schemaName": "Merged", "label": "Merged"}}
    }
}
MERGED: Body = {"statecode": 1, "statuscode": 2, "merged": True}


class Clock:
    """Stands still until it is told to go on; not in UTC, so that nothing relies on that."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 2, 1, 15, tzinfo=timezone(timedelta(hours=5, minutes=30)))

    def __call__(self) -> datetime:
        return self.now

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request that a double received."""

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
        return self._is_bundle and any(method != "GET" for method, _ in self.asked)

    @property
    def is_look_up(self) -> bool:
        return self._is_bundle and not self.writes

    @property
    def _is_bundle(self) -> bool:
        return self.method == "POST" and not self.path.endswith("/_search")


class FhirDouble(Server):
    """The model of a FHIR server behind a transport, which follows a script first where it has one.

    `refuses` are the types that it answers 422 to; while `down`, it answers that status to all.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(now=clock)
        self.down: int | None = None
        self.received: list[RecordedRequest] = []
        self.script: list[Step] = []
        self.look_up_script: list[Step] = []  # for batches that only read
        self.pauses: list[float] = []

    # -- what a test tells it --------------------------------------------------------------------

    def will_answer(
        self,
        status: int,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        look_up: bool = False,
    ) -> None:
        """Answer the next request with this, and do nothing. `look_up`: the next batch of reads;
        else the next of all others."""
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()

        async def step(_work: Handler, _request: httpx.Request) -> httpx.Response:
            return httpx.Response(status, content=content, headers=headers)

        (self.look_up_script if look_up else self.script).append(step)

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

    def will_be_late_after(
        self, other: Callable[[], Awaitable[object]], *, reply_is_lost: bool = False
    ) -> None:
        """Do what the next request asks only after something else has happened."""

        async def step(work: Handler, request: httpx.Request) -> httpx.Response:
            await other()
            answer = await work(request)
            if reply_is_lost:
                raise httpx.ReadError("connection lost", request=request)
            return answer

        self.script.append(step)

    def will_arrive_late(self) -> Callable[[], Awaitable[object]]:
        """Let the sender of the next request wait in vain. Return what lets the request arrive."""
        held: list[Callable[[], Awaitable[object]]] = []

        async def step(work: Handler, request: httpx.Request) -> httpx.Response:
            held.append(lambda: work(request))
            raise httpx.ReadTimeout("late", request=request)

        async def arrive() -> object:
            return await held[0]()

        self.script.append(step)
        return arrive

    def add(self, resource: Body) -> str:
        """Store it as if somebody else had written it."""
        identity = f"{resource['resourceType']}/{resource['id']}"
        self.put(identity, resource)
        return identity

    def forget(self, identity: str) -> None:
        """Be as if the resource had never been there."""
        del self.stored[identity], self.versions[identity], self.past[identity]

    # -- what a test asks it ---------------------------------------------------------------------

    @property
    def writes(self) -> list[RecordedRequest]:
        """The bundles that wrote, in order."""
        return [each for each in self.received if each.writes]

    @property
    def writes_of_each(self) -> dict[str, int]:
        """How often each resource has been written."""
        return {name: int(each["meta"]["versionId"]) for name, each in self.stored.items()}

    def of(self, type_: str) -> list[Body]:
        return [each for name, each in self.stored.items() if name.startswith(f"{type_}/")]

    # -- how it works ----------------------------------------------------------------------------

    async def hear(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        headers = {name.lower(): value for name, value in request.headers.items()}
        is_form = headers.get("content-type") == "application/x-www-form-urlencoded"
        body = content.decode() if is_form else json.loads(content) if content else None
        self.received.append(RecordedRequest(request.method, request.url.path, headers, body))
        if self.down:
            return httpx.Response(self.down)
        script = self.look_up_script if self.received[-1].is_look_up else self.script
        if script:
            return await script.pop(0)(self._work, request)
        return await self._work(request)

    async def _work(self, request: httpx.Request) -> httpx.Response:
        path = str(request.url).removeprefix("http://fhir/fhir").lstrip("/")
        if request.method == "GET" and path == "metadata":
            return httpx.Response(200, json={"resourceType": "CapabilityStatement"})
        if request.method == "GET":
            status, body = self.get(path)
        elif path.endswith("/_search"):  # https://hl7.org/fhir/R4/http.html#search
            content = request.content.decode()
            status, body = self.get(f"{path.removesuffix('/_search')}?{content}")
        else:
            status, body = self.bundle(json.loads(request.content))
        return httpx.Response(status, json=body)


class DataverseDouble(httpx.AsyncBaseTransport):
    """The stand-in for Dataverse, heard by a transport that can also step in between."""

    def __init__(self, additions: Additions | None = None) -> None:
        self.app = create_app(additions=additions, now=lambda: datetime(2026, 3, 2, tzinfo=UTC))
        self.received: list[RecordedRequest] = []
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
        self.received.append(RecordedRequest(method, request.url.path, headers, body))
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
    def writes(self) -> list[RecordedRequest]:
        return [each for each in self.received if each.method != "GET"]

    async def write(self, key: str, **columns: Any) -> None:
        """As if somebody else had written the contact."""
        answer = await self._own.patch(f"contacts({key})", json=columns)
        assert answer.status_code == 204, answer.text

    async def change(self, method: str, path: str, body: Body | None = None) -> None:
        """As if somebody else had changed any row."""
        answer = await self._own.request(method, path, json=body)
        assert answer.status_code < 300, answer.text

    async def send(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """As if somebody else had sent it."""
        return await self._own.request(method, path, json=body, headers=headers)

    async def rows(self, entity_set: str) -> list[Body]:
        """The rows of a table; the query may follow its name."""
        answer = await self._own.get(entity_set)
        rows: list[Body] = answer.json()["value"]
        return rows

    async def contacts(self) -> list[Body]:
        return await self.rows("contacts")

    async def contact(self) -> Body:
        """The only contact there is."""
        (row,) = await self.contacts()
        return row
