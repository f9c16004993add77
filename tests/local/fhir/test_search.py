"""Searches of the FHIR server of the laptop."""

import pytest

from tests.local.fhir.calls import MRN, condition, entry, follow, ids, is_outcome, patient, send

BROKEN = {"text": "Broken arm"}
FRACTURE = {
    "coding": [{"code": "1", "display": "Fracture, left"}, {"code": "2", "display": "broken bone"}]
}


@pytest.fixture
async def ward(fhir):
    await send(
        fhir,
        "batch",
        entry(
            "PUT",
            "Patient/a",
            patient(
                "a", mrn="M1", birthDate="1980-02-03", name=[{"family": "Ahorn", "given": ["Ida"]}]
            ),
        ),
        entry(
            "PUT",
            "Patient/b",
            patient("b", mrn="m1", birthDate="1990-02-03", name=[{"family": "Birke"}]),
        ),
        entry("PUT", "Patient/c", {**patient("c"), "identifier": [{"value": "bare"}]}),
        entry("PUT", "Condition/1", {**condition("Patient/a", id="1"), "code": BROKEN}),
        entry("PUT", "Condition/2", {**condition("Patient/b", id="2"), "code": FRACTURE}),
        entry("PUT", "Condition/3", condition("Group/a", id="3")),
    )


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("/Patient?_id=a,c,none", ["a", "c"]),
        (f"/Patient?identifier={MRN}|M1", ["a"]),
        ("/Patient?identifier=M1,bare", ["a", "c"]),
        ("/Patient?identifier=|bare", ["c"]),
        ("/Patient?identifier=|M1", []),
        (f"/Patient?identifier={MRN}|", ["a", "b"]),
        ("/Patient?_id=b&identifier=M1", []),
        ("/Condition?patient=Patient/a", ["1"]),
        ("/Condition?patient=a", ["1"]),
        ("/Condition?subject=a", ["1", "3"]),
        ("/Condition?subject=Patient/a,Patient/b", ["1", "2"]),
        ("/Patient?name=id", ["a"]),
        ("/Patient?family=orn", []),
        ("/Patient?family:contains=orn", ["a"]),
        ("/Condition?patient:Patient.name=id", ["1"]),
        ("/Condition?subject:Patient.family:contains=irk", ["2"]),
        ("/Condition?subject:Patient.birthdate=gt1985&subject:Patient.family=birke", ["2"]),
        ("/Condition?subject:Patient.name=nobody", []),
        ("/Condition?code:text=brok", ["1", "2"]),
        ("/Condition?code:text=Fracture,%20left", ["2"]),
        ("/Condition?code:text=arm", []),
        ("/Condition?code:text=Broken,Fracture", []),
        ("/Condition?code:text=1", []),
        ("/Patient?birthdate=1980-02-03", ["a"]),
        ("/Patient?birthdate=gt1985", ["b"]),
        ("/Patient?birthdate:missing=true", ["c"]),
    ],
)
async def test_a_search_finds_what_it_asks_for(fhir, ward, search, found):
    assert sorted(await ids(fhir, search)) == found


async def test_a_search_sorts(fhir, ward):
    assert await ids(fhir, "/Patient?_sort=-birthdate") == ["b", "a", "c"]
    assert await ids(fhir, "/Patient?_sort=family,_lastUpdated") == ["c", "a", "b"]


async def test_a_search_brings_what_its_matches_refer_to(fhir, ward):
    search = "/Condition?_include=Condition:subject:Patient&_sort=_lastUpdated"
    found = (await fhir.get(search)).json()["entry"]
    assert [(item["search"]["mode"], item["resource"]["id"]) for item in found] == [
        *(("match", id_) for id_ in "123"),
        *(("include", id_) for id_ in "ab"),
    ]
    page = (await fhir.get(f"{search}&_count=1")).json()
    assert [item["resource"]["id"] for item in page["entry"]] == ["1", "a"]
    (after,) = [link["url"] for link in page["link"] if link["relation"] == "next"]
    page = (await fhir.get(after)).json()
    assert [item["resource"]["id"] for item in page["entry"]] == ["2", "b"]


@pytest.mark.parametrize(
    "search",
    [
        "/Condition?subject.name=x",  # a patient's or a group's
        "/Condition?subject:Device.name=x",
        "/Condition?code.name=x",
        "/Condition?subject:Patient.colour=x",
        "/Condition?_include=Condition:code",
        "/Condition?_include=Observation:subject",
    ],
)
async def test_a_link_that_does_not_lead_there_is_refused(fhir, ward, search):
    assert is_outcome(await fhir.get(search), 400)


async def test_a_search_may_be_posted(fhir, ward):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for url, content in [
        ("/Patient/_search", "identifier=M1"),
        ("/Patient/_search?identifier=M1", None),
        ("/Patient/_search?_id=a,b", "identifier=M1&_count=5"),
    ]:
        found = await fhir.post(url, content=content, headers=form)
        assert [item["resource"]["id"] for item in found.json()["entry"]] == ["a"]
    assert is_outcome(await fhir.post("/Patient/_search", json={"identifier": "M1"}), 415)


