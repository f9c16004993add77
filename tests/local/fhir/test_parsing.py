"""What Azure's parser refuses, it refuses for the whole body; what it takes, it writes anew."""

import base64

import pytest

from tests.local.fhir.calls import (
    bundle,
    condition,
    entry,
    ids,
    is_outcome,
    patient,
    send,
    statuses,
)

UNPARSABLE = {
    "an unknown element": (patient(foo=1), "Patient.foo"),
    "an element of another version": (
        {"resourceType": "Encounter", "status": "finished", "class": {}, "admission": {}},
        "Encounter.admission",
    ),
    "an unknown type": ({"resourceType": "Nothing"}, "Nothing"),
    "no type": ({"id": "a"}, "Resource"),
    "an unknown type, contained": (patient(contained=[{"id": "x"}]), "Patient.contained[0]"),
    "a text for a boolean": (patient(active="true"), "Patient.active"),
    "a fraction for an integer": (
        patient(multipleBirthInteger=1.5),
        "Patient.multipleBirthInteger",
    ),
    "a number for a text": (patient(name=[{"family": 1}]), "Patient.name[0].family"),
    "a text for an object": (patient(name=["Ada"]), "Patient.name[0]"),
    "an object for a list": (patient(name={"family": "Ada"}), "Patient.name"),
    "a list for an object": (patient(maritalStatus=[{}]), "Patient.maritalStatus"),
    "null": (patient(birthDate=None), "Patient.birthDate"),
    "a code that the set lacks": (patient(gender="f"), "Patient.gender"),
    "a code that the set lacks, deeper": (
        patient(contact=[{"name": {"use": "old"}}, {"name": {"use": "x"}}]),
        "Patient.contact[1].name.use",
    ),
    "a code that the set lacks, contained": (
        patient(contained=[{"resourceType": "Group", "type": "x", "actual": True}]),
        "Patient.contained[0].type",
    ),
    "no date": (patient(birthDate="19"), "Patient.birthDate"),
    "a date that no calendar has": (patient(birthDate="1980-02-30"), "Patient.birthDate"),
    "no dateTime": (patient(deceasedDateTime="1980-02-03T25:00:00Z"), "Patient.deceasedDateTime"),
    "no time": (
        condition("Patient/a", extension=[{"url": "urn:x", "valueTime": "noon"}]),
        "Condition.extension[0].valueTime",
    ),
    "an instant without a zone": (
        patient(meta={"lastUpdated": "2024-01-02T03:04:05"}),
        "Patient.meta.lastUpdated",
    ),
    "an instant in a leap second": (
        patient(extension=[{"url": "urn:x", "valueInstant": "2016-12-31T23:59:60Z"}]),
        "Patient.extension[0].valueInstant",
    ),
    "no base64": (patient(photo=[{"data": "AAA"}]), "Patient.photo[0].data"),
    "a character that base64 lacks": (patient(photo=[{"data": "A*AA"}]), "Patient.photo[0].data"),
}


@pytest.mark.parametrize("case", UNPARSABLE)
async def test_a_resource_that_cannot_be_parsed_is_refused_naming_the_place_in_the_text(fhir, case):
    resource, place = UNPARSABLE[case]
    [issue] = (await fhir.post("/Patient", json=resource)).json()["issue"]
    assert f"(at {place})" in issue["diagnostics"]
    assert "expression" not in issue


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize("case", UNPARSABLE)
async def test_one_entry_that_cannot_be_parsed_refuses_the_whole_bundle(fhir, kind, case):
    resource, place = UNPARSABLE[case]
    entries = [entry("PUT", "Patient/a", patient("a")), entry("POST", "Patient", resource)]
    outcome = await send(fhir, kind, *entries, status=400)
    expected = (
        f"Bundle.entry[1].resource{place.removeprefix(resource.get('resourceType', 'Resource'))}"
    )
    assert f"(at {expected})" in outcome["issue"][0]["diagnostics"]
    assert await ids(fhir, "/Patient") == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"resource": patient(), "request": {"method": "POST", "url": "Patient", "x": 1}},
        {"resource": patient(), "request": {"method": "SEND", "url": "Patient"}},
        {"resource": patient(), "request": {"method": "POST", "url": 1}},
        entry("GET", "Patient/a", ifModifiedSince="yesterday"),
        {"resource": [patient()]},
    ],
)
async def test_a_bundle_that_cannot_be_parsed_around_its_resources_is_refused(fhir, wrong):
    await send(fhir, "batch", entry("PUT", "Patient/a", patient("a")), wrong, status=400)
    assert await ids(fhir, "/Patient") == []


async def test_every_primitive_value_of_a_resource_may_have_extensions(fhir):
    more = {"extension": [{"url": "urn:x", "valueString": "y"}]}
    resource = patient("a", _id=more, _birthDate=more, name=[{"_given": [more]}])
    resource["communication"] = [{"language": {"text": "x"}, "_preferred": more}]
    written = await fhir.put("/Patient/a", json=resource)
    assert (written.status_code, written.json()["_id"]) == (201, more)
    plan = {"status": "active", "intent": "plan", "_instantiatesCanonical": [more]}
    plan |= {"resourceType": "CarePlan", "subject": {"reference": "Patient/a"}}
    assert (await fhir.post("/CarePlan", json=plan)).status_code == 201


