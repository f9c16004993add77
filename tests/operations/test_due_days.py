"""A row changes on the day on which something begins or ceases to be in use."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date

import pytest

from integration.core.errors import Unavailable
from integration.core.model import WorkItem
from integration.journal.due_days import DueResource
from integration.mirror.mirror import mirror_resource
from integration.operations.due_days import KIND
from integration.operations.housekeeping import sweep
from integration.queues.names import MIRROR_QUEUE
from tests.builders import patient
from tests.conftest import DAY, Route
from tests.operations.test_housekeeping import keeping

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
WHO = f"Patient/{ANNA}"
RUN = "019caaee-c260-7000-8000-000000000001"


async def show_city(route: Route) -> str | None:
    city: str | None = (await route.dataverse_double.contact())["address1_city"]
    return city


async def keep_house(route: Route) -> None:
    await sweep(replace(keeping(route, route.queue_sender), due_days=route.due_days))


@pytest.mark.parametrize("is_broken_off", [False, True])
async def test_somebody_who_moves_is_shown_at_the_new_address_from_the_day_on(
    route: Route, *, is_broken_off: bool
) -> None:
    today = route.clock().astimezone(UTC).date()
    last, first = (date.fromordinal(today.toordinal() + days).isoformat() for days in (1, 2))
    places = [
        {"use": "home", "city": "Soon", "period": {"start": first}},
        {"use": "home", "city": "Now", "period": {"end": last}},
    ]
    route.fhir_double.add(patient(id=ANNA, address=places))
    await mirror_resource(route.mirror, WorkItem(RUN, resource=WHO))
    assert await show_city(route) == "Now"
    route.clock.later(DAY)
    await keep_house(route)
    assert route.queued(MIRROR_QUEUE) == []
    route.clock.later(DAY)
    if is_broken_off:

        class Full:
            async def send(self, *_: object) -> None:
                raise Unavailable("queue", "answered 503")

        taken, route.queue_sender = route.queue_sender, Full()
        with pytest.raises(Unavailable):
            await keep_house(route)
        route.queue_sender = taken
    await keep_house(route)
    await route.mirror_all()
    assert await show_city(route) == "Soon"
    (kept,) = [each for each in route.journal.deliveries.values() if each.kind == KIND][-1:]
    (result,) = await route.journal.list_row_results(kept.id)
    assert (result.resource, result.action) == (WHO, "updated")
    await keep_house(route)
    assert route.queued(MIRROR_QUEUE) == []


async def test_nothing_is_remembered_of_what_never_changes(route: Route) -> None:
    places = [{"city": "Now", "period": {"start": "2020", "end": "2021"}}, {"city": "Later"}]
    route.fhir_double.add(patient(id=ANNA, address=places))
    await mirror_resource(route.mirror, WorkItem(RUN, resource=WHO))
    assert route.due_days.resources == set()


async def test_the_day_is_remembered_before_the_row_is_written(route: Route) -> None:
    """Else a worker that ends in between leaves a row that nobody looks at again."""
    places = [{"city": "Now", "period": {"end": "2099-12"}}]
    route.fhir_double.add(patient(id=ANNA, address=places))
    route.dataverse_double.will_fail(kind="status", status=503)
    await mirror_resource(route.mirror, WorkItem(RUN, resource=WHO))
    assert route.due_days.resources == {DueResource(date(2100, 1, 1), WHO)}
