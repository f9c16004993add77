"""Creating, changing and deleting through the feed: conflicts, order, and what is refused."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest

from integration.core import decimal_json
from integration.core.errors import Rejected
from integration.fhir.write_mark import Mark, add_mark, read_mark
from integration.journal.table_keys import make_delivery_id
from tests.builders import MARKER, Body, bundle, entry
from tests.conftest import Route, told_by
from tests.virtual_tables.conftest import Feed
from tests.virtual_tables.scripted import scripted

KEY = UUID(int=5)
NAME, ROW = f"Condition/{KEY}", f"msemr_conditions({KEY})"
CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
RESOLVED = 935000005


def cough(**more: Any) -> Body:
    return {
        "resourceType": "Condition",
        "id": str(KEY),
        "clinicalStatus": {"coding": [{"system": CLINICAL, "code": "active"}]},
        "code": {"text": "Cough"},
        "subject": {"reference": "Patient/p-1", "display": MARKER},
        **more,
    }


async def refusal(asked: Any) -> Rejected:
    with pytest.raises(Rejected) as found:
        await asked
    assert MARKER not in str(found.value)
    return found.value


async def tag(feed: Feed) -> str:
    return str((await feed.ask("GET", ROW)).headers["ETag"])


# -- two at once -----------------------------------------------------------------------------------


async def test_two_editors_of_different_columns_lose_nothing(feed: Feed) -> None:
    await feed.put(cough())
    answers = await asyncio.gather(
        feed.ask("PATCH", ROW, body={"msemr_conditioncodetext": "Whooping cough"}),
        feed.ask("PATCH", ROW, body={"msemr_note": "since Monday"}),
    )
    assert [item.status for item in answers] == [204, 204]
    stored = await feed.stored(NAME)
    assert stored["code"] == {"text": "Whooping cough"}
    assert stored["note"] == [{"text": "since Monday"}]
    assert stored["meta"]["versionId"] == "3"


async def test_no_editor_who_names_no_version_hears_of_another(feed: Feed) -> None:
    """In whatever order they began, and have come to their turns."""
    await feed.put(cough())
    numbers = iter([1, 5, 2, 4, 3, 9, 8, 7, 6, *range(10, 400)])
    writer = replace(
        feed.tables.writer,
        new_run_id=lambda: make_delivery_id(datetime(2026, 3, 1, tzinfo=UTC), next(numbers)),
    )
    feed.tables = replace(feed.tables, writer=writer)
    for number in range(25):
        answers = await asyncio.gather(
            feed.ask("PATCH", ROW, body={"msemr_conditioncodetext": f"Cough {number}"}),
            feed.ask("PATCH", ROW, body={"msemr_note": f"since {number}"}, if_match="*"),
        )
        assert [item.status for item in answers] == [204, 204]
        stored = await feed.stored(NAME)
        assert stored["code"] == {"text": f"Cough {number}"}
        assert stored["note"] == [{"text": f"since {number}"}]


async def test_the_mark_of_an_edit_is_later_than_the_one_that_it_replaces(feed: Feed) -> None:
    """The clock of another worker may be ahead, and a delivery must not come in between."""
    later = make_delivery_id(datetime(2027, 1, 1, tzinfo=UTC), 1)
    await feed.put(add_mark(cough(), Mark(delivery=later, position=3)))
    await feed.ask("PATCH", ROW, body={"msemr_note": "x"})
    mark = read_mark(await feed.stored(NAME))
    assert mark is not None
    assert mark.delivery > later


async def test_a_row_whose_lock_a_later_writer_had_is_made_again_and_deleted(feed: Feed) -> None:
    numbers = iter(range(400, 0, -1))  # each one begins before the one that it comes after
    writer = replace(
        feed.tables.writer,
        new_run_id=lambda: make_delivery_id(datetime(2026, 3, 1, tzinfo=UTC), next(numbers)),
    )
    feed.tables = replace(feed.tables, writer=writer)
    await feed.put({"resourceType": "Patient", "id": str(UUID(int=1))})
    body = {"msemr_conditionid": str(KEY), "_msemr_subjecttypepatient_value": str(UUID(int=1))}
    for _ in range(3):
        assert (await feed.ask("POST", "msemr_conditions", body=body)).status == 201
        assert (await feed.ask("DELETE", ROW)).status == 204


async def test_a_deletion_is_tried_again_where_others_have_changed_the_resource() -> None:
    conflicts = iter([412, 204])
    stored = cough(meta={"versionId": "1"})

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            return httpx.Response(next(conflicts))
        if request.method == "POST":
            entries = [{"response": {"status": "200"}}]
            return httpx.Response(200, json={"resourceType": "Bundle", "entry": entries})
        return httpx.Response(200, content=decimal_json.encode(stored))

    async with scripted(answer) as feed:
        assert (await feed.ask("DELETE", ROW)).status == 204
        conflicts = iter([409])
        refused = await refusal(feed.ask("DELETE", ROW))
    assert (refused.status, "others may refer to it" in str(refused)) == (409, True)


async def test_of_two_editors_who_name_the_version_one_hears_of_the_other(feed: Feed) -> None:
    await feed.put(cough())
    seen = await tag(feed)
    answers = await asyncio.gather(
        feed.ask("PATCH", ROW, body={"msemr_conditioncodetext": "Asthma"}, if_match=seen),
        feed.ask("PATCH", ROW, body={"msemr_note": "since Monday"}, if_match=seen),
        return_exceptions=True,
    )
    (lost,) = [item for item in answers if isinstance(item, Rejected)]
    assert (lost.status, lost.issues[0].code) == (412, "conflict")
    assert (await feed.stored(NAME))["meta"]["versionId"] == "2"


async def test_what_others_write_at_the_fhir_server_meanwhile_is_kept() -> None:
    """The server's own condition decides: others take no turns."""
    version, puts = [1], list[Body]()
    stored = cough(meta={"versionId": "1"})

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, content=decimal_json.encode(stored))
        if not puts:
            version[0] = 2
            stored.update(note=[{"text": "from elsewhere"}], meta={"versionId": "2"})
        puts.append(decimal_json.decode(request.content))
        is_current = request.headers["if-match"] == f'W/"{version[0]}"'
        return httpx.Response(200 if is_current else 412, content=request.content)

    async with scripted(answer) as feed:
        done = await feed.ask("PATCH", ROW, body={"msemr_conditioncodetext": "Asthma"})
        assert done.status == 204
        assert [item.get("note") for item in puts] == [None, [{"text": "from elsewhere"}]]
        assert puts[-1]["code"] == {"text": "Asthma"}

        puts.clear()
        stored["meta"] = {"versionId": "1"}
        asked = feed.ask("PATCH", ROW, body={"msemr_note": "x"}, if_match='W/"1"')
        assert (await refusal(asked)).status == 412
        assert len(puts) == 1


