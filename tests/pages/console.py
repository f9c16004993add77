"""Pages as somebody with roles sees them: parts in memory, doubles of FHIR and Dataverse, no host."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from integration.core.cron import parse
from integration.journal.activity_log import MemoryActivityLog
from integration.journal.data_routes import MemoryDataRouteStore
from integration.journal.housekeeping_runs import MemoryHousekeepingRuns
from integration.mapping import files, load
from integration.mapping.files import MapFile
from integration.operations.status import StatusCheck
from integration.pages.answer import answer_page
from integration.pages.http import PageRequest, Reply
from integration.pages.parts import AppFacts, MapSources, PagesParts, ShownSetting
from integration.pages.people import SignIn
from integration.queues.queue_reader import MemoryQueueReader
from integration.virtual_tables.data_routes import DataRoutes
from tests.audits import make_recorder
from tests.conftest import Route

SITE = "https://relay.example"
NAME = "anna@example.org"
TOKEN = "t" * 32

_EVERY_MAP = files.read_map_files("healthcare")


@dataclass
class Console:
    """Somebody with these roles, and what the pages are made from."""

    parts: PagesParts
    store: MemoryDataRouteStore
    queues: MemoryQueueReader
    roles: Sequence[str] = ("reader",)
    waited: list[float] = field(default_factory=list)

    async def get(self, path: str, **query: str) -> Reply:
        return await self._ask("GET", path, urlencode(query), b"")

    async def post(self, path: str, **fields: str) -> Reply:
        body = urlencode({"token": TOKEN, **fields}).encode()
        return await self._ask("POST", path, "", body)

    async def _ask(self, method: str, path: str, query: str, body: bytes) -> Reply:
        claims = [{"typ": "roles", "val": role} for role in self.roles]
        claims.append({"typ": "preferred_username", "val": NAME})
        principal = json.dumps({"claims": claims}).encode()
        headers = {
            "x-ms-client-principal": base64.b64encode(principal).decode(),
            "cookie": f"__Host-relay-form={TOKEN}",
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

    def with_roles(self, *roles: str) -> Console:
        return replace(self, roles=roles)

    def with_settings(self, *settings: ShownSetting) -> Console:
        app = replace(self.parts.app, settings=settings)
        return replace(self, parts=replace(self.parts, app=app))


def open_console(
    route: Route,
    map_files: Sequence[MapFile] = _EVERY_MAP,
    *,
    is_mirroring: bool = True,
    **check: Any,
) -> Console:
    """Pages about what the route has done."""
    store, queues, waited = MemoryDataRouteStore(), MemoryQueueReader(), list[float]()

    async def pause(seconds: float) -> None:
        waited.append(seconds)

    given: dict[str, Any] = {
        "journal": route.journal,
        "queue_reader": queues,
        "activity": MemoryActivityLog(),
        "runs": MemoryHousekeepingRuns(),
        "queues": ("relay", "mirror"),
        "senders": (),
        "sender_problems": {},
        "schedule": parse("0 */10 * * * *"),
        "started": route.clock(),
        "now": route.clock,
        **check,
    }
    maps = load.build_maps(map_files)
    parts = PagesParts(
        sign_in=SignIn(easy_auth=True, is_open=False),
        journal=route.journal,
        audit=make_recorder(route.audit),
        fhir=route.fhir,
        dataverse=route.dataverse,
        status_check=StatusCheck(**given),
        data_routes=DataRoutes(
            store=store,
            tables=files.list_tables(map_files),
            is_mirroring=is_mirroring,
            clock=lambda: route.clock().timestamp(),
            pause=pause,
            now=route.clock,
        ),
        maps=MapSources(files=map_files, load=lambda: maps, on_delete="deactivate"),
        app=AppFacts(version="1.2.3", started=route.clock(), settings=(), renamed=()),
        now=route.clock,
        new_token=lambda: TOKEN,
    )
    return Console(parts=parts, store=store, queues=queues, waited=waited)


def read(reply: Reply) -> str:
    """The words of a page, without its tags."""
    text = re.sub(r"<[^>]*>", " ", reply.body.decode())
    return " ".join(html.unescape(text).replace("\u202f", " ").replace("\xa0", " ").split())


def rows(reply: Reply) -> list[list[str]]:
    """The cells of each row of every table."""
    found = re.findall(r"<tr>(.*?)</tr>", reply.body.decode(), re.S)
    return [
        [
            " ".join(html.unescape(re.sub(r"<[^>]*>", " ", cell)).split())
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)
        ]
        for row in found
    ]


def row(reply: Reply, name: str) -> list[str]:
    """The one row that begins so."""
    (found,) = [cells for cells in rows(reply) if cells[0].split(" ")[0] == name]
    return found
