"""A request for a page: who may ask, for what, and that whatever goes wrong is a page, too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration.core.errors import Issue, Misconfigured, Rejected, Unavailable
from integration.pages.answer import MAX_FORM, PAGES, Page, answer_page
from integration.pages.forms import check_form
from integration.pages.http import SECURITY_HEADERS, PageRequest, Reply, parse_fields, redirect
from integration.pages.people import Role
from integration.pages.view import STATIC, View
from tests.conftest import Route
from tests.pages.asking import CLOSED, TOKEN, Shown, build_form, build_request, make_parts

# No example of these tests changes what the next one is answered.
REUSE_ROUTE = settings(
    suppress_health_check=[
        *settings.default.suppress_health_check,
        HealthCheck.function_scoped_fixture,
    ]
)


async def show(view: View) -> Reply:
    """Say what the page was asked for."""
    return Reply(body=f"{dict(view.arguments)} {dict(view.fields)}".encode())


async def take(view: View) -> Reply:
    return redirect(f"taken/{view.fields.get('what', 'nothing')}")


async def take_file(view: View) -> Reply:
    check_form(view.request, parse_fields(view.request.body.decode()))
    return redirect("taken")


async def show_trouble(view: View) -> Reply:
    raise TROUBLE[view.arguments["kind"]][0]


TROUBLE = {
    "rejected": (Rejected(Issue("not-found", "There is none <b>.")), 400, "There is none <b>."),
    "unavailable": (Unavailable("storage", "10.0.0.7 timed out"), 503, "in a minute"),
    "misconfigured": (Misconfigured("set FHIR_URL"), 500, "set FHIR_URL"),
}

SAMPLES = (
    *PAGES,
    Page(path="things", show=show, fields=("status", "after")),
    Page(path="things/{id}", show=show),
    Page(path="things/{id}", show=take, method="POST", role=Role.OPERATOR, fields=("what",)),
    Page(path="things/{id}/content", show=show, role=Role.PHI),
    Page(path="things/{id}/mending", show=show, role=Role.OPERATOR, also=Role.PHI),
    Page(path="routes", show=take, method="POST", role=Role.ADMIN),
    Page(path="files", show=take_file, method="POST", role=Role.ADMIN, takes_file=True),
    Page(path="trouble/{kind}", show=show_trouble),
)


Answer = Callable[[PageRequest], Awaitable[Shown]]


@pytest.fixture
def answer(route: Route) -> Answer:
    parts = make_parts(route)

    async def answer(request: PageRequest) -> Shown:
        return Shown(await answer_page(parts, request, SAMPLES))

    return answer


# Who may do what: a row for each set of roles, a column for each of SAMPLES that tells them apart.
ASKED = (
    (build_request("things"), 200),
    (build_form("things/1"), 303),
    (build_form("routes"), 303),
    (build_request("things/1/content"), 200),
    (build_request("things/1/mending"), 200),
)
TABLE = {
    (): (403, 403, 403, 403, 403),
    ("reader",): (200, 403, 403, 403, 403),
    ("operator",): (200, 303, 403, 403, 403),
    ("admin",): (200, 303, 303, 403, 403),
    ("phi",): (403, 403, 403, 403, 403),
    ("reader", "phi"): (200, 403, 403, 200, 403),
    ("operator", "phi"): (200, 303, 403, 200, 200),
    ("admin", "phi"): (200, 303, 303, 200, 200),
}


@pytest.mark.parametrize("roles", TABLE, ids="+".join)
async def test_each_role_opens_what_the_table_says(answer: Answer, roles: tuple[str, ...]) -> None:
    header = build_request(roles=roles).headers
    asked = [replace(request, headers={**request.headers, **header}) for request, _ in ASKED]
    assert tuple([(await answer(request)).status for request in asked]) == TABLE[roles]


async def test_who_lacks_a_role_is_told_which_and_which_there_are(answer: Answer) -> None:
    text = (await answer(build_form("routes"))).text
    assert "needs the role admin. Your roles: reader." in text
    text = (await answer(build_request("things/1/mending"))).text
    assert "needs the roles operator and phi. Your roles: reader." in text


async def test_who_has_no_role_sees_nothing_of_the_app(answer: Answer) -> None:
    shown = await answer(build_request(roles=()))
    assert shown.status == 403
    assert "Your roles: none" in shown.text
    assert b"<nav" not in shown.reply.body
    assert "/.auth/logout?post_logout_redirect_uri=/api/pages/" in shown.links


async def test_who_is_not_signed_in_gets_a_link_that_leads_back(answer: Answer) -> None:
    shown = await answer(build_request("things/a b?", roles=None))
    assert shown.status == 401
    back = quote("/api/pages/things/a%20b%3F", safe="")
    assert f"/.auth/login/aad?post_login_redirect_uri={back}".encode() in shown.reply.body
    assert "Set-Cookie" not in shown.reply.headers


async def test_a_form_that_was_sent_after_the_sign_in_ended_is_not_sent_again(
    answer: Answer,
) -> None:
    shown = await answer(build_form("things/1", roles=None))
    assert shown.status == 401
    assert b"post_login_redirect_uri=%2Fapi%2Fpages%2F&#34;" not in shown.reply.body
    assert b'post_login_redirect_uri=%2Fapi%2Fpages%2F"' in shown.reply.body


async def test_where_nobody_can_sign_in_the_pages_are_closed_and_say_what_to_do(
    route: Route,
) -> None:
    request = build_request("things", roles=("admin",))
    shown = Shown(await answer_page(make_parts(route, sign_in=CLOSED), request))
    assert shown.status == 403
    assert "turn on its authentication" in shown.text


async def test_path_and_query_reach_the_page(answer: Answer) -> None:
    shown = await answer(build_request("things", query="status=parked&after="))
    assert shown.reply.body == b"{} {'status': 'parked'}"
    assert (await answer(build_request("things/x y"))).reply.body == b"{'id': 'x y'} {}"


@pytest.mark.parametrize("query", ["statsu=parked", "status=1&status=2", "status=%ff", "token=1"])
async def test_a_query_that_the_page_does_not_have_is_refused(answer: Answer, query: str) -> None:
    assert (await answer(build_request("things", query=query))).status == 400


@pytest.mark.parametrize(
    "path",
    [
        "thing",
        "things/1/2",
        "things//content",
        "..",
        "../things",
        "things/../..",
        "\x00",
        "routes/",
    ],
)
async def test_an_address_without_a_page_is_not_found(answer: Answer, path: str) -> None:
    shown = await answer(build_request(path))
    assert shown.status == 404
    assert "There is no page at this address" in shown.text


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_pages_are_asked_for_and_forms_are_sent_and_nothing_else(
    answer: Answer, method: str
) -> None:
    shown = await answer(build_request("things", method=method))
    assert (shown.status, shown.reply.headers["Allow"]) == (405, "GET, POST")


async def test_a_page_that_takes_no_form_says_so(answer: Answer) -> None:
    shown = await answer(build_form("things"))
    assert (shown.status, shown.reply.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("kind", TROUBLE)
async def test_trouble_is_a_page_that_says_what_to_do(answer: Answer, kind: str) -> None:
    _, status, text = TROUBLE[kind]
    shown = await answer(build_request(f"trouble/{kind}"))
    assert shown.status == status
    assert text in shown.text
    assert b"<b>" not in shown.reply.body
    assert "10.0.0.7" not in shown.reply.body.decode()


async def test_a_form_ends_with_another_page(answer: Answer) -> None:
    form = build_form("things/1", f"token={TOKEN}&what=all", roles=("operator",))
    shown = await answer(form)
    assert (shown.status, shown.reply.headers["Location"]) == (303, "/api/pages/taken/all")


WRONG_FORMS = {
    "no token": ("what=all", {}, 403),
    "another token": (f"token={TOKEN[:-1]}X", {}, 403),
    "a token of no ASCII": (f"token={quote('é' * 22)}", {}, 403),
    "two tokens": (f"token={TOKEN}&token={TOKEN}", {}, 400),
    "a field that the page does not have": (f"token={TOKEN}&why=x", {}, 400),
    "10,000 fields": (f"token={TOKEN}&" + "&".join(f"f{n}=1" for n in range(10_000)), {}, 400),
    "too long": (f"token={TOKEN}&what={'x' * MAX_FORM}", {}, 413),
    "bytes": (b"token=\xff\xfe", {}, 400),
    "JSON": ("{}", {"content-type": "application/json"}, 415),
    "text, which needs no preflight": (f"token={TOKEN}", {"content-type": "text/plain"}, 415),
    "no type": (f"token={TOKEN}", {"content-type": None}, 415),
    "no origin": (f"token={TOKEN}", {"origin": None}, 403),
    "a foreign origin": (f"token={TOKEN}", {"origin": "https://evil.example"}, 403),
    "no cookie": (f"token={TOKEN}", {"cookie": None}, 403),
}


@pytest.mark.parametrize(("body", "headers", "status"), WRONG_FORMS.values(), ids=WRONG_FORMS)
async def test_a_form_that_no_page_of_this_app_has_sent_does_nothing(
    answer: Answer, body: str | bytes, headers: dict[str, str | None], status: int
) -> None:
    form = build_form("things/1", body, headers=headers, roles=("operator",))
    shown = await answer(form)
    assert shown.status == status
    assert "Location" not in shown.reply.headers


async def test_a_page_that_reads_its_form_itself_takes_none_from_elsewhere(answer: Answer) -> None:
    taken = build_form("files", roles=("admin",))
    foreign = build_form("files", roles=("admin",), headers={"origin": "https://evil.example"})
    assert (await answer(taken)).status == 303
    assert (await answer(foreign)).status == 403


async def test_a_browser_gets_its_token_once(answer: Answer) -> None:
    first = await answer(build_request("things"))
    cookie = first.reply.headers["Set-Cookie"].partition(";")[0]
    again = await answer(build_request("things", headers={"cookie": cookie}))
    assert cookie == f"__Host-relay-form={TOKEN}"
    assert "Set-Cookie" not in again.reply.headers


@pytest.mark.parametrize(
    "request_",
    [
        build_request(),
        build_request("nothing"),
        build_request(roles=None),
        build_request(roles=()),
        build_request("trouble/unavailable"),
        build_request(method="PUT"),
        build_form("things/1", roles=("operator",)),
        build_form("things/1", "", roles=("operator",)),
        build_request("static/relay.css"),
        build_request("static/nothing"),
    ],
)
async def test_every_reply_has_the_headers_that_keep_browsers_safe(
    answer: Answer, request_: PageRequest
) -> None:
    shown = await answer(request_)
    assert SECURITY_HEADERS.items() <= shown.reply.headers.items()
    is_static_file = shown.status == 200 and shown.reply.media != "text/html"
    assert ("no-store" in shown.reply.headers["Cache-Control"]) is not is_static_file


def test_the_policy_lets_nothing_run_in_line_or_come_from_elsewhere() -> None:
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    sources = {source for part in policy.split("; ") for source in part.split(" ")[1:]}
    assert sources == {"'none'", "'self'"}
    # With no-referrer the platform takes forms for foreign ones.
    assert SECURITY_HEADERS["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("name", sorted(path.name for path in STATIC.iterdir()))
async def test_static_files_are_for_everybody_and_kept_for_good(answer: Answer, name: str) -> None:
    shown = await answer(build_request(f"static/{name}", roles=None))
    assert shown.status == 200
    assert shown.reply.body == (STATIC / name).read_bytes()
    assert "immutable" in shown.reply.headers["Cache-Control"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "../people.py",
        "../templates/base.html",
        "..%2fpeople.py",
        "%2e%2e/people.py",
        "..\\people.py",
        "/etc/passwd",
        "//etc/passwd",
        "relay.css/",
        "relay.css/../relay.js",
        "relay.css\x00.html",
        "RELAY.CSS",
        "x" * 10_000,
    ],
)
async def test_no_path_leads_out_of_the_static_files(answer: Answer, path: str) -> None:
    shown = await answer(build_request(f"static/{path}", roles=None))
    assert (shown.status, shown.reply.body) == (404, b"")


@REUSE_ROUTE
@given(st.text(max_size=100), st.text(max_size=100))
async def test_whatever_is_asked_for_the_answer_is_a_page_and_no_error(
    answer: Answer, path: str, query: str
) -> None:
    shown = await answer(build_request(path, query=query))
    assert shown.status in (200, 400, 404, 405, 500, 503)
    assert SECURITY_HEADERS.items() <= shown.reply.headers.items()


@REUSE_ROUTE
@given(st.binary(max_size=300))
async def test_whatever_a_form_holds_without_the_token_it_does_nothing(
    answer: Answer, body: bytes
) -> None:
    shown = await answer(build_form("things/1", body, roles=("operator",)))
    assert shown.status in (400, 403)
