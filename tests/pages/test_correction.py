"""An operator corrects a delivery on its page: by hand or with a file, and nothing typed is lost."""

from __future__ import annotations

import json
import logging
import re
from html import unescape
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Rejected, Unavailable
from integration.core.model import DeliveryRequest, Status
from integration.journal.audit_entry import AccessKind
from integration.journal.store import MemoryJournal
from integration.operations.attention import find_concerns
from integration.pages.correction_text import MAX_BYTES, quote_line, read_text, show_text
from integration.pages.form_files import read_form_with_file
from tests.audits import FailingAuditLog, make_recorder
from tests.builders import MARKER, batch, entry, observation, patient
from tests.conftest import Route
from tests.pages import asking
from tests.pages.asking import NAME, SITE, TOKEN, Shown, Visitor, build_request

BOTH = ("operator", "phi")
URL = "urn:uuid:00000000-0000-4000-8000-000000000001"
SEEN = "urn:uuid:00000000-0000-4000-8000-000000000002"
BAD, GOOD = "1984-13-45", "1984-05-06"

JSON = DeliveryRequest(method="POST", type=None, id=None, format="json")
NDJSON = DeliveryRequest(method="POST", type=None, id=None, format="ndjson")


def visit(route: Route, *roles: str, **changes: Any) -> Visitor:
    """Somebody with these roles; without any: with those that a correction needs."""
    return asking.visit(route, *(roles or BOTH), **changes)


def make(birth_date: str) -> dict[str, Any]:
    seen = entry(observation(URL, valueQuantity={"value": 7}), SEEN)
    return batch(entry(patient(birthDate=birth_date), URL), seen)


async def refused(route: Route, body: Any = None, **asked: Any) -> str:
    """Return a delivery that is done, and whose patients were refused."""
    route.fhir_double.refuses = {"Patient"}
    delivery = await route.deliver(make(BAD) if body is None else body, **asked)
    await route.process_all(delivery)
    route.fhir_double.refuses = set()
    route.clock.later(60)
    return delivery


def typed(shown: Shown) -> str:
    """What stands in the text area, as a browser has it."""
    (text,) = re.findall(r"(?s)<textarea[^>]*>\n?(.*?)</textarea>", shown.html)
    return unescape(text)


async def send(visitor: Visitor, delivery: str, text: str) -> Shown:
    """As a browser sends a text area."""
    return await visitor.post(f"deliveries/{delivery}/correction", text=text.replace("\n", "\r\n"))


def build_multipart(*parts: tuple[str, str | None, bytes], boundary: str = "b-7731") -> bytes:
    """The body of a form: names, names of files and contents of its fields."""
    body = b""
    for name, file, content in parts:
        named = f'; filename="{file}"' if file is not None else ""
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n'.encode()
        body += b"Content-Type: application/json\r\n" if file else b""
        body += b"\r\n" + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


async def send_file(
    visitor: Visitor, delivery: str, content: bytes, token: str = TOKEN, name: str = "x.json"
) -> Shown:
    parts = [("token", None, token.encode()), ("file", name, content)]
    return await send_parts(visitor, delivery, build_multipart(*parts))


async def send_parts(visitor: Visitor, delivery: str, body: bytes) -> Shown:
    request = build_request(
        f"deliveries/{delivery}/correction",
        method="POST",
        roles=visitor.roles,
        headers={
            "content-type": "multipart/form-data; boundary=b-7731",
            "origin": SITE,
            "cookie": f"__Host-relay-form={TOKEN}",
        },
        body=body,
    )
    return await visitor.ask(request)


def find_made(shown: Shown) -> str:
    assert shown.status == 303, shown.text
    return str(shown.reply.headers["Location"]).removeprefix("/api/pages/deliveries/")


async def get_bytes(route: Route, delivery: str) -> bytes:
    body: bytes = (await route.journal.get_payload(delivery)).body
    return body


# --- by hand -----------------------------------------------------------------------------------


async def test_a_bad_date_is_corrected_where_it_is_shown(route: Route) -> None:
    delivery = await refused(route)
    visitor = visit(route)
    shown = await visitor.get(f"deliveries/{delivery}/correction")
    assert "Entry 0 : refused with 422" in shown.text
    assert json.loads(typed(shown)) == make(BAD)
    assert f'"birthDate": "{BAD}"\n' in typed(shown)

    sent = await send(visitor, delivery, typed(shown).replace(BAD, GOOD))
    made = find_made(sent)
    assert b"\r" not in await get_bytes(route, made)
    await route.process_all()
    assert [each["birthDate"] for each in route.fhir_double.of("Patient")] == [GOOD]
    assert (await route.known(made)).written == 1
    assert (await find_concerns(route.journal, {})).concerns == ()


