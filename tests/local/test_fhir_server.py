"""The laptop's FHIR server: where Azure Health Data Services is strict or odd, it is so too."""

import base64
import gzip
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from uuid import UUID

import httpx
import pytest

LOCAL = Path(__file__).parents[2] / "local"
FHIR_JSON = {"Content-Type": "application/fhir+json"}
MRN = "http://hospital.example/mrn"

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (LOCAL / "node_modules").exists(), reason="local/node_modules is not installed"
    ),
]


@pytest.fixture(scope="module")
def server():
    command = ["node", str(LOCAL / "fhir" / "server.mjs")]
    environment = {**os.environ, "FHIR_PORT": "0"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            ready = process.stdout.readline()
            yield re.search(r"http://\S+(?=/fhir)", ready)[0]
        finally:
            process.terminate()
    assert process.returncode == 0


@pytest.fixture
async def fhir(server):
    async with httpx.AsyncClient(
        base_url=server + "/fhir", headers=FHIR_JSON, timeout=30
    ) as client:
        await client.post(server + "/control/reset")
        yield client


@pytest.fixture
def fault(server, fhir):
    async def ask(**spec):
        assert (await fhir.post(server + "/control/faults", json=spec)).status_code == 200

    return ask


def patient(id=None, mrn=None, **more):
    resource = {"resourceType": "Patient", **({"id": id} if id else {}), **more}
    return resource | ({"identifier": [{"system": MRN, "value": mrn}]} if mrn else {})


def condition(subject, **more):
    return {"resourceType": "Condition", "subject": {"reference": subject}, **more}


def entry(method, url, resource=None, full_url=None, **conditions):
    return {
        **({"fullUrl": full_url} if full_url else {}),
        **({"resource": resource} if resource else {}),
        "request": {"method": method, "url": url, **conditions},
    }


def bundle(kind, *entries):
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


async def send(fhir, kind, *entries, status=200):
    response = await fhir.post("", json=bundle(kind, *entries))
    assert response.status_code == status, response.text
    return response.json()


def statuses(reply):
    return [item["response"]["status"] for item in reply["entry"]]


def is_outcome(response, status):
    assert response.headers["Content-Type"].startswith("application/fhir+json")
    return response.status_code == status and response.json()["resourceType"] == "OperationOutcome"


# one resource


async def test_the_server_describes_itself(fhir, server):
    statement = (await fhir.get("/metadata")).json()
    assert statement["resourceType"] == "CapabilityStatement"
    assert statement["fhirVersion"] == "4.0.1"
    assert "Patient" in {item["type"] for item in statement["rest"][0]["resource"]}
    assert (await fhir.get(server + "/health")).status_code == 200


async def test_a_put_creates_and_then_updates_with_whole_number_versions(fhir):
    created = await fhir.put("/Patient/a", json=patient("a"))
    updated = await fhir.put("/Patient/a", json=patient("a", active=True))
    assert (created.status_code, updated.status_code) == (201, 200)
    assert (created.headers["ETag"], updated.headers["ETag"]) == ('W/"1"', 'W/"2"')
    assert updated.headers["Location"].endswith("/fhir/Patient/a/_history/2")
    assert "GMT" in updated.headers["Last-Modified"]
    assert updated.json()["meta"]["versionId"] == "2"


async def test_an_identical_put_makes_no_new_version(fhir):
    first = (
        await fhir.put("/Patient/a", json=patient("a", active=True, meta={"source": "urn:x"}))
    ).json()
    again = await fhir.put(
        "/Patient/a",
        json=dict(reversed(first.items())) | {"meta": {"source": "urn:x", "versionId": "9"}},
    )
    assert (again.status_code, again.headers["ETag"]) == (200, 'W/"1"')
    assert again.json() == first


async def test_a_posted_id_is_ignored(fhir):
    created = await fhir.post("/Patient", json=patient("mine"))
    assert created.status_code == 201
    assert UUID(created.json()["id"])


async def test_a_put_needs_the_id_of_its_url_in_the_grammar_of_ids(fhir):
    for url, body in [
        ("/Patient/a", patient("b")),
        ("/Patient/a", patient()),
        ("/Patient/a_b", patient("a_b")),
    ]:
        assert is_outcome(await fhir.put(url, json=body), 400)
    assert is_outcome(await fhir.put("/Patient/" + "a" * 65, json=patient("a" * 65)), 400)


@pytest.mark.parametrize(
    ("element", "place"),
    [
        ({"birthDate": "19"}, "Patient.birthDate"),
        ({"foo": 1}, "Patient.foo"),
        ({"gender": "f"}, "Patient.gender"),
        (
            {"contact": [{"name": {"use": "old"}}, {"name": {"use": "x"}}]},
            "Patient.contact[1].name.use",
        ),
        ({"maritalStatus": {"coding": True}}, "Patient.maritalStatus.coding"),
        ({"active": "true"}, "Patient.active"),
        (
            {"contained": [{"resourceType": "Group", "type": "x", "actual": True}]},
            "Patient.contained[0].type",
        ),
    ],
)
async def test_an_invalid_resource_is_refused_with_the_place_of_the_issue(fhir, element, place):
    refused = await fhir.post("/Patient", json=patient(**element))
    assert is_outcome(refused, 400)
    assert place in refused.json()["issue"][0]["expression"]


async def test_what_is_no_fhir_json_is_refused(fhir):
    assert is_outcome(await fhir.post("/Patient", content=b"{"), 400)
    assert is_outcome(await fhir.post("/Patient", json=[]), 400)
    assert is_outcome(await fhir.post("/Patient"), 400)
    assert is_outcome(await fhir.post("/Patient", json=condition("Patient/a")), 400)
    assert is_outcome(
        await fhir.post(
            "/Patient", content=b"<Patient/>", headers={"Content-Type": "application/fhir+xml"}
        ),
        415,
    )
    assert is_outcome(await fhir.get("/Nothing/1"), 404)
    assert is_outcome(await fhir.put("/Patient/a/b/c", json=patient()), 405)


async def test_if_match_guards_a_put(fhir):
    assert is_outcome(
        await fhir.put("/Patient/a", json=patient("a"), headers={"If-Match": 'W/"1"'}), 404
    )
    await fhir.put("/Patient/a", json=patient("a"))
    changed = patient("a", active=True)
    assert is_outcome(
        await fhir.put("/Patient/a", json=changed, headers={"If-Match": 'W/"7"'}), 412
    )
    assert is_outcome(
        await fhir.put("/Patient/a", json=changed, headers={"If-None-Match": "*"}), 412
    )
    assert (
        await fhir.put("/Patient/a", json=changed, headers={"If-Match": 'W/"1"'})
    ).status_code == 200


async def test_a_deleted_resource_is_gone_and_can_come_back_with_the_next_version(fhir):
    assert is_outcome(await fhir.get("/Patient/a"), 404)
    assert (await fhir.delete("/Patient/a")).status_code == 204
    await fhir.put("/Patient/a", json=patient("a"))
    assert (await fhir.delete("/Patient/a")).status_code == 204
    assert is_outcome(await fhir.get("/Patient/a"), 410)
    assert (await fhir.get("/Patient?_id=a")).json().get("entry") is None
    back = await fhir.put("/Patient/a", json=patient("a"))
    assert (back.status_code, back.headers["ETag"]) == (201, 'W/"3"')


async def test_every_version_can_be_read(fhir):
    await fhir.put("/Patient/a", json=patient("a"))
    await fhir.delete("/Patient/a")
    await fhir.put("/Patient/a", json=patient("a", active=True))
    assert "active" not in (await fhir.get("/Patient/a/_history/1")).json()
    assert is_outcome(await fhir.get("/Patient/a/_history/2"), 410)
    assert is_outcome(await fhir.get("/Patient/a/_history/4"), 404)
    history = (await fhir.get("/Patient/a/_history")).json()
    assert (history["type"], history["total"]) == ("history", 3)
    assert [item["request"]["method"] for item in history["entry"]] == ["PUT", "DELETE", "PUT"]


def operation(kind, path, **parts):
    """One operation of a FHIRPath patch."""
    parameters = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}]
    parameters += [{"name": name, **value} for name, value in parts.items()]
    return {"name": "operation", "part": parameters}


