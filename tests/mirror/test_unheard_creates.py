"""A create that Dataverse finishes after everybody has given up leaves no active contact of a
deleted patient."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from integration.core.model import WorkItem
from integration.mirror import mirror as mirroring
from integration.queues.names import MIRROR_QUEUE
from tests.builders import patient
from tests.conftest import Route
from tests.doubles import DataverseDouble

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
WHO = f"Patient/{ANNA}"
DELIVERY = "019caaee-c260-7000-8000-000000000001"
TWO_MINUTES = 120  # after which Dataverse ends an operation, done or not


class Late(DataverseDouble):
    """A write times out at its sender, and is done when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.delays = False
        self.held: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        if self.delays and (request.method == "PATCH" or b"changeset_" in content):
            self.held.append(request)
            raise httpx.ReadTimeout("late", request=request)
        return await super().handle_async_request(request)

    async def finish(self) -> None:
        """Do what is held, now that nobody waits for it."""
        held, self.held = self.held, []
        for request in held:
            await super().handle_async_request(request)


@pytest.fixture
def dataverse() -> Iterator[Late]:
    found = Late()
    yield found
    found.app.close()


@pytest.fixture
def late(dataverse: Late) -> Late:
    return dataverse


async def mirror(route: Route) -> None:
    await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=WHO))


async def actions(route: Route) -> list[str]:
    return [row.action for row in await route.journal.list_row_results(DELIVERY)]


@pytest.mark.parametrize("numbers", [0, 2], ids=["a request", "a change set"])
async def test_a_create_that_comes_after_the_deletion_is_found_and_deactivated(
    route: Route, late: Late, numbers: int
) -> None:
    identifiers = [{"system": "urn:mrn", "value": str(number)} for number in range(numbers)]
    route.fhir_double.add(patient(id=ANNA, identifier=identifiers))
    late.delays = True
    await mirror(route)
    late.delays = False
    route.fhir_double.delete(WHO)
    await mirror(route)
    assert await actions(route) == ["absent"]
    await late.finish()
    assert (await late.contact())["statecode"] == 0
    ((item, delay),) = route.queued(MIRROR_QUEUE)
    assert delay > TWO_MINUTES
    await mirroring.mirror_resource(route.mirror, item)
    assert (await late.contact())["statecode"] == 1
    assert await actions(route) == ["deactivated"]


async def test_a_create_that_comes_late_after_another_changes_nothing(
    route: Route, late: Late
) -> None:
    route.fhir_double.add(patient(id=ANNA, gender="male"))
    late.delays = True
    await mirror(route)
    late.delays = False
    route.fhir_double.add(patient(id=ANNA, gender="female"))
    await mirror(route)
    await late.finish()
    row = await late.contact()
    assert (row["gendercode"], row["msemr_azurefhirversion"]) == (2, "2")


async def test_an_unheard_create_makes_no_more_work_items_than_one(
    route: Route, late: Late
) -> None:
    """However long Dataverse does not answer."""
    route.fhir_double.add(patient(id=ANNA))
    late.delays = True
    await mirror(route)
    for _ in range(5):
        ((item, _),) = route.queued(MIRROR_QUEUE)
        route.queue_sender.sent.clear()
        await mirroring.mirror_resource(route.mirror, item)
    assert len(route.queued(MIRROR_QUEUE)) == 1


async def test_an_update_whose_answer_is_lost_is_tried_again_soon(route: Route, late: Late) -> None:
    """If it comes late, its condition does not hold any more."""
    route.fhir_double.add(patient(id=ANNA, gender="male"))
    await mirror(route)
    route.fhir_double.add(patient(id=ANNA, gender="female"))
    late.delays = True
    await mirror(route)
    ((item, delay),) = route.queued(MIRROR_QUEUE)
    assert delay < 10
    late.delays = False
    await mirroring.mirror_resource(route.mirror, item)
    route.fhir_double.delete(WHO)
    await mirror(route)
    await late.finish()
    assert (await late.contact())["statecode"] == 1
