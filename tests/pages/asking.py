"""Pages of a route with doubles at both ends, and people who ask for them."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import urlencode

import msgspec

from integration.core.cron import parse
from integration.intake.identify import Identification
from integration.intake.quotas import Quotas
from integration.journal.housekeeping_runs import MemoryHousekeepingRuns
from integration.journal.table_keys import make_delivery_id
from integration.operations.status import StatusCheck
from integration.pages.answer import answer_page
from integration.pages.http import PageRequest, Reply
from integration.pages.parts import PagesParts, PatientParts
from integration.pages.people import Role, SignIn
from integration.queues.queue_reader import MemoryQueueReader
from tests.audits import make_recorder
from tests.conftest import Route, patients_followed

ORIGIN = "https://relay.example"
TOKEN = "t" * 32
EVERY_ROLE = tuple(Role)


def make_parts(route: Route, **changes: Any) -> PagesParts:
    """Build what pages are made from. `patients`: changes of the part of that name; `status`: of
    the status check."""
    journal, clock = route.journal, route.clock
    numbers = count(1000)
    patients: dict[str, Any] = {
        "fhir": route.fhir,
        "queue": route.queue_sender,
        "row_keys": route.row_keys,
        "change_queues": patients_followed,
        "load_mirror": lambda: route.mirror,
        "new_id": lambda now: make_delivery_id(now, next(numbers)),
        **changes.pop("patients", {}),
    }
    status: dict[str, Any] = {
        "journal": journal,
        "queue_reader": MemoryQueueReader(),
        "activity": route.activity,
        "runs": MemoryHousekeepingRuns(),
        "queues": ("relay", "mirror"),
        "senders": (),
        "sender_problems": {},
        "schedule": parse("0 */10 * * * *"),
        "started": clock(),
        "now": clock,
        **changes.pop("status", {}),
    }
    given: dict[str, Any] = {
        "sign_in": SignIn(easy_auth=True, is_open=False),
        "journal": journal,
        "audit": make_recorder(route.audit, now=clock),
        "status_check": StatusCheck(**status),
        "now": clock,
        "new_token": lambda: TOKEN,
        "activity": route.activity,
        "identification": make_identification(route),
        "public_url": ORIGIN,
        "patients": PatientParts(**patients),
        **changes,
    }
    return PagesParts(**given)


def make_identification(route: Route, **changes: Any) -> Identification:
    async def add_none(_: object, secrets: Any, __: object) -> Any:
        return secrets

    given: dict[str, Any] = {
        "senders": None,
        "journal": route.journal,
        "now": route.clock,
        "add_keys": add_none,
        "new_token": lambda: TOKEN,
        "quotas": Quotas(lambda: 0.0),
        **changes,
    }
    return Identification(**given)


@dataclass(slots=True)
class Shown:
    """A page that was answered."""

    reply: Reply

    @property
    def status(self) -> int:
        return self.reply.status

    @property
    def html(self) -> str:
        return self.reply.body.decode()

    @property
    def text(self) -> str:
        """What people read: without tags, each run of white space as one space."""
        bare = re.sub(r"<[^>]*>", " ", self.html)
        return re.sub(r"\s+", " ", bare).replace("&#39;", "'")

    @property
    def links(self) -> list[str]:
        return re.findall(r'href="([^"]*)"', self.html)

    @property
    def location(self) -> str:
        return str(self.reply.headers["Location"]).removeprefix("/api/pages/")


@dataclass(slots=True)
class Visitor:
    """Somebody who is signed in with these roles, and who has a page with a form open."""

    parts: PagesParts
    roles: tuple[str, ...] = EVERY_ROLE
    asked: list[PageRequest] = field(default_factory=list)

    async def get(self, path: str) -> Shown:
        path, _, query = path.partition("?")
        return await self._ask("GET", path, query, b"", {})

    async def post(self, path: str, **fields: str) -> Shown:
        body = urlencode({"token": TOKEN, **fields}).encode()
        media = {"content-type": "application/x-www-form-urlencoded", "origin": ORIGIN}
        return await self._ask("POST", path, "", body, media)

    async def _ask(
        self, method: str, path: str, query: str, body: bytes, headers: Mapping[str, str]
    ) -> Shown:
        claims = [{"typ": "roles", "val": role} for role in self.roles]
        claims.append({"typ": "preferred_username", "val": "night@hospital.example"})
        principal = b64encode(msgspec.json.encode({"claims": claims})).decode()
        request = PageRequest(
            method=method,
            path=path,
            query=query,
            headers={
                "x-ms-client-principal": principal,
                "cookie": f"__Host-relay-form={TOKEN}",
                **headers,
            },
            body=body,
            url=f"{ORIGIN}/api/pages/{path}",
            origins=frozenset({ORIGIN}),
        )
        self.asked.append(request)
        return Shown(await answer_page(self.parts, request))
