"""On the data route `dataverse`, the feed shows and writes Dataverse's own rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from integration.core.errors import Misconfigured, Rejected, Unavailable
from tests.virtual_tables.conftest import Feed, Json
from tests.virtual_tables.physical.desk import Desk, open_desk

PATIENT = "00000000-0000-4000-8000-000000000001"
OBSERVATION = "00000000-0000-4000-8000-0000000000a1"
SET = "msemr_observations"
STATUS = {"preliminary": 935000001, "final": 935000002}


def observation(id_: str = OBSERVATION, **more: Any) -> Json:
    return {
        "resourceType": "Observation",
        "id": id_,
        "status": "final",
        "code": {
            "coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}],
            "text": "Pulse",
        },
        "subject": {"reference": f"Patient/{PATIENT}"},
        "effectiveDateTime": "2026-02-03T04:05:06Z",
        "valueQuantity": {"value": 72.5, "unit": "/min"},
        **more,
    }


@pytest.fixture
async def desk(feed: Feed) -> AsyncIterator[Desk]:
    async with open_desk(feed) as opened:
        await feed.put({"resourceType": "Patient", "id": PATIENT, "name": [{"family": "One"}]})
        await opened.mirror([f"Patient/{PATIENT}"])
        yield opened


async def show(desk: Desk, *resources: Json) -> list[Json]:
    """Put resources into FHIR, mirror them, and answer from Dataverse."""
    await desk.feed.put(*resources)
    names = [f"{item['resourceType']}/{item['id']}" for item in resources]
    results = await desk.mirror(names)
    assert [result.action for result in results] == ["created"] * len(names), results
    desk.switch("Observation")
    return await desk.feed.every(SET)


async def test_a_row_has_the_key_the_patient_and_the_values_that_it_has_on_the_other_route(
    desk: Desk,
) -> None:
    await desk.feed.put(observation(), observation("not-a-guid"))
    from_fhir = {row["msemr_azurefhirid"]: row for row in await desk.feed.every(SET)}
    await desk.mirror([f"Observation/{id_}" for id_ in from_fhir])
    desk.switch("Observation")
    rows = {row["msemr_azurefhirid"]: row for row in await desk.feed.every(SET)}
    assert rows.keys() == from_fhir.keys()
    for id_, row in rows.items():
        other = from_fhir[id_]
        assert row.keys() == other.keys()
        same = (
            *("msemr_observationid", "_msemr_subjectpatient_value", "msemr_status"),
            *("msemr_description", "msemr_code", "msemr_codecode", "msemr_effectivedate"),
            *("msemr_effectivetypedatetime", "msemr_valuetypequantityvalue"),
            *("msemr_azurefhirversion", "msemr_azurefhirlastupdatedon"),
        )
        assert {name: row[name] for name in same} == {name: other[name] for name in same}
        assert row["msemr_components"] is None, "the table has no column for it"


async def test_the_rows_of_a_patient_are_one_request_to_dataverse_and_none_to_fhir(
    desk: Desk,
) -> None:
    await show(desk, observation())
    desk.feed.asked.clear()
    desk.double.received.clear()
    page = await desk.feed.get(SET, f"$filter=_msemr_subjectpatient_value eq {PATIENT}&$top=5")
    assert [row["msemr_observationid"] for row in page["value"]] == [OBSERVATION]
    assert desk.feed.asked == []
    # In the body of a batch: servers on the way log addresses.
    assert [request.path for request in desk.double.received] == ["/api/data/v9.2/$batch"]
    assert f"GET /api/data/v9.2/{SET}?" in desk.double.received[0].body


async def test_a_row_is_read_by_its_key_and_by_what_its_concept_says(desk: Desk) -> None:
    await show(desk, observation(), observation("other", code={"text": "none"}))
    found = await desk.feed.get(f"{SET}({OBSERVATION})")
    assert found["msemr_codecode"] == "8867-4"
    for text in (
        "msemr_codecode eq '8867-4'",
        "contains(msemr_code,'rate')",
        "msemr_effectivedate ge 2026-01-01T00:00:00Z and msemr_codecode ne null",
    ):
        rows = await desk.feed.every(SET, f"$filter={text}")
        assert OBSERVATION in {row["msemr_observationid"] for row in rows}, text


async def test_a_change_reaches_the_row_and_not_fhir(desk: Desk) -> None:
    await show(desk, observation())
    before = await desk.feed.stored(f"Observation/{OBSERVATION}")
    answer = await desk.feed.ask(
        "PATCH", f"{SET}({OBSERVATION})", body={"msemr_status": STATUS["preliminary"]}
    )
    assert answer.status == 204
    (row,) = await desk.double.rows(SET)
    assert row["msemr_status"] == STATUS["preliminary"]
    assert await desk.feed.stored(f"Observation/{OBSERVATION}") == before


async def test_a_change_for_another_version_is_a_conflict(desk: Desk) -> None:
    await show(desk, observation())
    answer = await desk.feed.ask("GET", f"{SET}({OBSERVATION})")
    tag = answer.headers["ETag"]
    body = {"msemr_status": STATUS["preliminary"]}
    path = f"{SET}({OBSERVATION})"
    assert (await desk.feed.ask("PATCH", path, body=body, if_match=tag)).status == 204
    with pytest.raises(Rejected) as caught:
        await desk.feed.ask("PATCH", path, body={"msemr_status": 935000003}, if_match=tag)
    assert caught.value.status == 412
    with pytest.raises(Rejected) as caught:
        await desk.feed.ask("DELETE", path, if_match=tag)
    assert caught.value.status == 412
    assert (await desk.feed.ask("DELETE", path)).status == 204
    assert await desk.double.rows(SET) == []


async def test_a_new_row_gets_its_patient_and_a_key_that_is_in_use_is_a_conflict(
    desk: Desk,
) -> None:
    desk.switch("Observation")
    body = {
        "msemr_observationid": OBSERVATION,
        "msemr_status": STATUS["final"],
        "_msemr_subjectpatient_value": PATIENT,
        "msemr_effectivetypedatetime": "2026-02-03T04:05:06Z",
    }
    answer = await desk.feed.ask("POST", SET, body=body)
    assert answer.status == 201
    assert answer.headers["OData-EntityId"].endswith(f"{SET}({OBSERVATION})")
    (row,) = await desk.double.rows(SET)
    assert row["_msemr_subjecttypepatient_value"] == PATIENT
    (shown,) = await desk.feed.every(SET)
    assert shown["_msemr_subjectpatient_value"] == PATIENT
    with pytest.raises(Rejected) as caught:
        await desk.feed.ask("POST", SET, body=body)
    assert caught.value.status == 409


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"msemr_codecode": "1"}, "no column for it"),
        ({"msemr_categorytext": "a"}, "no column for it"),
        ({"_msemr_subjectpatient_value": "00000000-0000-4000-8000-0000000000ff"}, "does not take"),
    ],
)
async def test_what_the_table_cannot_hold_is_refused(desk: Desk, body: Json, says: str) -> None:
    desk.switch("Observation")
    with pytest.raises(Rejected) as caught:
        await desk.feed.ask("POST", SET, body={"msemr_status": STATUS["final"], **body})
    assert caught.value.status == 422
    assert says in caught.value.issues[0].text
    assert await desk.double.rows(SET) == []


async def test_a_row_that_is_not_there_and_one_that_is_inactive_are_not_found(desk: Desk) -> None:
    await show(desk, observation())
    await desk.double.change("PATCH", f"{SET}({OBSERVATION})", {"statecode": 1})
    assert await desk.feed.every(SET) == []
    assert await desk.feed.get(f"{SET}/$count") == 0
    for method in ("GET", "PATCH", "DELETE"):
        body = {"msemr_status": STATUS["final"]} if method == "PATCH" else None
        with pytest.raises(Rejected) as caught:
            await desk.feed.ask(method, f"{SET}({OBSERVATION})", body=body)
        assert caught.value.status == 404


async def test_a_page_of_the_other_source_does_not_go_on(desk: Desk) -> None:
    await show(desk, observation(), observation("a"), observation("b"))
    page = await desk.feed.get(SET, prefer="odata.maxpagesize=1")
    token = page["@odata.nextLink"].partition("$skiptoken=")[2]
    desk.switch("Observation", to="virtual")
    with pytest.raises(Rejected) as caught:
        await desk.feed.ask("GET", SET, f"$skiptoken={token}")
    assert caught.value.status in (400, 410)


async def test_more_rows_than_dataverse_counts_are_counted(desk: Desk, monkeypatch: Any) -> None:
    await show(desk, *(observation(f"n-{n}") for n in range(7)))
    for name in (
        "integration.virtual_tables.physical.read.MAX_COUNT",
        "local.dataverse.queries.MAX_COUNT",
    ):
        monkeypatch.setattr(name, 3)
    assert await desk.feed.get(f"{SET}/$count") == 7
    page = await desk.feed.get(SET, "$count=true&$top=2")
    assert (page["@odata.count"], len(page["value"])) == (7, 2)


async def test_a_table_that_dataverse_has_not_got_is_for_an_operator(desk: Desk) -> None:
    desk.switch("CarePlan")
    with pytest.raises(Misconfigured, match="msemr_careplan"):
        await desk.feed.get("msemr_careplans")


async def test_a_dataverse_that_does_not_answer_is_named(desk: Desk) -> None:
    desk.switch("Observation")
    await desk.feed.every(SET)
    desk.feed.tables = replace(desk.feed.tables, timeout=0.05)
    desk.double.will_fail(kind="hang")
    with pytest.raises(Unavailable, match="Dataverse: no answer within"):
        await desk.feed.get(SET)
