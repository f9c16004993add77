"""Check the FHIR server, and the servers of senders that deliveries are fetched from."""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import uuid4

from integration.check import remedies, results
from integration.check.connections import Connections
from integration.check.report import CheckResult, report_failure, report_ok
from integration.check.runner import check_clock, run_check
from integration.core import decimal_json
from integration.core.activity_recorder import add_activity_context
from integration.core.http import Upstream
from integration.core.model import Request, Response

_CHECK = "check"
_JSON = {"accept": "application/fhir+json"}


async def check_fhir(connections: Connections) -> list[CheckResult]:
    role = remedies.suggest_fhir_role(connections.settings.client_id)
    run = partial(run_check, if_unreachable=remedies.FHIR_UNREACHABLE, if_refused=role)
    return list(
        await asyncio.gather(
            run("FHIR metadata", _check_metadata(connections)),
            run("FHIR read", _check_read(connections)),
            run("FHIR write", _check_write(connections)),
            check_clock(connections, "clock of FHIR", lambda: _read_missing_patient(connections)),
        )
    )


async def check_sources(connections: Connections) -> list[CheckResult]:
    """Ask each for its metadata. Any answer below 500 will do: not every server has the page."""

    async def check_source(name: str, source: Upstream) -> CheckResult:
        response = await source.send(Request("GET", "metadata", headers=_JSON))
        found = f"answered {response.status}"
        return (
            report_failure(name, found, remedies.SOURCE)
            if response.status >= 500
            else report_ok(name, found)
        )

    named = {f"source {base}": source for base, source in connections.sources.items()}
    return list(
        await asyncio.gather(
            *(
                run_check(
                    name,
                    check_source(name, source),
                    if_unreachable=remedies.SOURCE,
                    if_refused=remedies.SOURCE,
                )
                for name, source in named.items()
            )
        )
    )


async def _check_metadata(connections: Connections) -> CheckResult:
    answer = await _send(connections, Request("GET", "metadata", headers=_JSON))
    body = decimal_json.decode_object(answer.body)
    return results.evaluate_metadata("FHIR metadata", answer.status, body)


async def _check_read(connections: Connections) -> CheckResult:
    return results.evaluate_read("FHIR read", (await _read_missing_patient(connections)).status)


async def _read_missing_patient(connections: Connections) -> Response:
    """Read a patient that does not exist. Unlike metadata, a read needs a token."""
    return await _send(connections, Request("GET", f"Patient/{uuid4()}", headers=_JSON))


async def _check_write(connections: Connections) -> CheckResult:
    """Try to update a Basic, which is never mirrored. If the server accepts it, delete it again."""
    identity = str(uuid4())
    body = {"resourceType": "Basic", "id": identity, "code": {"text": "check"}}
    headers = {**_JSON, "content-type": "application/fhir+json", "if-match": 'W/"1"'}
    path = f"Basic/{identity}"
    answer = await _send(connections, Request("PUT", path, decimal_json.encode(body), headers))
    if answer.status in (200, 201):
        await _send(connections, Request("DELETE", path, headers=_JSON))
    return results.evaluate_write("FHIR write", answer.status)


async def _send(connections: Connections, request: Request) -> Response:
    with add_activity_context(action=_CHECK):
        return await connections.fhir.send(request, _CHECK)