async def test_a_fhirpath_patch_changes_a_resource(fhir):
    await fhir.put("/Patient/a", json=patient("a", "1", birthDate="1984-05-06", active=True))
    operations = [
        operation("replace", "Patient.birthDate", value={"valueDate": "1984-05-07"}),
        operation("delete", "Patient.active"),
        operation(
            "add",
            "Patient",
            name={"valueString": "name"},
            value={"valueHumanName": {"family": "Muster"}},
        ),
        operation(
            "add", "Patient.name[0]", name={"valueString": "given"}, value={"valueString": "Ada"}
        ),
        operation(
            "insert",
            "Patient.name[0].given",
            value={"valueString": "Eva"},
            index={"valueInteger": 0},
        ),
        operation(
            "move",
            "Patient.name[0].given",
            source={"valueInteger": 0},
            destination={"valueInteger": 1},
        ),
        operation(
            "add",
            "Patient",
            name={"valueString": "link"},
            value={
                "part": [
                    {"name": "other", "valueReference": {"reference": "Patient/b"}},
                    {"name": "type", "valueCode": "seealso"},
                ]
            },
        ),
        operation(
            "replace",
            "Patient.identifier.where(value = '1').value",
            value={"valueString": "2"},
        ),
    ]
    body = {"resourceType": "Parameters", "parameter": operations}
    patched = (await fhir.patch("/Patient/a", json=body)).json()
    assert patched["birthDate"] == "1984-05-07"
    assert "active" not in patched
    assert patched["name"] == [{"family": "Muster", "given": ["Ada", "Eva"]}]
    assert patched["link"] == [{"other": {"reference": "Patient/b"}, "type": "seealso"}]
    assert patched["identifier"][0]["value"] == "2"
    assert patched["meta"]["versionId"] == "2"


