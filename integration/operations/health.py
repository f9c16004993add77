"""VERB check_upstreams: whether storage, the FHIR server and Dataverse answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

from integration.core.activity import add_activity_context
from integration.core.errors import IntegrationError, Unavailable
from integration.core.model import Request, Response
from integration.dataverse import requests
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.journal.store import Journal

_TIMEOUT = 10.0  # seconds


async def check_upstreams(
    journal: Journal, fhir: FhirServer, dataverse: Dataverse
) -> Mapping[str, str]:
    """Return `ok` or what is wrong, by name: storage, fhir and dataverse."""
    names = ("storage", "fhir", "dataverse")
    metadata = Request("GET", "metadata", headers={"accept": "application/fhir+json"})
    with add_activity_context(action="health"):
        states = await asyncio.gather(
            _describe_state(journal.list_deliveries(None, 1, None)),
            _describe_state(_ensure_ok(fhir.send(metadata, "health"))),
            _describe_state(_ensure_ok(dataverse.send(requests.build_who_am_i(), "health"))),
        )
    return dict(zip(names, states, strict=True))


async def _ensure_ok(request: Awaitable[Response]) -> None:
    response = await request
    if response.status != 200:
        raise Unavailable("service", f"answered {response.status}")


async def _describe_state(work: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(_TIMEOUT):
            await work
    except TimeoutError:
        return f"no answer in {_TIMEOUT:.0f} s"
    except IntegrationError as error:
        return str(error)
    return "ok"
