"""The two sides of the comparison: a FHIR server that is asked plainly, and one behind the relay."""

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
from integration.journal.keys import make_delivery_id
from integration.journal.store import MemoryJournal
from integration.journal.write_guard import WriteGuard
from integration.queues.names import RELAY_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from integration.relay import process
from integration.relay.lane import LaneContext
from integration.relay.process import Relay
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
class Side:
    """A local FHIR server."""

    url: str
    http: httpx.AsyncClient

    async def empty(self) -> None:
        await self._control("POST", "reset")

    async def stored(self) -> Stored:
        stats = (await self._control("GET", "stats")).json()
        pages = await asyncio.gather(*(self._all(kind) for kind in stats["byType"]))
        found = {
            f"{resource['resourceType']}/{resource['id']}": resource
            for page in pages
            for resource in page
        }
        assert len(found) == stats["resources"]
        return Stored(found, stats["versions"])

    async def post(self, body: bytes) -> Result:
        """A bundle, unsplit."""
        answer = await self.http.post(self.url, content=body, headers=_JSON)
        if answer.status_code != 200:
            return Result(why=answer.text)
        said = [response["response"] for response in answer.json()["entry"]]
        return Result(
            [int(response["status"][:3]) for response in said],
            [_identity(response.get("location")) for response in said],
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
            url = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
        return found

    async def _control(self, method: str, what: str) -> httpx.Response:
        address = f"{self.url.removesuffix('/fhir')}/control/{what}"
        return (await self.http.request(method, address)).raise_for_status()


async def relayed(side: Side, bundle: Sent, limits: Limits) -> Result:
    """The bytes through the real intake and the real relay, with storage in memory."""
    journal, queue, ids = MemoryJournal(), MemoryQueueSender(), count(1)
    headers = {"content-type": f"application/fhir+{'ndjson' if bundle.kind == NDJSON else 'json'}"}
    intake = Intake(
        journal=journal,
        queue=queue,
        now=_now,
        new_id=lambda now: make_delivery_id(now, next(ids)),
        max_bytes=50_000_000,
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
    await _process_all(journal, queue, side, limits)
    delivery = await journal.get_delivery(accepted.delivery)
    assert delivery is not None
    assert delivery.finished, delivery.reason
    outcomes = await journal.list_entry_results(delivery.id)
    assert [result.position for result in outcomes] == list(range(delivery.entries))
    return Result(
        [result.status for result in outcomes],
        [_identity(result.location) for result in outcomes],
        _why(outcomes),
        delivery.split,
    )


async def _nobody_follows() -> dict[str, str]:
    return {}


async def _process_all(
    journal: MemoryJournal, queue: MemoryQueueSender, side: Side, limits: Limits
) -> None:
    fhir = FhirServer(Upstream("FHIR server", side.url, side.http, build_limiter(4)))
    guard = WriteGuard(
        MemoryGuardStore(),
        lease=220.0,
        now=lambda: _now().timestamp(),
        token=lambda: str(uuid4()),
        pause=asyncio.sleep,
        jitter=lambda: 0.5,
    )
    context = LaneContext(
        journal=journal, queue=queue, fhir=fhir, guard=guard, change_queues=_nobody_follows
    )
    worker = Relay(context=context, limits=limits, now=_now, max_age=inf)
    for item in _take_items(queue):
        assert item.attempt < 3, "the FHIR server is in trouble"
        await process.process(worker, item)


def _take_items(queue: MemoryQueueSender) -> Iterator[Any]:
    while queue.sent:
        name, item, _ = queue.sent.pop(0)
        assert name == RELAY_QUEUE
        yield item


def _why(outcomes: Sequence[EntryResult]) -> str:
    found = [issue for result in outcomes if result.status >= 300 for issue in result.issues or ()]
    return " ".join(str(issue.get("diagnostics")) for issue in found[:3])


def _identity(location: str | None) -> str | None:
    if not location:
        return None
    return "/".join(location.partition("/_history/")[0].split("/")[-2:])


def _now() -> datetime:
    return datetime.now(UTC)
