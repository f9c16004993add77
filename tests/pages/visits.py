"""Visits to pages: what somebody with these roles is shown, and what their forms do."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from html import unescape
from typing import Any
from urllib.parse import urlencode

from integration.core.byte_budget import ByteBudget
from integration.journal.audit_recorder import AuditRecorder
from integration.journal.housekeeping_runs import MemoryHousekeepingRuns
from integration.operations.deliveries import ReplayTerms
from integration.operations.status import StatusCheck
from integration.pages.answer import answer_page
from integration.pages.http import PageRequest, Reply
from integration.pages.parts import PagesParts
from integration.pages.people import SignIn
from integration.queues.queue_reader import MemoryQueueReader
from tests.audits import make_recorder
from tests.conftest import Route

SITE = "https://relay.example"
DATAVERSE = "https://organization.example"
_TOKEN = "0123456789abcdefghij"


def make_parts(route: Route, **changes: Any) -> PagesParts:
    """Return the parts of pages that show what a route has done."""
    status_check = StatusCheck(
        journal=route.journal,
        queue_reader=MemoryQueueReader({}),
        activity=route.activity,
        runs=MemoryHousekeepingRuns(),
        queues=(),
        senders=(),
        sender_problems={},
        schedule=None,
        started=route.clock(),
        now=route.clock,
    )
    made: dict[str, Any] = {
        "sign_in": SignIn(easy_auth=True, is_open=False),
        "journal": route.journal,
        "audit": make_recorder(route.audit),
        "activity": route.activity,
        "queue": route.queue_sender,
        "replay_terms": ReplayTerms(),
        "status_check": status_check,
        "budget": ByteBudget(),
        "dataverse_url": DATAVERSE,
        "now": route.clock,
        "new_token": lambda: _TOKEN,
    }
    return PagesParts(**made | changes)


@dataclass(frozen=True)
class Visit:
    """What a visit came to."""

    reply: Reply

    @property
    def html(self) -> str:
        return self.reply.body.decode()

    @property
    def text(self) -> str:
        """What is read on the page."""
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", self.html)).split())

    @property
    def links(self) -> list[str]:
        return [unescape(found) for found in re.findall(r'(?:href|action)="([^"]*)"', self.html)]


@dataclass
class Visitor:
    """Somebody with these roles."""

    parts: PagesParts
    roles: Collection[str] = ("reader",)
    changes: dict[str, Any] = field(default_factory=dict)

    async def see(self, path: str, **fields: str) -> Visit:
        return Visit(await self._ask("GET", path, urlencode(fields), b""))

    async def send(self, path: str, **fields: str) -> Visit:
        body = urlencode({"token": _TOKEN, **fields}).encode()
        return Visit(await self._ask("POST", path, "", body))

    async def _ask(self, method: str, path: str, query: str, body: bytes) -> Reply:
        claims = [{"typ": "roles", "val": role} for role in self.roles]
        claims.append({"typ": "preferred_username", "val": "nurse@hospital.example"})
        principal = base64.b64encode(json.dumps({"claims": claims}).encode()).decode()
        headers = {
            "x-ms-client-principal": principal,
            "cookie": f"__Host-relay-form={_TOKEN}",
            "origin": SITE,
            "content-type": "application/x-www-form-urlencoded",
        }
        request = PageRequest(
            method=method,
            path=path,
            query=query,
            headers=headers,
            body=body,
            url=f"{SITE}/api/pages/{path}",
            origins=frozenset({SITE}),
        )
        return await answer_page(self.parts, request)


def visit_as(route: Route, *roles: str, audit: AuditRecorder | None = None) -> Visitor:
    """Return somebody with these roles who visits the pages of a route."""
    changes = {} if audit is None else {"audit": audit}
    return Visitor(make_parts(route, **changes), roles)
