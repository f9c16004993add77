"""A lookup of a row that is not there is filled when the row comes, for all who wait and however
often the row goes and comes again; nobody waits for what never comes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from integration.core.model import RowResult, WorkItem
from integration.journal.pending_lookups import LookupState
from integration.mirror import mirror as mirroring
from integration.queues.names import MIRROR_QUEUE
from tests.builders import Body, patient
from tests.conftest import Route, patients_followed

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
OLD = "0a4f2c9d-3f5b-4c0e-8f52-5b1f7a9b2d01"
CLINIC = "99999999-9999-4999-8999-999999999999"
DELIVERY = "019caaee-c260-7000-8000-000000000001"
LATER = "019caaee-c260-7000-8000-000000000002"


async def mirror(route: Route, resource: str, delivery: str = DELIVERY) -> RowResult:
    await mirroring.mirror_resource(route.mirror, WorkItem(delivery, resource=resource))
    noted = {row.resource: row for row in await route.journal.list_row_results(delivery)}
    return noted[resource]


async def wake(route: Route) -> list[WorkItem]:
    """Hand out what is queued, until nothing is."""
    woken = []
    while queued := route.queued(MIRROR_QUEUE):
        route.queue_sender.sent.clear()
        for item, _ in queued:
            woken.append(item)
            await mirroring.mirror_resource(route.mirror, item)
    return woken


async def linked(route: Route) -> Any:
    rows = {row["contactid"]: row for row in await route.dataverse_double.contacts()}
    return rows[OLD]["_msemr_link1_value"]


@pytest.fixture
async def replaced(route: Route) -> Route:
    """Old's contact has a lookup of Anna's, who replaced it."""
    link: list[Body] = [{"other": {"reference": f"Patient/{ANNA}"}, "type": "replaced-by"}]
    route.fhir_double.add(patient(id=ANNA))
    await mirror(route, f"Patient/{ANNA}")
    await mirror(route, route.fhir_double.add(patient(id=OLD, active=False, link=link)))
    assert await linked(route) == ANNA
    return route


async def test_a_lookup_that_was_emptied_by_hand_is_filled_when_its_target_is_back(
    replaced: Route,
) -> None:
    for _ in range(2):
        await replaced.dataverse_double._own.delete(f"contacts({ANNA})")
        assert await linked(replaced) is None
        assert (await mirror(replaced, f"Patient/{ANNA}")).action == "created"
        await wake(replaced)
        assert await linked(replaced) == ANNA


async def test_a_lookup_that_a_deletion_emptied_is_filled_when_the_patient_is_back(
    replaced: Route,
) -> None:
    replaced.on_delete = "delete"
    replaced.fhir_double.delete(f"Patient/{ANNA}")
    assert (await mirror(replaced, f"Patient/{ANNA}")).action == "deleted"
    assert await linked(replaced) is None
    replaced.fhir_double.add(patient(id=ANNA))
    await mirror(replaced, f"Patient/{ANNA}")
    await wake(replaced)
    assert await linked(replaced) == ANNA


async def test_it_is_filled_though_the_answer_to_the_create_was_lost(replaced: Route) -> None:
    await replaced.dataverse_double._own.delete(f"contacts({ANNA})")
    replaced.dataverse_double.will_fail(kind="lost-reply", method="PATCH")
    await mirroring.mirror_resource(replaced.mirror, WorkItem(DELIVERY, resource=f"Patient/{ANNA}"))
    await wake(replaced)
    assert await linked(replaced) == ANNA


async def test_who_waited_is_noted_in_the_delivery_that_brought_the_row(route: Route) -> None:
    """The delivery of the one that waited may be forgotten by then."""
    link: list[Body] = [{"other": {"reference": f"Patient/{ANNA}"}, "type": "replaced-by"}]
    await mirror(route, route.fhir_double.add(patient(id=OLD, link=link)))
    await mirror(route, route.fhir_double.add(patient(id=ANNA)), LATER)
    assert [item.delivery for item in await wake(route)] == [LATER]
    noted = {row.resource for row in await route.journal.list_row_results(LATER)}
    assert noted == {f"Patient/{ANNA}", f"Patient/{OLD}"}


async def test_nobody_waits_for_a_type_whose_rows_others_write(route: Route) -> None:
    clinic = {"reference": "Organization/o1"}
    resource = route.fhir_double.add(patient(id=ANNA, managingOrganization=clinic))
    before = len(route.dataverse_double.received)
    sink = replace(route.web_api, change_queues=patients_followed)
    item = WorkItem(DELIVERY, resource=resource)
    noted = await sink.bring_up_to_date(route.maps["Patient"], item)
    assert any("filled at the next change" in note for note in noted.notes)
    assert await route.row_waits.list_resources("Organization/o1", LookupState.WAITING) == []
    requests = [r for r in route.dataverse_double.received[before:] if "Definitions" not in r.path]
    assert len(requests) == 2
    await route.dataverse_double._own.patch(
        f"accounts({CLINIC})", json={"name": "Clinic", "msemr_azurefhirid": "o1"}
    )
    route.fhir_double.add(patient(id=ANNA, managingOrganization=clinic, gender="male"))
    noted = await sink.bring_up_to_date(route.maps["Patient"], item)
    assert (await route.dataverse_double.contact())["_msemr_managingorganization_value"] == CLINIC
