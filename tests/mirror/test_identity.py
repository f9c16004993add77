"""A contact is a patient's if it shows the patient's FHIR id. Nobody else's contact is compared
with the patient, overwritten or deactivated, whatever its key is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from integration.core.model import RowResult, WorkItem
from integration.mapping.primary_keys import ServerKeys, derive_primary_key
from integration.mirror import mirror as mirroring
from tests.builders import Body, patient
from tests.conftest import Route, routed
from tests.doubles import MERGEABLE, MERGED, DataverseDouble, FhirDouble

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
OTTO = "0a4f2c9d-3f5b-4c0e-8f52-5b1f7a9b2d01"
THEIRS = "99999999-9999-4999-8999-999999999999"
DELIVERY = "019caaee-c260-7000-8000-000000000001"
PATIENT, PRACTITIONER = 935000000, 935000001

# Without alternate keys: two contacts may have one FHIR id.
KEYLESS = {"contact": {**MERGEABLE["contact"], "keys": None}}


@pytest.fixture
def dataverse() -> Any:
    found = DataverseDouble(KEYLESS)
    yield found
    found.app.close()


async def mirror(route: Route, resource: str) -> RowResult:
    """What was noted of it."""
    await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=resource))
    noted = await route.journal.list_row_results(DELIVERY)
    found: RowResult = next(row for row in noted if row.resource == resource)
    return found


async def contacts(route: Route) -> dict[str, Body]:
    return {row["contactid"]: row for row in await route.dataverse_double.contacts()}


# --- somebody else's row -------------------------------------------------------------------------


@pytest.fixture
async def given_away(route: Route) -> Route:
    """Anna's contact was given to Otto by hand: it has his id, and her key."""
    await mirror(route, route.fhir_double.add(patient(id=ANNA, name=[{"family": "Anna"}])))
    await route.dataverse_double.write(ANNA, msemr_azurefhirid=OTTO)
    otto = route.fhir_double.add(patient(id=OTTO, name=[{"family": "Otto"}]))
    assert (await mirror(route, otto)).row == ANNA
    return route


async def test_a_contact_that_was_given_to_another_patient_shows_that_one(
    given_away: Route,
) -> None:
    for _ in range(9):
        anna = given_away.fhir_double.add(patient(id=ANNA, name=[{"family": "Anna"}]))
    noted = await mirror(given_away, anna)
    assert noted.action == "refused"
    assert "shows another FHIR id" in noted.notes[0]
    (row,) = (await contacts(given_away)).values()
    assert (row["lastname"], row["msemr_azurefhirid"]) == ("Otto", OTTO)


async def test_a_deletion_leaves_the_contact_that_was_given_to_another_patient(
    given_away: Route,
) -> None:
    given_away.fhir_double.delete(f"Patient/{ANNA}")
    noted = await mirror(given_away, f"Patient/{ANNA}")
    assert noted.action == "refused"
    assert (await contacts(given_away))[ANNA]["statecode"] == 0


async def test_a_lookup_does_not_lead_to_a_contact_that_was_given_away(given_away: Route) -> None:
    link = [{"other": {"reference": f"Patient/{ANNA}"}, "type": "seealso"}]
    await mirror(given_away, given_away.fhir_double.add(patient(id="new", link=link)))
    row = next(
        row for row in (await contacts(given_away)).values() if row["msemr_azurefhirid"] == "new"
    )
    assert row["_msemr_link1_value"] is None


async def test_a_contact_whose_id_was_cleared_is_still_its_patient_s(route: Route) -> None:
    resource = route.fhir_double.add(patient(id="mrn.7"))
    key = (await mirror(route, resource)).row
    await route.dataverse_double.write(str(key), msemr_azurefhirid=None)
    route.fhir_double.add(patient(id="mrn.7", gender="male"))
    assert (await mirror(route, resource)).action == "updated"
    (row,) = (await contacts(route)).values()
    assert (row["contactid"], row["msemr_azurefhirid"]) == (key, "mrn.7")


@pytest.mark.parametrize("change", ["update", "delete"])
async def test_a_contact_whose_type_was_changed_is_left_alone_and_the_note_says_what_to_do(
    route: Route, change: str
) -> None:
    """Nothing is tried again: it would end in the same way for days."""
    resource = route.fhir_double.add(patient(id=ANNA))
    await mirror(route, resource)
    await route.dataverse_double.write(ANNA, msemr_contacttype=PRACTITIONER)
    if change == "update":
        route.fhir_double.add(patient(id=ANNA, gender="male"))
    else:
        route.fhir_double.delete(resource)
    before = len(route.dataverse_double.received)
    noted = await mirror(route, resource)
    assert noted.action == "refused"
    assert f"set its msemr_contacttype back to {PATIENT}" in noted.notes[0]
    assert route.queue_sender.sent == []
    assert len(route.dataverse_double.received) == before + 1