@pytest.mark.parametrize(
    "bad",
    [
        operation("replace", "Patient.birthDate", value={"valueDate": "1984-05-07"}),
        operation("replace", "Patient.x", value={"valueDate": "1984-05-07"}),
        operation("erase", "Patient.birthDate"),
        operation("delete", "Patient.name.given.single()"),
        operation("insert", "Patient.name", index={"valueInteger": 0}),
        {"name": "other"},
    ],
)
async def test_a_fhirpath_patch_that_cannot_be_applied_changes_nothing(fhir, bad):
    await fhir.put("/Patient/a", json=patient("a"))
    body = {"resourceType": "Parameters", "parameter": [bad]}
    assert is_outcome(await fhir.patch("/Patient/a", json=body), 400)
    assert (await fhir.get("/Patient/a")).json()["meta"]["versionId"] == "1"


async def test_a_read_in_a_bundle_may_ask_for_news_alone_and_a_head_has_no_body(fhir):
    await fhir.put("/Patient/a", json=patient("a"))
    reads = [
        {
            "request": {
                "method": "GET",
                "url": "Patient/a",
                "ifModifiedSince": "2100-01-01T00:00:00Z",
            }
        },
        {
            "request": {
                "method": "GET",
                "url": "Patient/a",
                "ifModifiedSince": "2000-01-01T00:00:00Z",
            }
        },
        {"request": {"method": "HEAD", "url": "Patient/a"}},
    ]
    reply = await send(fhir, "batch", *reads)
    answers = reply["entry"]
    assert [item["response"]["status"] for item in answers] == ["304", "200", "200"]
    assert ["resource" in item for item in answers] == [False, True, False]


async def test_a_json_patch_changes_a_resource_and_no_other_patch_is_known(fhir):
    await fhir.put("/Patient/a", json=patient("a"))
    json_patch = {"Content-Type": "application/json-patch+json"}
    operation = {"op": "add", "path": "/active", "value": True}
    patched = await fhir.patch("/Patient/a", content=json.dumps([operation]), headers=json_patch)
    assert (patched.status_code, patched.json()["active"]) == (200, True)
    broken = await fhir.patch(
        "/Patient/a", content=json.dumps([operation | {"path": "/x/y"}]), headers=json_patch
    )
    assert is_outcome(broken, 400)
    assert is_outcome(await fhir.patch("/Patient/a", json=patient("a")), 400)


async def test_a_request_may_be_zipped_and_no_larger_than_28_mb(fhir):
    zipped = {"Content-Encoding": "gzip"}
    assert (
        await fhir.post(
            "/Patient", content=gzip.compress(b'{"resourceType":"Patient"}'), headers=zipped
        )
    ).status_code == 201
    assert is_outcome(await fhir.post("/Patient", content=b"no gzip", headers=zipped), 400)
    large = b" " * (28 * 1024 * 1024 + 1)
    assert is_outcome(await fhir.post("/Patient", content=large), 413)
    assert is_outcome(
        await fhir.post("/Patient", content=gzip.compress(large, 1), headers=zipped), 413
    )


# conditions