async def test_an_editor_gives_up_when_others_never_stop() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        is_read = request.method == "GET"
        return httpx.Response(
            200 if is_read else 412, content=decimal_json.encode(cough(meta={"versionId": "1"}))
        )

    async with scripted(answer) as feed:
        asked = feed.ask("PATCH", ROW, body={"msemr_note": "x"})
        assert (await refusal(asked)).status == 409


# -- deliveries ------------------------------------------------------------------------------------


def beside(feed: Feed, route: Route) -> None:
    """The feed and the relay before one FHIR server, with one ledger of turns."""
    route.fhir = feed.tables.reader.fhir
    writing = replace(
        feed.tables.writer,
        guard=route.order,
        new_run_id=lambda: make_delivery_id(route.clock(), next(route._ids)),
    )
    feed.tables = replace(feed.tables, writer=writing)


async def test_a_delivery_accepted_before_an_edit_does_not_undo_it(
    feed: Feed, route: Route
) -> None:
    beside(feed, route)
    await feed.put(cough())
    put = {"method": "PUT", "url": NAME}
    late = await route.deliver(bundle(entry(cough(code={"text": "Cold"}), **put)))
    route.clock.later(1)
    await feed.ask("PATCH", ROW, body={"msemr_conditioncodetext": "Asthma"})
    route.clock.later(1)
    after = await route.deliver(bundle(entry(cough(code={"text": "Croup"}), **put)))

    await route.process_all(late)
    (outcome,) = await route.outcomes(late)
    assert (outcome.superseded, outcome.is_written) == (True, False)
    assert (await feed.stored(NAME))["code"] == {"text": "Asthma"}

    await route.process_all(after)
    assert (await feed.stored(NAME))["code"] == {"text": "Croup"}


