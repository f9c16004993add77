"""What Dataverse refuses of a change set costs what was refused, and nothing else: the rest goes
again, under the condition that the first one had. It is one change set where Dataverse says what
it refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from integration.core.model import RowResult, WorkItem
from integration.mirror import mirror as mirroring
from integration.queues.names import MIRROR_QUEUE
from tests.builders import Body, patient
from tests.conftest import Route
from tests.mirror.plug_ins import REFUSED, UNEXPECTED, Particular

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
OTTO = "0a4f2c9d-3f5b-4c0e-8f52-5b1f7a9b2d01"
DELIVERY = "019caaee-c260-7000-8000-000000000001"
NUMBERS, CONCEPTS = "msemr_medicalidentifiers", "msemr_codeableconcepts"


@pytest.fixture
def dataverse() -> Iterator[Particular]:
    found = Particular()
    yield found
    found.app.close()


@pytest.fixture
def plug_in(dataverse: Particular) -> Particular:
    return dataverse


def anna(*numbers: str, **elements: Any) -> Body:
    identifiers = [{"system": "urn:mrn", "value": number} for number in numbers]
    return patient(id=ANNA, identifier=identifiers, **elements)


async def mirror(route: Route, resource: Body) -> RowResult:
    """Written to FHIR, then mirrored: what was noted."""
    return await again(route, route.fhir_double.add(resource))


async def again(route: Route, resource: str, **item: Any) -> RowResult:
    await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=resource, **item))
    noted = {row.resource: row for row in await route.journal.list_row_results(DELIVERY)}
    return noted[resource]


async def numbers(route: Route) -> list[str]:
    return sorted(row["msemr_value"] for row in await route.dataverse_double.rows(NUMBERS))


async def test_a_refused_child_is_left_out_and_the_rest_is_one_change_set(
    route: Route, plug_in: Particular
) -> None:
    plug_in.refused = {"A2": 400}
    noted = await mirror(route, anna("A1", "A2", "A3"))
    assert noted.action == "created"
    assert f"{NUMBERS}: answered 400 {REFUSED}, so a row was left out" in noted.notes
    assert await numbers(route) == ["A1", "A3"]
    assert len(plug_in.writes) == 2


async def test_a_child_that_an_alternate_key_forbids_costs_that_child_and_says_so(
    route: Route,
) -> None:
    await mirror(route, anna("4711"))
    otto = patient(id=OTTO, identifier=[{"system": "urn:other", "value": "4711"}], gender="male")
    noted = await mirror(route, otto)
    assert noted.action == "created"
    why = "another row has what an alternate key allows once"
    (note,) = [note for note in noted.notes if note.startswith(NUMBERS)]
    (first, *_) = await route.dataverse_double.rows(NUMBERS)
    taken = f"msemr_medicalidentifier({first['msemr_medicalidentifierid']})"
    assert f"answered 412 0x80060892 ({why}), so a row was left out. alternate key" in note
    assert f"number_key (msemr_value) of msemr_medicalidentifier is taken by {taken}" in note
    assert noted.left_out == 1
    rows = {row["contactid"]: row for row in await route.dataverse_double.contacts()}
    assert rows[OTTO]["gendercode"] == 1


async def test_a_row_that_another_alternate_key_forbids_is_not_said_to_have_the_id_of_another(
    route: Route,
) -> None:
    phone = {"telecom": [{"system": "phone", "use": "mobile", "value": "1"}]}
    await mirror(route, anna(**phone))
    noted = await mirror(route, patient(id=OTTO, **phone))
    assert noted.action == "refused"
    told = f"alternate key phone_key (mobilephone) of contact is taken by contact({ANNA}): merge"
    assert noted.notes[0].startswith(told)
    assert "FHIR id" not in noted.notes[0]


# Which write after the refused one another worker precedes: what it does comes between any two.
MOMENTS = pytest.mark.parametrize("count", [1, 2])


@MOMENTS
async def test_what_goes_again_does_not_replace_a_later_version(
    route: Route, plug_in: Particular, count: int
) -> None:
    """Another worker mirrors the third version after the second one's child was refused."""
    await mirror(route, anna())
    plug_in.refused = {"A9": 400}
    route.fhir_double.add(anna("A1", "A9"))

    async def other() -> None:
        await mirror(route, anna("A2"))

    plug_in.before_write = (count, other)
    await again(route, f"Patient/{ANNA}")
    if plug_in.before_write is not None:  # there was no such moment
        plug_in.before_write = None
        await other()
    row = await route.dataverse_double.contact()
    assert row["msemr_azurefhirversion"] == "3"
    assert await numbers(route) == ["A2"]