async def test_several_refused_entries_are_corrected_in_one_send(route: Route) -> None:
    people = [entry(patient(birthDate=f"1984-13-0{n}"), f"{URL[:-1]}{n}") for n in (1, 2, 3)]
    delivery = await refused(route, batch(*people))
    visitor = visit(route)
    shown = await visitor.get(f"deliveries/{delivery}/correction")
    for position in range(3):
        assert f"Entry {position} : refused with 422" in shown.text
    made = find_made(await send(visitor, delivery, typed(shown).replace("-13-", "-12-")))
    await route.process_all()
    known = await route.known(made)
    assert (known.status, known.written, known.refused) == (Status.DONE, 3, 0)
    assert (await find_concerns(route.journal, {})).concerns == ()


async def test_the_old_and_the_new_delivery_lead_to_each_other(route: Route) -> None:
    delivery = await refused(route)
    visitor = visit(route)
    made = find_made(await send(visitor, delivery, json.dumps(make(GOOD))))
    old, new = [await visitor.get(f"deliveries/{id_}") for id_ in (delivery, made)]
    assert f"It was corrected by {made}" in old.text
    assert f"/api/pages/deliveries/{made}" in old.links
    assert f"It corrects {delivery}" in new.text
    assert f"/api/pages/deliveries/{delivery}" in new.links
    assert "Replayed by an operator" not in new.text
    gone = f"/api/pages/deliveries/{delivery}/correction"
    assert gone not in old.links
    asked = await visitor.get(f"deliveries/{delivery}/correction")
    assert asked.status == 409
    assert made in asked.text


async def test_decimals_keep_their_digits(route: Route) -> None:
    body = json.dumps(make(BAD)).replace('"value": 7', '"value": 7.1000')
    delivery = await refused(route, body.encode())
    visitor = visit(route)
    text = typed(await visitor.get(f"deliveries/{delivery}/correction"))
    assert '"value": 7.1000\n' in text
    made = find_made(await send(visitor, delivery, text.replace(BAD, GOOD)))
    assert b'"value": 7.1000' in await get_bytes(route, made)


async def test_ndjson_stays_a_resource_on_each_line(route: Route) -> None:
    lines = [json.dumps(patient(id=name, birthDate=BAD)) for name in ("a", "b")]
    headers = {"content-type": "application/fhir+ndjson"}
    delivery = await refused(route, "\n".join(lines).encode(), headers=headers)
    visitor = visit(route)
    text = typed(await visitor.get(f"deliveries/{delivery}/correction"))
    assert text.split("\n") == lines
    made = find_made(await send(visitor, delivery, text.replace(BAD, GOOD)))
    assert (await get_bytes(route, made)).split(b"\n") == [
        line.replace(BAD, GOOD).encode() for line in lines
    ]
    await route.process_all()
    assert await route.statuses(made) == [201, 201]


async def test_what_was_not_changed_is_no_correction(route: Route) -> None:
    delivery = await refused(route)
    visitor = visit(route)
    text = typed(await visitor.get(f"deliveries/{delivery}/correction"))
    shown = await send(visitor, delivery, text)
    assert shown.status == 409
    assert "mend the cause and replay it" in shown.text
    assert typed(shown).replace("\r\n", "\n") == text


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (('"birthDate":', '"birthDate"'), 400, "not JSON: line 14, column 21"),
        (('"type": "batch"', '"type": "journey"'), 422, "at Bundle.type"),
    ],
)
async def test_what_intake_refuses_is_said_above_what_was_typed(
    route: Route, change: tuple[str, str], status: int, said: str
) -> None:
    delivery = await refused(route)
    visitor = visit(route)
    text = typed(await visitor.get(f"deliveries/{delivery}/correction")).replace(BAD, GOOD)
    text = text.replace(*change)
    shown = await send(visitor, delivery, text)
    assert shown.status == status
    assert said in shown.text
    assert shown.text.index(said) < shown.text.index("Leave fullUrl")
    assert typed(shown).replace("\r\n", "\n") == text
    assert (await route.known(delivery)).corrected_by is None


