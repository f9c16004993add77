"""What a client may say of a request besides: methods, conditions, preferences, versions."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from integration.core import decimal_json
from integration.core.errors import Rejected
from integration.odata.model import Type
from tests.virtual_tables.conftest import Feed, Json

KEY = UUID(int=5)
SET, NAME = "msemr_conditions", f"Condition/{KEY}"
ROW = f"{SET}({KEY})"
PATIENT = str(UUID(int=1))


def condition(**more: Any) -> Json:
    return {
        "resourceType": "Condition",
        "id": str(KEY),
        "code": {"text": "Cough", "coding": [{"code": "c", "system": "urn:c"}]},
        "subject": {"reference": f"Patient/{PATIENT}"},
        "recordedDate": "2024-02-03T04:05:06.789+02:00",
        "onsetDateTime": "2024",
        **more,
    }


async def refusal(asked: Any) -> Rejected:
    with pytest.raises(Rejected) as found:
        await asked
    return found.value


# -- conditions: https://www.rfc-editor.org/rfc/rfc9110#section-13.1 ---------------------------------


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_what_is_there_is_not_written_by_who_wants_nothing_to_be_there(
    feed: Feed, method: str
) -> None:
    await feed.put(condition())
    before = await feed.stored(NAME)
    tag = (await feed.ask("GET", ROW)).headers["ETag"]
    for condition_ in ("*", tag, f'"0", {tag}'):
        asked = feed.ask(method, ROW, body={"msemr_note": "x"}, if_none_match=condition_)
        assert (await refusal(asked)).status == 412
    assert await feed.stored(NAME) == before
    asked = feed.ask(method, ROW, body={"msemr_note": "x"}, if_none_match='"0"')
    assert (await asked).status == 204


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_row_is_shown_only_as_the_version_that_it_is_asked_for(
    feed: Feed, method: str
) -> None:
    await feed.put(condition())
    tag = (await feed.ask(method, ROW)).headers["ETag"]
    for held in ("*", tag):
        assert (await feed.ask(method, ROW, if_match=held)).status == 200
    assert (await refusal(feed.ask(method, ROW, if_match='W/"0"'))).status == 412
    assert (await feed.ask(method, ROW, if_match=tag, if_none_match="*")).status == 304
    missing = f"{SET}({UUID(int=6)})"
    assert (await refusal(feed.ask(method, missing, if_match='"1"'))).status == 404


# -- methods -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "$metadata", SET, f"{SET}/$count", ROW])
async def test_head_is_a_get_and_options_tells_the_methods(feed: Feed, path: str) -> None:
    await feed.put(condition())
    shown, head = await feed.ask("GET", path), await feed.ask("HEAD", path)
    assert (head.status, head.headers) == (shown.status, shown.headers)
    told = await feed.ask("OPTIONS", path)
    assert (told.status, told.body) == (204, b"")
    refused = await refusal(feed.ask("PUT", path))
    assert (refused.status, refused.headers["Allow"]) == (405, told.headers["Allow"])
    assert told.headers["Allow"].startswith("GET, HEAD")


# -- preferences and versions ------------------------------------------------------------------------


async def test_a_preference_is_said_to_be_applied_only_where_it_means_something(
    feed: Feed,
) -> None:
    async def applied(method: str, path: str, **more: Any) -> str | None:
        preferred = "return=representation, odata.maxpagesize=7"
        found = await feed.ask(method, path, prefer=preferred, **more)
        return found.headers.get("Preference-Applied")

    await feed.put(condition())
    assert await applied("GET", SET) == "odata.maxpagesize=7"
    assert await applied("GET", ROW) is None
    assert await applied("GET", "") is None
    assert await applied("GET", f"{SET}/$count") is None
    assert await applied("PATCH", ROW, body={"msemr_note": "x"}) == "return=representation"
    assert await applied("DELETE", ROW) is None


async def test_clients_of_older_libraries_are_understood(feed: Feed) -> None:
    await feed.put(condition())
    versions = {"odata_version": "4.0;NetFx", "odata_maxversion": "4.0;NetFx"}
    assert (await feed.ask("GET", ROW, **versions)).status == 200
    assert (await feed.ask("GET", "$metadata", **versions)).body.startswith(b"<?xml")


# -- what is sent back as it was read ----------------------------------------------------------------


async def test_a_row_that_is_sent_back_whole_changes_what_was_changed_in_it(feed: Feed) -> None:
    await feed.put(condition())
    row = {name: value for name, value in (await feed.get(ROW)).items() if "@odata" not in name}
    assert (await feed.ask("PATCH", ROW, body=row)).status == 204
    assert (await feed.stored(NAME))["meta"]["versionId"] == "1"
    assert (await feed.ask("PATCH", ROW, body={**row, "msemr_note": "new"})).status == 204
    assert (await feed.stored(NAME))["note"] == [{"text": "new"}]


async def test_another_value_of_a_column_that_cannot_be_written_is_refused(feed: Feed) -> None:
    await feed.put(condition())
    type_ = feed.tables.entity_types["Condition"].type
    fixed = [item for item in type_.properties if not item.writable and item.name != type_.key]
    others: dict[Type, Any] = {
        Type.STRING: "another",
        Type.DATE_TIME_OFFSET: "2001-01-01T00:00:00Z",
        Type.GUID: str(UUID(int=77)),
        Type.DECIMAL: 7,
        Type.INT32: 7,
        Type.BOOLEAN: True,
    }
    assert len(fixed) > 3
    for item in fixed:
        body = {item.name: others[item.type], "msemr_note": "x"}
        refused = await refusal(feed.ask("PATCH", ROW, body=body))
        assert (refused.status, refused.issues[0].expression) == (400, item.name)
    assert "note" not in await feed.stored(NAME)


# -- keys and lookups --------------------------------------------------------------------------------


async def test_an_all_zero_key_is_no_key(feed: Feed) -> None:
    zero = str(UUID(int=0))
    await feed.put({"resourceType": "Patient", "id": PATIENT}, condition(id=zero))
    body = {"msemr_conditionid": zero, "_msemr_subjecttypepatient_value": PATIENT}
    for _ in range(2):
        made = decimal_json.decode((await feed.ask("POST", SET, body=body)).body)
        assert made["msemr_conditionid"] != zero
    assert (await refusal(feed.ask("GET", f"{SET}({zero})"))).status == 404
    rows = {row["msemr_azurefhirid"]: row for row in await feed.every(SET)}
    key = rows[zero]["msemr_conditionid"]
    assert key != zero
    assert (await feed.get(f"{SET}({key})"))["msemr_azurefhirid"] == zero


async def test_a_lookup_leads_to_somebody_or_is_refused(feed: Feed) -> None:
    """A contact need not be a patient: its key leads to none."""
    await feed.put(condition())
    encounter = {"_msemr_encounter_value": str(UUID(int=9))}
    refused = await refusal(feed.ask("PATCH", ROW, body=encounter))
    assert (refused.status, refused.issues[0].expression) == (422, "msemr_encounter")
    assert (await feed.stored(NAME))["meta"]["versionId"] == "1"
    nobody = {"_msemr_subjecttypepatient_value": str(UUID(int=8))}
    refused = await refusal(feed.ask("POST", SET, body=nobody))
    assert (refused.status, refused.issues[0].expression) == (422, "msemr_subjecttypepatient")
    assert [request.method for request in feed.asked if request.method == "PUT"] == []
    body = {"resourceType": "Encounter", "id": str(UUID(int=9)), "status": "planned"}
    await feed.put({**body, "class": {"code": "AMB"}})
    assert (await feed.ask("PATCH", ROW, body=encounter)).status == 204


async def test_a_lookup_that_leads_nowhere_may_stay_as_it_is(feed: Feed) -> None:
    await feed.put(condition())
    body = {"_msemr_subjecttypepatient_value": PATIENT, "msemr_note": "x"}
    assert (await feed.ask("PATCH", ROW, body=body)).status == 204


# -- days --------------------------------------------------------------------------------------------


async def test_a_time_of_day_is_no_value_of_a_column_of_days(feed: Feed) -> None:
    await feed.put({"resourceType": "Patient", "id": PATIENT}, condition())
    day = "msemr_asserteddate"
    for method, path in (("PATCH", ROW), ("POST", SET)):
        body = {day: "2024-03-04T10:00:00Z", "_msemr_subjecttypepatient_value": PATIENT}
        refused = await refusal(feed.ask(method, path, body=body))
        assert (refused.status, refused.issues[0].expression) == (422, day)
    assert (await feed.ask("PATCH", ROW, body={day: "2024-03-04T01:00:00+01:00"})).status == 204
    assert (await feed.get(ROW))[day] == "2024-03-04T00:00:00Z"