@MOMENTS
async def test_a_contact_that_is_born_inactive_does_not_undo_a_later_activation(
    route: Route, plug_in: Particular, count: int
) -> None:
    plug_in.refused = {"A9": 400}
    route.fhir_double.add(anna("A9", active=False))

    async def other() -> None:
        await mirror(route, anna(active=True))

    plug_in.before_write = (count, other)
    await again(route, f"Patient/{ANNA}")
    if plug_in.before_write is not None:
        plug_in.before_write = None
        await other()
    assert (await route.dataverse_double.contact())["statecode"] == 0


async def test_a_child_that_is_deleted_meanwhile_comes_back_whole(route: Route) -> None:
    """An update of a row that is gone would create one that belongs to nobody."""
    await mirror(route, anna("A1"))
    (child,) = await route.dataverse_double.rows(NUMBERS)
    changed = [{"system": "urn:mrn", "value": "A1", "period": {"start": "2021-01-01"}}]
    route.fhir_double.add(patient(id=ANNA, identifier=changed))

    async def deleted() -> None:
        await route.dataverse_double._own.delete(f"{NUMBERS}({child['msemr_medicalidentifierid']})")

    route.dataverse_double.will_be_preceded("PATCH", deleted)
    await again(route, f"Patient/{ANNA}")
    (row,) = await route.dataverse_double.rows(NUMBERS)
    assert (row["msemr_value"], row["_msemr_assignee_value"]) == ("A1", ANNA)


async def test_a_child_that_is_answered_500_does_not_keep_the_patient_waiting(
    route: Route, plug_in: Particular
) -> None:
    """It is tried again a few times, later each time."""
    plug_in.refused = {"A2": 500}
    noted = await mirror(route, anna("A1", "A2", gender="male"))
    assert noted.action == "created"
    assert f"{NUMBERS}: answered 500 {UNEXPECTED}, so a row was left out" in noted.notes
    assert (await route.dataverse_double.contact())["gendercode"] == 1
    assert await numbers(route) == ["A1"]
    delays = []
    while queued := route.queued(MIRROR_QUEUE):
        ((item, delay),) = queued
        delays.append(delay)
        route.queue_sender.sent.clear()
        await mirroring.mirror_resource(route.mirror, item)
    assert delays == [60, 120, 240, 480, 960]


async def test_a_child_whose_trouble_passes_comes_with_the_next_try(
    route: Route, plug_in: Particular
) -> None:
    plug_in.refused = {"A2": 500}
    await mirror(route, anna("A1", "A2"))
    plug_in.refused = {}
    ((item, _),) = route.queued(MIRROR_QUEUE)
    await mirroring.mirror_resource(route.mirror, item)
    assert await numbers(route) == ["A1", "A2"]


async def test_a_row_that_is_answered_500_is_tried_again_whole(
    route: Route, plug_in: Particular
) -> None:
    plug_in.refused = {"lastname": 500}
    await mirroring.mirror_resource(
        route.mirror, WorkItem(DELIVERY, resource=route.fhir_double.add(anna("A1")))
    )
    assert len(route.queued(MIRROR_QUEUE)) == 1
    assert await numbers(route) == []


async def test_a_refused_concept_costs_the_columns_that_point_at_it(
    route: Route, plug_in: Particular
) -> None:
    plug_in.refused = {CONCEPTS: 400}
    speaks = {"communication": [{"language": {"coding": [{"code": "de", "display": "German"}]}}]}
    noted = await mirror(route, anna("A1", **speaks))
    assert noted.action == "created"
    assert any(note.startswith(f"{CONCEPTS}: answered 400") for note in noted.notes)
    row = await route.dataverse_double.contact()
    assert row["_msemr_communication1language_value"] is None
    assert await numbers(route) == ["A1"]


