"""A row, its children and what its lookups point at: written at once, and only what differs."""

from __future__ import annotations

from typing import Any

import pytest

from integration.core.model import RowResult, WorkItem
from integration.journal.pending_lookups import LookupState
from integration.mirror import mirror as mirroring
from integration.queues.names import MIRROR_QUEUE
from tests.builders import Body, patient
from tests.conftest import Route, every_map

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
DELIVERY = "019caaee-c260-7000-8000-000000000001"


@pytest.fixture
def route(route: Route) -> Route:
    """With the maps of everybody a Patient refers to in use."""
    route.maps = every_map()
    return route


def anna(**elements: Any) -> Body:
    return patient(id=ANNA, **elements)


def number(value: str, system: str = "urn:mrn") -> Body:
    return {"system": system, "value": value}


async def mirror(route: Route, resource: Body) -> RowResult:
    """Written to FHIR, then mirrored: what was noted."""
    return await again(route, route.fhir_double.add(resource))


async def again(route: Route, resource: str) -> RowResult:
    await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=resource))
    noted = {row.resource: row for row in await route.journal.list_row_results(DELIVERY)}
    return noted[resource]


async def numbers(route: Route) -> list[tuple[str, str]]:
    rows = await route.dataverse_double.rows("msemr_medicalidentifiers")
    return sorted((row["msemr_identifiersystem"], row["msemr_value"]) for row in rows)


# -- children -------------------------------------------------------------------------------------


async def test_each_identifier_is_a_row_of_its_own(route: Route) -> None:
    await mirror(route, anna(identifier=[number("1"), number("2"), number("1", "urn:other")]))
    assert await numbers(route) == [("urn:mrn", "1"), ("urn:mrn", "2"), ("urn:other", "1")]
    (row, *_) = await route.dataverse_double.rows("msemr_medicalidentifiers")
    assert row["_msemr_assignee_value"] == ANNA


async def test_an_identifier_without_a_system_is_a_row_too(route: Route) -> None:
    resource = anna(identifier=[{"value": "1"}, number("1")])
    await mirror(route, resource)
    assert len(await children(route)) == 2
    assert (await mirror(route, resource | {"gender": "other"})).action == "updated"
    assert len(await children(route)) == 2


async def test_a_number_that_staff_have_typed_stays(route: Route) -> None:
    """The mirror removes what it has made; how many rows that were is said."""
    await mirror(route, anna(identifier=[number("1"), number("2")]))
    typed = {
        "msemr_value": "777",
        "msemr_Assignee@odata.bind": f"contacts({ANNA})",
    }
    await route.dataverse_double.change("POST", "msemr_medicalidentifiers", typed)
    noted = await mirror(route, anna(identifier=[number("2")]))
    rows = await route.dataverse_double.rows("msemr_medicalidentifiers")
    assert {row["msemr_value"] for row in rows} == {"2", "777"}
    assert noted.remarks == (
        "msemr_medicalidentifiers: 1 removed, which the resource does not have any more",
    )
    assert noted.notes == ()
    noted = await mirror(route, anna(identifier=[number("2")], gender="other"))
    assert noted.remarks == ()


async def test_a_number_that_a_merge_has_moved_is_removed_with_its_identifier(
    route: Route,
) -> None:
    """The row of the mirror was merged into another one of the same person."""
    await mirror(route, anna(identifier=[number("1"), number("2")]))
    double = route.dataverse_double
    survivor = await double.send("POST", "contacts", {"msemr_contacttype": 935000000})
    key = survivor.headers["odata-entityid"].rpartition("(")[2].rstrip(")")
    kind = {"@odata.type": "Microsoft.Dynamics.CRM.contact"}
    merge = {
        "Target": {**kind, "contactid": key},
        "Subordinate": {**kind, "contactid": ANNA},
        "PerformParentingChecks": False,
    }
    await double.change("POST", "Merge", merge)
    await double.write(ANNA, msemr_azurefhirid=None)
    await double.write(key, msemr_azurefhirid=ANNA)
    noted = await mirror(route, anna(identifier=[number("2")]))
    assert noted.row == key
    rows = await double.rows("msemr_medicalidentifiers")
    assert [(row["msemr_value"], row["_msemr_assignee_value"]) for row in rows] == [("2", key)]


async def test_children_are_added_changed_and_removed_with_their_row(route: Route) -> None:
    await mirror(route, anna(identifier=[number("1"), number("2")]))
    before = {row["msemr_value"]: row for row in await children(route)}
    changed = number("2") | {"use": "old", "period": {"end": "2026-01-01"}}
    await mirror(route, anna(identifier=[changed, number("3")]))
    after = {row["msemr_value"]: row for row in await children(route)}
    assert sorted(after) == ["2", "3"]
    key = "msemr_medicalidentifierid"
    assert after["2"][key] == before["2"][key]
    assert after["2"]["msemr_periodend"] != before["2"]["msemr_periodend"]


async def test_a_row_and_its_children_are_written_in_one_request(route: Route) -> None:
    await mirror(route, anna(identifier=[number(str(n)) for n in range(200)]))
    assert len(route.dataverse_double.writes) == 1
    assert len(await children(route)) == 200


async def test_what_is_the_same_is_not_written(route: Route) -> None:
    resource = anna(identifier=[number("1")], gender="female", birthDate="1980-02-29")
    await mirror(route, resource)
    writes = len(route.dataverse_double.writes)
    assert (await again(route, f"Patient/{ANNA}")).action == "unchanged"
    assert len(route.dataverse_double.writes) == writes


