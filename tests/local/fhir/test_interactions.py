"""One resource at a time: where Azure Health Data Services is strict or odd, the server is so too."""

import gzip
import json
import re
from uuid import UUID

import pytest

from tests.local.fhir.calls import (
    ACTIVATE,
    JSON_PATCH,
    MRN,
    condition,
    follow,
    is_outcome,
    patient,
    send,
)


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
    ("resource", "place"),
    [
        ({"resourceType": "Condition"}, "Condition.subject"),
        (patient(communication=[{"preferred": True}]), "Patient.communication.language"),
        (patient(identifier=[{"system": "no uri"}]), "Patient.identifier.system"),
    ],
)
async def test_an_invalid_resource_is_refused_with_the_place_of_the_issue(fhir, resource, place):
    refused = await fhir.post("/" + resource["resourceType"], json=resource)
    assert is_outcome(refused, 400)
    assert place in re.sub(r"\[\d+]", "", refused.json()["issue"][0]["expression"][0])


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
    assert is_outcome(await fhir.put("/Patient/a/b/c", json=patient()), 404)
    assert is_outcome(await fhir.post("/Patient/a", json=patient()), 405)


async def test_if_match_guards_a_put_and_a_patch(fhir):
    changed = patient("a", active=True)

    async def put(version, **more):
        return await fhir.put("/Patient/a", json=changed, headers={"If-Match": version, **more})

    async def change(version):
        headers = {**JSON_PATCH, "If-Match": version}
        return await fhir.patch("/Patient/a", content=json.dumps(ACTIVATE), headers=headers)

    assert is_outcome(await put('W/"1"'), 404)
    assert is_outcome(await change('W/"1"'), 404)
    await fhir.put("/Patient/a", json=patient("a"))
    assert is_outcome(await put('W/"7"'), 412)
    assert is_outcome(await put('"1"'), 400)
    assert is_outcome(await change('W/"7"'), 412)
    assert (await change('W/"1"')).headers["ETag"] == 'W/"2"'
    assert is_outcome(await put('W/"1"'), 412)
    assert (await put('W/"2"')).status_code == 200


async def test_if_match_compares_the_version_that_a_deletion_made(fhir):
    await fhir.put("/Patient/a", json=patient("a"))
    await fhir.delete("/Patient/a")
    for version, status in [('W/"1"', 412), ('W/"2"', 200)]:
        headers = {"If-Match": version}
        written = await fhir.put("/Patient/a", json=patient("a"), headers=headers)
        assert written.status_code == status


async def test_a_put_reads_no_if_none_match_and_a_delete_no_if_match(fhir):
    await fhir.put("/Patient/a", json=patient("a"))
    changed = patient("a", active=True)
    again = await fhir.put("/Patient/a", json=changed, headers={"If-None-Match": "*"})
    assert again.headers["ETag"] == 'W/"2"'
    deleted = await fhir.delete("/Patient/a", headers={"If-Match": 'W/"9"'})
    assert deleted.status_code == 204
    assert is_outcome(await fhir.get("/Patient/a"), 410)


async def test_a_deleted_resource_is_gone_and_can_come_back_with_the_next_version(fhir):
    assert is_outcome(await fhir.get("/Patient/a"), 404)
    assert (await fhir.delete("/Patient/a")).status_code == 204
    await fhir.put("/Patient/a", json=patient("a"))
    assert (await fhir.delete("/Patient/a")).status_code == 204
    assert is_outcome(await fhir.get("/Patient/a"), 410)
    assert (await fhir.get("/Patient?_id=a")).json().get("entry") is None
    back = await fhir.put("/Patient/a", json=patient("a"))
    assert (back.status_code, back.headers["ETag"]) == (200, 'W/"3"')


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


async def test_a_history_comes_in_pages_the_newest_version_first(fhir):
    for day in range(12):
        await fhir.put("/Patient/a", json=patient("a", birthDate=f"1980-02-{day + 1:02}"))
    first = (await fhir.get("/Patient/a/_history")).json()
    assert (first["total"], len(first["entry"])) == (12, 10)
    for url in ("/Patient/a/_history", "/Patient/a/_history?_count=5"):
        found = [item["response"]["etag"] for item in await follow(fhir, url)]
        assert found == [f'W/"{number}"' for number in range(12, 0, -1)]
    assert is_outcome(await fhir.get("/Patient/a/_history?ct=other"), 400)


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
