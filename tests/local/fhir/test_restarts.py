"""Versions that begin again: hard deletes, imports, a move to another server. And what stands before
the FHIR server and answers in its place."""

import pytest

from tests.local.fhir.calls import bundle, entry, ids, is_outcome, patient, send, statuses

DELETED = {
    "url": "http://azurehealthcareapis.com/data-extensions/deleted-state",
    "valueString": "soft-deleted",
}
EARLY, LATE, LATER = (f"2026-01-0{day}T00:00:00Z" for day in (1, 2, 3))


@pytest.fixture
def control(server, fhir):
    async def ask(path, **body):
        answer = await fhir.post(f"{server}/control/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


def stamped(version, last_updated, **more):
    meta = {"versionId": version, "lastUpdated": last_updated}
    return patient("a", meta={name: value for name, value in meta.items() if value}, **more)


async def put(fhir, **more):
    return (await fhir.put("/Patient/a", json=patient("a", **more))).headers["ETag"]


async def history(fhir):
    entries = (await fhir.get("/Patient/a/_history")).json()["entry"]
    return [item["response"]["etag"] for item in entries]


@pytest.mark.parametrize("name", ["hardDelete", "_hardDelete"])
@pytest.mark.parametrize("deleted", [False, True])
async def test_after_a_hard_delete_the_same_id_begins_at_version_1(fhir, name, deleted):
    await put(fhir)
    await put(fhir, active=True)
    if deleted:
        await fhir.delete("/Patient/a")
    gone = await fhir.delete("/Patient/a", params={name: "true"})
    assert (gone.status_code, gone.headers.get("ETag")) == (204, None)
    for url in ("/Patient/a", "/Patient/a/_history", "/Patient/a/_history/1"):
        assert is_outcome(await fhir.get(url), 404)
    assert await ids(fhir, "/Patient") == []
    created = await fhir.put("/Patient/a", json=patient("a", active=False))
    assert (created.status_code, created.headers["ETag"]) == (201, 'W/"1"')
    assert await history(fhir) == ['W/"1"']


async def test_a_delete_that_does_not_say_hard_keeps_the_history(fhir):
    await put(fhir)
    await fhir.delete("/Patient/a?hardDelete=false")
    assert is_outcome(await fhir.get("/Patient/a"), 410)
    assert await put(fhir) == 'W/"3"'


async def test_a_hard_delete_is_found_by_criteria_and_as_an_entry(fhir):
    await fhir.put("/Patient/a", json=patient("a", mrn="1"))
    await fhir.delete("/Patient?identifier=1&hardDelete=true")
    assert is_outcome(await fhir.get("/Patient/a"), 404)
    await put(fhir)
    reply = await send(fhir, "batch", entry("DELETE", "Patient/a?hardDelete=true"))
    assert statuses(reply) == ["204"]
    assert is_outcome(await fhir.get("/Patient/a"), 404)


async def test_a_transaction_that_fails_takes_a_hard_delete_back(fhir):
    await fhir.put("/Patient/a", json=patient("a", mrn="1"))
    await put(fhir, active=True)
    await send(
        fhir,
        "transaction",
        entry("DELETE", "Patient/a?hardDelete=true"),
        entry("PUT", "Patient/b", patient("other")),
        status=400,
    )
    assert await history(fhir) == ['W/"2"', 'W/"1"']
    assert await ids(fhir, "/Patient") == ["a"]
    assert await put(fhir, active=False) == 'W/"3"'


async def test_reads_lag_behind_a_hard_delete_too(fhir, control):
    await put(fhir)
    await put(fhir, active=True)
    await control("settings", holdReads=True)
    await fhir.delete("/Patient/a?hardDelete=true")
    assert await put(fhir, active=False) == 'W/"1"'
    assert (await fhir.get("/Patient/a")).json()["active"] is True
    assert await history(fhir) == ['W/"2"', 'W/"1"']
    assert await ids(fhir, "/Patient") == ["a"]
    await control("settings", holdReads=False)
    assert (await fhir.get("/Patient/a")).json()["active"] is False
    assert await history(fhir) == ['W/"1"']


@pytest.mark.parametrize("url", ["/Patient/a", "/Patient/a/_history", "/Patient/a/_history/1"])
async def test_a_new_resource_is_unknown_while_reads_lag(fhir, control, url):
    await control("settings", holdReads=True)
    await put(fhir)
    assert is_outcome(await fhir.get(url), 404)
    assert await ids(fhir, "/Patient") == []
    assert await ids(fhir, "/Patient?_id=a") == []
    assert await put(fhir, active=True) == 'W/"2"'  # a write sees the newest
    await control("settings", holdReads=False)
    assert (await fhir.get(url)).status_code == 200
    assert await ids(fhir, "/Patient?_id=a") == ["a"]


# --- imports -------------------------------------------------------------------------------------


async def test_an_initial_load_begins_at_version_1_whatever_a_resource_says(fhir, control):
    said = await control("import", mode="InitialLoad", resources=[stamped("7", EARLY)])
    assert said == {"loaded": 1, "errors": []}
    found = (await fhir.get("/Patient/a")).json()
    assert found["meta"]["versionId"] == "1"
    assert found["meta"]["lastUpdated"] > LATER
    again = await control("import", mode="InitialLoad", resources=[stamped("8", LATE)])
    assert (again["loaded"], [each["position"] for each in again["errors"]]) == (0, [0])


async def test_another_server_has_the_same_ids_from_version_1(fhir, control):
    for active in (True, False, True):
        await put(fhir, active=active)
    kept = (await fhir.get("/Patient/a")).json()
    await control("reset")
    await control("import", mode="InitialLoad", resources=[kept])
    moved = (await fhir.get("/Patient/a")).json()
    assert (kept["meta"]["versionId"], moved["meta"]["versionId"]) == ("3", "1")
    assert moved["meta"]["lastUpdated"] > kept["meta"]["lastUpdated"]


async def test_an_incremental_load_keeps_versions_and_times_in_any_order(fhir, control):
    lines = [stamped("5", LATER, active=True), stamped("2", EARLY), stamped("3", LATE)]
    assert (await control("import", resources=lines))["loaded"] == 3
    assert await history(fhir) == ['W/"5"', 'W/"3"', 'W/"2"']
    newest = (await fhir.get("/Patient/a")).json()
    assert (newest["active"], newest["meta"]["lastUpdated"]) == (True, "2026-01-03T00:00:00+00:00")
    # The same again changes nothing, and the next write goes on from there.
    assert await control("import", resources=lines) == {"loaded": 3, "errors": []}
    assert await put(fhir, active=False) == 'W/"6"'


@pytest.mark.parametrize(
    "line",
    [
        stamped("2", LATE, active=True),  # the version is there with other content
        stamped("2", LATER),  # with another time
        stamped("3", EARLY),  # a higher version of an earlier time
        stamped("1", LATER),
        stamped(None, EARLY),  # nothing says its place, and it is older
        stamped("3", "2999-01-01T00:00:00Z"),
        {"resourceType": "Patient", "id": "not an id"},
        {"resourceType": "Patient"},
    ],
)
async def test_an_import_that_does_not_fit_is_an_error_of_its_line(fhir, control, line):
    await control("import", resources=[stamped("2", LATE)])
    said = await control("import", resources=[line, stamped("9", LATER)])
    assert (said["loaded"], [each["position"] for each in said["errors"]]) == (1, [0])
    assert await history(fhir) == ['W/"9"', 'W/"2"']


async def test_a_line_without_a_version_is_a_change(fhir, control):
    await control("import", resources=[stamped("2", EARLY)])
    await control("import", resources=[stamped(None, LATE)])
    said = await control("import", resources=[patient("a"), patient("a", active=True)])
    assert said["loaded"] == 1
    assert "duplicate" in said["errors"][0]["text"]
    assert await history(fhir) == ['W/"4"', 'W/"3"', 'W/"2"']


async def test_an_incremental_load_brings_deletions(fhir, control):
    gone = stamped("3", LATE)
    gone["meta"]["extension"] = [DELETED]
    assert (await control("import", resources=[stamped("2", EARLY), gone]))["loaded"] == 2
    assert is_outcome(await fhir.get("/Patient/a"), 410)
    assert len((await control("import", mode="InitialLoad", resources=[gone]))["errors"]) == 1


async def test_an_unknown_mode_is_refused(fhir, server):
    answer = await fhir.post(server + "/control/import", json={"mode": "x", "resources": []})
    assert answer.status_code == 400


# --- what stands before the server ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ({}, 404, "text/html"),
        ({"status": 502}, 502, "text/html"),
        ({"format": "json"}, 404, "application/json"),
    ],
)
async def test_a_gateway_answers_in_its_own_words(fhir, fault, status, kind, server):
    asked = {"kind": "gateway", "next": 2, **fault}
    assert (await fhir.post(server + "/control/faults", json=asked)).status_code == 200
    refused = await fhir.put("/Patient/a", json=patient("a"))
    assert (refused.status_code, refused.headers["Content-Type"]) == (status, kind)
    assert "resourceType" not in refused.text
    assert "ETag" not in refused.headers
    whole = await fhir.post("", json=bundle("batch", entry("GET", "Patient")))
    assert whole.status_code == status
    assert is_outcome(await fhir.get("/Patient/a"), 404)
