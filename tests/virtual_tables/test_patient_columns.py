"""The patient of a row: name and day of birth, which FHIR has in another resource."""

from __future__ import annotations

import pytest

from integration.core.errors import Rejected
from tests.virtual_tables.conftest import SHAPES, Feed, Json

SET = "msemr_observations"
NAME, BORN = "msemr_patientfullname", "msemr_patientbirthdate"
COLUMNS = f"msemr_azurefhirid,{NAME},{BORN}"


def observation(id_: str, patient: str | None) -> Json:
    made: Json = {
        "resourceType": "Observation",
        "id": id_,
        "status": "final",
        "code": {"text": "Body weight"},
    }
    return made if patient is None else {**made, "subject": {"reference": patient}}


@pytest.fixture
async def ward(feed: Feed) -> Feed:
    james = [{"family": "Kirk", "given": ["James", "Tiberius"], "use": "official"}]
    ann = [
        {"text": "Annie", "use": "nickname"},
        {"family": "Old", "given": ["Ann"], "use": "official", "period": {"end": "2001"}},
        {"family": "New", "given": ["Mary Ann"], "use": "official"},
    ]
    await feed.put(
        {"resourceType": "Patient", "id": "james", "name": james, "birthDate": "1980-02-03"},
        {"resourceType": "Patient", "id": "ann", "name": ann, "birthDate": "1980"},
        {"resourceType": "Patient", "id": "text", "name": [{"text": "Sample, Ida"}]},
        {"resourceType": "Patient", "id": "bare"},
        {"resourceType": "Group", "id": "james", "type": "person", "actual": True},
        observation("james-1", "Patient/james"),
        observation("james-2", "Patient/james"),
        observation("ann", "Patient/ann"),
        observation("text", "Patient/text"),
        observation("bare", "Patient/bare"),
        observation("gone", "Patient/gone"),
        observation("group", "Group/james"),
        observation("none", None),
    )
    feed.asked.clear()
    return feed


async def find(feed: Feed, filter_: str) -> list[str]:
    rows = await feed.every(SET, f"$select=msemr_azurefhirid&$filter={filter_}")
    return sorted(row["msemr_azurefhirid"] for row in rows)


async def test_a_list_shows_the_patients_by_one_request(ward: Feed) -> None:
    page = await ward.get(SET, f"$select={COLUMNS}")
    shown = {row["msemr_azurefhirid"]: (row[NAME], row[BORN]) for row in page["value"]}
    james = ("James Tiberius Kirk", "1980-02-03T00:00:00Z")
    assert shown == {
        "james-1": james,
        "james-2": james,
        "ann": ("Mary Ann New", "1980-01-01T00:00:00Z"),
        "text": ("Sample, Ida", None),
        "bare": (None, None),
        "gone": (None, None),
        "group": (None, None),
        "none": (None, None),
    }
    (request,) = ward.asked
    assert request.url.params["_include"] == "Observation:patient:Patient"


async def test_patients_are_not_read_where_nobody_asks_for_them(ward: Feed) -> None:
    await ward.get(SET, "$select=msemr_azurefhirid,_msemr_subjectpatient_value")
    await ward.get(SET, "$select=msemr_codetext&$filter=msemr_codetext eq 'x'&$count=true")
    assert all("_include" not in request.url.params for request in ward.asked)


@pytest.mark.parametrize("query", ["", f"$orderby={NAME} desc", "$filter=msemr_codetext ne 'x'"])
async def test_however_a_list_is_read_it_shows_the_patients(ward: Feed, query: str) -> None:
    every = await ward.every(SET)
    rows = await ward.every(
        SET, f"$select={COLUMNS}&{query}".rstrip("&"), prefer="odata.maxpagesize=3"
    )
    names = ("msemr_azurefhirid", NAME, BORN)
    expected = {tuple(row[name] for name in names) for row in every}
    assert {tuple(row[name] for name in names) for row in rows} == expected
    assert len(rows) == len(every)


@pytest.mark.parametrize(
    ("filter_", "search", "found"),
    [
        (f"contains({NAME},'ames')", "name:contains=ames", ["james-1", "james-2"]),
        (f"startswith({NAME},'James')", "name:contains=James", ["james-1", "james-2"]),
        (f"{NAME} eq 'james tiberius kirk'", "name:contains=tiberius", ["james-1", "james-2"]),
        # A name that is not shown is found by FHIR and left out here.
        (f"contains({NAME},'Old')", "name:contains=Old", []),
        (f"contains({NAME},'y Ann N')", "name:contains=Ann", ["ann"]),
        (f"{BORN} eq 1980-02-03T00:00:00Z", "birthdate=ge1980-02-02", ["james-1", "james-2"]),
        (f"{BORN} le 1980-01-01T00:00:00Z", "birthdate=le1980-01-02", ["ann"]),
    ],
)
async def test_a_filter_by_the_patient_is_a_chained_search(
    ward: Feed, filter_: str, search: str, found: list[str]
) -> None:
    assert await find(ward, filter_) == found
    (request,) = ward.asked
    assert f"patient:Patient.{search}" in str(request.url.query, "ascii").replace("%3A", ":")


async def test_what_has_no_search_is_decided_by_the_value(ward: Feed) -> None:
    nameless = ["bare", "gone", "group", "none"]
    assert await find(ward, f"{NAME} eq null") == nameless
    assert await find(ward, f"not (contains({NAME},'ames'))") == ["ann", "text"]
    assert await find(ward, f"{NAME} ne 'x' and {BORN} ne null") == ["ann", "james-1", "james-2"]


async def test_a_single_row_shows_its_patient_where_it_is_asked_for(ward: Feed) -> None:
    (row,) = await ward.every(SET, "$filter=msemr_azurefhirid eq 'ann'")
    address = f"{SET}({row['msemr_observationid']})"
    ward.asked.clear()
    assert (await ward.get(address))[NAME] == "Mary Ann New"
    assert len(ward.asked) == 2
    ward.asked.clear()
    assert NAME not in await ward.get(address, "$select=msemr_codetext")
    assert len(ward.asked) == 1


async def test_a_patient_cannot_be_written_through_another_table(ward: Feed) -> None:
    (row,) = await ward.every(SET, "$filter=msemr_azurefhirid eq 'ann'")
    with pytest.raises(Rejected, match=NAME):
        await ward.ask("PATCH", f"{SET}({row['msemr_observationid']})", body={NAME: "Other"})


def test_every_table_of_patients_shows_them() -> None:
    without = [name for name, shape in SHAPES.items() if shape.patient is None]
    assert without == ["Location"]
