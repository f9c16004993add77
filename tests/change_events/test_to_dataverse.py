"""Each state of a resource in a virtual table is reported to Dataverse once, without values."""

from __future__ import annotations

import argparse
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest

from integration.change_events.to_dataverse import (
    ExternalEvents,
    drop_notification,
    list_virtual_tables,
    notify_dataverse,
)
from integration.core.http import Upstream, build_limiter
from integration.core.model import Category, WorkItem
from integration.core.state_version import StateVersion
from integration.dataverse.client import Dataverse
from integration.mapping import files
from integration.mapping.primary_keys import derive_primary_key
from integration.provision import command
from integration.queues.names import EXTERNAL_QUEUE
from integration.virtual_tables.row_keys import RowKeyResolver
from tests.builders import MARKER, Body, observation
from tests.conftest import Route, told_by
from tests.doubles import DataverseDouble

WEIGHT = "6f1d0a1e-5b7e-4f0e-8a0b-0a1b2c3d4e5f"
OTHER_KEY = "6f1d0a1e-5b7e-4f0e-8a0b-0a1b2c3d4e60"
RESOURCE = f"Observation/{WEIGHT}"
DELIVERY = "019caaee-c260-7000-8000-000000000001"
LATER = "019caaee-c260-7000-8000-000000000002"

# One virtual table is as good as twenty.
MAP = """
resource = "Observation"

[row]
table = "msemr_observation"
entity_set = "msemr_observations"
key = "msemr_observationid"
id_column = "msemr_azurefhirid"
version_column = "msemr_azurefhirversion"
updated_column = "msemr_azurefhirlastupdatedon"
routes = ["virtual"]
name_column = "msemr_description"

[[attribute]]
column = "msemr_description"
path = "code.text"
"""

SETTINGS = {
    "MAP_SET": "plain",
    "MAP_PREFIX": "abc",
    "FEED_URL": "https://app.example.org/api/odata/",
    "FEED_KEY": "feed key",
    "EXTERNAL_EVENTS": "Observation",
    "AZURE_CLIENT_ID": "5f1c2f0e-7a4b-4c0e-9d55-0a1b2c3d4e77",
}


@dataclass
class Flows:
    """What notifies Dataverse, and what Dataverse has received."""

    route: Route
    prefix: str = "abc"
    before: int = 0  # reported by earlier tests

    @property
    def external(self) -> ExternalEvents:
        route, known = (
            self.route,
            files.list_tables([files.parse_map_file("observation.toml", MAP)]),
        )
        return ExternalEvents(
            queue=route.queue_sender,
            fhir=route.fhir,
            dataverse=route.dataverse,
            guard=route.order,
            tables=list_virtual_tables(known, self.prefix),
            find_key=self.find_key,
            now=route.clock,
            max_age=route.max_age,
            activities=route.activities,
        )

    async def find_key(self, resource: str) -> str:
        resolver = RowKeyResolver(self.route.row_keys, lambda _: True)
        return str((await resolver.resolve_keys([resource]))[resource])

    def write(self, id_: str = WEIGHT, **elements: Any) -> str:
        return self.route.fhir_double.add(observation(id=id_, **elements))

    async def tell(self, resource: str = RESOURCE, delivery: str = DELIVERY, **claim: Any) -> None:
        """Say of a first version that it was created, as the relay and the events do."""
        claim = {"is_create": self.route.fhir_double.versions.get(resource) == 1, **claim}
        await notify_dataverse(self.external, WorkItem(delivery, resource=resource, **claim))

    async def received(self) -> list[Body]:
        transport = httpx.ASGITransport(app=self.route.dataverse_double.app)
        async with httpx.AsyncClient(transport=transport) as http:
            found: list[Body] = (await http.get("http://dataverse/control/events")).json()
        return found[self.before :]

    async def actions(self) -> list[str]:
        """The last word of each."""
        return [event["action"].removeprefix("OnExternal") for event in await self.received()]

    @property
    def requeued(self) -> list[tuple[WorkItem, float]]:
        return self.route.queued(EXTERNAL_QUEUE)


