"""Pages of a route with doubles at both ends: people with roles ask for them and send forms, and
tests read what is shown."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from html import unescape
from itertools import count
from typing import Any
from urllib.parse import urlencode

import msgspec

from integration.core.byte_budget import ByteBudget
from integration.core.cron import parse
from integration.core.flow_recorder import FlowRecorder
from integration.intake.identify import Identification
from integration.intake.quotas import Quotas
from integration.journal.data_routes import MemoryDataRouteStore
from integration.journal.flow_log import LiveFlow, MemoryFlowLog
from integration.journal.housekeeping_runs import MemoryHousekeepingRuns
from integration.journal.jobs import MemoryJobs
from integration.journal.table_keys import make_delivery_id
from integration.mapping import files, load
from integration.mapping.files import MapFile
from integration.operations.deliveries import ReplayTerms
from integration.operations.jobs import JobParts
from integration.operations.status import StatusCheck
from integration.pages.answer import answer_page
from integration.pages.http import PageRequest, Reply
from integration.pages.parts import AppFacts, MapSources, PagesParts, PatientParts
from integration.pages.people import Role, SignIn
from integration.queues.queue_reader import MemoryQueueReader
from integration.virtual_tables.data_routes import DataRoutes
from tests.audits import make_recorder
from tests.configured import build_parts as build_configuration
from tests.conftest import Route, patients_followed

SITE = "https://relay.example"
DATAVERSE = "https://organization.example"
NAME = "ada@hospital.example"
TOKEN = "made-up-token-of-a-form"
EVERY_ROLE = tuple(Role)

ROLE_CLAIM = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"

EASY_AUTH = SignIn(easy_auth=True, is_open=False)
LAPTOP = SignIn(easy_auth=False, is_open=True)
CLOSED = SignIn(easy_auth=False, is_open=False)

# Reading and compiling them takes long, and nothing changes them.
_EVERY_MAP = tuple(files.read_map_files("healthcare"))
_load_every_map = cache(partial(load.build_maps, _EVERY_MAP))

# --- what pages are made from ---------------------------------------------------------------------


def make_parts(
    route: Route, *, map_files: Sequence[MapFile] = _EVERY_MAP, **changes: Any
) -> PagesParts:
    """Build what pages are made from. `map_files`: the maps, or else those that an app has by
    default; `status`, `patients`: changes of the status check, and of the part of that name."""
    numbers = count(1000)
    queue = changes.pop("queue", route.queue_sender)
    flow = changes.pop("flow", LiveFlow(MemoryFlowLog(), route.flow))
    journal = changes.pop("journal", route.journal)
    status: dict[str, Any] = {
        "journal": journal,
        "queue_reader": MemoryQueueReader(),
        "activity": route.activity,
        "runs": MemoryHousekeepingRuns(),
        "flow": flow,
        "queues": ("relay", "mirror"),
        "senders": (),
        "sender_problems": {},
        "schedule": parse("0 */10 * * * *"),
        "started": route.clock(),
        "now": route.clock,
        **changes.pop("status", {}),
    }
    patients: dict[str, Any] = {
        "fhir": route.fhir,
        "queue": queue,
        "row_keys": route.row_keys,
        "change_queues": patients_followed,
        "load_mirror": lambda: route.mirror,
        "new_id": lambda now: make_delivery_id(now, next(numbers)),
        **changes.pop("patients", {}),
    }
    given: dict[str, Any] = {
        "sign_in": EASY_AUTH,
        "journal": journal,
        "audit": make_recorder(route.audit, now=route.clock),
        "activity": route.activity,
        "queue": queue,
        "intake": route.intake,
        "replay_terms": ReplayTerms(),
        "status_check": StatusCheck(**status),
        "jobs": JobParts(
            jobs=MemoryJobs(),
            journal=journal,
            queue=queue,
            now=route.clock,
            new_token=lambda: f"{next(numbers):016x}",
        ),
        "configuration": build_configuration(route),
        "flow": flow,
        "budget": ByteBudget(),
        "dataverse_url": DATAVERSE,
        "fhir": route.fhir,
        "dataverse": route.dataverse,
        "data_routes": make_data_routes(route, map_files),
        "maps": MapSources(
            files=map_files,
            load=_load_every_map
            if map_files is _EVERY_MAP
            else cache(partial(load.build_maps, map_files)),
            on_delete="deactivate",
        ),
        "app": AppFacts(version="1.2.3", started=route.clock(), settings=(), renamed=()),
        "now": route.clock,
        "new_token": lambda: TOKEN,
        "identification": make_identification(route),
        "public_url": SITE,
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


def make_data_routes(route: Route, map_files: Sequence[MapFile]) -> DataRoutes:
    return DataRoutes(
        store=MemoryDataRouteStore(),
        tables=files.list_tables(map_files),
        is_mirroring=True,
        clock=lambda: route.clock().timestamp(),
        pause=route.wait,
        now=route.clock,
    )


def count_flow(route: Route) -> FlowRecorder:
    """Have the route count what passes it from here on, as a worker does."""

    async def store(_: object) -> None:
        raise AssertionError("nothing is stored: the pages read what this worker has counted")

    route.flow = FlowRecorder(store=store, worker="a", now=route.clock, call_later=lambda *_: None)
    return route.flow


# --- requests -------------------------------------------------------------------------------------


def build_principal(*roles: str, name: str = NAME, **changes: Any) -> str:
    """The header of somebody who is signed in, as the platform writes it."""
    claims = [{"typ": "preferred_username", "val": name}]
    claims += [{"typ": "roles", "val": role} for role in roles]
    principal = {"auth_typ": "aad", "claims": claims, "role_typ": "roles", **changes}
    return b64encode(msgspec.json.encode(principal)).decode()


def build_request(
    path: str = "",
    *,
    roles: Collection[str] | None = ("reader",),
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


def build_form(path: str, body: str | bytes = f"token={TOKEN}", **changes: Any) -> PageRequest:
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


# --- people, and what they read -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """What was answered."""

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
        return _read(re.sub(r"(?s)<head>.*?</head>", "", self.html))

    @property
    def links(self) -> list[str]:
        """Where links and forms lead."""
        return [unescape(found) for found in re.findall(r'(?:href|action)="([^"]*)"', self.html)]

    @property
    def location(self) -> str:
        """The page that the browser is sent to after a form, as `get` takes it."""
        return self.reply.headers["Location"].removeprefix("/api/pages/")

    @property
    def rows(self) -> list[list[str]]:
        """The cells of each row of every table."""
        found = re.findall(r"<tr>(.*?)</tr>", self.html, re.S)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in found]
        return [[_read(cell) for cell in row] for row in cells]

    def row(self, name: str) -> list[str]:
        """The one row that begins so."""
        (found,) = [cells for cells in self.rows if cells[0].split(" ")[0] == name]
        return found


def _read(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who is signed in with these roles, and who has a page with a form open. `asked`:
    what was asked for."""

    parts: PagesParts
    roles: Collection[str] = EVERY_ROLE
    asked: list[PageRequest] = field(default_factory=list)

    async def get(self, path: str, **fields: str) -> Shown:
        """Ask for a page. Its query: in the path, or by its fields."""
        path, _, query = path.removeprefix("/api/pages/").partition("?")
        query = "&".join(filter(None, (query, urlencode(fields))))
        return await self.ask(build_request(path, query=query, roles=self.roles))

    async def post(self, path: str, **fields: str) -> Shown:
        """Send a form, with its token unless there is another one among the fields."""
        body = urlencode({"token": TOKEN, **fields})
        path = path.removeprefix("/api/pages/")
        return await self.ask(build_form(path, body, roles=self.roles))

    async def ask(self, request: PageRequest) -> Shown:
        self.asked.append(request)
        return Shown(await answer_page(self.parts, request))

    def with_roles(self, *roles: str) -> Visitor:
        return replace(self, roles=roles)

    def with_parts(self, **changes: Any) -> Visitor:
        return replace(self, parts=replace(self.parts, **changes))


def visit(route: Route, *roles: str, **changes: Any) -> Visitor:
    """Somebody with these roles who visits the pages of a route. `changes`: see make_parts."""
    return Visitor(make_parts(route, **changes), roles)