# --- merged by hand ------------------------------------------------------------------------------


async def test_after_the_merge_that_was_asked_for_the_contact_that_is_left_is_brought_up_to_date(
    route: Route,
) -> None:
    await route.dataverse_double.write(ANNA, msemr_contacttype=PATIENT)
    await route.dataverse_double.write(THEIRS, msemr_azurefhirid=ANNA, msemr_contacttype=PATIENT)
    resource = route.fhir_double.add(patient(id=ANNA, gender="female"))
    noted = await mirror(route, resource)
    assert (noted.action, "merge them" in noted.notes[0]) == ("refused", True)
    await route.dataverse_double.write(ANNA, **MERGED)
    noted = await mirror(route, resource)
    assert (noted.action, noted.row, noted.notes) == ("updated", THEIRS, ())
    rows = await contacts(route)
    assert (rows[THEIRS]["gendercode"], rows[ANNA]["gendercode"]) == (2, None)


async def test_a_contact_that_was_merged_by_hand_stays_inactive_and_is_said_to(
    route: Route,
) -> None:
    for id_ in (ANNA, OTTO):
        await mirror(route, route.fhir_double.add(patient(id=id_)))
    await route.dataverse_double.write(OTTO, **MERGED)
    noted = await mirror(route, route.fhir_double.add(patient(id=OTTO, gender="male")))
    assert noted.action == "updated"
    assert any("was merged into another one by hand" in note for note in noted.notes)
    row = (await contacts(route))[OTTO]
    assert (row["statecode"], row["gendercode"]) == (1, 1)


async def test_a_patient_that_comes_back_finds_its_own_contact_among_inactive_ones(
    route: Route,
) -> None:
    resource = route.fhir_double.add(patient(id=ANNA))
    await mirror(route, resource)
    await route.dataverse_double.write(
        THEIRS, msemr_contacttype=PATIENT, statecode=1, statuscode=2, lastname="old"
    )
    await route.dataverse_double.write(ANNA, statecode=1, statuscode=2)
    route.fhir_double.add(patient(id=ANNA, gender="male"))
    assert (await mirror(route, resource)).row == ANNA
    assert (await contacts(route))[ANNA]["statecode"] == 0


# --- ids that differ in letter case, where an alternate key takes them for one -------------------


@pytest.fixture
async def keyed() -> AsyncIterator[DataverseDouble]:
    found = DataverseDouble()  # its contacts have an alternate key on the FHIR id
    yield found
    found.app.close()


async def test_the_id_of_a_deleted_twin_in_other_letters_becomes_free(
    route: Route, keyed: DataverseDouble
) -> None:
    async with ending_at(route, keyed) as here:
        lower = here.fhir_double.add(patient(id="ward-7a"))
        await mirror(here, lower)
        upper = here.fhir_double.add(patient(id="WARD-7A", gender="male"))
        refused = await mirror(here, upper)
        assert (refused.action, "alternate key" in refused.notes[0]) == ("refused", True)
        here.fhir_double.delete(lower)
        await mirror(here, lower)
        assert (await mirror(here, upper)).action == "created"
        states = {row["msemr_azurefhirid"]: row["statecode"] for row in await keyed.contacts()}
        assert states == {"WARD-7A": 0, None: 1}


async def test_the_id_of_an_inactive_twin_that_fhir_still_has_is_not_taken_from_it(
    route: Route, keyed: DataverseDouble
) -> None:
    async with ending_at(route, keyed) as here:
        await mirror(here, here.fhir_double.add(patient(id="ward-7a", active=False)))
        noted = await mirror(here, here.fhir_double.add(patient(id="WARD-7A")))
        assert noted.action == "refused"
        assert [row["msemr_azurefhirid"] for row in await keyed.contacts()] == ["ward-7a"]


# --- two FHIR servers ----------------------------------------------------------------------------

HERE, THERE = "http://fhir/fhir", "http://elsewhere/fhir"


@asynccontextmanager
async def ending_at(
    route: Route, dataverse: DataverseDouble, fhir: FhirDouble | None = None, url: str = HERE
) -> AsyncIterator[Route]:
    """A route that ends at this organisation, from a FHIR server with this address."""
    async with routed(
        fhir or route.fhir_double,
        dataverse,
        route.clock,
        journal=route.journal,
        queue_sender=route.queue_sender,
        guard_store=route.guard_store,
    ) as found:
        upstream = replace(found.fhir.upstream, base=url)
        found.fhir = replace(found.fhir, upstream=upstream)
        found.dataverse_double = dataverse
        yield found