async def test_a_conditional_create_leaves_the_match_alone(fhir):
    criteria = {"If-None-Exist": f"identifier={MRN}|1"}
    first = await fhir.post("/Patient", json=patient(mrn="1"), headers=criteria)
    again = await fhir.post("/Patient", json=patient(mrn="1", active=True), headers=criteria)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    await fhir.post("/Patient", json=patient(mrn="1"))
    assert is_outcome(await fhir.post("/Patient", json=patient(mrn="1"), headers=criteria), 412)


async def test_a_conditional_update_creates_updates_or_refuses(fhir):
    url = f"/Patient?identifier={MRN}|1"
    created = await fhir.put(url, json=patient("a", mrn="1"))
    updated = await fhir.put(url, json=patient(mrn="1", active=True))
    assert (created.status_code, created.json()["id"]) == (201, "a")
    assert (updated.status_code, updated.json()["id"], updated.headers["ETag"]) == (
        200,
        "a",
        'W/"2"',
    )
    assert is_outcome(await fhir.put(url, json=patient("b", mrn="1")), 400)
    await fhir.put("/Patient/b", json=patient("b", mrn="1"))
    assert is_outcome(await fhir.put(url, json=patient(mrn="1")), 412)
    assert is_outcome(await fhir.put("/Patient", json=patient()), 412)
    assert UUID((await fhir.put("/Patient?identifier=2", json=patient(mrn="2"))).json()["id"])


async def test_a_conditional_delete_takes_one_match(fhir):
    await fhir.put("/Patient/a", json=patient("a", mrn="1"))
    await fhir.put("/Patient/b", json=patient("b", mrn="1", active=True))
    assert is_outcome(await fhir.delete("/Patient?identifier=1"), 412)
    assert (await fhir.delete("/Patient?identifier=1&active=true")).status_code == 204
    assert (await fhir.get("/Patient/b")).status_code == 410
    assert (await fhir.delete("/Patient?identifier=none")).status_code == 204


async def test_a_conditional_reference_is_resolved_in_a_single_write(fhir):
    await fhir.put("/Patient/a", json=patient("a", mrn="1"))
    written = await fhir.post("/Condition", json=condition(f"Patient?identifier={MRN}|1"))
    assert written.json()["subject"]["reference"] == "Patient/a"
    assert is_outcome(await fhir.post("/Condition", json=condition("Patient?identifier=2")), 400)
    await fhir.put("/Patient/b", json=patient("b", mrn="1"))
    assert is_outcome(await fhir.post("/Condition", json=condition("Patient?identifier=1")), 412)


# search


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
        entry("PUT", "Condition/1", condition("Patient/a", id="1")),
        entry("PUT", "Condition/2", condition("Patient/b", id="2")),
        entry("PUT", "Condition/3", condition("Group/a", id="3")),
    )


async def ids(fhir, search):
    response = await fhir.get(search)
    assert response.status_code == 200, response.text
    return [item["resource"]["id"] for item in response.json().get("entry", [])]


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


async def test_a_search_may_be_posted(fhir, ward):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    found = await fhir.post("/Patient/_search", content="identifier=M1", headers=form)
    assert [item["resource"]["id"] for item in found.json()["entry"]] == ["a"]


async def test_a_search_tells_the_total_only_when_asked(fhir, ward):
    assert "total" not in (await fhir.get("/Patient")).json()
    assert (await fhir.get("/Patient?_total=accurate&_count=1")).json()["total"] == 3
    counted = (await fhir.get("/Patient?_summary=count")).json()
    assert counted["total"] == 3
    assert "entry" not in counted


async def test_following_the_next_links_finds_everything_once(fhir, ward):
    found, url = [], "/Patient?_count=2"
    while url:
        page = (await fhir.get(url)).json()
        found += [item["resource"]["id"] for item in page["entry"]]
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    assert found == ["a", "b", "c"]


async def test_only_the_elements_asked_for_are_answered(fhir, ward):
    resource = (await fhir.get("/Patient?_id=a&_elements=birthDate")).json()["entry"][0]["resource"]
    assert set(resource) == {"resourceType", "id", "meta", "birthDate"}
    assert resource["meta"]["tag"][0]["code"] == "SUBSETTED"


@pytest.mark.parametrize(
    "search",
    ["?color=red", "?name:text=a", "?general-practitioner.name=a", "?_count=x", "?birthdate=soon"],
)
async def test_a_search_that_is_not_understood_is_refused(fhir, search):
    assert is_outcome(await fhir.get("/Patient" + search), 400)