async def test_what_was_typed_is_text_and_never_a_part_of_the_page(route: Route) -> None:
    delivery = await refused(route)
    text = "\n\n{</textarea><script>\u2028"
    shown = await send(visit(route), delivery, f"[{text}]")
    assert "<script>" not in shown.html.partition("<main")[2]
    assert typed(shown).replace("\r\n", "\n") == f"[{text}]"


async def test_the_line_in_which_json_breaks_off_is_shown(route: Route) -> None:
    delivery = await refused(route)
    visitor = visit(route)
    text = typed(await visitor.get(f"deliveries/{delivery}/correction"))
    shown = await send(visitor, delivery, text.replace(f'"{BAD}"', GOOD))
    assert f'Line 14: "birthDate": {GOOD}' in shown.text


async def test_nothing_typed_is_lost_while_a_service_does_not_answer(route: Route) -> None:
    delivery = await refused(route)
    text = json.dumps(make(GOOD))
    shown = await send(visit(route, audit=_fail_once()), delivery, text)
    assert shown.status == 503
    assert "It is not known whether it was sent" in shown.text
    assert "send it again in a minute" in shown.text
    assert json.loads(typed(shown)) == make(GOOD)
    made = find_made(await send(visit(route), delivery, text))
    assert (await route.known(delivery)).corrected_by == made
    assert (await route.known(made)).corrected_by is None


async def test_nothing_typed_is_lost_where_the_delivery_cannot_be_read(route: Route) -> None:
    class Away(MemoryJournal):
        async def get_delivery(self, id_: str) -> Any:
            raise Unavailable("storage", "answered 503")

    delivery, text = await refused(route), json.dumps(make(GOOD))
    shown = await send(visit(route, journal=Away()), delivery, text)
    assert shown.status == 503
    assert "It is not known whether it was sent" in shown.text
    assert "What is sent twice is taken once" in shown.text
    made = find_made(await send(visit(route), delivery, typed(shown)))
    assert (await route.known(delivery)).corrected_by == made
    file = await send_file(visit(route, journal=Away()), delivery, text.encode())
    assert file.status == 503
    assert "Choose your file again" in file.text


async def test_nothing_typed_is_lost_where_what_was_refused_cannot_be_shown(route: Route) -> None:
    """The audit log does not take the look, so the original is not shown beside it."""
    delivery = await refused(route)
    shown = await send(visit(route, audit=make_recorder(FailingAuditLog())), delivery, "{")
    assert (shown.status, typed(shown)) == (503, "{")
    assert BAD not in shown.html


def _fail_once() -> Any:
    """An audit log that does not take who sent the correction, and then takes a look."""

    class Once(FailingAuditLog):
        async def put(self, entry: Any) -> None:
            self.takes = 2 if self.tried else 0
            await super().put(entry)

    return make_recorder(Once())


async def test_somebody_else_has_corrected_it_meanwhile(route: Route) -> None:
    delivery = await refused(route)
    visitor = visit(route)
    made = find_made(await send(visitor, delivery, json.dumps(make(GOOD))))
    await route.process_all()
    again = await send(visitor, delivery, json.dumps(make(GOOD)))
    assert find_made(again) == made
    shown = await send(visitor, delivery, json.dumps(make("1999-01-01")))
    assert shown.status == 409
    assert f"it was corrected by {made} meanwhile" in shown.text
    assert "1999-01-01" in typed(shown)


# --- with a file -------------------------------------------------------------------------------


async def test_a_file_is_sent_as_it_is(route: Route) -> None:
    delivery = await refused(route)
    content = json.dumps(make(GOOD), indent=1).replace("\n", "\r\n").encode() + b"\r\n"
    made = find_made(await send_file(visit(route), delivery, content))
    assert await get_bytes(route, made) == content


async def test_a_delivery_too_long_for_a_text_area_takes_a_file(
    route: Route,
) -> None:
    filler = "x" * MAX_BYTES
    route.settings = {"max_bytes": 3_000_000}
    body = batch(entry(patient(birthDate=BAD), URL), entry(patient(id="big", text=None), SEEN))
    body["entry"][1]["resource"]["implicitRules"] = filler
    delivery = await refused(route, body)
    visitor = visit(route)
    shown = await visitor.get(f"deliveries/{delivery}/correction")
    assert "<textarea" not in shown.html
    assert f"/api/pages/deliveries/{delivery}/content" in shown.links
    body["entry"][0]["resource"]["birthDate"] = GOOD
    made = find_made(await send_file(visitor, delivery, json.dumps(body).encode()))
    assert (await route.known(made)).bytes > MAX_BYTES


