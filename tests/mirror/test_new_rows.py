"""A contact that somebody makes becomes a patient where a setting says so, unless FHIR may have the
patient already: then a person decides."""

from __future__ import annotations

from typing import Any

import pytest

from integration.change_events.from_dataverse import queue_edits
from integration.core.model import RowResult, WorkItem
from integration.mirror import mirror as mirroring
from local.dataverse.organization import CALLER, NURSE_USER
from tests.builders import MARKER, Body, patient
from tests.conftest import Route
from tests.mirror.test_row_edits import build_map, use

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
PATIENT = 935000000
ROW = {
    "msemr_contacttype": PATIENT,
    "lastname": "Newcomer",
    "firstname": "Anna",
    "birthdate": "1980-05-03",
    "telephone2": "555-0101",
}


@pytest.fixture
async def open_ward(route: Route) -> Route:
    use(route, build_map())
    route.makes_new = True
    await queue_edits(route.edit_source)
    return route


async def make(route: Route, **columns: Any) -> RowResult | None:
    """As a nurse does in a form; then all that follows. The row's last result."""
    row = {name: value for name, value in {**ROW, **columns}.items() if value is not None}
    answer = await route.dataverse_double.send(
        "PATCH", f"contacts({ANNA})", row, headers={CALLER: NURSE_USER}
    )
    assert answer.status_code == 204, answer.text
    await queue_edits(route.edit_source)
    delivery = next((item.delivery for item, _ in route.queued("mirror")), None)
    await route.mirror_all()
    if delivery is None:
        return None
    (result,) = await route.journal.list_row_results(delivery)
    return result


def list_patients(route: Route) -> list[Body]:
    return route.fhir_double.of("Patient")


async def test_a_new_contact_becomes_a_patient_whose_id_is_its_key(open_ward: Route) -> None:
    result = await make(open_ward)
    assert result is not None
    assert result.action == "updated"
    (made,) = list_patients(open_ward)
    assert made["id"] == ANNA
    assert made["birthDate"] == "1980-05-03"
    assert made["name"] == [{"use": "official", "family": "Newcomer", "given": ["Anna"]}]
    row = await open_ward.dataverse_double.contact()
    assert (row["msemr_azurefhirid"], row["msemr_azurefhirversion"]) == (ANNA, "1")
    assert (row["lastname"], row["telephone2"]) == ("Newcomer", "555-0101")
    (provenance,) = open_ward.fhir_double.of("Provenance")
    assert provenance["agent"][0]["who"]["display"] == "Nora Nurse"
    assert provenance["activity"]["coding"][0]["code"] == "CREATE"


async def test_it_is_made_once_whatever_is_repeated_or_lost(open_ward: Route) -> None:
    open_ward.fhir_double.will_do_as_asked()  # the read
    open_ward.fhir_double.will_do_as_asked()  # the search
    open_ward.fhir_double.will_lose_the_reply()
    await make(open_ward)
    await make(open_ward, description="again")
    (made,) = list_patients(open_ward)
    assert made["meta"]["versionId"] == "1"
    assert (await open_ward.dataverse_double.contact())["statecode"] == 0


async def test_a_read_that_lags_does_not_make_the_contact_inactive(open_ward: Route) -> None:
    for _ in range(3):
        open_ward.fhir_double.will_do_as_asked()
    open_ward.fhir_double.will_answer(404, {"resourceType": "OperationOutcome"})
    await make(open_ward)
    row = await open_ward.dataverse_double.contact()
    assert (row["statecode"], row["msemr_azurefhirid"]) == (0, ANNA)


async def test_where_nothing_says_so_no_patient_is_made(open_ward: Route) -> None:
    open_ward.makes_new = False
    assert await make(open_ward) is None
    assert list_patients(open_ward) == []


@pytest.mark.parametrize("columns", [{"msemr_contacttype": None}, {"msemr_contacttype": 935000001}])
async def test_a_contact_of_another_type_is_left_alone(
    open_ward: Route, columns: dict[str, Any]
) -> None:
    assert await make(open_ward, **columns) is None
    assert list_patients(open_ward) == []
    assert (await open_ward.dataverse_double.contact())["statecode"] == 0


@pytest.mark.parametrize("column", ["lastname", "birthdate"])
async def test_who_cannot_be_told_from_others_is_refused(open_ward: Route, column: str) -> None:
    result = await make(open_ward, **{column: None})
    assert result is not None
    assert result.action == "refused"
    assert "a last name and a date of birth" in result.notes[0]
    assert list_patients(open_ward) == []


async def test_who_may_be_known_already_is_refused_by_id_without_a_name(open_ward: Route) -> None:
    open_ward.fhir_double.add(
        patient(id="known", name=[{"family": MARKER}], birthDate="1980-05-03")
    )
    result = await make(open_ward, lastname=MARKER)
    assert result is not None
    assert result.action == "refused"
    assert "Patient/known" in result.notes[0]
    assert MARKER not in str(result)
    assert len(list_patients(open_ward)) == 1
    row = await open_ward.dataverse_double.contact()
    assert (row["statecode"], row["msemr_azurefhirid"]) == (0, None)


async def test_an_operator_who_replays_a_refused_contact_does_not_make_it_inactive(
    open_ward: Route,
) -> None:
    """A replay knows nothing of where the work came from."""
    result = await make(open_ward, birthdate=None)
    assert result is not None
    assert result.action == "refused"
    item = WorkItem(result.delivery, resource=result.resource)
    await mirroring.mirror_resource(open_ward.mirror, item)
    assert (await open_ward.dataverse_double.contact())["statecode"] == 0


async def test_who_was_deleted_is_not_made_anew(open_ward: Route) -> None:
    await make(open_ward)
    open_ward.fhir_double.delete(f"Patient/{ANNA}")
    await make(open_ward, msemr_azurefhirid=None)
    cleared = {"msemr_azurefhirid": None, "lastname": "Newcomer"}
    answer = await open_ward.dataverse_double.send(
        "PATCH", f"contacts({ANNA})", cleared, headers={CALLER: NURSE_USER}
    )
    assert answer.status_code == 204
    await queue_edits(open_ward.edit_source)
    await open_ward.mirror_all()
    assert list_patients(open_ward) == []
    assert (await open_ward.dataverse_double.contact())["statecode"] == 0


async def test_what_dataverse_fills_by_itself_does_not_keep_a_contact_out(open_ward: Route) -> None:
    """A yes-or-no column has a default, and without a language there is nowhere to write it."""
    result = await make(open_ward, msemr_communication1preferred=False)
    assert result is not None
    assert result.action == "updated"
    assert len(list_patients(open_ward)) == 1


async def test_contacts_from_before_are_not_taken_up(route: Route) -> None:
    use(route, build_map())
    route.makes_new = True
    assert await make(route) is None
    assert list_patients(route) == []
