"""The feed before a FHIR server that answers as a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx

from integration.core.http import Upstream, build_limiter
from integration.fhir.client import FhirServer
from integration.journal.data_routes import MemoryDataRouteStore
from integration.journal.row_keys import MemoryRowKeys
from tests.virtual_tables.conftest import Feed, made

FHIR = "http://fhir.example"

Script = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


async def _at_once(_: float) -> None:
    """No pause between tries."""


@asynccontextmanager
async def scripted(answer: Script, seconds: float = 25.0) -> AsyncIterator[Feed]:
    seen: list[httpx.Request] = []

    async def hear(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        reported = answer(request)
        return reported if isinstance(reported, httpx.Response) else await reported

    async with httpx.AsyncClient(base_url=FHIR, transport=httpx.MockTransport(hear)) as http:
        fhir = FhirServer(Upstream("FHIR server", FHIR, http, build_limiter(16), pause=_at_once))
        kept, routes = MemoryRowKeys(), MemoryDataRouteStore()
        tables = replace(made(fhir, kept, routes), timeout=seconds)
        yield Feed(tables, http, kept, routes, seen)
