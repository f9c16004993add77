"""What the tests of pages share: parts in memory, requests, people who are signed in, and what a
reply shows."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from html import unescape
from typing import Any

from integration.core.cron import parse
from integration.journal.activity_log import MemoryActivityLog
from integration.journal.audit_log import MemoryAuditLog
from integration.journal.audit_recorder import AuditRecorder
from integration.journal.housekeeping_runs import MemoryHousekeepingRuns
from integration.journal.store import MemoryJournal
from integration.operations.status import StatusCheck
from integration.pages.answer import answer_page
from integration.pages.http import PageRequest, Reply
from integration.pages.parts import PagesParts
from integration.pages.people import SignIn
from integration.queues.queue_reader import MemoryQueueReader

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
SITE = "https://relay.example"
TOKEN = "made-up-token-of-a-form"
LAPTOP = SignIn(easy_auth=False, is_open=True)
EASY_AUTH = SignIn(easy_auth=True, is_open=False)
CLOSED = SignIn(easy_auth=False, is_open=False)

ROLE_CLAIM = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"


def now() -> datetime:
    return NOW


def build_parts(sign_in: SignIn = EASY_AUTH, **changes: Any) -> PagesParts:
    """Parts whose stores are in memory, and whose upstreams nobody asks."""
    journal = changes.pop("journal", None) or MemoryJournal()
    status_check = StatusCheck(
        journal=journal,
        queue_reader=MemoryQueueReader(),
        activity=MemoryActivityLog(),
        runs=MemoryHousekeepingRuns(),
        queues=("relay", "mirror"),
        senders=("north",),
        sender_problems={},
        schedule=parse("0 */10 * * * *"),
        started=NOW,
        now=now,
    )
    given: dict[str, Any] = {
        "sign_in": sign_in,
        "journal": journal,
        "audit": AuditRecorder(log=MemoryAuditLog(), now=now, new_token=lambda: "00"),
        "status_check": status_check,
        "now": now,
        "new_token": lambda: TOKEN,
        **changes,
    }
    return PagesParts(**given)


def build_principal(*roles: str, name: str = "ada@hospital.example", **changes: Any) -> str:
    """The header of somebody who is signed in, as the platform writes it."""
    claims = [{"typ": "preferred_username", "val": name}]
    claims += [{"typ": "roles", "val": role} for role in roles]
    principal = {"auth_typ": "aad", "claims": claims, "role_typ": "roles", **changes}
    return base64.b64encode(json.dumps(principal).encode()).decode()


def build_request(
    path: str = "",
    *,
    roles: tuple[str, ...] | None = ("reader",),
    headers: Mapping[str, str] | None = None,
    **changes: Any,
) -> PageRequest:
    """A request of somebody with these roles; None: of nobody who is signed in."""
    signed = {} if roles is None else {"x-ms-client-principal": build_principal(*roles)}
    given: dict[str, Any] = {
        "method": "GET",
        "path": path,
        "query": "",
        "headers": {**signed, **(headers or {})},
        "body": b"",
        "url": f"{SITE}/api/pages/{path}",
        "origins": frozenset({SITE}),
        **changes,
    }
    return PageRequest(**given)


def build_form(path: str, body: str = f"token={TOKEN}", **changes: Any) -> PageRequest:
    """A form as the browser sends it from a page of this app. `headers` change some of its own."""
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "origin": SITE,
        "sec-fetch-site": "same-origin",
        "cookie": f"__Host-relay-form={TOKEN}",
        **changes.pop("headers", {}),
    }
    headers = {name: value for name, value in headers.items() if value is not None}
    body_ = body if isinstance(body, bytes) else body.encode()
    return build_request(path, method="POST", headers=headers, body=body_, **changes)


async def ask(request: PageRequest, parts: PagesParts | None = None) -> Reply:
    return await answer_page(parts or build_parts(), request)


def read_text(reply: Reply) -> str:
    """What a page shows, without its tags."""
    html = re.sub(r"(?s)<head>.*?</head>", "", reply.body.decode())
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())
