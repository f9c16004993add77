"""The page of a delivery tells its story without a patient's data, and takes what is to be done."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from datetime import timedelta

import pytest

from integration.core.model import EntryResult, RowResult, Status, WorkItem
from integration.journal.activity_log import MemoryActivityLog
from integration.journal.store import NO_LANE
from integration.operations import delivery_story
from integration.pages.delivery import describe_entry, describe_issue, describe_row
from integration.queues.names import RELAY_QUEUE
from tests.builders import MARKER, Body, batch, bundle, entry, observation, patient
from tests.conftest import DAY, Route, told_by
from tests.operations.status_parts import Broken
from tests.pages.asking import DATAVERSE, visit

# What of a patient must not be seen, wherever it stands.
KNOWN = ("Zaphkiel-7731", "Quillfeather", "1931-04-17", "Larkspur", "MRN-90210")


def known_patient(**elements: object) -> Body:
    return patient(
        name=[{"family": MARKER, "given": ["Quillfeather"]}],
        birthDate="1931-04-17",
        address=[{"city": "Larkspur"}],
        identifier=[{"system": "urn:mrn", "value": "MRN-90210"}],
        **elements,
    )


async def test_the_story_goes_from_what_came_to_what_is_written(route: Route) -> None:
    id_ = await route.deliver(bundle(entry(patient()), entry(observation())), sender="ward")
    await route.process(id_)
    shown = await visit(route, "reader").get(f"deliveries/{id_}")
    assert shown.status == 200
    told = [
        "Received from ward",
        "transaction: 2 entries",
        "Planned as 1 lane, 1 unit",
        "sent as one transaction",
        "FHIR server: write unit 0.0: 200",
        "Finished",
        "2 written",
    ]
    places = [shown.text.find(each) for each in told]
    assert -1 not in places, dict(zip(told, places, strict=True))
    assert places == sorted(places)


async def test_each_entry_has_its_outcome_and_place(route: Route) -> None:
    route.fhir_double.refuses.add("Observation")
    id_ = await route.deliver(batch(entry(patient(id="p1"), method="PUT"), entry(observation())))
    await route.process(id_)
    shown = await visit(route, "reader").get(f"deliveries/{id_}")
    assert "written 200" in shown.text or "written 201" in shown.text
    assert "Patient/p1 version 1" in shown.text
    assert "refused 422" in shown.text
    only = await visit(route, "reader").get(f"deliveries/{id_}", show="unwritten")
    assert "refused 422" in only.text
    assert "Patient/p1 version 1" not in only.text


async def test_nobody_sees_a_patient_on_the_page_of_a_delivery(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    route.fhir_double.will_say(lambda body: quote_values(body["entry"][0]))
    id_ = await route.deliver(
        batch(
            entry(known_patient(), full_url="http://his/Patient?name=Quillfeather"),
            entry(known_patient(id="p2"), method="PUT"),
        )
    )
    await route.process(id_)
    await route.mirror_all()
    assert any("MRN-90210" in repr(each.issues) for each in await route.outcomes(id_))
    visitor = visit(route, "reader", "operator", "admin", "phi")
    for asked in ({}, {"show": "unwritten"}, {"live": "on"}):
        shown = await visitor.get(f"deliveries/{id_}", **asked)
        assert shown.status == 200
        assert [name for name in KNOWN if name in shown.html] == []
        assert [name for name in KNOWN if name in repr(shown.reply.headers)] == []
    assert [name for name in KNOWN if name in told_by(caplog.records)] == []
    page = await visitor.get(f"deliveries/{id_}")
    assert "error invalid at Bundle.entry[0].resource.identifier, an element" in page.text


def quote_values(answer: Body) -> None:
    """Refuse an entry as servers do that quote what they refuse."""
    answer.pop("resource", None)
    issue = {
        "severity": "error",
        "code": "invalid",
        "details": {"text": "MRN-90210 is taken by Quillfeather"},
        "diagnostics": f"{MARKER}, born 1931-04-17 in Larkspur",
        "expression": ["Patient.identifier", "Patient.identifier.where(value='MRN-90210')"],
    }
    outcome = {"resourceType": "OperationOutcome", "issue": [issue]}
    answer["response"] = {"status": "422", "outcome": outcome}


@pytest.mark.parametrize(
    ("issue", "shown"),
    [
        ({"severity": "error", "code": "invalid"}, "error invalid"),
        ({"severity": "error", "code": "code-invalid", "expression": ["Patient.name[0]"]}, None),
        ({"severity": "Quillfeather", "code": 7, "diagnostics": MARKER}, "issue"),
        ({"code": "value", "expression": "Larkspur"}, "value"),
        ({"code": "value", "expression": [f"{MARKER} {MARKER}", None]}, "an element"),
    ],
)
def test_of_an_issue_only_codes_and_elements_are_shown(issue: Body, shown: str | None) -> None:
    described = describe_issue(issue)
    assert (shown or "error code-invalid at Patient.name[0]") in described
    assert not any(name in described for name in KNOWN)


async def test_a_page_has_a_hundred_entries_however_many_there_are(route: Route) -> None:
    id_ = await route.deliver(batch(*(entry(observation()) for _ in range(250))))
    await route.process_all(id_)
    visitor = visit(route, "reader")
    for number, (first, last) in {"1": (0, 99), "2": (100, 199), "3": (200, 249)}.items():
        shown = await visitor.get(f"deliveries/{id_}", page=number)
        positions = re.findall(r'<tr>\s*<td class="number">(\d+)</td>', shown.html)
        assert positions == [str(position) for position in range(first, last + 1)]
        assert f"Page {number} of 3" in shown.text
    assert "Page 3 of 3" in (await visitor.get(f"deliveries/{id_}", page="99")).text


@pytest.mark.parametrize(
    "fields", [{"page": "0"}, {"page": "x"}, {"rows": "²"}, {"show": "all"}, {"other": "1"}]
)
async def test_a_wrong_field_is_refused(route: Route, fields: dict[str, str]) -> None:
    id_ = await route.deliver(patient())
    assert (await visit(route, "reader").get(f"deliveries/{id_}", **fields)).status == 400


async def test_a_row_links_to_its_form_in_dataverse(route: Route) -> None:
    row_key = "0b3cd3bd-6d0c-4a5c-9d7e-2a8a4c8f3a11"
    id_ = await route.deliver(
        entry(patient(id=row_key))["resource"], method="PUT", type="Patient", id=row_key
    )
    await route.process(id_)
    await route.mirror_all()
    shown = await visit(route, "reader").get(f"deliveries/{id_}")
    form = f"{DATAVERSE}/main.aspx?etn=contact&id={row_key}&pagetype=entityrecord"
    assert form in shown.links
    assert "created" in shown.text


def test_no_row_has_no_form_and_what_is_not_well_is_marked() -> None:
    row = RowResult(delivery="d", resource="Patient/1", table="contact", row=None, action="refused")
    assert describe_row(row, DATAVERSE).form is None
    assert describe_row(row, DATAVERSE).tone == "bad"
    gone = replace(row, row="k", action="deleted")
    assert describe_row(gone, DATAVERSE).form is None


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (EntryResult(0, 201), "written"),
        (EntryResult(0, 204, skipped=True), "left out on purpose"),
        (EntryResult(0, 412, superseded=True), "superseded"),
        (EntryResult(0, 200, resource="{}"), "read"),
        (EntryResult(0, 404), "refused"),
    ],
)
def test_an_outcome_has_a_word(result: EntryResult, outcome: str) -> None:
    assert describe_entry(result).outcome == outcome


async def test_an_open_delivery_is_asked_for_until_it_has_ended(route: Route) -> None:
    id_ = await route.deliver(patient())
    visitor = visit(route, "reader")
    page = await visitor.get(f"deliveries/{id_}")
    assert f'hx-get="/api/pages/deliveries/{id_}?live=on" hx-trigger="every 5s"' in page.html
    assert "hx-get" not in (await visitor.get(f"deliveries/{id_}", refresh="off")).html
    live = await visitor.get(f"deliveries/{id_}", live="on")
    assert "HX-Refresh" not in live.reply.headers
    assert "hx-get" in live.html
    assert "<html" not in live.html
    await route.process(id_)
    ended = await visitor.get(f"deliveries/{id_}", live="on")
    assert ended.reply.headers["HX-Refresh"] == "true"
    assert "hx-get" not in ended.html
    assert "hx-get" not in (await visitor.get(f"deliveries/{id_}")).html


async def test_what_waits_says_why_since_when_and_until_when(route: Route) -> None:
    route.fhir_double.down = 503
    id_ = await route.deliver(patient())
    await route.process(id_)
    route.fhir_double.down = None
    shown = await visit(route, "reader").get(f"deliveries/{id_}")
    assert "waiting It is tried again by itself" in shown.text
    assert "1\u00a0attempt failed; the next one" in shown.html
    assert "Next attempt:" in shown.text
    assert "FHIR server: write unit 0.0: 503" in shown.text or ": 503" in shown.text


async def test_a_repeat_links_to_the_first_one(route: Route) -> None:
    first = await route.deliver(patient(id="p1"))
    await route.process(first)
    route.clock.later(DAY)
    second = await route.deliver(patient(id="p1"))
    shown = await visit(route, "reader").get(f"deliveries/{second}")
    assert "a repeat: the same bytes were accepted before" in shown.text
    assert f"/api/pages/deliveries/{first}" in shown.links
    of_first = await visit(route, "reader").get(f"deliveries/{first}")
    assert "a repeat" not in of_first.text


async def test_a_split_transaction_says_why(route: Route) -> None:
    route.limits = replace(route.limits, entries=2)
    id_ = await route.deliver(
        bundle(
            *(
                entry(observation(), full_url=f"urn:uuid:{n:08}-0000-4000-8000-000000000000")
                for n in range(5)
            )
        )
    )
    await route.process_all(id_)
    shown = await visit(route, "reader").get(f"deliveries/{id_}")
    assert "not sent as one transaction" in shown.text
    assert "it has more entries than one request may have" in shown.text


async def test_only_an_operator_replays_and_cancels(route: Route) -> None:
    id_ = await route.deliver(patient())
    await route.journal.update_delivery(id_, status=Status.PARKED, reason="too old")
    reader, operator = visit(route, "reader", "phi"), visit(route, "operator")
    page = await reader.get(f"deliveries/{id_}")
    assert "Replay" not in page.text
    assert not [link for link in page.links if link.endswith(("/cancel", "/replay"))]
    assert (await reader.post(f"deliveries/{id_}/replay")).status == 403
    assert (await reader.get(f"deliveries/{id_}/cancel")).status == 403
    assert (await reader.post(f"deliveries/{id_}/cancel")).status == 403
    assert (await route.known(id_)).status is Status.PARKED
    page = await operator.get(f"deliveries/{id_}")
    assert f"/api/pages/deliveries/{id_}/replay" in page.links
    sent = await operator.post(f"deliveries/{id_}/replay")
    assert sent.status == 303
    assert sent.location == f"deliveries/{id_}"
    assert (RELAY_QUEUE, WorkItem(id_), 0) in route.queue_sender.sent


async def test_a_cancel_says_first_what_it_will_do(route: Route) -> None:
    id_ = await route.deliver(batch(entry(patient()), entry(observation())))
    operator = visit(route, "operator")
    asked = await operator.get(f"deliveries/{id_}/cancel")
    assert "What is written stays: 0 of 2" in asked.text
    assert "cannot be replayed" in asked.text
    assert (await route.known(id_)).status is Status.ACCEPTED
    assert (await operator.post(f"deliveries/{id_}/cancel")).status == 303
    assert (await route.known(id_)).status is Status.CANCELLED
    assert "Nothing more of it is sent" in (await operator.get(f"deliveries/{id_}")).text


async def test_what_is_done_can_not_be_cancelled(route: Route) -> None:
    id_ = await route.deliver(patient())
    await route.process(id_)
    await route.mirror_all()
    operator = visit(route, "operator")
    page = await operator.get(f"deliveries/{id_}")
    assert not [link for link in page.links if link.endswith(("/cancel", "/replay"))]
    assert (await operator.get(f"deliveries/{id_}/cancel")).status == 409
    assert (await operator.post(f"deliveries/{id_}/cancel")).status == 409
    assert (await operator.post(f"deliveries/{id_}/replay")).status == 409


async def test_refused_entries_of_what_is_done_can_be_replayed(route: Route) -> None:
    route.fhir_double.refuses.add("Observation")
    id_ = await route.deliver(batch(entry(patient()), entry(observation())))
    await route.process(id_)
    operator = visit(route, "operator")
    assert "sends the refused entries again" in (await operator.get(f"deliveries/{id_}")).text
    route.fhir_double.refuses.clear()
    assert (await operator.post(f"deliveries/{id_}/replay")).status == 303
    await route.process_all()
    shown = await operator.get(f"deliveries/{id_}")
    assert "Replayed by an operator" in shown.text
    assert "round 1" in shown.text


async def test_content_is_linked_for_those_alone_who_may_see_it(route: Route) -> None:
    id_ = await route.deliver(patient())
    await route.process(id_)
    for roles, may_see in ((("admin",), False), (("reader", "phi"), True)):
        links = (await visit(route, *roles).get(f"deliveries/{id_}")).links
        assert (f"/api/pages/deliveries/{id_}/entries/0" in links) is may_see
        assert (f"/api/pages/deliveries/{id_}/content" in links) is may_see


async def test_an_unknown_delivery_is_not_found(route: Route) -> None:
    for id_ in ("019caaee-c260-7000-8000-0000000fffff", "x"):
        for path in (
            f"deliveries/{id_}",
            f"deliveries/{id_}/entries/0",
            f"deliveries/{id_}/content",
        ):
            assert (await visit(route, "reader", "phi").get(path)).status == 404


async def test_the_rest_is_shown_when_the_activity_log_does_not_answer(route: Route) -> None:
    id_ = await route.deliver(patient())
    await route.process(id_)
    shown = await visit(route, "reader", activity=Broken()).get(f"deliveries/{id_}")
    assert shown.status == 200
    assert "cannot be shown" in shown.text
    assert "Finished" in shown.text


async def test_the_newest_calls_are_told_and_the_rest_is_in_activity(route: Route) -> None:
    id_ = await route.deliver(patient())
    await route.process(id_)
    (call, *_) = route.activity.entries
    await route.activity.add(
        [
            replace(call, time=call.time + timedelta(milliseconds=n), action=f"call {n}")
            for n in range(delivery_story.MAX_CALLS)
        ]
    )
    shown = await visit(route, "reader").get(f"deliveries/{id_}")
    assert f"/api/pages/activity?delivery={id_}" in shown.links
    assert (
        shown.text.index("call 5:") < shown.text.index("call 100:") < shown.text.index("call 199:")
    )


async def test_calls_that_are_alike_are_told_once(route: Route) -> None:
    id_ = await route.deliver(patient())
    await route.process(id_)
    last = route.activity.entries[-1]
    again = [
        replace(last, time=last.time + timedelta(seconds=n), action="again") for n in (1, 2, 3)
    ]
    await route.activity.add(again)
    shown = await visit(route, "reader").get(f"deliveries/{id_}")
    assert shown.text.count(": again: ") == 1
    assert "\u00d7 3" in shown.text


async def test_calls_of_other_deliveries_are_not_told(route: Route) -> None:
    first, second = [await route.deliver(patient()) for _ in range(2)]
    await route.process(first)
    await route.process(second)
    story = await delivery_story.read_story(route.journal, route.activity, first)
    assert {call.delivery for call in story.calls} == {first}
    assert story.calls
    assert isinstance(route.activity, MemoryActivityLog)


async def test_entries_without_a_result_are_counted(route: Route) -> None:
    id_ = await route.deliver(batch(entry(patient()), entry(observation())))
    await route.journal.begin_lane(id_, NO_LANE)
    await route.journal.add_entry_results(id_, NO_LANE, [EntryResult(1, 422)])
    shown = await visit(route, "reader").get(f"deliveries/{id_}")
    assert "1\u00a0entry has no result yet" in shown.html