# bundles


async def test_a_batch_answers_each_entry_at_its_place_in_azures_order_of_execution(fhir):
    await fhir.put("/Patient/old", json=patient("old"))
    reply = await send(
        fhir,
        "batch",
        entry("GET", "Patient/a"),
        entry("PUT", "Patient/a", patient("a")),
        entry("POST", "Patient", patient(birthDate="no")),
        entry("DELETE", "Patient/old"),
        {"resource": patient()},
        entry("GET", "Patient/old"),
        entry("GET", "Patient?_id=a"),
        entry("PUT", "Nothing/1", patient("1")),
    )
    assert reply["type"] == "batch-response"
    assert statuses(reply) == ["200", "201", "400", "204", "400", "410", "200", "404"]
    read, written, refused, *_ = reply["entry"]
    assert read["resource"]["id"] == "a"
    assert written["response"]["location"] == f"{fhir.base_url}Patient/a/_history/1"
    assert written["response"]["etag"] == 'W/"1"'
    assert written["response"]["lastModified"] == written["resource"]["meta"]["lastUpdated"]
    assert refused["response"]["outcome"]["issue"][0]["expression"] == ["Patient.birthDate"]
    assert reply["entry"][6]["resource"]["type"] == "searchset"


async def test_a_batch_leaves_placeholders_alone(fhir):
    reply = await send(
        fhir,
        "batch",
        entry("POST", "Patient", patient(), "urn:uuid:1"),
        entry("POST", "Condition", condition("urn:uuid:1")),
    )
    assert reply["entry"][1]["resource"]["subject"]["reference"] == "urn:uuid:1"


async def test_an_entry_of_a_batch_keeps_its_own_conditions(fhir):
    await fhir.put("/Patient/a", json=patient("a", mrn="1"))
    reply = await send(
        fhir,
        "batch",
        entry("PUT", "Patient/a", patient("a", active=True), ifMatch='W/"9"'),
        entry("PUT", "Patient/a", patient("a", active=True), ifNoneMatch="*"),
        entry("POST", "Patient", patient(), ifNoneExist="identifier=1"),
        entry("PUT", "Patient?identifier=1", patient(mrn="1", active=True)),
        entry("DELETE", "Patient?identifier=2"),
    )
    assert statuses(reply) == ["412", "412", "200", "200", "204"]


async def test_a_conditional_reference_sees_nothing_of_its_own_bundle(fhir):
    entries = [
        entry("POST", "Patient", patient(mrn="1")),
        entry("POST", "Condition", condition("Patient?identifier=1")),
    ]
    assert statuses(await send(fhir, "batch", *entries)) == ["201", "400"]
    assert statuses(await send(fhir, "transaction", entries[1])) == ["201"]
    await fhir.delete("/Patient?identifier=1")
    await send(fhir, "transaction", *entries, status=400)


