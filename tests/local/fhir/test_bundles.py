"""Batches and transactions: as strict as those of Azure Health Data Services."""

import pytest

from tests.local.fhir.calls import (
    ACTIVATE,
    bundle,
    condition,
    entry,
    ids,
    is_outcome,
    json_patch,
    patient,
    send,
    statuses,
)


async def test_a_batch_answers_each_entry_at_its_place_in_azures_order_of_execution(fhir):
    await fhir.put("/Patient/old", json=patient("old"))
    reply = await send(
        fhir,
        "batch",
        entry("GET", "Patient/a"),
        entry("PUT", "Patient/a", patient("a")),
        entry("POST", "Condition", {"resourceType": "Condition"}),
        entry("DELETE", "Patient/old"),
        {"resource": patient()},
        entry("GET", "Patient/old"),
        entry("GET", "Patient?_id=a"),
        entry("PUT", "Nothing/1", patient("1")),
        entry("PUT", "Patient/a/b/c", patient("a")),
        entry("POST", "Patient/a", patient("a")),
    )
    assert reply["type"] == "batch-response"
    assert statuses(reply) == [
        *("200", "201", "400", "204", "400", "410", "200"),
        *("404", "404", "404"),
    ]
    read, written, refused, *_ = reply["entry"]
    assert read["resource"]["id"] == "a"
    assert written["response"]["location"] == f"{fhir.base_url}Patient/a/_history/1"
    assert written["response"]["etag"] == 'W/"1"'
    assert written["response"]["lastModified"] == written["resource"]["meta"]["lastUpdated"]
    assert refused["response"]["outcome"]["issue"][0]["expression"] == ["Condition.subject"]
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
        entry("PUT", "Patient/b", patient("b"), ifMatch='W/"1"'),
        entry("PUT", "Patient/a", patient("a", mrn="1", active=True), ifMatch='W/"1"'),
        entry("PATCH", "Patient/a", json_patch(ACTIVATE), ifMatch='W/"1"'),
        entry("PATCH", "Patient/b", json_patch(ACTIVATE), ifMatch='W/"1"'),
        entry("PUT", "Patient/a", patient("a", mrn="1"), ifNoneMatch="*"),
        entry("POST", "Patient", patient(), ifNoneExist="identifier=1"),
        entry("PUT", "Patient?identifier=1", patient(mrn="1", active=True), ifMatch='W/"9"'),
        entry("DELETE", "Patient?identifier=2"),
        entry("DELETE", "Patient/c", ifMatch='W/"9"'),
    )
    expected = ["412", "404", "200", "412", "404", "200", "200", "200", "204", "204"]
    assert statuses(reply) == expected


@pytest.mark.parametrize(
    ("conditional", "status"),
    [
        (entry("PUT", "Patient/a", patient("a", active=True), ifMatch='W/"9"'), 412),
        (entry("PUT", "Patient/b", patient("b"), ifMatch='W/"1"'), 404),
        (entry("PUT", "Patient/a", patient("a", active=True), ifMatch='W/"1"'), 200),
        (entry("PUT", "Patient/a", patient("a", active=True), ifNoneMatch="*"), 200),
        (entry("PATCH", "Patient/a", json_patch(ACTIVATE), ifMatch='W/"9"'), 412),
        (entry("PATCH", "Patient/b", json_patch(ACTIVATE), ifMatch='W/"1"'), 404),
        (entry("PATCH", "Patient/a", json_patch(ACTIVATE), ifMatch='W/"1"'), 200),
        (entry("DELETE", "Patient/a", ifMatch='W/"9"'), 200),
    ],
)
async def test_a_condition_that_fails_fails_its_transaction(fhir, conditional, status):
    await fhir.put("/Patient/a", json=patient("a", mrn="1"))
    other = entry("PUT", "Patient/other", patient("other"))
    await send(fhir, "transaction", other, conditional, status=status)
    found = await fhir.get("/Patient/other")
    assert found.status_code == (200 if status == 200 else 404)


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
    reply = await send(fhir, "transaction", entry("PATCH", "Patient/a", json_patch(ACTIVATE)))
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
