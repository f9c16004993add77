"""FHIR ids have up to 64 characters, the column of the healthcare solution 38. An id that does not
fit is never cut: its beginning would be another patient's.

https://hl7.org/fhir/R4/datatypes.html#id
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from integration.core.model import RowResult, WorkItem
from integration.mapping.load import load_shipped_maps
from integration.mapping.model import LongId
from integration.mapping.primary_keys import derive_primary_key
from integration.mirror import mirror as mirroring
from integration.mirror.healthcare_api_sink import HealthcareApiSink
from integration.queues.names import MIRROR_QUEUE
from tests.builders import MARKER, Body, patient
from tests.conftest import Route

SAME = "ward-7.registration-2026.0000000000000"  # what 38 characters would keep
ONE, OTHER = f"{SAME}-the-one", f"{SAME}-the-other-{'x' * 15}"
NUMBER = {"system": "urn:mrn", "value": "1"}
DELIVERY = "019caaee-c260-7000-8000-000000000001"
TOO_LONG = "the id is longer than the 38 characters of msemr_azurefhirid"


def following(long_id: LongId, route: Route) -> Route:
    """The route, its map of patients having this rule."""
    entity = replace(load_shipped_maps()["Patient"], long_id=long_id)
    route.maps = {"Patient": entity}
    route.all_maps = {**route.all_maps, **route.maps}
    return route


async def mirror(route: Route, resource: str) -> RowResult:
    """What was noted of it."""
    await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=resource))
    noted = await route.journal.list_row_results(DELIVERY)
    found: RowResult = [row for row in noted if row.resource == resource][-1]
    return found


def key_of(route: Route, id_: str) -> str:
    return route.web_api.server_keys.derive("Patient", id_)


async def contacts(route: Route) -> dict[str, Body]:
    return {row["contactid"]: row for row in await route.dataverse_double.contacts()}


def test_the_two_ids_are_ids_that_differ_only_where_the_column_ends() -> None:
    assert ONE[:38] == OTHER[:38] == SAME
    assert max(len(ONE), len(OTHER)) <= 64


# --- refuse --------------------------------------------------------------------------------------


async def test_a_patient_whose_id_does_not_fit_is_refused_and_nothing_is_written(
    route: Route,
) -> None:
    resource = route.fhir_double.add(patient(id=ONE, identifier=[NUMBER]))
    for _ in range(2):
        noted = await mirror(following(LongId.REFUSE, route), resource)
        assert (noted.action, noted.row, noted.notes) == ("refused", None, (TOO_LONG,))
        route.fhir_double.add(patient(id=ONE, gender="female"))
    assert route.dataverse_double.writes == []
    assert route.queued(MIRROR_QUEUE) == [], "nothing changes by trying again"


async def test_its_deletion_touches_no_row_of_another_patient(route: Route) -> None:
    following(LongId.REFUSE, route)
    await mirror(route, route.fhir_double.add(patient(id=SAME)))
    resource = route.fhir_double.add(patient(id=ONE))
    route.fhir_double.delete(resource)
    noted = await mirror(route, resource)
    assert (noted.action, noted.notes) == ("refused", (TOO_LONG,))
    (row,) = (await contacts(route)).values()
    assert (row["msemr_azurefhirid"], row["statecode"]) == (SAME, 0)


async def test_an_id_of_as_many_characters_as_the_column_has_is_kept_whole(route: Route) -> None:
    noted = await mirror(following(LongId.REFUSE, route), route.fhir_double.add(patient(id=SAME)))
    assert noted.action == "created"
    assert (await contacts(route))[noted.row or ""]["msemr_azurefhirid"] == SAME


# --- digest --------------------------------------------------------------------------------------


async def test_a_guid_that_follows_from_the_id_stands_for_it(route: Route) -> None:
    resource = route.fhir_double.add(patient(id=ONE, identifier=[NUMBER]))
    noted = await mirror(following(LongId.DIGEST, route), resource)
    key = key_of(route, ONE)
    assert (noted.action, noted.row) == ("created", key)
    row = (await contacts(route))[key]
    digest = derive_primary_key("Patient", ONE)
    assert (row["msemr_azurefhirid"], row["lastname"]) == (digest, MARKER)
    (number,) = await route.dataverse_double.rows("msemr_medicalidentifiers")
    assert number["_msemr_assignee_value"] == key


async def test_the_row_is_found_again_by_an_update_and_by_a_delete(route: Route) -> None:
    following(LongId.DIGEST, route)
    await mirror(route, route.fhir_double.add(patient(id=ONE, gender="male")))
    resource = route.fhir_double.add(patient(id=ONE, gender="female"))
    assert (await mirror(route, resource)).action == "updated"
    assert (await mirror(route, resource)).action == "unchanged"
    (row,) = (await contacts(route)).values()
    assert (row["gendercode"], row["msemr_azurefhirversion"]) == (2, "2")
    route.fhir_double.delete(resource)
    assert (await mirror(route, resource)).action == "deactivated"
    (row,) = (await contacts(route)).values()
    assert row["statecode"] == 1


@pytest.mark.parametrize("other", [OTHER, ONE.upper()], ids=["the same beginning", "other case"])
async def test_two_ids_that_dataverse_could_take_for_one_have_two_rows(
    route: Route, other: str
) -> None:
    following(LongId.DIGEST, route)
    for id_, gender in ((ONE, "female"), (other, "male")):
        await mirror(route, route.fhir_double.add(patient(id=id_, gender=gender)))
    found = await contacts(route)
    assert found[key_of(route, ONE)]["gendercode"] == 2
    assert found[key_of(route, other)]["gendercode"] == 1


async def test_links_lead_to_the_row_whichever_of_the_two_comes_first(route: Route) -> None:
    following(LongId.DIGEST, route)
    link = {"other": {"reference": f"Patient/{ONE}"}, "type": "replaces"}
    await mirror(route, route.fhir_double.add(patient(id="new", link=[link])))
    await mirror(route, route.fhir_double.add(patient(id=ONE)))
    for claim, _ in route.queued(MIRROR_QUEUE):
        await mirroring.mirror_resource(route.mirror, claim)
    row = (await contacts(route))[key_of(route, "new")]
    assert row["_msemr_link1_value"] == key_of(route, ONE)


async def test_when_the_column_is_widened_the_row_gets_the_whole_id(route: Route) -> None:
    """As it would be found by then: the digest in a column that has room for the id."""
    table = route.dataverse_double
    short = "ward-7.a"
    key = derive_primary_key("Patient", short)
    await table.write(key, msemr_azurefhirid=key, msemr_contacttype=935000000)
    await mirror(following(LongId.DIGEST, route), route.fhir_double.add(patient(id=short)))
    (row,) = (await contacts(route)).values()
    assert (row["contactid"], row["msemr_azurefhirid"]) == (key, short)


# --- by the healthcare APIs ----------------------------------------------------------------------


@pytest.mark.parametrize("rule", LongId)
async def test_what_the_toolkit_cannot_keep_is_refused_whatever_our_map_says(
    route: Route, rule: LongId
) -> None:
    """There the organisation's own maps write the id."""
    following(rule, route)
    sink = HealthcareApiSink(route.web_api, route.order)
    it = replace(route.mirror, sink=sink)
    resource = route.fhir_double.add(patient(id=ONE))
    await mirroring.mirror_resource(it, WorkItem(DELIVERY, resource=resource))
    (noted,) = await route.journal.list_row_results(DELIVERY)
    assert (noted.action, noted.row) == ("refused", None)
    assert [note.partition(" @ ")[0] for note in noted.notes] == [TOO_LONG]
    assert await contacts(route) == {}
