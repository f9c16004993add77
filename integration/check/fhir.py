"""The FHIR server, and the servers of senders."""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import uuid4

from integration.check import remedies, results
from integration.check.connections import Connections
from integration.check.report import Line, failed, ok
from integration.check.runner import attempt, clock_line
from integration.core import decimal_json
from integration.core.activity import add_activity_context
from integration.core.http import Upstream
from integration.core.model import Request, Response

_CHECK = "check"
_JSON = {"accept": "application/fhir+json"}


async def lines(ends: Connections) -> list[Line]:
    role = remedies.fhir_role(ends.settings.client_id)
    tried = partial(attempt, away=remedies.FHIR_AWAY, refused=role)
    return list(
        await asyncio.gather(
            tried("FHIR metadata", _metadata(ends)),
            tried("FHIR read", _read(ends)),
            tried("FHIR write", _write(ends)),
            clock_line(ends, "clock of FHIR", lambda: _nothing(ends)),
        )
    )


async def sources(ends: Connections) -> list[Line]:
    """What it says of itself; a server that has no such page answers all the same."""

    async def asked(name: str, source: Upstream) -> Line:
        answer = await source.send(Request("GET", "metadata", headers=_JSON))
        found = f"answered {answer.status}"
        return failed(name, found, remedies.SOURCE) if answer.status >= 500 else ok(name, found)

    named = {f"source {base}": source for base, source in ends.sources.items()}
    return list(
        await asyncio.gather(
            *(
                attempt(name, asked(name, source), away=remedies.SOURCE, refused=remedies.SOURCE)
                for name, source in named.items()
            )
        )
    )


async def _metadata(ends: Connections) -> Line:
    answer = await _sent(ends, Request("GET", "metadata", headers=_JSON))
    body = decimal_json.decode_object(answer.body)
    return results.capability("FHIR metadata", answer.status, body)


async def _read(ends: Connections) -> Line:
    return results.read("FHIR read", (await _nothing(ends)).status)


async def _nothing(ends: Connections) -> Response:
    """Metadata is open to everybody; a read, even of nothing, is not."""
    return await _sent(ends, Request("GET", f"Patient/{uuid4()}", headers=_JSON))


async def _write(ends: Connections) -> Line:
    """Of a Basic, which nobody mirrors. A server that takes it has it taken away again."""
    identity = str(uuid4())
    body = {"resourceType": "Basic", "id": identity, "code": {"text": "check"}}
    headers = {**_JSON, "content-type": "application/fhir+json", "if-match": 'W/"1"'}
    path = f"Basic/{identity}"
    answer = await _sent(ends, Request("PUT", path, decimal_json.encode(body), headers))
    if answer.status in (200, 201):
        await _sent(ends, Request("DELETE", path, headers=_JSON))
    return results.write("FHIR write", answer.status)


async def _sent(ends: Connections, request: Request) -> Response:
    with add_activity_context(action=_CHECK):
        return await ends.fhir.send(request, _CHECK)
