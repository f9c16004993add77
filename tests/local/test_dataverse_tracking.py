"""The stand-in tracks changes and sends webhooks as Dataverse does, with their limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from local.dataverse import tables
from local.dataverse.app import create_app
from local.dataverse.organization import NURSE_USER
from local.dataverse.rows import Store
from local.dataverse.webhooks import MAX_BYTES, Webhook, Webhooks
from local.dataverse.world import World

ANNA, BEN = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11", "2b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d12"
TRACKED = {"prefer": "odata.track-changes"}
SELECT = "contacts?$select=lastname"


class Organisation:
    def __init__(self) -> None:
        self.now = datetime(2026, 3, 2, tzinfo=UTC)
        self.app = create_app(now=lambda: self.now)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app),
            base_url="http://dataverse/api/data/v9.2/",
        )

    async def write(self, key: str, **columns: Any) -> None:
        answer = await self.http.patch(f"contacts({key})", json=columns)
        assert answer.status_code == 204, answer.text

    async def read(self, path: str, **headers: str) -> dict[str, Any]:
        answer = await self.http.get(path, headers={**TRACKED, **headers})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
async def organisation() -> AsyncIterator[Organisation]:
    found = Organisation()
    yield found
    await found.http.aclose()
    found.app.close()


async def test_the_first_request_returns_every_row_and_the_link_what_comes_later(
    organisation: Organisation,
) -> None:
    await organisation.write(ANNA, lastname="A")
    first = await organisation.read(SELECT)
    assert [row["lastname"] for row in first["value"]] == ["A"]
    assert first["@odata.context"].endswith("/$delta")
    await organisation.write(BEN, lastname="B")
    later = await organisation.read(first["@odata.deltaLink"])
    assert [row["lastname"] for row in later["value"]] == ["B"]
    assert (await organisation.read(later["@odata.deltaLink"]))["value"] == []


async def test_a_deleted_row_is_told_by_its_key(organisation: Organisation) -> None:
    await organisation.write(ANNA, lastname="A")
    first = await organisation.read(SELECT)
    await organisation.http.delete(f"contacts({ANNA})")
    (gone,) = (await organisation.read(first["@odata.deltaLink"]))["value"]
    assert (gone["id"], gone["reason"]) == (ANNA, "deleted")
    assert gone["@odata.context"].endswith("/$deletedEntity")


async def test_pages_are_in_the_order_of_versions(organisation: Organisation) -> None:
    for key in (ANNA, BEN):
        await organisation.write(key, lastname="x")
    await organisation.write(ANNA, lastname="last")
    sized = {"prefer": "odata.track-changes,odata.maxpagesize=1"}
    page = await organisation.read(SELECT, **sized)
    assert [row["contactid"] for row in page["value"]] == [BEN]
    assert "@odata.deltaLink" not in page
    page = await organisation.read(page["@odata.nextLink"], **sized)
    assert [row["contactid"] for row in page["value"]] == [ANNA]
    assert "@odata.deltaLink" in page


@pytest.mark.parametrize("option", ["$filter=lastname eq 'x'", "$orderby=lastname", "$top=1"])
async def test_what_change_tracking_does_not_take_is_refused(
    organisation: Organisation, option: str
) -> None:
    answer = await organisation.http.get(f"{SELECT}&{option}", headers=TRACKED)
    assert answer.status_code == 400


async def test_a_table_that_is_not_tracked_is_refused(organisation: Organisation) -> None:
    answer = await organisation.http.get("msemr_contactlinks", headers=TRACKED)
    assert answer.status_code == 400


async def test_a_link_is_good_for_seven_days(organisation: Organisation) -> None:
    link = (await organisation.read(SELECT))["@odata.deltaLink"]
    organisation.now += timedelta(days=6)
    await organisation.read(link)
    organisation.now += timedelta(days=2)
    answer = await organisation.http.get(link)
    assert answer.json()["error"]["code"] == "0x80044352"


async def test_with_annotations_the_last_page_lacks_its_link(organisation: Organisation) -> None:
    wanted = 'odata.track-changes,odata.include-annotations="*"'
    assert "@odata.deltaLink" not in await organisation.read(SELECT, prefer=wanted)


# -- webhooks ---------------------------------------------------------------------------------------


class Bell:
    """An address that is told."""

    def __init__(self, *statuses: int) -> None:
        self.statuses, self.messages = [*statuses], list[dict[str, Any]]()

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.messages.append(json.loads(request.content))
        return httpx.Response(self.statuses.pop(0) if self.statuses else 202)


async def ring(bell: Bell, row: dict[str, Any]) -> Webhooks:
    world = World(
        catalog=tables.load(),
        store=Store(":memory:"),
        now=lambda: datetime(2026, 3, 2, tzinfo=UTC),
        new_id=lambda: BEN,
    )
    world.store.put(world.catalog.by_name["contact"], ANNA, row, "update")
    hooks = Webhooks(httpx.MockTransport(bell.answer), [Webhook(url="http://x", table="contact")])
    write = {"table": "contact", "method": "PATCH", "id": ANNA, "created": False}
    hooks.tell(world, [{**write, "caller": NURSE_USER}])
    for _ in range(200):
        await asyncio.sleep(0)
    world.store.close()
    return hooks


async def test_a_message_names_the_row_and_who_wrote_it() -> None:
    bell = Bell()
    await ring(bell, {"lastname": "A"})
    (message,) = bell.messages
    assert (message["PrimaryEntityName"], message["PrimaryEntityId"]) == ("contact", ANNA)
    assert message["InitiatingUserId"] == NURSE_USER


@pytest.mark.parametrize(
    ("statuses", "tries"), [([503, 503], 2), ([502, 202], 2), ([500], 1), ([429], 1)]
)
async def test_a_message_is_tried_once_more_after_some_answers_alone(
    statuses: list[int], tries: int
) -> None:
    bell = Bell(*statuses)
    hooks = await ring(bell, {"lastname": "A"})
    assert list(hooks.outcomes) == statuses
    assert len(bell.messages) == tries


async def test_a_large_message_loses_its_values() -> None:
    bell = Bell()
    await ring(bell, {"description": "x" * MAX_BYTES})
    await ring(bell, {"description": "x"})
    assert ["InputParameters" in message for message in bell.messages] == [False, True]
