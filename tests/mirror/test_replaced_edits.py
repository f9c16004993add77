"""The mirror says what it has replaced that somebody had changed in Dataverse, by names alone."""

from __future__ import annotations

from typing import Any

from integration.core.model import RowResult, WorkItem
from integration.mirror import mirror as mirroring
from local.dataverse.organization import CALLER, NURSE_USER
from tests.builders import MARKER, Body, patient
from tests.conftest import Route

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
DELIVERY = "019caaee-c260-7000-8000-000000000001"
SOMEBODY = {CALLER: NURSE_USER}


def anna(**elements: Any) -> Body:
    return patient(id=ANNA, **elements)


def phone(number: str) -> dict[str, Any]:
    return {"telecom": [{"system": "phone", "use": "home", "value": number}]}


async def mirror(route: Route, resource: Body) -> RowResult:
    name = route.fhir_double.add(resource)
    await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=name))
    noted = {row.resource: row for row in await route.journal.list_row_results(DELIVERY)}
    return noted[name]


async def edit(route: Route, **columns: Any) -> None:
    """As a nurse: the stand-in writes down who it was."""
    answer = await route.dataverse_double.send(
        "PATCH", f"contacts({ANNA})", columns, headers=SOMEBODY
    )
    assert answer.status_code == 204, answer.text


async def test_an_edit_that_is_replaced_is_told_by_its_column(route: Route) -> None:
    await mirror(route, anna(**phone("1")))
    await edit(route, telephone2=MARKER, firstname=MARKER)
    noted = await mirror(route, anna(**phone("2"), gender="female"))
    assert noted.remarks == (
        "replaced what somebody has changed in Dataverse: firstname, telephone2",
    )
    assert (await route.dataverse_double.contact())["telephone2"] == "2"
    assert MARKER not in str(noted)


async def test_what_changed_in_fhir_alone_is_no_edit(route: Route) -> None:
    await mirror(route, anna(**phone("1")))
    await edit(route, description="a note of the ward")  # no column of the map
    noted = await mirror(route, anna(**phone("2")))
    assert noted.action == "updated"
    assert noted.remarks == ()


async def test_a_row_that_the_app_wrote_last_costs_no_look_at_the_history(route: Route) -> None:
    await mirror(route, anna(**phone("1")))
    await mirror(route, anna(**phone("2")))
    await mirror(route, anna(**phone("3")))
    asked = [each.path for each in route.fhir_double.received]
    assert not any("_history" in path for path in asked)
    who = [each for each in route.dataverse_double.received if each.path.endswith("WhoAmI")]
    assert len(who) == 1


async def test_a_server_without_histories_costs_the_remark_alone(route: Route) -> None:
    await mirror(route, anna(**phone("1")))
    await edit(route, telephone2="9")
    del route.fhir_double.past[f"Patient/{ANNA}"]
    noted = await mirror(route, anna(**phone("2")))
    assert (noted.action, noted.remarks) == ("updated", ())


async def test_an_edit_that_says_what_fhir_says_now_is_not_replaced(route: Route) -> None:
    await mirror(route, anna(**phone("1")))
    await edit(route, telephone2="2")
    noted = await mirror(route, anna(**phone("2")))
    assert noted.remarks == ()


async def test_a_row_that_is_refused_has_replaced_nothing(route: Route) -> None:
    await mirror(route, anna(**phone("1")))
    await edit(route, telephone2="9")
    route.dataverse_double.will_fail(kind="status", status=400, code="0x80040265", method="PATCH")
    noted = await mirror(route, anna(**phone("2")))
    assert (noted.action, noted.remarks) == ("refused", ())
