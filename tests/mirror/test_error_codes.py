"""What becomes of a row that Dataverse refuses depends on the code of its error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.core.model import RowResult, WorkItem
from integration.journal.attention import ConcernFilter
from integration.journal.concern import ConcernKind
from integration.mirror import mirror as mirroring
from integration.queues.names import MIRROR_QUEUE
from tests.builders import Body, patient
from tests.conftest import Route
from tests.mirror.plug_ins import Particular

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
DELIVERY = "019caaee-c260-7000-8000-000000000001"
NUMBERS, CONCEPTS = "msemr_medicalidentifiers", "msemr_codeableconcepts"

DUPLICATE, NO_RIGHTS = "0x80040333", "0x80040220"
ONE_OF_EACH_CODE = {"keys": [{"name": "code_key", "columns": ["msemr_code"]}]}
LANGUAGE = 935000068  # the type of a concept


@pytest.fixture
def dataverse() -> Iterator[Particular]:
    found = Particular({"msemr_codeableconcept": ONE_OF_EACH_CODE})
    yield found
    found.app.close()


def anna(*numbers: str) -> Body:
    return patient(id=ANNA, identifier=[{"system": "urn:mrn", "value": n} for n in numbers])


async def mirror(route: Route, resource: Body) -> RowResult:
    name = route.fhir_double.add(resource)
    await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=name))
    noted = {row.resource: row for row in await route.journal.list_row_results(DELIVERY)}
    return noted[name]


@pytest.mark.parametrize("status", [412, 500])
@pytest.mark.parametrize("numbers", [(), ("A1",)], ids=["alone", "with a child"])
async def test_a_duplicate_that_a_rule_has_found_is_refused_at_once(
    route: Route, dataverse: Particular, status: int, numbers: tuple[str, ...]
) -> None:
    """One of Microsoft's pages has it with the status 500, another with 412."""
    dataverse.refused = {f"contacts({ANNA})": status}
    dataverse.codes = {status: DUPLICATE}
    noted = await mirror(route, anna(*numbers))
    assert noted.action == "refused"
    assert "a rule of the organisation takes another row for the same" in noted.notes[0]
    assert route.queued(MIRROR_QUEUE) == []


@pytest.mark.parametrize("status", [401, 403, 400])
@pytest.mark.parametrize("place", [f"contacts({ANNA})", NUMBERS], ids=["the row", "a child"])
@pytest.mark.parametrize("batch_status", [None, 200])
async def test_what_is_refused_for_want_of_rights_waits_for_the_operator(
    route: Route, dataverse: Particular, status: int, place: str, batch_status: int | None
) -> None:
    """A batch may be answered 200, and only its part says what became of the change."""
    dataverse.refused, dataverse.batch_status = {place: status}, batch_status
    dataverse.codes = {status: NO_RIGHTS}
    name = route.fhir_double.add(anna("A1"))
    await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=name))
    ((item, delay),) = route.queued(MIRROR_QUEUE)
    assert delay is not None
    assert delay >= 60
    (concern,) = (await route.journal.list_concerns(ConcernFilter(), 10, None)).concerns
    assert concern.kind is ConcernKind.ROW_WAITING
    assert (concern.reason or "").startswith(f"Dataverse answered {status}")
    dataverse.refused = {}
    await mirroring.mirror_resource(route.mirror, item)
    assert [row["msemr_value"] for row in await dataverse.rows(NUMBERS)] == ["A1"]


async def test_a_concept_that_somebody_else_has_made_meanwhile_is_used(
    route: Route, dataverse: Particular
) -> None:
    """An alternate key allows each code once, and another app is quicker."""

    async def make_first() -> None:
        assert await dataverse.rows(CONCEPTS) == []
        await dataverse.change("POST", CONCEPTS, {"msemr_type": LANGUAGE, "msemr_code": "de"})

    dataverse.before_write = (1, make_first)
    german = {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "de"}]}}
    noted = await mirror(route, anna() | {"communication": [german]})
    assert (noted.action, noted.left_out) == ("created", 0)
    (concept,) = await dataverse.rows(CONCEPTS)
    contact = await dataverse.contact()
    assert contact["_msemr_communication1language_value"] == concept["msemr_codeableconceptid"]
