"""The story of a chart: what passed is counted by the hour, as is who was refused."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import uuid4

import pytest

from tests.journeys.route import PATIENCE, Route, bundle, entry, locations, patient

pytestmark = [pytest.mark.live, pytest.mark.azurite]


async def flow_of(route: Route, sender: str | None) -> dict[str, Any]:
    """The counts of one sender; it has none of what was never counted."""
    answer = await route.http.get(f"{route.host.url}/api/flow", params={"hours": "2"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert len(found["hours"]) == 2
    of_sender = [each for each in found["senders"] if each.get("sender", "") == sender]
    return of_sender[0] if of_sender else {}


def grown(before: dict[str, Any], after: dict[str, Any], *names: str) -> list[int]:
    return [after.get(name, 0) - before.get(name, 0) for name in names]


async def test_a_delivery_is_counted_with_its_entries_and_rows(route: Route) -> None:
    before = await flow_of(route, "default")
    name, wrong = f"Flow-{uuid4()}", {"resourceType": "Patient", "birthDate": "soon"}
    entries = await route.deliver(
        bundle("batch", entry(patient(name)), entry(patient(name)), entry(wrong))
    )
    written = [each for each in entries if each["response"]["status"].startswith("201")]
    for location in locations(written):
        await route.contact(location.removeprefix("Patient/"))

    names = ("accepted", "written", "refused", "rows_created")
    wanted = [1, len(written), 3 - len(written), len(written)]
    until = time.monotonic() + PATIENCE
    while grown(before, after := await flow_of(route, "default"), *names) != wanted:
        assert time.monotonic() < until, after
        await asyncio.sleep(0.1)  # the row is there a moment before its result is recorded
    assert after["last_seen"]
    answer = await route.http.get(f"{route.host.url}/api/flow")
    assert name not in answer.text


async def test_who_is_not_proven_is_counted_for_the_address(route: Route) -> None:
    before = await flow_of(route, "north"), await flow_of(route, None)
    for sender in ("north", f"nobody-{uuid4()}"):
        answer = await route.http.post(f"{route.host.url}/api/senders/{sender}/fhir", content=b"{}")
        assert answer.status_code == 401
    after = await flow_of(route, "north"), await flow_of(route, None)
    assert grown(before[0], after[0], "unproven", "accepted") == [1, 0]
    assert grown(before[1], after[1], "unproven", "accepted") == [1, 0]
    status = (await route.http.get(f"{route.host.url}/api/status")).json()
    assert "requests" in status["refused"]