async def test_a_json_patch_travels_in_a_binary(fhir):
    await fhir.put("/Patient/a", json=patient("a"))
    data = base64.b64encode(b'[{"op":"add","path":"/active","value":true}]').decode()
    binary = {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": data}
    reply = await send(fhir, "transaction", entry("PATCH", "Patient/a", binary))
    assert reply["entry"][0]["resource"]["active"] is True


async def test_a_transaction_resolves_the_placeholders_of_creates_and_conditional_updates_only(
    fhir,
):
    await fhir.put("/Patient/known", json=patient("known", mrn="1"))
    reply = await send(
        fhir,
        "transaction",
        entry("POST", "Condition", condition("urn:uuid:new", code={"text": "urn:uuid:new"})),
        entry("POST", "Patient", patient(), "urn:uuid:new"),
        entry("POST", "Condition", condition("urn:uuid:known")),
        entry("POST", "Patient", patient(), "urn:uuid:known", ifNoneExist="identifier=1"),
        entry("POST", "Condition", condition("urn:uuid:upserted")),
        entry("PUT", "Patient?identifier=2", patient("b", mrn="2"), "urn:uuid:upserted"),
        entry("POST", "Condition", condition("urn:uuid:put")),
        entry("PUT", "Patient/c", patient("c"), "urn:uuid:put"),
        entry("POST", "Condition", condition("urn:uuid:NEW")),
    )
    assert reply["type"] == "transaction-response"
    assert statuses(reply) == ["201", "201", "201", "200", "201", "201", "201", "201", "201"]
    created = "Patient/" + reply["entry"][1]["resource"]["id"]
    found = [item["resource"]["subject"]["reference"] for item in reply["entry"][::2]]
    assert found == [created, "Patient/known", "Patient/b", "urn:uuid:put", "urn:uuid:NEW"]
    assert reply["entry"][0]["resource"]["code"]["text"] == "urn:uuid:new"


async def test_a_failed_transaction_leaves_no_trace(fhir, server):
    await fhir.put("/Patient/a", json=patient("a", mrn="1"))
    await fhir.put("/Patient/b", json=patient("b", mrn="2"))
    before = (await fhir.get(server + "/control/stats")).json()
    outcome = await send(
        fhir,
        "transaction",
        entry("DELETE", "Patient/a"),
        entry("POST", "Patient", patient(mrn="3")),
        entry("PUT", "Patient/b", patient("b", active=True)),
        entry("PUT", "Patient/new", patient("new"), ifMatch='W/"1"'),
        status=404,
    )
    assert outcome["issue"][0]["expression"][0] == "Bundle.entry[3]"
    after = (await fhir.get(server + "/control/stats")).json()
    assert {**after, "requests": 0} == {**before, "requests": 0}
    assert (await fhir.get("/Patient/b")).headers["ETag"] == 'W/"1"'
    assert (await fhir.get("/Patient/a/_history")).json()["total"] == 1
    assert await ids(fhir, "/Patient?identifier=1,2,3") == ["a", "b"]
    assert (await fhir.put("/Patient/b", json=patient("b", active=True))).headers["ETag"] == 'W/"2"'


@pytest.mark.parametrize(
    "entries",
    [
        [entry("PUT", "Patient/a", patient("a")), entry("DELETE", "Patient/a")],
        [
            entry("PUT", "Patient/a", patient("a")),
            entry("PUT", "Patient?identifier=1", patient(mrn="1")),
        ],
        [
            entry("PUT", "Patient/a", patient("a")),
            entry("POST", "Patient", patient(), ifNoneExist="identifier=1"),
        ],
        [entry("POST", "Patient", patient(mrn="2"), ifNoneExist="identifier=2")] * 2,
        [entry("DELETE", "Patient?identifier=1")],
        [entry("POST", "Bundle", bundle("collection"))],
        [entry("POST", "", bundle("batch"))],
        [entry("POST", "Patient/_search")],
        [{"resource": patient()}],
        [entry("PUT", "Patient?identifier=1", patient("b", mrn="1"))],
    ],
)
async def test_a_transaction_refuses(fhir, server, entries):
    await fhir.put("/Patient/a", json=patient("a", mrn="1"))
    await send(fhir, "transaction", *entries, status=400)
    assert (await fhir.get(server + "/control/stats")).json()["versions"] == 1


async def test_an_ambiguous_condition_fails_a_transaction(fhir):
    await fhir.put("/Patient/a", json=patient("a", mrn="1"))
    await fhir.put("/Patient/b", json=patient("b", mrn="1"))
    await send(
        fhir,
        "transaction",
        entry("POST", "Patient", patient(), ifNoneExist="identifier=1"),
        status=412,
    )
    await send(
        fhir,
        "transaction",
        entry("POST", "Condition", condition("Patient?identifier=1")),
        status=412,
    )


async def test_only_batches_and_transactions_of_500_entries_are_processed(fhir):
    await send(fhir, "collection", status=400)
    assert is_outcome(await fhir.post("", json=patient()), 400)
    entries = [entry("PUT", f"Patient/{n}", patient(str(n))) for n in range(501)]
    await send(fhir, "batch", *entries, status=400)
    assert set(statuses(await send(fhir, "transaction", *entries[:500]))) == {"201"}


async def test_an_invalid_processing_logic_adds_one_response_entry(fhir):
    body = bundle("batch", entry("PUT", "Patient/a", patient("a")))
    for logic, count in [("parallel", 1), ("Sequential", 1), ("sideways", 2)]:
        reply = await fhir.post("", json=body, headers={"x-bundle-processing-logic": logic})
        assert len(reply.json()["entry"]) == count


# faults


async def test_a_throttled_request_says_when_to_come_back(fhir, fault):
    await fault(next=2, status=429, retryAfter=1.5)
    for _ in range(2):
        refused = await fhir.get("/Patient")
        assert is_outcome(refused, 429)
        assert refused.json()["issue"][0]["code"] == "throttled"
        assert (refused.headers["Retry-After"], refused.headers["x-ms-retry-after-ms"]) == (
            "2",
            "1500",
        )
    assert (await fhir.get("/Patient")).status_code == 200


async def test_a_throttled_entry_ends_a_batch_that_answers_200(fhir, fault):
    await fault(status=429, scope="entry", entries=[1], retryAfter=1)
    entries = [entry("PUT", f"Patient/{n}", patient(str(n))) for n in range(3)]
    response = await fhir.post("", json=bundle("batch", *entries, entry("DELETE", "Patient/x")))
    assert (response.status_code, response.headers["Retry-After"]) == (200, "1")
    assert statuses(response.json()) == ["201", "429", "429", "204"]
    assert await ids(fhir, "/Patient") == ["0"]


async def test_a_failed_entry_leaves_the_rest_of_a_batch_and_ends_a_transaction(fhir, fault):
    await fault(next=2, status=503, scope="entry", fraction=0.5)
    entries = [entry("PUT", f"Patient/{n}", patient(str(n))) for n in range(4)]
    assert (await fhir.get("/Patient")).status_code == 200
    assert statuses(await send(fhir, "batch", *entries)) == ["201", "503", "201", "503"]
    await send(fhir, "transaction", *entries, status=503)
    assert await ids(fhir, "/Patient") == ["0", "2"]


@pytest.mark.parametrize(
    ("kind", "done"), [("reset", False), ("lost-reply", True), ("cutoff", True)]
)
async def test_a_connection_can_end_before_or_after_the_work(fhir, fault, kind, done):
    await fault(kind=kind)
    with pytest.raises(httpx.TransportError):
        await fhir.put("/Patient/a", json=patient("a"))
    assert (await fhir.get("/Patient/a")).status_code == (200 if done else 404)


async def test_an_answer_can_be_broken_or_slow(fhir, fault):
    await fault(kind="broken", method="PUT", path="Patient/a")
    await fault(kind="slow", delayMs=1)
    with pytest.raises(json.JSONDecodeError):
        (await fhir.put("/Patient/a", json=patient("a"))).json()
    assert (await fhir.get("/Patient/a")).json()["id"] == "a"


@pytest.mark.parametrize(
    ("kind", "answered"),
    [
        ("missing-entry", ["201"]),
        ("extra-entry", ["201", "400", "200"]),
        ("status-text", ["201 Created", "400 Bad Request"]),
    ],
)
async def test_a_bundle_can_be_carried_out_and_answered_wrongly(
    fhir, fault, server, kind, answered
):
    await fault(kind=kind)
    assert (await fhir.get("/Patient")).status_code == 200
    wrong = entry("PUT", "Patient/b", patient("b", gender="wrong"))
    body = await send(fhir, "batch", entry("PUT", "Patient/a", patient("a")), wrong)
    assert statuses(body) == answered
    assert await ids(fhir, "/Patient") == ["a"]
    assert (await fhir.get(server + "/control/stats")).json()["faults"] == 1


@pytest.mark.parametrize("header", ["Retry-After", "x-ms-retry-after-ms"])
async def test_a_wait_can_be_told_by_one_header_alone(fhir, fault, header):
    await fault(status=429, retryAfter=1, retryHeader=header)
    refused = await fhir.get("/Patient")
    both = ("Retry-After", "x-ms-retry-after-ms")
    assert [name for name in both if name in refused.headers] == [header]


async def test_faults_can_be_cleared_and_unknown_ones_are_refused(fhir, fault, server):
    await fault(next=100)
    await fhir.delete(server + "/control/faults")
    assert (await fhir.get("/Patient")).status_code == 200
    assert (await fhir.post(server + "/control/faults", json={"kind": "flood"})).status_code == 400


async def test_requests_are_counted_and_told_without_their_query(fhir, server):
    await fhir.get("/Patient?identifier=secret")
    await fhir.put("/Patient/a", json=patient("a"))
    stats = (await fhir.get(server + "/control/stats")).json()
    held = {"resources": 1, "versions": 1, "byType": {"Patient": 1}}
    assert stats == {"requests": 2, "faults": 0, **held}
    recent = (await fhir.get(server + "/control/requests?last=2")).json()
    assert recent == [
        {"method": "GET", "path": "/fhir/Patient", "status": 200},
        {"method": "PUT", "path": "/fhir/Patient/a", "status": 201},
    ]
