"""Anybody may see which upstream does not answer, and nothing that only operators may know."""

from __future__ import annotations

import pytest

from integration.core.errors import Unavailable
from integration.journal.store import MemoryJournal, Page
from integration.operations.health import check_upstreams
from tests.conftest import Route

WELL = {"storage": "ok", "fhir": "ok", "dataverse": "ok"}


class Broken(MemoryJournal):
    async def list_deliveries(self, *_: object) -> Page:
        raise Unavailable("storage", "ServiceRequestError")


async def test_all_is_well_when_every_upstream_answers(route: Route) -> None:
    assert await check_upstreams(route.journal, route.fhir, route.dataverse) == WELL


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
async def test_a_failing_fhir_server_is_named_with_its_status(route: Route, status: int) -> None:
    route.fhir_double.down = status
    states = dict(await check_upstreams(route.journal, route.fhir, route.dataverse))
    assert str(status) in states.pop("fhir")
    assert states == {"storage": "ok", "dataverse": "ok"}


@pytest.mark.parametrize(
    "wish", [{"kind": "status", "status": 404}, {"kind": "reset"}, {"kind": "throttle"}]
)
async def test_a_failing_dataverse_is_named(route: Route, wish: dict[str, object]) -> None:
    route.dataverse_double.will_fail(path="WhoAmI", next=5, **wish)
    states = dict(await check_upstreams(route.journal, route.fhir, route.dataverse))
    assert states.pop("dataverse") != "ok"
    assert states == {"storage": "ok", "fhir": "ok"}


async def test_failing_storage_is_named(route: Route) -> None:
    states = dict(await check_upstreams(Broken(), route.fhir, route.dataverse))
    assert "ServiceRequestError" in states.pop("storage")
    assert states == {"fhir": "ok", "dataverse": "ok"}


async def test_the_response_holds_no_addresses(route: Route) -> None:
    route.fhir_double.down = 500
    route.dataverse_double.will_fail(kind="reset", next=5)
    states = await check_upstreams(Broken(), route.fhir, route.dataverse)
    assert "http" not in " ".join(states.values())
