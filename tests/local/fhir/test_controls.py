"""What tests may ask the FHIR server of the laptop for: faults, and what it has done."""

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import pytest

from tests.local.fhir.calls import bundle, entry, ids, is_outcome, patient, send, statuses


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
    wrong = entry("PUT", "Patient/b", patient("other"))
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
    assert stats == {"requests": 2, "faults": 0, "refusedBundles": 0, **held}
    recent = (await fhir.get(server + "/control/requests?last=2")).json()
    assert recent == [
        {"method": "GET", "path": "/fhir/Patient", "status": 200},
        {"method": "PUT", "path": "/fhir/Patient/a", "status": 201},
    ]


@pytest.fixture
def change(server, fhir):
    async def ask(**settings):
        answer = await fhir.post(server + "/control/settings", json=settings)
        assert answer.status_code == 200
        return answer.json()

    return ask


@pytest.mark.parametrize("offset", [-90, 90])
async def test_the_clock_can_be_ahead_or_behind(fhir, change, offset):
    assert (await change(clockOffset=offset))["clockOffset"] == offset
    written = await fhir.put("/Patient/a", json=patient("a"))
    now = datetime.now(UTC)
    stamps = [
        datetime.fromisoformat(written.json()["meta"]["lastUpdated"]),
        parsedate_to_datetime(written.headers["Last-Modified"]),
        parsedate_to_datetime(written.headers["Date"]),
    ]
    for stamp in stamps:
        assert abs((stamp - now).total_seconds() - offset) < 30


async def test_a_later_write_may_have_the_earlier_time(fhir, change):
    first = (await fhir.put("/Patient/a", json=patient("a"))).json()["meta"]
    await change(clockOffset=-60)
    second = (await fhir.put("/Patient/a", json=patient("a", active=True))).json()["meta"]
    assert (first["versionId"], second["versionId"]) == ("1", "2")
    assert second["lastUpdated"] < first["lastUpdated"]


READS = ["/Patient/a", "/Patient/a/_history/2", "/Patient/a/_history", "/Patient?identifier=2"]


async def see(fhir):
    """Return what each read shows of the second version, by itself and as an entry."""
    reply = await send(fhir, "batch", *(entry("GET", url.removeprefix("/")) for url in READS))
    texts = [json.dumps(item) for item in reply["entry"]]
    texts += [(await fhir.get(url)).text for url in READS]
    return ["true" in text for text in texts]


async def test_reads_may_lag_behind_writes_which_see_the_newest(fhir, change):
    await fhir.put("/Patient/a", json=patient("a", mrn="1"))
    await change(holdReads=True)
    second = await fhir.put("/Patient/a", json=patient("a", mrn="2", active=True))
    await fhir.put("/Patient/b", json=patient("b"))
    assert second.headers["ETag"] == 'W/"2"'
    assert (await fhir.get("/Patient/a")).headers["ETag"] == 'W/"1"'
    assert (await fhir.get("/Patient/b")).status_code == 404
    assert await ids(fhir, "/Patient") == ["a"]
    assert await ids(fhir, "/Patient?identifier=1") == ["a"]
    assert (await fhir.get("/Patient/a/_history")).json()["total"] == 1
    assert not any(await see(fhir))

    stale = patient("a", mrn="3")
    for version, status in [('W/"1"', 412), ('W/"2"', 200)]:
        headers = {"If-Match": version}
        assert (await fhir.put("/Patient/a", json=stale, headers=headers)).status_code == status
    known = await fhir.post("/Patient", json=patient(), headers={"If-None-Exist": "identifier=3"})
    assert (known.status_code, known.headers["ETag"]) == (200, 'W/"3"')
    await fhir.delete("/Patient/a")
    assert (await fhir.get("/Patient/a")).headers["ETag"] == 'W/"1"'

    await change(holdReads=False)
    assert (await fhir.get("/Patient/a")).status_code == 410
    assert await ids(fhir, "/Patient") == ["b"]


async def test_reads_may_lag_by_some_seconds(fhir, change):
    await change(readLag=3600)
    await fhir.put("/Patient/a", json=patient("a", mrn="2"))
    await fhir.put("/Patient/a", json=patient("a", mrn="2", active=True))
    assert not any(await see(fhir))
    await change(readLag=0)
    assert all(await see(fhir))


def test_the_server_is_started_with_its_clock_and_its_lag_and_goes_back_to_them(start):
    started = start(FHIR_CLOCK_OFFSET="-60", FHIR_READ_LAG="5")
    with started as server, httpx.Client() as http:
        before = http.get(server + "/control/settings").json()
        assert (before["clockOffset"], before["readLag"]) == (-60, 5)
        http.post(server + "/control/settings", json={"clockOffset": 1, "holdReads": True})
        http.post(server + "/control/reset")
        assert http.get(server + "/control/settings").json() == before


@pytest.mark.parametrize(
    "settings", [{"clockOffset": "1"}, {"readLag": -1}, {"holdReads": 1}, {"x": 1}]
)
async def test_an_unknown_setting_is_refused(fhir, server, settings):
    assert is_outcome(await fhir.post(server + "/control/settings", json=settings), 400)