async def test_a_delivery_accepted_before_a_deletion_does_not_bring_it_back(
    feed: Feed, route: Route
) -> None:
    beside(feed, route)
    await feed.put(cough())
    late = await route.deliver(bundle(entry(cough(), method="PUT", url=NAME)))
    route.clock.later(1)
    assert (await feed.ask("DELETE", ROW)).status == 204
    await route.process_all(late)
    (outcome,) = await route.outcomes(late)
    assert outcome.superseded
    assert (await feed.fhir.get(NAME)).status_code == 410


async def test_a_deletion_takes_nothing_away_that_was_written_since_it_was_read(
    feed: Feed, route: Route
) -> None:
    """No server makes a delete conditional on a version."""
    beside(feed, route)
    await feed.put(cough())
    update = await route.deliver(
        bundle(entry(cough(code={"text": "Croup"}), method="PUT", url=NAME))
    )
    hooks = feed.tables.writer.fhir.upstream.http.event_hooks
    (see,) = hooks["request"]

    async def write_in_between(request: httpx.Request) -> None:
        await see(request)
        if request.method == "POST":
            feed.tables.writer.fhir.upstream.http.event_hooks = {"request": [see]}
            await route.process(update)

    feed.tables.writer.fhir.upstream.http.event_hooks = {"request": [write_in_between]}
    version = await tag(feed)
    assert (await refusal(feed.ask("DELETE", ROW, if_match=version))).status == 412
    assert (await feed.stored(NAME))["code"] == {"text": "Croup"}
    assert await route.statuses(update) == [200]


# -- creating --------------------------------------------------------------------------------------


async def test_a_client_may_choose_the_key_once(feed: Feed) -> None:
    body = {
        "msemr_conditionid": str(KEY),
        "msemr_conditioncodetext": "Cough",
        "_msemr_subjecttypepatient_value": str(UUID(int=1)),
    }
    await feed.put({"resourceType": "Patient", "id": str(UUID(int=1))})
    made = await feed.ask("POST", "msemr_conditions", body=body)
    assert (made.status, made.headers["Location"]) == (201, f"http://feed/api/odata/{ROW}")
    assert made.headers["ETag"] == 'W/"1"'
    again = await refusal(feed.ask("POST", "msemr_conditions", body=body))
    assert again.status == 409
    stored = await feed.stored(NAME)
    assert stored["subject"] == {"reference": f"Patient/{UUID(int=1)}"}
    assert stored["meta"]["versionId"] == "1"


async def test_what_is_not_valid_is_not_created(feed: Feed) -> None:
    lacking = await refusal(feed.ask("POST", "msemr_conditions", body={"msemr_note": MARKER}))
    assert lacking.status == 422
    assert "Condition.subject" in {item.expression for item in lacking.issues}
    assert [request for request in feed.asked if request.method != "GET"] == []


# -- what a column shows only in part --------------------------------------------------------------


