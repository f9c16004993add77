"""The two sides of the comparison: a FHIR server that is asked plainly, and the same behind the relay."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from math import inf
from typing import Any
from uuid import uuid4

import httpx

from integration.core.errors import Rejected
from integration.core.http import Upstream, build_limiter
from integration.core.model import EntryResult
from integration.fhir.client import FhirServer
from integration.fhir.units import Limits
from integration.intake.accept import Accepted, Intake, accept
from integration.intake.http_request import IncomingRequest
from integration.journal.guard_store import MemoryGuardStore
from integration.journal.store import MemoryJournal
from integration.journal.table_keys import make_delivery_id
from integration.journal.write_guard import WriteGuard
from integration.queues.names import RELAY_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from integration.relay import process
from integration.relay.lane_run import LaneContext
from integration.relay.parts import Relay
from tests.equivalence.meaning import NDJSON, Sent

Body = dict[str, Any]

_JSON = {"content-type": "application/fhir+json"}


@dataclass(frozen=True)
class Stored:
    """All that a server holds, by Type/id, and how many versions it has ever written."""

    resources: dict[str, Body]
    versions: int


@dataclass(frozen=True)
class Result:
    """What a server or the relay answered. `statuses` and `places` (Type/id) by entry, empty
    where all of it was refused; `split`: it was a transaction, and could not stay one."""

    statuses: list[int] = field(default_factory=list)
    places: list[str | None] = field(default_factory=list)
    why: str = ""
    split: bool = False

    @property
    def refused(self) -> bool:
        """As a whole."""
        return not any(status < 400 for status in self.statuses)


@dataclass(frozen=True)
class Server:
    """The local FHIR server."""

    url: str
    http: httpx.AsyncClient

    def can_be_asked(self, bundle: Sent) -> bool:
        """Whether what it makes of the unsplit bundle can be held against the relay's."""
        return True

    async def empty(self) -> None:
        await self._control("POST", "reset")

    async def stored(self) -> Stored:
        told = (await self._control("GET", "stats")).json()
        pages = await asyncio.gather(*(self._all(kind) for kind in told["byType"]))
        found = {f"{each['resourceType']}/{each['id']}": each for page in pages for each in page}
        assert len(found) == told["resources"]
        return Stored(found, told["versions"])

    async def post(self, body: bytes) -> Result:
        """A bundle, unsplit."""
        answer = await self.http.post(self.url, content=body, headers=_JSON)
        if answer.status_code != 200:
            return Result(why=answer.text)
        said = [each["response"] for each in answer.json()["entry"]]
        return Result(
            [int(each["status"][:3]) for each in said],
            [_identity(each.get("location")) for each in said],
        )

    async def write(self, address: str, resource: Body) -> Result:
        """One resource, under its id if the address has one."""
        method = "PUT" if "/" in address else "POST"
        url = f"{self.url}/{address}"
        answer = await self.http.request(method, url, json=resource, headers=_JSON)
        place = _identity(answer.headers.get("location")) if answer.is_success else None
        return Result([answer.status_code], [place], answer.text)

    async def _all(self, kind: str) -> list[Body]:
        url, found = f"{self.url}/{kind}?_count=1000", list[Body]()
        while url:
            page = (await self.http.get(url)).json()
            found += [entry["resource"] for entry in page.get("entry", [])]
            url = next((each["url"] for each in page["link"] if each["relation"] == "next"), "")
        return found

    async def _control(self, method: str, what: str) -> httpx.Response:
        address = f"{self.url.removesuffix('/fhir')}/control/{what}"
        return (await self.http.request(method, address)).raise_for_status()