async def test_a_file_that_is_refused_leaves_the_original_to_be_edited(route: Route) -> None:
    delivery = await refused(route)
    shown = await send_file(visit(route), delivery, b'{"resourceType": "Bundle"')
    assert shown.status == 400
    assert "JSON that ends too early: line 1, column 26" in shown.text
    assert "choose your file again" in shown.text
    assert json.loads(typed(shown)) == make(BAD)
    nothing = await send_file(visit(route), delivery, b"", name="")
    assert nothing.status == 400
    assert "the body is empty" in nothing.text


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([("file", "x", b"{}")], 403),
        ([("token", None, b"y" * 20), ("file", "x", b"{}")], 403),
        ([("token", None, TOKEN.encode()), ("file", "x", b"{}"), ("file", "y", b"{}")], 400),
        ([("token", None, TOKEN.encode()), ("other", "x", b"{}")], 400),
        ([("token", None, TOKEN.encode()), ("what", None, b"x"), ("file", "x", b"{}")], 400),
        ([("token", None, b"y" * 30_000), ("file", "x", b"{}")], 403),
        ([("token", None, TOKEN.encode()), ("file", "x", b" " * 1_100_000)], 413),
    ],
)
async def test_a_form_that_is_not_of_the_page_sends_nothing(
    route: Route, parts: list[tuple[str, str | None, bytes]], status: int
) -> None:
    delivery = await refused(route)
    shown = await send_parts(visit(route), delivery, build_multipart(*parts))
    assert shown.status == status
    assert (await route.known(delivery)).corrected_by is None


@given(content=st.binary(max_size=300))
def test_a_file_keeps_its_bytes(content: bytes) -> None:
    body = build_multipart(("token", None, b"t"), ("file", "x.json", content))
    media = {"content-type": "multipart/form-data; boundary=b-7731"}
    request = build_request(headers=media, body=body)
    assert read_form_with_file(request, "file", 1000) == ({"token": "t"}, content)


@pytest.mark.parametrize("media", ["multipart/form-data", "multipart/form-data; boundary=ä"])
def test_a_form_without_a_boundary_cannot_be_read(media: str) -> None:
    request = build_request(headers={"content-type": media}, body=b"x")
    with pytest.raises(Rejected):
        read_form_with_file(request, "file", 1000)


# --- the text ----------------------------------------------------------------------------------