async def test_a_claim_may_name_its_coverage_and_provider_or_refer_to_them(feed: Feed) -> None:
    patient = {"reference": f"Patient/{KEY}"}
    coverage = {"status": "active", "beneficiary": patient, "payor": [patient]}
    await feed.put(
        {"resourceType": "Patient", "id": str(KEY)},
        {"resourceType": "Practitioner", "id": str(KEY)},
        {"resourceType": "Coverage", "id": str(KEY), **coverage},
    )
    claim = {
        "msemr_typetext": "Professional",
        "msemr_prioritycode": "normal",
        "_msemr_patient_value": str(KEY),
        "msemr_created": "2024-03-04T00:00:00Z",
        "msemr_providername": "Dr Sample",
        "msemr_coveragename": "Sample Health Plan",
    }
    lookups = {"_msemr_providerpractitioner_value": str(KEY), "_msemr_coverage_value": str(KEY)}
    for key, body in [(UUID(int=6), claim), (UUID(int=7), {**claim, **lookups})]:
        row = {**body, "msemr_claimid": str(key)}
        assert (await feed.ask("POST", "msemr_claims", body=row)).status == 201
        shown = await feed.get(f"msemr_claims({key})")
        assert {name: shown[name] for name in body} == body
    refused = await refusal(
        feed.ask("PATCH", f"msemr_claims({key})", body={"msemr_coveragename": "Another"})
    )
    assert refused.status == 422
    del claim["msemr_coveragename"]
    refused = await refusal(feed.ask("POST", "msemr_claims", body=claim))
    assert (refused.status, refused.issues[0].expression) == (422, "Claim.insurance[0].coverage")


async def test_what_is_shown_in_part_and_written_back_stays_whole(feed: Feed) -> None:
    whole = cough(
        code={"text": "x" * 600},
        onsetPeriod={"start": "1999", "end": "2000-02"},
        recordedDate="2001-02-03T04:05:06.789+02:00",
        note=[{"text": "first"}, {"text": "second"}],
    )
    await feed.put(whole)
    before, row = await feed.stored(NAME), await feed.get(ROW)
    writable = {
        item.name
        for item in feed.tables.entity_types["Condition"].type.properties
        if item.writable and row[item.name] is not None
    }
    assert {"msemr_conditioncodetext", "msemr_onsetperiodenddate"} <= writable
    same = {name: row[name] for name in writable}
    assert len(same["msemr_conditioncodetext"]) < 600
    assert (await feed.ask("PATCH", ROW, body=same)).status == 204
    assert await feed.stored(NAME) == before


async def test_text_that_is_longer_than_its_column_is_not_replaced(feed: Feed) -> None:
    await feed.put(cough(code={"text": "x" * 600}))
    body = {"msemr_conditioncodetext": "x" * 499}
    refused = await refusal(feed.ask("PATCH", ROW, body=body))
    assert refused.status == 422
    assert "FHIR holds more than the column shows" in str(refused)
    assert (await feed.stored(NAME))["code"]["text"] == "x" * 600


# -- conditions, addresses and methods -------------------------------------------------------------


async def test_an_unchanged_row_is_not_sent_again(feed: Feed) -> None:
    await feed.put(cough())
    known = await feed.ask("GET", ROW, if_none_match=await tag(feed))
    assert (known.status, known.body) == (304, b"")
    assert (await feed.ask("GET", ROW, if_none_match='W/"0"')).status == 200


async def test_a_deletion_is_for_the_version_that_it_names(feed: Feed) -> None:
    await feed.put(cough())
    assert (await refusal(feed.ask("DELETE", ROW, if_match='W/"7"'))).status == 412
    assert (await feed.stored(NAME))["meta"]["versionId"] == "1"
    assert (await feed.ask("DELETE", ROW, if_match=await tag(feed))).status == 204
    assert (await refusal(feed.ask("GET", ROW))).status == 404
    assert (await refusal(feed.ask("DELETE", ROW))).status == 404


async def test_a_row_that_is_not_there_cannot_be_changed(feed: Feed) -> None:
    asked = feed.ask("PATCH", ROW, body={"msemr_note": "x"}, if_match="*")
    assert (await refusal(asked)).status == 404
    assert [request.method for request in feed.asked] == ["GET"]


