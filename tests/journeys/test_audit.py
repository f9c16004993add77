"""Somebody asks later who has seen a patient: every way to see one has left its entry."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from azure.data.tables.aio import TableServiceClient

from integration.fhir.validation import find_issues
from integration.journal.azure_audit import TABLE
from tests.journeys.route import Route, bundle, connected, entry, locations, observation, patient

pytestmark = [pytest.mark.live, pytest.mark.azurite]


async def audited(route: Route, **params: str) -> list[dict[str, Any]]:
    """All pages, two entries each."""
    found: list[dict[str, Any]] = []
    address: str | None = f"{route.host.url}/api/audit"
    asked: dict[str, str] | None = {**params, "_count": "2"}
    while address:
        answer = await route.http.get(address, params=asked)
        assert answer.status_code == 200, answer.text
        found += answer.json()["audit"]
        address, asked = answer.json().get("next"), None
    return found


async def test_whoever_was_shown_a_patient_is_found_and_no_value_is_kept(route: Route) -> None:
    name, key = f"Audited-{uuid4()}", str(uuid4())
    accepted = await route.send(connected(name, 3))
    delivery = accepted.headers["content-location"].rpartition("/")[2]
    written = locations(await route.arrive(accepted))
    subject = next(name for name in written if name.startswith("Patient/"))
    measured = {**observation(subject), "id": key, "code": {"text": name}}
    await route.deliver(bundle("batch", entry(measured, method="PUT")))
    feed = f"{route.host.url}/api/odata/msemr_observations"
    row = await route.http.get(f"{feed}({key})")
    listed = await route.http.get(feed, params={"$filter": f"msemr_codetext eq '{name}'"})
    planned = await route.send(bundle("batch", entry(measured, method="PUT")), "?dry-run=true")
    assert [row.status_code, listed.status_code, planned.status_code] == [200] * 3
    assert [each["msemr_codetext"] for each in listed.json()["value"]] == [name]

    (answer,) = await audited(route, delivery=delivery)
    assert answer["kind"] == "delivery-answer"
    assert answer["resources"] == written
    assert [each["id"] for each in await audited(route, resource=written[0])] == [answer["id"]]
    seen = await audited(route, resource=f"Observation/{key}")
    assert [each["kind"] for each in seen] == ["dry-run", "rows", "row", "delivery-answer"]
    assert await audited(route, resource=f"Observation/{key}", kind="row") == [seen[2]]
    assert await audited(route, resource=f"Observation/{key}", until=answer["time"]) == []

    params = {"resource": f"Observation/{key}", "_format": "application/fhir+ndjson"}
    exported = await route.http.get(f"{route.host.url}/api/audit", params=params)
    events = [json.loads(line) for line in exported.text.splitlines()]
    assert [event["id"] for event in events] == [each["id"] for each in seen]
    assert [issue for event in events for issue in find_issues(event, "AuditEvent")] == []

    async with TableServiceClient.from_connection_string(route.running.storage) as tables:
        rows = [dict(each) async for each in tables.get_table_client(TABLE).list_entities()]
    assert len(rows) >= 5
    kept = repr(rows)
    for value in (name, patient(name)["birthDate"], "Ada", "codetext", "29463-7"):
        assert value not in kept