_texts = st.text(st.characters(exclude_categories=["Cs"]))
_values = st.recursive(
    st.none() | st.integers(-9, 9) | _texts | st.sampled_from(["a\u2028b", "\x85", "\ufeff"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
)


@given(value=st.dictionaries(_texts, _values, max_size=4), is_ascii=st.booleans())
def test_what_a_browser_sends_back_unchanged_is_the_original(value: Any, is_ascii: bool) -> None:
    body = json.dumps(value, ensure_ascii=is_ascii).encode()
    text = show_text(body, JSON)
    if text is None:
        assert "\x7f" in body.decode()
        return
    sent = text.replace("\n", "\r\n")
    assert read_text(sent, JSON, body) == body
    assert json.loads(read_text(sent + " ", JSON, None)) == value


@pytest.mark.parametrize("body", [b'{"a": "\xff"}', b"\x00{}", b'{"a": "\x0b"}', b"\x1b"])
def test_what_a_browser_would_change_is_not_shown_as_a_text(body: bytes) -> None:
    assert show_text(body, JSON) is None


def test_a_resource_of_ndjson_keeps_its_line() -> None:
    assert show_text(b'{"a": 1}\r\n{"b": 2}\r\n', NDJSON) == '{"a": 1}\n{"b": 2}'
    assert show_text(b'{"a": 1, "b": [1]}', NDJSON) == '{"a": 1, "b": [1]}'


def test_the_quoted_line_is_the_one_with_the_fault() -> None:
    body = b'{\n  "resourceType": "Patient"\n  "birthDate": "1984-05-06"\n}'
    assert quote_line(body, JSON) == (2, '"resourceType": "Patient"')


def test_a_quoted_line_is_short() -> None:
    body = b'{\n"a": 1,\n"' + b"x" * 500 + b'" 2}'
    found = quote_line(body, JSON)
    assert found is not None
    assert found[0] == 3
    assert len(found[1]) < 210
    assert quote_line(b'{"a": 1}', JSON) is None


# --- who ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "missing"),
    [
        (("operator",), "the role phi."),
        (("reader", "phi"), "the role operator."),
        (("reader",), "the roles operator and phi."),
        (("admin",), "the role phi."),
    ],
)
async def test_it_needs_an_operator_who_may_see_patients(
    route: Route, roles: tuple[str, ...], missing: str
) -> None:
    delivery = await refused(route)
    path = f"deliveries/{delivery}/correction"
    visitor = visit(route, *roles)
    for shown in (await visitor.get(path), await send(visitor, delivery, "{}")):
        assert shown.status == 403
        assert MARKER not in shown.html
    assert f"This page needs {missing}" in (await visitor.get(path)).text
    assert f"/api/pages/{path}" not in (await visitor.get(f"deliveries/{delivery}")).links
    assert f"/api/pages/{path}" in (await visit(route).get(f"deliveries/{delivery}")).links
    assert route.audit.entries == []


async def test_who_looks_and_who_sends_is_recorded(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    delivery = await refused(route)
    visitor = visit(route)
    shown = await visitor.get(f"deliveries/{delivery}/correction")
    assert MARKER in typed(shown)
    made = find_made(await send(visitor, delivery, typed(shown).replace(BAD, GOOD)))
    kinds = [(each.access.kind, each.access.delivery) for each in route.audit.entries]
    assert sorted(kinds) == [(AccessKind.CONTENT, delivery), (AccessKind.CORRECTION, made)]
    assert {each.reader.user for each in route.audit.entries} == {NAME}
    assert MARKER not in caplog.text


async def test_nothing_is_shown_without_a_record(route: Route) -> None:
    delivery = await refused(route)
    visitor = visit(route, audit=make_recorder(FailingAuditLog()))
    shown = await visitor.get(f"deliveries/{delivery}/correction")
    assert shown.status == 503
    assert MARKER not in shown.html


async def test_what_cannot_be_corrected_has_no_form(route: Route) -> None:
    delivery = await route.deliver(make(GOOD))
    visitor = visit(route)
    path = f"deliveries/{delivery}/correction"
    assert "under way" in (await visitor.get(path)).text
    await route.process_all(delivery)
    done = await visitor.get(path)
    assert (done.status, MARKER in done.html) == (409, False)
    assert f"/api/pages/{path}" not in (await visitor.get(f"deliveries/{delivery}")).links
    assert (await visitor.get("deliveries/x/correction")).status == 404


async def test_what_was_given_up_says_why_it_needs_correcting(route: Route) -> None:
    delivery = await route.deliver(make(BAD))
    await route.journal.update_delivery(delivery, status=Status.PARKED, reason="no unit fits")
    visitor = visit(route)
    shown = await visitor.get(f"deliveries/{delivery}/correction")
    assert "no unit fits" in shown.text
    made = find_made(await send(visitor, delivery, json.dumps(make(GOOD))))
    await route.process_all()
    assert await route.statuses(made) == [201, 201]
    assert (await route.known(delivery)).status is Status.CANCELLED


# --- what waits --------------------------------------------------------------------------------


async def test_what_waits_is_tried_now_by_an_operator(route: Route) -> None:
    route.fhir_double.down = 503
    delivery = await route.deliver(patient())
    await route.process(delivery)
    route.fhir_double.down = None
    visitor = visit(route, "operator")
    page = await visitor.get(f"deliveries/{delivery}")
    assert "Try now" in page.text
    assert ">Replay<" not in page.html
    assert "tried again by itself as before" in page.text
    assert "It is tried now" not in page.text

    sent = await visitor.post(f"deliveries/{delivery}/replay")
    location = sent.reply.headers["Location"]
    assert location == f"/api/pages/deliveries/{delivery}?tried=now"
    after = await visitor.get(f"deliveries/{delivery}", tried="now")
    assert "It is tried now, once, besides its own turn" in after.text
    assert "the next attempt stays" in after.text
    await route.process(delivery, once=True)
    ended = await visitor.get(f"deliveries/{delivery}", tried="now")
    assert "It is tried now" not in ended.text
    assert "Finished" in ended.text