class Elsewhere(FhirDouble):
    """A FHIR server at another address."""

    async def hear(self, request: Any) -> Any:
        request.url = request.url.copy_with(host="fhir")
        return await super().hear(request)


@asynccontextmanager
async def two_servers(route: Route) -> AsyncIterator[tuple[Route, Route]]:
    """Both have a Patient/1, of two people, and mirror to one organisation without alternate keys."""
    other = Elsewhere(route.clock)
    route.fhir_double.add(patient(id="1", name=[{"family": "Anna"}]))
    for _ in range(3):
        other.add(patient(id="1", name=[{"family": "Berta"}]))
    async with ending_at(route, route.dataverse_double, other, THERE) as there:
        yield route, there


async def mirror_to(route: Route, **urls: tuple[str, ...]) -> RowResult:
    sink = replace(route.web_api, **urls)
    item = WorkItem(DELIVERY, resource="Patient/1")
    return await sink.bring_up_to_date(route.maps["Patient"], item)


async def names(route: Route) -> list[str]:
    return sorted(row["lastname"] for row in await route.dataverse_double.contacts())


async def test_a_patient_of_another_server_with_the_same_id_does_not_get_the_contact(
    route: Route,
) -> None:
    async with two_servers(route) as (here, there):
        await mirror_to(here)
        noted = await mirror_to(there)
        assert noted.action == "refused"
        assert "FHIR_OTHER_URLS" in noted.notes[0]
        assert await names(route) == ["Anna"]


async def test_with_the_other_server_named_each_has_a_contact_of_its_own(route: Route) -> None:
    async with two_servers(route) as (here, there):
        await mirror_to(here, other_urls=(THERE,))
        assert (await mirror_to(there, other_urls=(HERE,))).action == "created"
        assert await names(route) == ["Anna", "Berta"]
        there.fhir_double.delete("Patient/1")
        await mirror_to(there, other_urls=(HERE,))
        assert (await mirror_to(here, other_urls=(THERE,))).action == "unchanged"
        states = {
            row["lastname"]: row["statecode"] for row in await route.dataverse_double.contacts()
        }
        assert states == {"Anna": 0, "Berta": 1}


async def test_a_server_that_has_moved_keeps_its_contacts(route: Route) -> None:
    async with two_servers(route) as (here, there):
        first = await mirror_to(here)
        noted = await mirror_to(there, former_urls=(HERE,))
        assert (noted.action, noted.row) == ("updated", first.row)
        assert await names(route) == ["Berta"]


async def test_a_contact_with_a_key_from_before_keys_held_the_server_is_found_and_kept(
    route: Route,
) -> None:
    key = derive_primary_key("Patient", "1")
    await route.dataverse_double.write(
        key, msemr_azurefhirid="1", msemr_contacttype=PATIENT, jobtitle="kept"
    )
    noted = await mirror(route, route.fhir_double.add(patient(id="1", gender="male")))
    assert (noted.action, noted.row) == ("updated", key)
    (row,) = (await contacts(route)).values()
    assert (row["gendercode"], row["jobtitle"]) == (1, "kept")


def test_a_derived_key_tells_the_resource_and_the_server() -> None:
    here, there = ServerKeys(HERE), ServerKeys(THERE)
    key = here.derive("Patient", "1")
    assert key != there.derive("Patient", "1")
    assert key != here.derive("Patient", "2")
    assert key == ServerKeys(HERE.upper() + "/").derive("Patient", "1")
    assert there.is_of_other_server(key, "Patient", "1")
    assert not there.is_of_other_server(key, "Patient", "2")
    assert not here.is_of_other_server(key, "Patient", "1")
    assert not there.is_of_other_server(THEIRS, "Patient", "1")
    assert not replace(there, former=(HERE,)).is_of_other_server(key, "Patient", "1")


def test_a_guid_is_the_key_of_its_resource_whichever_server_has_it() -> None:
    assert ServerKeys(HERE).derive("Patient", ANNA) == ANNA
    assert not ServerKeys(THERE).is_of_other_server(ANNA, "Patient", ANNA)


def test_a_derived_key_never_changes() -> None:
    """Rows are found by it."""
    key = ServerKeys("https://fhir.example/r4").derive("Patient", "1")
    assert key == "af6999f6-06dd-8d21-9244-49db60796622"