@pytest.mark.parametrize(
    ("refused", "written"),
    [
        (["A1"], ["A2", "A3", "A4", "A5"]),
        (["A5"], ["A1", "A2", "A3", "A4"]),
        (["A2", "A4"], ["A1", "A3", "A5"]),
        (["A1", "A2", "A3"], ["A4", "A5"]),
        (["A1", "A2", "A3", "A4", "A5"], []),
    ],
)
async def test_where_dataverse_does_not_say_which_change_it_refused_the_others_arrive(
    route: Route, plug_in: Particular, refused: list[str], written: list[str]
) -> None:
    plug_in.refused, plug_in.names_the_change = dict.fromkeys(refused, 400), False
    noted = await mirror(route, anna("A1", "A2", "A3", "A4", "A5", gender="male"))
    assert (noted.action, noted.version) == ("created", "1")
    assert f"{NUMBERS}: answered 400 {REFUSED}, so a row was left out" in noted.notes
    assert "" not in noted.notes
    assert await numbers(route) == written
    assert (await route.dataverse_double.contact())["gendercode"] == 1


async def test_where_dataverse_does_not_say_which_change_it_refused_old_children_go(
    route: Route, plug_in: Particular
) -> None:
    await mirror(route, anna("A1", "A2"))
    plug_in.refused, plug_in.names_the_change = {"A9": 400}, False
    noted = await mirror(route, anna("A2", "A3", "A9"))
    assert (noted.action, noted.version) == ("updated", "2")
    assert await numbers(route) == ["A2", "A3"]
    etag = (await route.dataverse_double.contact())["@odata.etag"]
    assert (await again(route, f"Patient/{ANNA}")).action == "unchanged"
    assert (await route.dataverse_double.contact())["@odata.etag"] == etag


@pytest.mark.parametrize("count", [1, 2, 3, 4])
async def test_what_goes_in_halves_does_not_replace_a_later_version(
    route: Route, plug_in: Particular, count: int
) -> None:
    """Another worker mirrors the third version between any two change sets of the second one."""
    await mirror(route, anna())
    plug_in.refused, plug_in.names_the_change = {"A9": 400}, False
    route.fhir_double.add(anna("A1", "A3", "A9", "A4"))

    async def other() -> None:
        await mirror(route, anna("A2"))

    plug_in.before_write = (count, other)
    await again(route, f"Patient/{ANNA}")
    if plug_in.before_write is not None:  # there was no such moment
        plug_in.before_write = None
        await other()
    row = await route.dataverse_double.contact()
    assert row["msemr_azurefhirversion"] == "3"
    assert await numbers(route) == ["A2"]


async def test_a_row_that_goes_between_two_halves_comes_back_for_all_who_refer_to_it(
    route: Route, plug_in: Particular
) -> None:
    await mirror(route, anna())
    refers = {"other": {"reference": f"Patient/{ANNA}"}, "type": "replaced-by"}
    await mirror(route, patient(id=OTTO, active=False, link=[refers]))
    plug_in.refused, plug_in.names_the_change = {"A9": 400}, False
    route.fhir_double.add(anna("A1", "A9", "A3"))

    async def delete_row() -> None:
        await route.dataverse_double._own.delete(f"contacts({ANNA})")

    plug_in.after_write = delete_row
    assert (await again(route, f"Patient/{ANNA}")).action == "created"
    assert await numbers(route) == ["A1", "A3"]
    ((item, _),) = route.queued(MIRROR_QUEUE)
    assert item.resource == f"Patient/{OTTO}"


async def test_of_very_many_changes_that_are_not_named_not_each_costs_a_request(
    route: Route, plug_in: Particular
) -> None:
    plug_in.refused, plug_in.names_the_change = {"urn:mrn": 400}, False
    noted = await mirror(route, anna(*(f"A{number}" for number in range(100))))
    assert noted.action == "created"
    assert len(plug_in.writes) <= 12
    assert any("so its changes were left out" in note for note in noted.notes)
    assert await numbers(route) == []


async def test_of_very_many_refused_children_not_each_costs_a_request(
    route: Route, plug_in: Particular
) -> None:
    plug_in.refused = {"urn:mrn": 400}
    noted = await mirror(route, anna(*(f"A{number}" for number in range(100))))
    assert noted.action == "created"
    assert len(plug_in.writes) <= 12
    assert len([note for note in noted.notes if note.startswith(NUMBERS)]) == 2


async def test_what_is_refused_again_writes_nothing_again(
    route: Route, plug_in: Particular
) -> None:
    plug_in.refused = {"A2": 400}
    await mirror(route, anna("A1", "A2"))
    etag = (await route.dataverse_double.contact())["@odata.etag"]
    noted = await again(route, f"Patient/{ANNA}")
    assert noted.action == "unchanged"
    assert noted.notes != ()
    assert (await route.dataverse_double.contact())["@odata.etag"] == etag
