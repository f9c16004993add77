"""Content shows an entry as it came, as it is sent and what was answered, and records each look."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from typing import Any

import pytest

from integration.core.model import EntryResult, Status
from integration.fhir.original_entry import EntryText
from integration.journal.audit_entry import AccessKind
from integration.journal.store import Payload
from integration.pages import content
from integration.pages.content import MAX_SHOWN, MAX_SHOWN_LINES, build_sides, format_json
from integration.pages.line_differences import MAX_LINES, mark_differences
from integration.relay import kept_entry
from integration.relay.fetch import NO_SOURCES
from integration.relay.kept_entry import KeptEntry, read_kept_entry
from tests.audits import FailingAuditLog, make_recorder
from tests.builders import MARKER, Body, batch, bundle, entry, observation, patient
from tests.conftest import Route
from tests.pages.asking import NAME, Shown, make_parts, visit
from tests.pages.test_delivery import quote_values

FULL_URL = "urn:uuid:0b3cd3bd-6d0c-4a5c-9d7e-2a8a4c8f3a11"


async def see(route: Route, delivery: str, position: int = 0, **changes: Any) -> Shown:
    visitor = visit(route, "reader", "phi", **changes)
    return await visitor.get(f"deliveries/{delivery}/entries/{position}")


async def read(route: Route, delivery: str, position: int = 0) -> KeptEntry:
    return await read_kept_entry(
        route.journal,
        make_parts(route).budget,
        await route.known(delivery),
        position,
        results=await route.outcomes(delivery),
    )


def get_sent(route: Route) -> list[Body]:
    """Return the entries of the last bundle that wrote, as the FHIR server received them."""
    received = route.fhir_double.writes[-1].body
    return [each for each in received["entry"] if each["request"]["method"] != "GET"]


@pytest.mark.parametrize("kind", ["transaction", "batch"])
async def test_what_is_shown_as_sent_is_what_was_sent(route: Route, kind: str) -> None:
    created = entry(patient(), full_url=FULL_URL)
    named = entry(observation(FULL_URL, id="o1"), method="PUT")
    conditional = entry(
        {"resourceType": "Organization", "name": "Ward"},
        full_url="urn:uuid:1b3cd3bd-6d0c-4a5c-9d7e-2a8a4c8f3a11",
        ifNoneExist="identifier=urn:org|1",
    )
    id_ = await route.deliver(bundle(created, named, conditional, kind=kind))
    await route.process(id_)
    by_url = {each["request"]["url"]: each for each in get_sent(route)}
    for position in range(3):
        sent = (await read(route, id_, position)).sent
        assert sent is not None
        assert sent.resource is not None
        assert json.loads(sent.resource) == by_url[dict(sent.request)["url"]]["resource"]


async def test_links_lead_to_the_ids_that_results_tell(route: Route) -> None:
    about = "urn:uuid:1b3cd3bd-6d0c-4a5c-9d7e-2a8a4c8f3a11"
    who = entry(patient(), full_url=about, ifNoneExist="identifier=urn:mrn|1")
    id_ = await route.deliver(batch(who, entry(observation(about))))
    waiting = await read(route, id_, 1)
    assert waiting.sent is not None
    assert b'"reference":"urn:uuid:' in (waiting.sent.resource or b"")
    assert any("placeholder" in note for note in waiting.notes)
    await route.process(id_)
    location = (await route.outcomes(id_))[0].location or ""
    found = await read(route, id_, 1)
    assert found.sent is not None
    name = location.partition("/_history/")[0]
    assert f'"reference":"{name}"'.encode() in (found.sent.resource or b"")
    assert not any("placeholder" in note for note in found.notes)


async def test_decimals_keep_their_digits_on_both_sides(route: Route) -> None:
    body = json.dumps(batch(entry(observation(valueQuantity={"value": 7})))).replace(
        '"value": 7', '"value": 7.1000'
    )
    id_ = await route.deliver(body.encode())
    await route.process(id_)
    assert (await see(route, id_)).text.count('"value": 7.1000') == 2


async def test_what_differs_is_marked_by_a_sign(route: Route) -> None:
    id_ = await route.deliver(batch(entry(patient(active=True), full_url=FULL_URL)))
    await route.process(id_)
    shown = await see(route, id_)
    (identity,) = [each.location for each in await route.outcomes(id_)]
    new_id = str(identity).split("/")[1]
    assert f'<ins class="added">+   &#34;id&#34;: &#34;{new_id}&#34;' in shown.html
    assert '<ins class="added">+   &#34;active&#34;' not in shown.html
    assert MARKER in shown.text
    assert "POST" in shown.text
    assert f"PUT url Patient/{new_id}" in shown.text


@pytest.mark.parametrize(
    ("body", "asked", "position", "expected"),
    [
        (patient(id="p1"), {"method": "PUT", "type": "Patient", "id": "p1"}, 0, patient(id="p1")),
        (batch(entry(patient()), entry(observation())), {}, 1, observation()),
        (bundle({"resource": observation(id="o")}, kind="collection"), {}, 0, observation(id="o")),
        (
            json.dumps(patient(id="a")).encode() + b"\n\n" + json.dumps(patient(id="b")).encode(),
            {"headers": {"content-type": "application/fhir+ndjson"}},
            1,
            patient(id="b"),
        ),
        (
            {
                "resourceType": "List",
                "id": "l",
                "status": "current",
                "mode": "working",
                "entry": [],
            },
            {},
            0,
            None,
        ),
    ],
)
async def test_an_entry_is_found_whatever_it_came_in(
    route: Route, body: Any, asked: dict[str, Any], position: int, expected: Body | None
) -> None:
    id_ = await route.deliver(body, **asked)
    found = await read(route, id_, position)
    assert found.original is not None
    assert json.loads(found.original.resource or b"") == (expected or body)


async def test_a_patch_and_a_delete_have_what_they_ask_for(route: Route) -> None:
    patch = [{"op": "replace", "path": "/active", "value": True}]
    headers = {"content-type": "application/json-patch+json"}
    id_ = await route.deliver(patch, method="PATCH", type="Patient", id="p1", headers=headers)
    found = await read(route, id_)
    assert found.original == EntryText(
        request=(("method", "PATCH"), ("url", "Patient/p1")),
        resource=json.dumps(patch).encode(),
    )
    deleted = await route.deliver(batch({"request": {"method": "DELETE", "url": "Patient/p1"}}))
    assert (await read(route, deleted)).original == EntryText(
        request=(("method", "DELETE"), ("url", "Patient/p1")), resource=None
    )
    assert "it has no resource" in (await see(route, deleted)).text


async def test_an_answer_is_shown_with_its_texts(route: Route) -> None:
    route.fhir_double.will_say(lambda body: quote_values(body["entry"][0]))
    id_ = await route.deliver(batch(entry(patient()), entry(patient(id="p2"), method="PUT")))
    await route.process(id_)
    shown = await see(route, id_)
    assert "MRN-90210 is taken by Quillfeather" in shown.text
    assert f"{MARKER}, born 1931-04-17" in shown.text
    assert "status 422" in shown.text
    written = await see(route, id_, 1)
    assert "Location Patient/p2/_history/1" in written.text


async def test_what_a_read_has_answered_is_shown(route: Route) -> None:
    route.fhir_double.add(patient(id="p1"))
    id_ = await route.deliver(batch({"request": {"method": "GET", "url": "Patient/p1"}}))
    await route.process(id_)
    assert MARKER in (await see(route, id_)).text


async def test_each_look_is_recorded_before_it_leaves(route: Route) -> None:
    id_ = await route.deliver(batch(entry(patient(id="p1"), method="PUT"), entry(observation())))
    await route.process(id_)
    assert (await see(route, id_)).status == 200
    (look,) = route.audit.entries
    assert look.reader.user == NAME
    assert look.access.kind is AccessKind.CONTENT
    assert look.access.delivery == id_
    assert look.access.resources == ("Patient/p1",)
    await visit(route, "reader", "phi").get(f"deliveries/{id_}/content")
    loads = [each for each in route.audit.entries if each.access.number == 2]
    assert [set(each.access.types) for each in loads] == [{"Observation", "Patient"}]


async def test_nobody_is_told_of_a_record_that_is_not_kept(route: Route) -> None:
    id_ = await route.deliver(patient())
    assert "The audit log says" in (await see(route, id_)).text
    unrecorded = await see(route, id_, audit=make_recorder(route.audit, is_on=False))
    assert MARKER in unrecorded.text
    assert "The audit log says" not in unrecorded.text


@pytest.mark.parametrize("path", ["entries/0", "content"])
async def test_what_cannot_be_recorded_is_not_shown(route: Route, path: str) -> None:
    id_ = await route.deliver(patient())
    recorder = make_recorder(FailingAuditLog())
    visitor = visit(route, "reader", "phi", audit=recorder)
    shown = await visitor.get(f"deliveries/{id_}/{path}")
    assert shown.status == 503
    assert MARKER not in shown.html


@pytest.mark.parametrize("path", ["entries/0", "content"])
@pytest.mark.parametrize("roles", [("reader",), ("admin",), ("phi",)])
async def test_only_readers_who_may_see_patients_see_content(
    route: Route, path: str, roles: tuple[str, ...]
) -> None:
    id_ = await route.deliver(patient())
    shown = await visit(route, *roles).get(f"deliveries/{id_}/{path}")
    assert shown.status == 403
    assert MARKER not in shown.html
    assert route.audit.entries == []


async def test_the_bytes_are_handed_out_as_they_came(route: Route) -> None:
    body = b'{ "resourceType" : "Patient",\n\t"active":true }'
    id_ = await route.deliver(body)
    reply = (await visit(route, "reader", "phi").get(f"deliveries/{id_}/content")).reply
    assert reply.body == body
    assert reply.media == "application/fhir+json"
    assert reply.headers["Content-Disposition"] == f'attachment; filename="delivery-{id_}.json"'
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Cache-Control"] == "no-store"


async def test_deleted_bytes_are_said_to_be_deleted(route: Route) -> None:
    id_ = await route.deliver(patient())
    await route.process(id_)
    del route.journal.payloads[id_]
    shown = await see(route, id_)
    assert shown.status == 200
    assert "its bytes are deleted" in shown.text
    assert "status 201" in shown.text
    visitor = visit(route, "reader", "phi")
    load = await visitor.get(f"deliveries/{id_}/content")
    assert load.status == 404
    assert "its bytes are deleted" in load.text


async def test_a_large_delivery_is_not_planned_for_a_page(route: Route) -> None:
    id_ = await route.deliver(patient())
    await route.journal.update_delivery(id_, bytes=kept_entry.MAX_BYTES + 1)
    shown = await see(route, id_)
    assert "more than 4 MB" in shown.text
    assert MARKER not in shown.html
    assert f"/api/pages/deliveries/{id_}/content" in shown.links


@pytest.mark.parametrize("size", [MAX_SHOWN_LINES - 10, 2 * MAX_SHOWN_LINES])
async def test_of_very_many_lines_the_first_are_shown_and_it_says_so(
    route: Route, size: int
) -> None:
    long = {"resourceType": "Basic", "extension": [0] * size}
    id_ = await route.deliver(batch(entry(long)))
    page = await see(route, id_)
    shown = page.html.split('<pre class="content"')[1].split("</pre>")[0].count("\n")
    assert shown <= MAX_SHOWN_LINES
    is_cut = size > MAX_SHOWN_LINES
    assert ("The first 20 000 of 40 " in page.text) is is_cut


@pytest.mark.parametrize(("size", "is_beside"), [(1, False), (50_000, True)])
async def test_what_takes_long_to_show_does_not_keep_the_event_loop(
    route: Route, size: int, is_beside: bool
) -> None:
    """The clock is read where the page is rendered."""
    threads: list[threading.Thread] = []

    def now() -> datetime:
        threads.append(threading.current_thread())
        return route.clock()

    long = {"resourceType": "Basic", "extension": [0] * size}
    id_ = await route.deliver(batch(entry(long)))
    assert (await see(route, id_, now=now)).status == 200
    assert [thread is not threading.main_thread() for thread in threads] == [is_beside]


async def test_what_was_fetched_counts_and_nothing_is_fetched_for_a_page(route: Route) -> None:
    next_page = {"relation": "next", "url": "http://source/page2"}
    found = {**bundle({"resource": patient(id="p1")}, kind="searchset"), "link": [next_page]}
    id_ = await route.deliver(found)
    assert (await read(route, id_)).sent is not None
    assert route.journal.fetched == {}
    assert route.sources is NO_SOURCES
    await route.journal.save_fetched(id_, 2, b" " * (kept_entry.MAX_BYTES + 1))
    large = await read(route, id_)
    assert large.sent is None
    assert "more than 4 MB" in (large.reason or "")


async def test_what_cannot_be_read_is_shown_as_it_came(route: Route) -> None:
    id_ = await route.deliver(patient())
    payload = route.journal.payloads[id_]
    route.journal.payloads[id_] = Payload(payload.request, b'{"resourceType": "Patient", ')
    await route.journal.update_delivery(id_, kind="held", entries=0, status=Status.PARKED)
    shown = await see(route, id_)
    assert '{"resourceType": "Patient",' in shown.text
    assert "it cannot be read" in shown.text


@pytest.mark.parametrize("position", ["1", "-1", "x", "²", "9999999999"])
async def test_an_unknown_entry_is_not_found(route: Route, position: str) -> None:
    id_ = await route.deliver(patient())
    visitor = visit(route, "reader", "phi")
    assert (await visitor.get(f"deliveries/{id_}/entries/{position}")).status == 404
    assert route.audit.entries == []


async def test_an_entry_that_another_is_sent_for_says_so(route: Route) -> None:
    same = entry(patient(), ifNoneExist="identifier=urn:mrn|1")
    id_ = await route.deliver(batch(same, same))
    found = await read(route, id_, 1)
    assert found.sent_as == 0
    assert f"/api/pages/deliveries/{id_}/entries/0" in (await see(route, id_, 1)).links


async def test_an_entry_that_is_not_sent_says_why(route: Route) -> None:
    dangling = entry(observation("urn:uuid:9b3cd3bd-6d0c-4a5c-9d7e-2a8a4c8f3a11"))
    id_ = await route.deliver(batch(entry(patient()), dangling))
    found = await read(route, id_, 1)
    assert found.sent is None
    assert (found.reason or "").startswith("not sent: ")
    assert found.original is not None


def test_differences_are_marked_on_both_sides() -> None:
    marked = mark_differences(["{", '"a": 1,', '"b": 2', "}"], ["{", '"a": 1', "}"])
    assert marked is not None
    assert [(line.text, line.is_alone) for line in marked[0]] == [
        ("{", False),
        ('"a": 1,', False),
        ('"b": 2', True),
        ("}", False),
    ]
    assert not any(line.is_alone for line in marked[1])


def test_what_is_too_long_is_not_compared_or_not_shown() -> None:
    assert mark_differences(["x"] * (MAX_LINES + 1), ["x"]) is None
    lines = json.dumps(list(range(MAX_LINES))).encode()
    long = EntryText(request=(), resource=lines)
    original, sent, is_compared = build_sides(KeptEntry(original=long, sent=long))
    assert (len(original.lines), is_compared) == (MAX_LINES + 2, False)
    assert sent == original
    too_long = EntryText(request=(), resource=b" " * (MAX_SHOWN + 1))
    assert "More than 1 MB" in str(build_sides(KeptEntry(original=too_long))[0].problem)


def test_json_is_formatted_without_a_change_of_its_values() -> None:
    assert format_json(b'{"a":1.50e3,"b":"\\u00e9"}') == [
        "{",
        '  "a": 1.50e3,',
        '  "b": "\\u00e9"',
        "}",
    ]
    assert format_json(b"no json \xff") == ["no json \ufffd"]


def test_an_answer_that_is_no_outcome_is_still_shown() -> None:
    answer = content.build_answer(EntryResult(0, 422, issues=[{"diagnostics": 7}, {}]))
    assert list(answer.issues) == [("issue", "", ""), ("issue", "", "")]