@pytest.fixture(scope="module")
def dataverse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataverseDouble]:
    """Set up by `python -m integration provision`, with events of the virtual table."""
    found, maps = DataverseDouble(), tmp_path_factory.mktemp("maps")
    for path in (files.MAPS_FOLDER / files.CLINICAL_SET).glob("*.toml"):
        (maps / path.name).write_text(f"enabled = false\n{path.read_text('utf-8')}", "utf-8")
    (maps / "observation.toml").write_text(MAP, "utf-8")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Dataverse]:
        transport = httpx.ASGITransport(app=found.app)
        async with httpx.AsyncClient(transport=transport) as http:
            yield Dataverse(Upstream("Dataverse", "http://dataverse", http, build_limiter(4)))

    parser = argparse.ArgumentParser()
    command.add_options(parser)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as env:
        for name, value in {**SETTINGS, "MAPS": str(maps)}.items():
            env.setenv(name, value)
        assert command.run(parser.parse_args([]), said.append, opened, lambda _: "") == 0, said
    yield found
    found.app.close()


@pytest.fixture
async def flows(route: Route) -> Flows:
    route.dataverse_double.received.clear()
    made = Flows(route)
    made.before = len(await made.received())
    return made


# --- each change, once ----------------------------------------------------------------------------


async def test_a_create_an_update_and_a_delete_are_reported_as_such(flows: Flows) -> None:
    flows.write()
    await flows.tell()
    flows.write(status="amended")
    await flows.tell()
    flows.route.fhir_double.delete(RESOURCE)
    await flows.tell()
    assert await flows.actions() == ["Created", "Updated", "Deleted"]
    assert {event["id"] for event in await flows.received()} == {WEIGHT}
    assert {event["table"] for event in await flows.received()} == {"abc_ve_observation"}
    assert flows.requeued == []


async def test_the_key_is_that_of_the_row_in_the_feed(flows: Flows) -> None:
    await flows.tell(flows.write("weight.1"))
    (found,) = await flows.received()
    assert found["id"] == derive_primary_key("Observation", "weight.1")


async def test_the_key_is_that_of_a_row_which_another_app_has_made(flows: Flows) -> None:
    await flows.route.row_keys.add("Observation", {WEIGHT: OTHER_KEY})
    flows.write()
    await flows.tell()
    (found,) = await flows.received()
    assert found["id"] == OTHER_KEY


async def test_repeated_work_items_report_nothing_again(flows: Flows) -> None:
    flows.write()
    for delivery in (DELIVERY, DELIVERY, LATER):
        await flows.tell(delivery=delivery)
    assert await flows.actions() == ["Created"]
    flows.route.fhir_double.delete(RESOURCE)
    for _ in range(2):
        await flows.tell()
    assert await flows.actions() == ["Created", "Deleted"]


async def test_work_items_in_any_order_report_the_current_state(flows: Flows) -> None:
    flows.write()
    await flows.tell()
    flows.write()
    flows.write()
    await flows.tell(delivery=LATER)  # of the last
    await flows.tell()  # of the one before
    assert await flows.actions() == ["Created", "Updated"]


async def test_a_resource_that_is_written_after_its_deletion_is_reported_as_created(
    flows: Flows,
) -> None:
    flows.write()
    await flows.tell()
    flows.route.fhir_double.delete(RESOURCE)
    await flows.tell()
    flows.write()
    await flows.tell()
    assert await flows.actions() == ["Created", "Deleted", "Created"]


async def test_a_resource_that_existed_before_the_first_report_is_reported_as_updated(
    flows: Flows,
) -> None:
    flows.write()
    flows.write()
    await flows.tell()
    assert await flows.actions() == ["Updated"]