async def test_a_body_that_is_nested_too_deeply_is_refused(fhir):
    depth = 100_000
    text = '{"resourceType":"Patient"' + ',"extension":[{"url":"urn:x"' * depth + "}]" * depth + "}"
    assert is_outcome(await fhir.post("/Patient", content=text), 400)


async def test_every_place_that_cannot_be_parsed_is_told(fhir):
    entries = [entry("POST", "Patient", patient(gender="f", foo=1)) for _ in range(2)]
    assert len((await send(fhir, "batch", *entries, status=400))["issue"]) == 4


async def test_what_can_be_parsed_and_is_not_valid_refuses_its_own_entry(fhir):
    reply = await send(
        fhir,
        "batch",
        entry("PUT", "Patient/a", patient("a")),
        entry("POST", "Condition", {"resourceType": "Condition"}),
        entry("PUT", "Patient/b", patient("c")),
        entry("POST", "Patient", condition("Patient/a")),
    )
    assert statuses(reply) == ["201", "400", "400", "400"]


async def test_a_patch_that_makes_a_resource_unparsable_is_refused(fhir):
    await fhir.put("/Patient/a", json=patient("a"))
    parts = [("type", "Code", "add"), ("path", "String", "Patient"), ("name", "String", "gender")]
    part = [{"name": name, f"value{kind}": value} for name, kind, value in parts]
    part.append({"name": "value", "valueCode": "f"})
    patch = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": part}]}
    assert is_outcome(await fhir.patch("/Patient/a", json=patch), 400)


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05+00:00"),
        ("2024-01-02T03:04:05-00:00", "2024-01-02T03:04:05+00:00"),
        ("2024-01-02T03:04:05.230Z", "2024-01-02T03:04:05.23+00:00"),
        ("2024-01-02T03:04:05.000+02:00", "2024-01-02T03:04:05+02:00"),
        ("2024-01-02T03:04:05.123456789+02:00", "2024-01-02T03:04:05.1234567+02:00"),
        ("2024-01-02T03:04:05.1-11:30", "2024-01-02T03:04:05.1-11:30"),
    ],
)
async def test_an_instant_is_stored_as_azure_writes_it_again(fhir, sent, stored):
    observation = {
        "resourceType": "Observation",
        "id": "o",
        "status": "final",
        "code": {"text": "x"},
        "issued": sent,
        "effectiveInstant": sent,
        "contained": [patient("p", extension=[{"url": "urn:x", "valueInstant": sent}])],
    }
    await send(fhir, "batch", entry("PUT", "Observation/o", observation))
    found = (await fhir.get("/Observation/o")).json()
    assert (found["issued"], found["effectiveInstant"]) == (stored, stored)
    assert found["contained"][0]["extension"][0]["valueInstant"] == stored
    again = await fhir.put("/Observation/o", json=observation)
    assert again.headers["ETag"] == 'W/"1"'


@pytest.mark.parametrize("element", ["deceasedDateTime", "birthDate"])
async def test_a_date_and_a_datetime_stay_as_they_were_sent(fhir, element):
    value = {"deceasedDateTime": "2024-01-02T03:04:05.230Z", "birthDate": "1980-02"}[element]
    created = (await fhir.post("/Patient", json=patient(**{element: value}))).json()
    assert created[element] == value


async def test_base64_is_stored_as_azure_writes_it_again(fhir):
    photo = [{"data": "AAEC\r\nAw =="}, {"data": "AB=="}]
    created = (await fhir.post("/Patient", json=patient(photo=photo))).json()
    assert [item["data"] for item in created["photo"]] == ["AAECAw==", "AA=="]


async def test_the_server_writes_its_own_instants_without_a_z(fhir):
    reply = await send(fhir, "batch", entry("PUT", "Patient/a", patient("a")))
    [written] = reply["entry"]
    assert written["response"]["lastModified"].endswith("+00:00")
    assert written["resource"]["meta"]["lastUpdated"] == written["response"]["lastModified"]


async def test_a_conditional_reference_is_stored_resolved(fhir):
    await fhir.put("/Patient/a", json=patient("a", mrn="1"))
    for kind in ("batch", "transaction"):
        conditional = condition("Patient?identifier=1", id=kind)
        await send(fhir, kind, entry("PUT", f"Condition/{kind}", conditional))
        stored = (await fhir.get(f"/Condition/{kind}")).json()
        assert stored["subject"] == {"reference": "Patient/a"}


async def test_an_attachment_up_to_the_limit_of_a_request_is_taken(fhir):
    data = base64.b64encode(bytes(20 * 1024 * 1024)).decode()
    large = bundle("batch", entry("PUT", "Patient/a", patient("a", photo=[{"data": data}])))
    assert statuses((await fhir.post("", json=large)).json()) == ["201"]
    assert (await fhir.get("/Patient/a")).json()["photo"][0]["data"] == data
