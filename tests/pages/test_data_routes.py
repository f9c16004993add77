"""The page Data routes: what a switch would do is said, counted, before it is done; and by whom."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from integration.core.errors import Unavailable
from integration.journal.data_routes import ChosenRoute
from integration.virtual_tables.route_counts import count_affected
from tests.builders import MARKER
from tests.conftest import Route
from tests.pages.console import NAME, open_console, read, row, rows

ROW = "6f1d0a1e-5b7e-4f0e-8a0b-0a1b2c3d4e5f"


async def test_each_table_is_shown_with_its_route(route: Route) -> None:
    reply = await open_console(route).get("data-routes")
    assert reply.status == 200
    assert row(reply, "Patient")[:4] == ["Patient", "contact", "dataverse", "the map"]
    assert row(reply, "Observation")[:4] == [
        *("Observation", "msemr_observation", "virtual", "the map")
    ]
    assert len(rows(reply)) == 22


async def test_only_an_admin_is_shown_how_to_switch(route: Route) -> None:
    console = open_console(route)
    assert row(await console.get("data-routes"), "Observation")[5] == "may be dataverse"
    admin = console.with_roles("admin")
    assert row(await admin.get("data-routes"), "Observation")[5] == "Switch to dataverse"
    assert row(await admin.get("data-routes"), "Patient")[5] == "no other"
    asked = await console.get("data-routes/Observation", to="dataverse")
    assert asked.status == 200
    assert b"<form" not in asked.body


async def test_what_a_switch_does_is_said_and_counted_before(route: Route) -> None:
    admin = open_console(route).with_roles("admin")
    route.fhir_double.will_answer(200, {"resourceType": "Bundle", "total": 12345, "entry": []})
    text = read(await admin.get("data-routes/Observation", to="dataverse"))
    assert "Switch Observation to dataverse?" in text
    assert "12 345 Observation resources" in text
    assert "python -m integration reconcile --type Observation" in text
    assert "about 20 seconds" in text
    assert admin.store.routes == {}


async def test_rows_are_counted_by_the_type_that_they_show(route: Route) -> None:
    """Patients and practitioners share a table."""
    maps = open_console(route).parts.maps.load()
    mine = {"msemr_azurefhirid": ROW, "msemr_contacttype": 935000000}
    of_a_practitioner = {"msemr_azurefhirid": "d1", "msemr_contacttype": 935000001}
    await route.dataverse_double.write(ROW, **mine)
    await route.dataverse_double.write(ROW.replace("6", "7", 1), **of_a_practitioner)
    await route.dataverse_double.write(ROW.replace("6", "8", 1), lastname="of somebody else")
    route.fhir_double.will_answer(200, {"resourceType": "Bundle", "total": 2})
    counts = await count_affected(maps.entities["Patient"], route.fhir, route.dataverse)
    assert (counts.rows.number, counts.rows.is_more) == (1, False)
    assert counts.resources.number == 2


async def test_what_cannot_be_counted_is_unknown_and_says_why(route: Route) -> None:
    admin = open_console(route).with_roles("admin")
    route.fhir_double.down = 500
    reply = await admin.get("data-routes/Observation", to="dataverse")
    assert reply.status == 200
    assert read(reply).count("unknown (") == 2
    assert "Dataverse has no table msemr_observation" in read(reply)


async def test_a_server_that_does_not_answer_in_time_is_not_waited_for(route: Route) -> None:
    async def hang(*_: object) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    route.fhir_double.script.append(hang)
    entity = open_console(route).parts.maps.load().entities["Patient"]
    counts = await count_affected(entity, route.fhir, route.dataverse, patience=0.2)
    assert counts.resources.number is None
    assert counts.resources.reason == "no answer in 0.2 s"
    assert counts.rows.number == 0


async def test_a_switch_is_kept_with_who_did_it_when(route: Route) -> None:
    admin = open_console(route).with_roles("admin")
    done = await admin.post("data-routes/Observation", route="dataverse")
    assert done.status == 303
    assert done.headers["Location"] == "/api/pages/data-routes?changed=Observation"
    assert admin.waited == [20.0]
    assert admin.store.routes == {"Observation": ChosenRoute("dataverse", NAME, route.clock())}
    listed = await admin.get("data-routes", changed="Observation")
    assert row(listed, "Observation")[2:5] == ["dataverse", NAME, "2026-03-01 19:45 UTC"]
    assert "Observation has the route dataverse now, on every worker" in read(listed)
    assert "reconcile --type Observation" in read(listed)


@pytest.mark.parametrize("role", ["reader", "operator", "phi"])
async def test_nobody_but_an_admin_may_switch(route: Route, role: str) -> None:
    console = open_console(route).with_roles("reader", role)
    assert (await console.post("data-routes/Observation", route="dataverse")).status == 403
    assert console.store.routes == {}


@pytest.mark.parametrize(
    ("path", "chosen", "status"),
    [
        ("data-routes/Goal", "dataverse", 400),
        ("data-routes/Observation", "feed", 400),
        ("data-routes/Observation", "", 400),
        (f"data-routes/{MARKER}", "virtual", 404),
    ],
)
async def test_what_is_no_switch_is_refused(
    route: Route, path: str, chosen: str, status: int
) -> None:
    admin = open_console(route).with_roles("admin")
    assert (await admin.post(path, route=chosen)).status == status
    assert admin.store.routes == {}


async def test_what_is_so_already_needs_no_switch(route: Route) -> None:
    reply = await open_console(route).with_roles("admin").get("data-routes/Patient", to="dataverse")
    assert "There is nothing to switch" in read(reply)
    assert b"<form" not in reply.body
    assert route.fhir_double.received == []


async def test_storage_that_does_not_answer_is_a_page(route: Route) -> None:
    class Silent:
        async def list_routes(self) -> dict[str, ChosenRoute]:
            raise Unavailable("storage", "ServiceRequestError")

        async def set_route(self, type_: str, chosen: ChosenRoute) -> None:
            raise Unavailable("storage", "ServiceRequestError")

    console = open_console(route)
    console.parts.data_routes.store = Silent()
    assert (await console.get("data-routes")).status == 503
