"""VERB check: does every neighbour answer?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

from integration.core.activity import doing
from integration.core.errors import IntegrationError, Unavailable
from integration.core.model import Request, Response
from integration.dataverse import requests
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.journal.store import Journal

_PATIENCE = 10.0


async def check(journal: Journal, fhir: FhirServer, dataverse: Dataverse) -> Mapping[str, str]:
    """`ok`, or what is wrong, by neighbour."""
    names = ("storage", "fhir", "dataverse")
    metadata = Request("GET", "metadata", headers={"accept": "application/fhir+json"})
    with doing(action="health"):
        answers = await asyncio.gather(
            _state(journal.page(None, 1, None)),
            _state(_answered(fhir.send(metadata, "health"))),
            _state(_answered(dataverse.send(requests.who_am_i(), "health"))),
        )
    return dict(zip(names, answers, strict=True))


async def _answered(sent: Awaitable[Response]) -> None:
    response = await sent
    if response.status != 200:
        raise Unavailable("service", f"answered {response.status}")


async def _state(work: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(_PATIENCE):
            await work
    except TimeoutError:
        return f"no answer in {_PATIENCE:.0f} s"
    except IntegrationError as error:
        return str(error)
    return "ok"
