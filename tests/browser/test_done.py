"""What people do on pages, by keyboard and without scripts. What became of it is asked of the API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio
from azure.data.tables.aio import TableServiceClient
from playwright.async_api import Browser, Page

from integration.core.model import Status
from integration.journal.azure_jobs import TABLE, AzureJobs
from integration.journal.delivery_filter import DeliveryFilter
from integration.journal.jobs import Job, JobFilter, JobKind
from integration.journal.table_keys import build_audit_id
from tests.browser.records import FAMILIES, GIVEN, Served

pytestmark = [
    pytest.mark.browser,
    pytest.mark.live,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

_PATIENCE = 60.0


class Person:
    """Somebody at a keyboard, whose browser runs no scripts."""

    def __init__(self, page: Page, served: Served, http: httpx.AsyncClient) -> None:
        self.page, self.served, self.http = page, served, http

    async def open(self, address: str) -> None:
        url = f"{self.served.route_url}/api/pages/{address.format(**self.served.ids)}"
        reply = await self.page.goto(url)
        assert reply is not None
        assert reply.status == 200, url

    async def press(self, selector: str) -> None:
        """Press Enter on what leads to another page."""
        await self.page.locator(selector).first.focus()
        async with self.page.expect_navigation(timeout=_PATIENCE * 1000) as navigation:
            await self.page.keyboard.press("Enter")
        reply = await navigation.value
        assert reply is not None
        assert reply.status == 200, reply.url

    async def type(self, selector: str, text: str) -> None:
        await self.page.locator(selector).first.focus()
        await self.page.keyboard.type(text)

    async def read(self, selector: str = "main") -> str:
        return " ".join((await self.page.locator(selector).first.inner_text()).split())

    async def ask(self, path: str, **query: str) -> Any:
        answer = await self.http.get(f"{self.served.route_url}/api/{path}", params=query)
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    async def wait(self, path: str, is_there: Callable[[Any], bool], **query: str) -> Any:
        """Ask the API until the answer is as it should be."""
        async with asyncio.timeout(_PATIENCE):
            while not is_there(answer := await self.ask(path, **query)):
                await asyncio.sleep(0.1)
            return answer

    def name_page(self) -> str:
        """Return the path of the page that is open, without its query."""
        return self.page.url.partition("/api/pages/")[2].partition("?")[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def person(served: Served, browser: Browser) -> AsyncIterator[Person]:
    context = await browser.new_context(
        java_script_enabled=False, viewport={"width": 1280, "height": 900}
    )
    context.set_default_timeout(30_000)
    async with httpx.AsyncClient(timeout=60) as http:
        yield Person(await context.new_page(), served, http)
    await context.close()


async def test_a_filter_shows_what_the_api_finds(person: Person) -> None:
    await person.open("deliveries")
    await person.type("#sender", "south")
    await person.press("#sender")
    found = (await person.ask("deliveries", sender="south"))["deliveries"]
    links = await person.page.locator("tbody th a").all()
    shown = [str(await link.get_attribute("href")).rpartition("/")[2] for link in links]
    assert shown == [delivery["id"] for delivery in found]
    assert len(shown) == 1
    assert "sender=south" in person.page.url


async def test_a_replayed_delivery_is_written(person: Person) -> None:
    await person.open("deliveries/{refused}")
    assert "1 of 4 entries refused" in await person.read("#live")
    await person.press("form[action$=replay] button")
    assert person.name_page() == "deliveries/{refused}".format(**person.served.ids)

    def is_written(listed: Any) -> bool:
        delivery = next(one for one in listed["deliveries"] if one["id"] in person.page.url)
        return delivery["status"] == Status.DONE and delivery["refused"] == 0

    await person.wait("deliveries", is_written, sender="north")
    await person.open("deliveries/{refused}")
    assert "done 4 of 4 entries written" in await person.read("#live")


async def test_all_that_match_are_counted_and_replayed_by_a_job(person: Person) -> None:
    await person.open("deliveries")
    await person.page.locator("#status").focus()
    await person.page.keyboard.type("parked")
    await person.type("#sender", "feed")
    await person.press("form.filters button")
    await person.press("a:has-text('Replay')")
    assert await person.read("h1") == "Replay 1 delivery?"
    await person.press("button:has-text('Replay all')")
    assert person.name_page().startswith("jobs/")
    job = await person.wait(person.name_page(), lambda job: job["state"] == "done")
    assert (job["found"], job["done"], job["failed"]) == (1, 1, 0)
    await person.page.reload()
    assert await person.read("h1") == "Replay done"
    assert "1 of 1" in await person.read()


async def test_a_job_is_stopped(person: Person) -> None:
    job = await leave_job(person.served)
    await person.open(f"jobs/{job}")
    assert await person.read("h1") == "Cancel running"
    await person.press("button:has-text('Stop it')")
    assert (await person.ask(f"jobs/{job}"))["state"] in ("stopping", "stopped")
    assert (await person.read("h1")).removeprefix("Cancel ") in ("stopping", "stopped")


async def test_a_patient_is_found_by_an_identifier_that_no_address_has(person: Person) -> None:
    id_ = person.served.ids["patient"]
    patient = (await person.http.get(f"{person.served.fhir_url}/Patient/{id_}")).json()
    identifier = patient["identifier"][0]
    await person.open("patients")
    await person.type("#system", identifier["system"])
    await person.type("#identifier", identifier["value"])
    await person.press("#identifier")
    assert person.name_page() == f"patients/{id_}"
    assert identifier["value"] not in person.page.url
    assert f"{GIVEN} {FAMILIES[0]}" in await person.read("h1")
    looks = (await person.ask("audit", resource=f"Patient/{id_}", kind="patient"))["audit"]
    assert {look["user"] for look in looks} == {"laptop"}


async def test_a_map_is_tried_with_a_resource_of_the_server(person: Person) -> None:
    id_ = person.served.ids["patient"]
    await person.open("maps/Patient")
    await person.page.locator("summary:has-text('Try a resource')").focus()
    await person.page.keyboard.press("Enter")
    await person.type("#id", id_)
    await person.press("#id")
    assert "The row that would result" in await person.read()
    assert FAMILIES[0] in await person.read()
    tried = (await person.ask("audit", kind="map-trial"))["audit"]
    assert [entry["resources"] for entry in tried] == [[f"Patient/{id_}"]]


async def test_a_data_route_is_switched_after_a_question(person: Person) -> None:
    await person.open("data-routes")
    await person.press("a[href*='data-routes/Observation']")
    assert await person.read("h1") == "Switch Observation to dataverse?"
    await person.press("button:has-text('Switch to dataverse')")
    assert "Observation has the route dataverse now" in await person.read()
    routes = {item["resource"]: item for item in (await person.ask("data-routes"))["routes"]}
    assert routes["Observation"]["route"] == "dataverse"
    assert routes["Observation"]["changedBy"] == "laptop"


async def test_a_map_is_changed_published_and_taken_back(person: Person) -> None:
    await person.open("configuration")
    await person.press("a[href*='document=maps%2Forganization.toml']")
    text = await person.page.locator("#text").input_value()
    await person.page.locator("#text").fill(f"{text}\n# A comment of ours.\n[rest")
    await person.press("button[value='check']")
    assert "not valid TOML" in await person.read("#checked")
    await person.page.locator("#text").fill(f"{text}\n# A comment of ours.\n")
    await person.press("button[value='save']")
    assert "can be published" in await person.read("h1")
    await person.type("#why", "a comment")
    await person.press("button[value='publish']")
    version = (await person.ask("configuration"))["history"][0]
    assert (version["why"], version["published_by"]) == ("a comment", "laptop")
    assert f"Version {version['version']}" in await person.read("h1")
    await person.open(f"configuration/versions/{version['version'] - 1}")
    await person.type("#why", "not needed")
    await person.press("button[value='restore']")
    back = (await person.ask("configuration"))["history"][0]
    assert back["restores"] == version["version"] - 1


async def leave_job(served: Served) -> str:
    """Leave a job that no worker has begun: its work item was lost."""
    started = datetime.now(UTC)
    criteria = DeliveryFilter(status=Status.PARKED, sender="nobody")
    job = Job(
        id=build_audit_id(started, "1" * 16),
        kind=JobKind.CANCEL,
        filter=JobFilter(criteria=criteria),
        started=started,
    )
    async with TableServiceClient.from_connection_string(served.storage) as tables:
        await AzureJobs(tables.get_table_client(TABLE)).add_job(job)
    return job.id
