"""The page Data routes: what a switch would do is said, counted, before it is done; and by whom."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx
import pytest

from integration.core.errors import Unavailable
from integration.journal.data_routes import ChosenRoute
from integration.virtual_tables.route_counts import count_affected
from tests.builders import MARKER
from tests.conftest import Route
from tests.pages.asking import NAME, visit

ROW = "6f1d0a1e-5b7e-4f0e-8a0b-0a1b2c3d4e5f"


async def test_each_table_is_shown_with_its_route(route: Route) -> None:
    reply = await visit(route, "reader").get("data-routes")
    assert reply.status == 200
    patients, observations = reply.row("Patient"), reply.row("Observation")
    assert (patients[:3], patients[5]) == (["Patient", "contact", "dataverse"], "the map")
    assert observations[:3] == ["Observation", "msemr_observation", "virtual"]
    assert observations[5] == "the map"
    assert len(reply.rows) == 22


async def test_only_an_admin_is_shown_how_to_switch(route: Route) -> None:
    visitor = visit(route, "reader")
    assert (await visitor.get("data-routes")).row("Observation")[3] == "may be dataverse"
    admin = visitor.with_roles("admin")
    shown = await admin.get("data-routes")
    assert shown.row("Observation")[3] == "Switch Observation to dataverse"
    assert shown.row("Patient")[3] == "no other"
    asked = await visitor.get("data-routes/Observation", to="dataverse")
    assert asked.status == 200
    assert "<form" not in asked.html


async def test_what_a_switch_does_is_said_and_counted_before(route: Route) -> None:
    admin = visit(route, "admin")
    route.fhir_double.will_answer(200, {"resourceType": "Bundle", "total": 12345, "entry": []})
    text = (await admin.get("data-routes/Observation", to="dataverse")).text
    assert "Switch Observation to dataverse?" in text
    assert "12 345 Observation resources" in text
    assert "a job brings what was there before" in text
    assert "12 345 resources are compared with the rows" in text
    assert "columns are empty on this route" in text
    assert "about 20 seconds" in text
    without = (await admin.get("data-routes/Observation", to="dataverse", bring="no")).text
    assert "python -m integration reconcile --type Observation" in without
    assert admin.parts.data_routes.store.routes == {}


async def test_rows_are_counted_by_the_type_that_they_show(route: Route) -> None:
    """Patients and practitioners share a table."""
    maps = visit(route, "reader").parts.maps.load()
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
    admin = visit(route, "admin")
    route.fhir_double.down = 500
    reply = await admin.get("data-routes/CarePlan", to="dataverse")
    assert reply.status == 200
    assert reply.text.count("unknown (") == 2
    assert "Dataverse has no table msemr_careplan" in reply.text


async def test_a_server_that_does_not_answer_in_time_is_not_waited_for(route: Route) -> None:
    async def hang(*_: object) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    route.fhir_double.script.append(hang)
    entity = visit(route, "reader").parts.maps.load().entities["Patient"]
    counts = await count_affected(entity, route.fhir, route.dataverse, patience=0.2)
    assert counts.resources.number is None
    assert counts.resources.reason == "no answer in 0.2 s"
    assert counts.rows.number == 0


async def test_a_switch_is_kept_with_who_did_it_when(route: Route) -> None:
    admin = visit(route, "admin")
    time = route.clock()
    done = await admin.post("data-routes/Observation", route="dataverse", bring="no")
    assert done.status == 303
    assert done.location == "data-routes?changed=Observation"
    assert route.waits == [20.0]
    assert admin.parts.data_routes.store.routes == {
        "Observation": ChosenRoute("dataverse", NAME, time)
    }
    listed = await admin.get("data-routes", changed="Observation")
    assert listed.row("Observation")[2] == "dataverse"
    assert listed.row("Observation")[5] == f"{NAME} 2026-03-01 19:45 UTC"
    assert "Observation has the route dataverse now, on every worker" in listed.text
    assert "reconcile --type Observation" in listed.text


@pytest.mark.parametrize("role", ["reader", "operator", "phi"])
async def test_nobody_but_an_admin_may_switch(route: Route, role: str) -> None:
    visitor = visit(route, "reader", role)
    assert (await visitor.post("data-routes/Observation", route="dataverse")).status == 403
    assert visitor.parts.data_routes.store.routes == {}


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
    admin = visit(route, "admin")
    assert (await admin.post(path, route=chosen)).status == status
    assert admin.parts.data_routes.store.routes == {}


async def test_what_is_so_already_needs_no_switch(route: Route) -> None:
    reply = await visit(route, "admin").get("data-routes/Patient", to="dataverse")
    assert "There is nothing to switch" in reply.text
    assert "<form" not in reply.html
    assert route.fhir_double.received == []


async def test_storage_that_does_not_answer_is_a_page(route: Route) -> None:
    class Silent:
        async def list_routes(self) -> dict[str, ChosenRoute]:
            raise Unavailable("storage", "ServiceRequestError")

        async def set_routes(self, chosen: Mapping[str, ChosenRoute]) -> None:
            raise Unavailable("storage", "ServiceRequestError")

    visitor = visit(route, "reader")
    visitor.parts.data_routes.store = Silent()
    assert (await visitor.get("data-routes")).status == 503