async def test_only_the_columns_that_differ_are_written(route: Route) -> None:
    await mirror(route, anna(gender="female", birthDate="1980-02-29"))
    await mirror(route, anna(gender="female", birthDate="1980-02-28"))
    body = route.dataverse_double.writes[-1].body
    assert sorted(body) == ["birthdate", "msemr_azurefhirversion"]


async def test_a_child_that_dataverse_refuses_does_not_cost_the_row(route: Route) -> None:
    async def refused() -> None:
        for path in ("$batch", "msemr_medicalidentifiers"):
            route.dataverse_double.will_fail(kind="status", status=400, path=path)

    route.dataverse_double.will_be_preceded("PATCH", refused)
    noted = await mirror(route, anna(identifier=[number("1")]))
    assert (await route.dataverse_double.contact())["contactid"] == ANNA
    assert noted.action == "created"
    assert any("msemr_medicalidentifiers: answered 400" in note for note in noted.notes)


async def children(route: Route) -> list[Body]:
    return await route.dataverse_double.rows("msemr_medicalidentifiers")


# -- lookups --------------------------------------------------------------------------------------

CARED = {"generalPractitioner": [{"reference": "Practitioner/gp"}]}
GP: Body = {"resourceType": "Practitioner", "id": "gp", "name": [{"family": "Doctor"}]}


async def test_a_lookup_points_at_the_row_of_the_resource(route: Route) -> None:
    noted = await mirror(route, GP)
    await mirror(route, anna(**CARED))
    row = await contact_of(route, ANNA)
    assert row["_msemr_generalpractioner_value"] == noted.row


async def test_a_lookup_is_filled_when_its_target_arrives(route: Route) -> None:
    noted = await mirror(route, anna(**CARED))
    assert any("is not in Dataverse yet" in note for note in noted.notes)
    assert (await contact_of(route, ANNA))["_msemr_generalpractioner_value"] is None
    arrived = await mirror(route, GP)
    assert route.mirrored == [f"Patient/{ANNA}"]
    await again(route, f"Patient/{ANNA}")
    assert (await contact_of(route, ANNA))["_msemr_generalpractioner_value"] == arrived.row


async def test_who_has_been_waited_for_is_not_waited_for_again(route: Route) -> None:
    await mirror(route, anna(**CARED))
    await mirror(route, GP)
    assert await route.row_waits.list_resources("Practitioner/gp", LookupState.WAITING) == []
    route.queue_sender.sent = [each for each in route.queue_sender.sent if each[0] != MIRROR_QUEUE]
    await mirror(route, GP | {"active": True})
    assert route.mirrored == []


async def test_a_lookup_that_fhir_no_longer_says_is_cleared(route: Route) -> None:
    await mirror(route, GP)
    await mirror(route, anna(**CARED))
    await mirror(route, anna())
    assert (await contact_of(route, ANNA))["_msemr_generalpractioner_value"] is None


async def test_where_a_key_lets_one_row_have_an_id_the_second_resource_is_refused(
    route: Route,
) -> None:
    """A Patient and a Practitioner share the table; some organisations have a key on the id."""
    await mirror(route, patient(id="7", gender="female"))
    noted = await mirror(route, GP | {"id": "7"})
    assert noted.action == "refused"
    first = await route.dataverse_double.contact()
    key = "alternate key msemr_azurefhirid_key (msemr_azurefhirid) of contact"
    assert f"{key} is taken by contact({first['contactid']})" in noted.notes[0]
    assert first["gendercode"] == 2


async def contact_of(route: Route, key: str) -> Body:
    rows = await route.dataverse_double.contacts()
    return next(row for row in rows if row["contactid"] == key)


async def test_a_lookup_to_a_type_that_its_column_does_not_take_is_noted(route: Route) -> None:
    clinic: Body = {"resourceType": "Organization", "id": "clinic", "name": "Clinic"}
    await mirror(route, clinic)
    noted = await mirror(route, anna(generalPractitioner=[{"reference": "Organization/clinic"}]))
    assert noted.action == "created"
    assert "msemr_generalpractioner: the column does not accept rows of account" in noted.notes


# -- codeable concepts ----------------------------------------------------------------------------

SPEAKS = {"communication": [{"language": {"coding": [{"code": "de", "display": "German"}]}}]}


async def test_a_concept_is_made_once_and_found_again(route: Route) -> None:
    await mirror(route, anna(**SPEAKS))
    await mirror(route, patient(id="other", **SPEAKS))
    (concept,) = await route.dataverse_double.rows("msemr_codeableconcepts")
    assert (concept["msemr_code"], concept["msemr_name"]) == ("de", "German")
    for row in await route.dataverse_double.contacts():
        lookup = row["_msemr_communication1language_value"]
        assert lookup == concept["msemr_codeableconceptid"]


# -- deleted --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "left"), [("delete", 0), ("deactivate", 1), ("leave", 1)])
async def test_what_happens_to_the_row_of_a_deleted_patient_is_a_setting(
    route: Route, rule: str, left: int
) -> None:
    route.on_delete = rule
    await mirror(route, anna(identifier=[number("1")]))
    route.fhir_double.delete(f"Patient/{ANNA}")
    await again(route, f"Patient/{ANNA}")
    rows = await route.dataverse_double.contacts()
    assert (len(rows), len(await children(route))) == (left, left)
    assert [row["statecode"] for row in rows] == ([1] if rule == "deactivate" else [0] * left)