async def test_a_search_tells_the_total_only_when_asked(fhir, ward):
    assert "total" not in (await fhir.get("/Patient")).json()
    assert (await fhir.get("/Patient?_total=accurate&_count=1")).json()["total"] == 3
    counted = (await fhir.get("/Patient?_summary=count")).json()
    assert counted["total"] == 3
    assert "entry" not in counted


async def test_following_the_next_links_finds_everything_once(fhir, ward):
    found = await follow(fhir, "/Patient?_count=2")
    assert [item["resource"]["id"] for item in found] == ["a", "b", "c"]


@pytest.mark.parametrize("search", ["/Patient?_count=1", "/Patient?_sort=family&_count=1"])
async def test_a_page_goes_on_behind_the_last_match_whatever_is_deleted_meanwhile(fhir, search):
    for id in "abc":
        await fhir.put(f"/Patient/{id}", json=patient(id, name=[{"family": id}]))
    first = (await fhir.get(search)).json()
    await fhir.delete("/Patient/a")
    found = await follow(fhir, first["link"][1]["url"])
    assert [item["resource"]["id"] for item in found] == ["b", "c"]


async def test_a_search_finds_in_the_order_of_writing(fhir, ward):
    await fhir.put("/Patient/a", json=patient("a", active=True))
    assert await ids(fhir, "/Patient") == ["b", "c", "a"]
    entries = [entry("PUT", "Patient/b", patient("b")), entry("GET", "Patient/none")]
    await send(fhir, "transaction", *entries, status=404)
    assert await ids(fhir, "/Patient") == ["b", "c", "a"]


async def test_only_the_elements_asked_for_are_answered(fhir, ward):
    resource = (await fhir.get("/Patient?_id=a&_elements=birthDate")).json()["entry"][0]["resource"]
    assert set(resource) == {"resourceType", "id", "meta", "birthDate"}
    assert resource["meta"]["tag"][0]["code"] == "SUBSETTED"


async def test_the_metas_of_several_resources_are_found_by_id_with_their_extensions(fhir):
    extension = [{"url": "http://hospital.example/written-by", "valueString": "x"}]
    tag = {"system": "http://hospital.example", "code": "t"}
    for id in "abc":
        meta = {"extension": extension, "tag": [tag]}
        await fhir.put(f"/Patient/{id}", json=patient(id, meta=meta, active=True))
    await fhir.delete("/Patient/b")
    query = "Patient?_id=c,a,b,none&_elements=id,meta&_count=4"
    reply = await send(fhir, "batch", entry("GET", query))
    found = [item["resource"] for item in reply["entry"][0]["resource"]["entry"]]
    assert [item["id"] for item in found] == ["a", "c"]
    for item in found:
        assert set(item) == {"resourceType", "id", "meta"}
        assert (item["meta"]["extension"], item["meta"]["versionId"]) == (extension, "1")
        assert [mark["code"] for mark in item["meta"]["tag"]] == ["t", "SUBSETTED"]


async def test_the_mandatory_elements_are_answered_with_those_asked_for(fhir, ward):
    [found] = (await fhir.get("/Condition?_id=1&_elements=id,meta")).json()["entry"]
    assert set(found["resource"]) == {"resourceType", "id", "meta", "subject"}


@pytest.mark.parametrize(
    "search",
    [
        "?color=red",
        "?name:text=a",
        "?general-practitioner.name=a",
        "?_count=x",
        "?birthdate=soon",
        "?birthdate=gt1980-13",
    ],
)
async def test_a_search_that_is_not_understood_is_refused(fhir, search):
    assert is_outcome(await fhir.get("/Patient" + search), 400)


async def test_a_leap_second_is_stored_and_searched(fhir):
    for id, moment in [("o", "2016-12-31T23:59:60Z"), ("p", "2017-01-01T00:59:60.5+01:00")]:
        observation = {
            "resourceType": "Observation",
            "id": id,
            "status": "final",
            "code": {"text": "x"},
        }
        observation["effectiveDateTime"] = moment
        written = await fhir.put(f"/Observation/{id}", json=observation)
        assert written.json()["effectiveDateTime"] == moment
    assert await ids(fhir, "/Observation?date=2016-12-31&_sort=date") == ["o", "p"]
    assert await ids(fhir, "/Observation?date=lt2016-12-31T23:59:00Z") == []
    assert await ids(fhir, "/Observation?date=ge2016-12-31T23:59:60Z") == ["o", "p"]


async def test_a_next_link_ends_after_its_time(fhir, ward, server):
    first = (await fhir.get("/Patient?_count=1")).json()
    next_page = first["link"][1]["url"]
    assert (await fhir.get(next_page)).status_code == 200
    await fhir.post(server + "/control/settings", json={"tokenLifetime": 0})
    assert is_outcome(await fhir.get(next_page), 400)