@dataclass(frozen=True)
class Hapi(Server):
    """HAPI's server, which this machine has started, and which may be emptied."""

    def can_be_asked(self, bundle: Sent) -> bool:
        """Not for what docs/fhir-servers.md names: single writes with links to be resolved, equal
        conditional creates, and conditions that the relay has to send without their type."""
        requests = [entry.get("request", {}) for entry in bundle.entries if bundle.requests]
        conditions = [each["ifNoneExist"] for each in requests if "ifNoneExist" in each]
        bare = not any("?" in condition for condition in conditions)
        return bundle.requests and bare and len(set(conditions)) == len(conditions)

    async def empty(self) -> None:
        everything = {"name": "expungeEverything", "valueBoolean": True}
        body = {"resourceType": "Parameters", "parameter": [everything]}
        (await self.http.post(f"{self.url}/$expunge", json=body, headers=_JSON)).raise_for_status()

    async def stored(self) -> Stored:
        """From the history of the whole server, which begins with the newest version."""
        url, history = f"{self.url}/_history?_count=500", list[Body]()
        while url:
            page = (await self.http.get(url)).raise_for_status().json()
            history += page.get("entry", [])
            url = next((each["url"] for each in page["link"] if each["relation"] == "next"), "")
        newest: dict[str, Body] = {}
        for version in history:
            newest.setdefault(str(_identity(version["fullUrl"])), version)
        found = {name: each["resource"] for name, each in newest.items() if "resource" in each}
        for resource in found.values():
            _drop_request_id(resource["meta"])
        return Stored(found, len(history))


async def relayed(server: Server, bundle: Sent, limits: Limits) -> Result:
    """The bytes through the real intake and the real relay, with storage in memory."""
    journal, queue_sender, ids = MemoryJournal(), MemoryQueueSender(), count(1)
    headers = {"content-type": f"application/fhir+{'ndjson' if bundle.kind == NDJSON else 'json'}"}
    intake = Intake(
        journal=journal,
        queue=queue_sender,
        now=_now,
        new_id=lambda now: make_delivery_id(now, next(ids)),
        max_bytes=50_000_000,
        limits=limits,
    )
    try:
        accepted = await accept(
            intake,
            IncomingRequest(method="POST", type=None, id=None, headers=headers, body=bundle.body),
        )
    except Rejected as error:
        return Result(why=" ".join(issue.text for issue in error.issues))
    if not isinstance(accepted, Accepted):
        return Result(why="it brings nothing")
    await _process(journal, queue_sender, server, limits)
    delivery = await journal.get_delivery(accepted.delivery)
    assert delivery is not None
    assert delivery.finished, delivery.reason
    outcomes = await journal.list_entry_results(delivery.id)
    assert [each.position for each in outcomes] == list(range(delivery.entries))
    return Result(
        [each.status for each in outcomes],
        [_identity(each.location) for each in outcomes],
        _why(outcomes),
        delivery.split,
    )


async def _nobody_follows() -> dict[str, str]:
    return {}


async def _process(
    journal: MemoryJournal, queue_sender: MemoryQueueSender, server: Server, limits: Limits
) -> None:
    fhir = FhirServer(Upstream("FHIR server", server.url, server.http, build_limiter(4)))
    order = WriteGuard(
        store=MemoryGuardStore(),
        lease=220.0,
        now=lambda: _now().timestamp(),
        token=lambda: str(uuid4()),
        pause=asyncio.sleep,
        jitter=lambda: 0.5,
    )
    context = LaneContext(
        journal=journal,
        queue=queue_sender,
        fhir=fhir,
        guard=order,
        change_queues=_nobody_follows,
    )
    worker = Relay(context=context, limits=limits, now=_now, max_age=inf)
    for claim in _claims(queue_sender):
        assert claim.attempt < 3, "the FHIR server is in trouble"
        await process.process(worker, claim)


def _claims(queue_sender: MemoryQueueSender) -> Iterator[Any]:
    while queue_sender.sent:
        queue, claim, _ = queue_sender.sent.pop(0)
        assert queue == RELAY_QUEUE
        yield claim


def _drop_request_id(meta: Body) -> None:
    """HAPI adds the id of the request to meta.source, behind a number sign."""
    source = meta.pop("source", "").rpartition("#")[0]
    if source:
        meta["source"] = source


def _why(outcomes: Sequence[EntryResult]) -> str:
    told = [issue for each in outcomes if each.status >= 300 for issue in each.issues or ()]
    return " ".join(str(issue.get("diagnostics")) for issue in told[:3])


def _identity(location: str | None) -> str | None:
    if not location:
        return None
    return "/".join(location.partition("/_history/")[0].split("/")[-2:])


def _now() -> datetime:
    return datetime.now(UTC)