async def test_a_method_that_an_address_does_not_take_is_refused_with_those_it_does(
    feed: Feed,
) -> None:
    async def allowed(method: str, path: str) -> tuple[int, tuple[str, ...]]:
        found = await refusal(feed.ask(method, path, body={}))
        return found.status, tuple(found.headers["Allow"].split(", "))

    assert await allowed("PUT", ROW) == (405, ("GET", "HEAD", "PATCH", "DELETE", "OPTIONS"))
    assert await allowed("DELETE", "msemr_conditions") == (405, ("GET", "HEAD", "POST", "OPTIONS"))
    assert await allowed("POST", "$metadata") == (405, ("GET", "HEAD", "OPTIONS"))
    assert await allowed("POST", "") == (405, ("GET", "HEAD", "OPTIONS"))


async def test_a_body_that_is_no_json_is_refused(feed: Feed) -> None:
    await feed.put(cough())
    body = {"msemr_note": MARKER}
    assert (
        await refusal(feed.ask("PATCH", ROW, body=body, content_type="text/plain"))
    ).status == 415
    assert (await refusal(feed.ask("PATCH", ROW, body=[MARKER]))).status == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"msemr_note": {"text": MARKER}}, 400),
        ({"msemr_recordeddate": MARKER}, 400),
        ({"msemr_clinicalstatus": 1}, 400),
        ({"msemr_conditioncodetext": MARKER * 100}, 400),
        ({"msemr_onset": MARKER}, 400),
        ({MARKER: 1}, 400),
        ({"_msemr_subjecttypepatient_value": str(UUID(int=9))}, 422),
        ({"_msemr_subjecttypepatient_value": None}, 422),
    ],
)
async def test_a_refusal_names_the_column_and_no_value(
    feed: Feed, caplog: pytest.LogCaptureFixture, body: Body, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    await feed.put(cough())
    refused = await refusal(feed.ask("PATCH", ROW, body=body))
    assert refused.status == status
    reported = [f"{item.text} {item.expression}" for item in refused.issues]
    (name,) = body
    assert name == MARKER or any(
        name.strip("_").removesuffix("_value") in item for item in reported
    )
    assert (await feed.stored(NAME))["meta"]["versionId"] == "1"
    assert MARKER not in told_by([item for item in caplog.records if item.name != "asyncio"])


async def test_what_the_fhir_server_says_of_a_refusal_is_not_repeated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, content=decimal_json.encode(cough(meta={"versionId": "1"})))
        return httpx.Response(422, json={"resourceType": "OperationOutcome", "text": MARKER})

    async with scripted(answer) as feed:
        refused = await refusal(feed.ask("PATCH", ROW, body={"msemr_note": "x"}))
    assert refused.status == 422
    assert MARKER not in told_by(caplog.records)


# --- the name of a row ----------------------------------------------------------------------------


async def test_the_name_that_a_person_types_is_kept(feed: Feed) -> None:
    row = {
        "msemr_allergyintoleranceid": str(KEY),
        "msemr_name": "Allergy: Patient One",
        "msemr_code": "ABC123",
        "msemr_verificationstatus": 935000001,
        "_msemr_patient_value": str(KEY),
    }
    await feed.put({"resourceType": "Patient", "id": str(KEY)})
    assert (await feed.ask("POST", "msemr_allergyintolerances", body=row)).status == 201
    path = f"msemr_allergyintolerances({KEY})"
    shown = await feed.get(path)
    assert (shown["msemr_name"], shown["msemr_code"]) == ("Allergy: Patient One", "ABC123")
    stored = await feed.stored(f"AllergyIntolerance/{KEY}")
    assert stored["code"]["text"] == "Allergy: Patient One"
    # Who sends back all that was read may change one column that the name shows, too.
    changed = {**{name: shown[name] for name in row}, "msemr_codetext": "Peanuts"}
    assert (await feed.ask("PATCH", path, body=changed)).status == 204
    assert (await feed.get(path))["msemr_name"] == "Peanuts"
