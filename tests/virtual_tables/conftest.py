"""The feed in this process, before the real FHIR server of a laptop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid5

import httpx
import pytest

from integration.core import decimal_json
from integration.core.http import Upstream, build_limiter
from integration.fhir.client import FhirServer
from integration.journal.audit_entry import Reader
from integration.journal.data_routes import MemoryDataRouteStore
from integration.journal.guard_store import MemoryGuardStore
from integration.journal.row_keys import MemoryRowKeys
from integration.journal.table_keys import make_delivery_id
from integration.journal.write_guard import WriteGuard
from integration.mapping.files import MappedTable
from integration.mapping.load import load_shipped_maps
from integration.mapping.model import Route
from integration.mapping.primary_keys import ServerKeys
from integration.virtual_tables.answer import VirtualTables, answer_request
from integration.virtual_tables.data_routes import DataRoutes
from integration.virtual_tables.entity_type import MappedEntityType, build_entity_type
from integration.virtual_tables.feed_reader import FeedReader
from integration.virtual_tables.odata_request import ODataRequest, ODataResponse
from integration.virtual_tables.row_keys import RowKeyResolver
from integration.virtual_tables.write import FeedWriter
from local.processes import PROJECT
from local.services import find_free_ports, run_services
from tests.audits import make_recorder
from tests.builders import TODAY
from tests.virtual_tables.served import Served, serve_feed

ROOT = "http://feed/api/odata/"
NAMESPACE = UUID(int=7)
TOKEN_KEY = b"seals the skip tokens of a test."

Json = dict[str, Any]

SHAPES: Mapping[str, MappedEntityType] = {
    name: build_entity_type(item)
    for name, item in load_shipped_maps().items()
    if Route.VIRTUAL in item.routes
}
SETS = {item.type.set: item for item in SHAPES.values()}


@dataclass
class Feed:
    """What a test asks, and the FHIR server behind it."""

    tables: VirtualTables
    fhir: httpx.AsyncClient
    row_keys: MemoryRowKeys
    routes: MemoryDataRouteStore
    asked: list[httpx.Request] = field(default_factory=list)  # of the FHIR server
    reader: Reader = field(default_factory=Reader)

    async def ask(self, method: str, path: str, query: str = "", **more: Any) -> ODataResponse:
        body, headers = more.pop("body", None), more
        given_headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            given_headers.setdefault("content-type", "application/json")
        text = decimal_json.encode(body) if body is not None else b""
        asked = ODataRequest(
            method=method,
            root=ROOT,
            path=path,
            query=quote(query, safe="=&$,():@/%'*"),
            headers=given_headers,
            body=text,
        )
        return await answer_request(self.tables, asked, self.reader)

    async def get(self, path: str, query: str = "", **headers: str) -> Any:
        """The answer, decoded."""
        return decimal_json.decode((await self.ask("GET", path, query, **headers)).body)

    async def every(self, path: str, query: str = "", **headers: str) -> list[Json]:
        """All pages."""
        page = await self.get(path, query, **headers)
        rows = list(page["value"])
        while link := page.get("@odata.nextLink"):
            url = httpx.URL(link)
            own_values = url.query.decode()
            path = url.path.removeprefix("/api/odata/")
            asked = ODataRequest(
                method="GET", root=ROOT, path=path, query=own_values, headers=headers
            )
            answer = await answer_request(self.tables, asked, self.reader)
            page = decimal_json.decode(answer.body)
            rows += page["value"]
        return rows

    async def put(self, *resources: Json) -> None:
        """Resources into the FHIR server, some at a time."""
        for start in range(0, len(resources), 100):
            entries = [
                {"resource": item, "request": {"method": "PUT", "url": _url(item)}}
                for item in resources[start : start + 100]
            ]
            bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
            found = (await self.fhir.post("", content=decimal_json.encode(bundle))).json()
            assert "entry" in found, found
            assert all(entry["response"]["status"][0] == "2" for entry in found["entry"]), found

    async def stored(self, name: str) -> Json:
        """Type/id as the FHIR server has it."""
        found: Json = decimal_json.decode((await self.fhir.get(f"/{name}")).content)
        return found


def _url(resource: Json) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


@pytest.fixture(scope="session")
def fhir_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_services(
        find_free_ports(), tmp_path_factory.mktemp("fhir"), parts=("fhir",)
    ) as running:
        yield running.fhir_url


@pytest.fixture
async def feed(fhir_url: str) -> AsyncIterator[Feed]:
    """Before a server that holds nothing yet."""
    seen: list[httpx.Request] = []

    async def see(request: httpx.Request) -> None:
        seen.append(request)

    async with (
        httpx.AsyncClient(event_hooks={"request": [see]}, timeout=60) as asking,
        httpx.AsyncClient(
            base_url=fhir_url, headers={"content-type": "application/fhir+json"}, timeout=60
        ) as writing,
    ):
        await writing.post(fhir_url.removesuffix("/fhir") + "/control/reset")
        fhir = FhirServer(Upstream("FHIR server", fhir_url, asking, build_limiter(16)))
        kept, routes = MemoryRowKeys(), MemoryDataRouteStore()
        yield Feed(made(fhir, kept, routes), writing, kept, routes, seen)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The feed at an address, for clients that others have written."""
    if not (PROJECT / "local/node_modules/azurite").exists():
        pytest.skip("local/node_modules is missing: run make test")
    with serve_feed(tmp_path_factory.mktemp("served")) as it:
        yield it


@pytest.fixture
def observations(served: Served) -> None:
    served.put_observations()


async def get_token_key() -> bytes:
    """The key of every worker of these tests."""
    return TOKEN_KEY


def made(fhir: FhirServer, kept: MemoryRowKeys, routes: MemoryDataRouteStore) -> VirtualTables:
    """The feed of all shipped maps."""
    numbers = count(1)
    runs, tokens = count(1), count(1)
    order = WriteGuard(
        store=MemoryGuardStore(),
        lease=60.0,
        now=lambda: 0.0,
        token=lambda: f"token {next(tokens)}",
        pause=asyncio.sleep,
        jitter=lambda: 0.5,
    )
    tables = {
        name: MappedTable(
            name, item.entity.table, item.type.set, tuple(map(str, item.entity.routes))
        )
        for name, item in SHAPES.items()
    }
    data_routes = DataRoutes(store=routes, tables=tables, is_mirroring=True)
    keys = RowKeyResolver(
        kept,
        lambda type_: type_ not in SHAPES or data_routes.has_had_rows(type_),
        server_keys=ServerKeys(fhir.upstream.base),
    )
    return VirtualTables(
        data_routes=data_routes,
        entity_types=SHAPES,
        reader=FeedReader(fhir, keys, 2000, today=lambda: TODAY, get_token_key=get_token_key),
        writer=FeedWriter(
            fhir=fhir,
            keys=keys,
            guard=order,
            new_run_id=lambda: make_delivery_id(datetime(2026, 3, 1, tzinfo=UTC), next(runs)),
            new_key=lambda: uuid5(NAMESPACE, str(next(numbers))),
            today=lambda: TODAY,
        ),
        audit=make_recorder(),
        max_page_size=250,
        timeout=25.0,
    )