async def test_what_is_not_remembered_is_reported_as_updated_unless_it_was_created_just_now(
    flows: Flows,
) -> None:
    """A repeat that changes nothing, after the row of its lock was deleted."""
    flows.write()
    await flows.tell()
    flows.route.guard_store.locks.clear()
    await flows.tell(delivery=LATER, is_create=False)
    assert await flows.actions() == ["Created", "Updated"]


async def test_a_resource_that_begins_again_after_a_deletion_for_good_is_reported(
    flows: Flows,
) -> None:
    """Its version is 1 once more, and its content another."""
    flows.write()
    await flows.tell()
    flows.route.fhir_double.forget(RESOURCE)
    flows.route.clock.later(60)
    flows.write(status="amended")
    await flows.tell(delivery=LATER, is_create=False)
    assert await flows.actions() == ["Created", "Updated"]


async def test_a_read_from_a_copy_that_lags_is_made_again(flows: Flows) -> None:
    flows.write()
    await flows.tell()
    old = flows.route.fhir_double.stored[RESOURCE]
    flows.write(status="amended")
    flows.route.fhir_double.will_answer(200, old)
    await flows.tell(delivery=LATER, version=StateVersion(id="2"))
    assert await flows.actions() == ["Created"]
    ((item, delay),) = flows.requeued
    assert delay == 2
    await notify_dataverse(flows.external, item)
    assert await flows.actions() == ["Created", "Updated"]


async def test_a_404_that_is_not_the_fhir_server_s_reports_no_deletion(flows: Flows) -> None:
    flows.write()
    await flows.tell()
    html = {"content-type": "text/html"}
    flows.route.fhir_double.will_answer(404, b"<html>no such route</html>", html)
    await flows.tell(delivery=LATER)
    assert await flows.actions() == ["Created"]
    ((_, delay),) = flows.requeued
    assert delay == 60


async def test_two_workers_with_the_same_resource_report_it_once(flows: Flows) -> None:
    """The second one starts while the first one reads the state, and is requeued."""
    flows.write()
    flows.route.fhir_double.will_wait_for(lambda: flows.tell(delivery=LATER))
    await flows.tell()
    assert await flows.actions() == ["Created"]
    ((claim, _),) = flows.requeued
    assert claim.delivery == LATER
    await notify_dataverse(flows.external, claim)
    assert await flows.actions() == ["Created"]


async def test_a_change_during_a_report_is_reported_by_the_next_work_item(
    flows: Flows,
) -> None:
    flows.write()

    async def changed() -> None:
        flows.write(status="amended")

    flows.route.fhir_double.will_wait_for(changed)
    await flows.tell()
    await flows.tell()  # the claim of that change
    assert await flows.actions() == ["Created", "Updated"]


# --- failures --------------------------------------------------------------------------------------


async def test_a_report_whose_response_is_lost_is_sent_again(flows: Flows) -> None:
    """At least once: a flow may run twice when Dataverse's response is lost."""
    flows.write()
    organisation = flows.route.dataverse_double
    transport = httpx.ASGITransport(app=organisation.app)

    async def lost() -> None:
        async with httpx.AsyncClient(transport=transport) as http:
            sent = organisation.received[-1]
            await http.post(f"http://dataverse{sent.path}", json=sent.body)
        raise httpx.ReadError("connection lost")

    organisation.will_be_preceded("POST", lost)
    await flows.tell()
    ((claim, delay),) = flows.requeued
    assert (claim.resource, claim.attempt) == (RESOURCE, 1)
    assert delay > 0
    await notify_dataverse(flows.external, claim)
    assert await flows.actions() == ["Created", "Created"]


