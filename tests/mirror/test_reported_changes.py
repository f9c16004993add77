"""What the mirror has written is reported to the virtual table, on whichever route that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from integration.core.model import WorkItem
from integration.mirror.mirror import Mirror, mirror_resource
from integration.queues.names import EXTERNAL_QUEUE
from tests.builders import patient
from tests.conftest import Route

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
DELIVERY = "019caaee-c260-7000-8000-000000000001"
ITEM = WorkItem(DELIVERY, resource=f"Patient/{ANNA}", attempt=3, since="2026-01-02T03:04:05Z")


def tell(route: Route, reported: Mapping[str, bool]) -> Mirror:
    """A mirror whose changes of these types are reported."""

    async def get_reported() -> Mapping[str, bool]:
        return reported

    return replace(route.mirror, get_reported=get_reported)


@pytest.mark.parametrize("shows_fhir", [True, False])
async def test_a_change_is_reported_once_its_row_shows_it(
    route: Route, *, shows_fhir: bool
) -> None:
    route.fhir_double.add(patient(id=ANNA))
    await mirror_resource(tell(route, {"Patient": shows_fhir}), ITEM)
    ((item, delay),) = route.queued(EXTERNAL_QUEUE)
    assert (item.resource, item.attempt, item.since, delay) == (ITEM.resource, 0, None, 0.0)


@pytest.mark.parametrize(("shows_fhir", "reports"), [(True, 1), (False, 0)])
async def test_a_row_that_was_refused_is_reported_where_fhir_is_shown(
    route: Route, *, shows_fhir: bool, reports: int
) -> None:
    route.fhir_double.add(patient(id=ANNA))
    route.dataverse_double.will_fail(kind="status", status=400, method="PATCH", next=9)
    await mirror_resource(tell(route, {"Patient": shows_fhir}), ITEM)
    (result,) = await route.journal.list_row_results(DELIVERY)
    assert result.action == "refused"
    assert len(route.queued(EXTERNAL_QUEUE)) == reports


async def test_nothing_is_reported_of_other_types(route: Route) -> None:
    route.fhir_double.add(patient(id=ANNA))
    await mirror_resource(tell(route, {"Observation": True}), ITEM)
    assert route.queued(EXTERNAL_QUEUE) == []


async def test_a_change_that_is_mirrored_no_longer_goes_where_those_of_its_type_go(
    route: Route,
) -> None:
    """It was queued before the table was switched: a flow waits for it still."""
    route.fhir_double.add(patient(id=ANNA))

    async def get_queues() -> Mapping[str, str]:
        return {"Patient": EXTERNAL_QUEUE}

    late = replace(route.mirror, change_queues=get_queues, current_queues=get_queues)
    await mirror_resource(late, ITEM)
    (result,) = await route.journal.list_row_results(DELIVERY)
    assert result.action == "skipped"
    ((item, _),) = route.queued(EXTERNAL_QUEUE)
    assert item.resource == ITEM.resource