@pytest.mark.parametrize("wish", [{"status": 500}, {"status": 503, "next": 3}])
async def test_what_dataverse_does_not_accept_is_reported_later(flows: Flows, wish: Any) -> None:
    flows.write()
    flows.route.dataverse_double.will_fail(kind="status", **wish)
    await flows.tell()
    assert await flows.actions() == []
    ((claim, _),) = flows.requeued
    await notify_dataverse(flows.external, claim)
    assert await flows.actions() == ["Created"]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_while_the_fhir_server_is_down_nothing_is_reported(flows: Flows, status: int) -> None:
    flows.write()
    flows.route.fhir_double.down = status
    await flows.tell()
    flows.route.fhir_double.down = None
    assert await flows.actions() == []
    ((claim, _),) = flows.requeued
    await notify_dataverse(flows.external, claim)
    assert await flows.actions() == ["Created"]


async def test_a_throttled_report_waits_as_long_as_dataverse_says(flows: Flows) -> None:
    flows.write()
    flows.route.dataverse_double.will_fail(kind="throttle", retryAfter=300)
    await flows.tell()
    ((_, delay),) = flows.requeued
    assert delay == 300


async def test_events_that_are_not_switched_on_are_logged_as_errors_and_requeued(
    flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:
    """The organisation was provisioned with another prefix, or not at all."""
    flows.prefix = "xyz"
    flows.write()
    await flows.tell()
    ((claim, delay),) = flows.requeued
    assert delay == 60
    (record,) = [record for record in caplog.records if record.message == "external_event.requeued"]
    assert record.levelno == logging.ERROR
    reason = vars(record)["reason"]
    assert "refused OnExternalCreated of xyz_ve_observation (404" in reason
    assert "provisioned" in reason
    assert claim.attempt == 1


async def test_a_type_without_a_virtual_table_is_logged_as_an_error_and_requeued(
    flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:
    await flows.tell("Basic/1")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert len(flows.requeued) == 1


async def test_what_cannot_be_reported_for_days_is_dropped_and_recorded(
    flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:
    flows.write()
    flows.route.dataverse_double.will_fail(kind="status", status=500)
    since = (flows.route.clock() - timedelta(days=4)).timestamp()
    await flows.tell(attempt=9, since=since)
    assert flows.requeued == []
    assert "external_event.dropped" in [record.message for record in caplog.records]
    last = flows.route.activity.entries[-1]
    assert (last.action, last.status, last.category) == ("notify", "dropped", Category.ERROR)
    assert (last.resource, last.table) == (RESOURCE, "abc_ve_observation")


async def test_what_failed_repeatedly_is_dropped_and_recorded(flows: Flows) -> None:
    await drop_notification(
        flows.external, WorkItem(DELIVERY, resource=RESOURCE), "notifying failed repeatedly"
    )
    (last,) = flows.route.activity.entries
    assert (last.status, last.notes) == ("dropped", ("notifying failed repeatedly",))


# --- no values ------------------------------------------------------------------------------------


async def test_dataverse_gets_the_key_and_nothing_else(
    flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:
    """The jobs of a flow are kept for weeks. A flow reads the row by its key."""
    caplog.set_level(logging.DEBUG)
    flows.write()
    await flows.tell()
    (request,) = [
        request for request in flows.route.dataverse_double.received if request.method == "POST"
    ]
    assert request.body == {
        "Target": {
            "@odata.type": "Microsoft.Dynamics.CRM.abc_ve_observation",
            "abc_ve_observationid": WEIGHT,
        }
    }
    assert (await flows.received())[0]["columns"] == []
    flows.route.dataverse_double.will_fail(kind="status", status=400)
    flows.write(status="amended")
    await flows.tell()
    kept = repr(
        (flows.route.activity.entries, flows.route.queue_sender.sent, flows.route.guard_store.locks)
    )
    assert MARKER not in kept + told_by(caplog.records)


async def test_a_report_is_in_the_activity_log(flows: Flows) -> None:
    flows.write()
    await flows.tell()
    (entry,) = [
        activity for activity in flows.route.activity.entries if activity.upstream == "Dataverse"
    ]
    assert (entry.action, entry.row) == ("OnExternalCreated", WEIGHT)
    assert (entry.resource, entry.table) == (RESOURCE, "abc_ve_observation")
