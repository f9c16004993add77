"""Stories of people who open the pages: signed in by the platform, at a laptop, and as strangers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from integration.pages.answer import PAGES, Page
from integration.pages.http import SECURITY_HEADERS
from integration.pages.people import Role
from local.processes import Child
from local.services import Running, find_free_ports, start_host
from tests.journeys.route import Route
from tests.pages.asking import build_principal

pytestmark = [pytest.mark.live, pytest.mark.azurite]

# Hosts that show pages, and leave queues and timers to that of the other journeys.
IDLE = {
    f"AzureWebJobs.{name}.Disabled": "true"
    for name in (
        *("answer", "answer_poison", "external", "external_poison", "events", "housekeeping"),
        *("events_poison", "inbox", "inbox_poison", "mirror", "mirror_poison", "relay"),
        *("relay_poison", "job_slice", "job_poison"),
    )
}
# Which roles open what a page asks for. Each set of roles is one person.
PEOPLE = {
    ("reader",): {Role.READER},
    ("operator",): {Role.READER, Role.OPERATOR},
    ("admin",): {Role.READER, Role.OPERATOR, Role.ADMIN},
    ("reader", "phi"): {Role.READER, Role.PHI},
    ("operator", "phi"): {Role.READER, Role.OPERATOR, Role.PHI},
    ("phi",): set(),
    (): set(),
}


def start(running: Running, folder_name: str, route: tuple[Running, Child], **more: str) -> Child:
    folder = route[1].part.log.parent / folder_name
    folder.mkdir(exist_ok=True)
    settings = {**running.settings(), "HOST_USE_FUNC": "0", **IDLE, **more}
    return start_host(settings, find_free_ports().host, folder)


@pytest.fixture(scope="module")
def signing_in(parts: tuple[Running, Child]) -> Iterator[str]:
    """The address of a host before which the platform signs people in."""
    with start(parts[0], "signing-in", parts, WEBSITE_AUTH_ENABLED="true") as host:
        yield host.url


@pytest.fixture(scope="module")
def closed(parts: tuple[Running, Child]) -> Iterator[str]:
    """The address of a host where nobody can sign in."""
    with start(parts[0], "closed", parts) as host:
        yield host.url


def sign(*roles: str) -> dict[str, str]:
    return {"x-ms-client-principal": build_principal(*roles)}


def fill(page: Page) -> str:
    """An address of the page, whose arguments name nothing that there is."""
    return re.sub(r"\{[a-z]+\}", "1", page.path)


async def test_who_is_not_signed_in_is_asked_to_and_who_is_sees_the_page(
    route: Route, signing_in: str
) -> None:
    stranger = await route.http.get(f"{signing_in}/api/pages/")
    assert stranger.status_code == 401
    assert "/.auth/login/aad?post_login_redirect_uri=%2Fapi%2Fpages%2F" in stranger.text
    assert "<nav" not in stranger.text
    reader = await route.http.get(f"{signing_in}/api/pages/", headers=sign("reader"))
    assert reader.status_code == 200
    assert "ada@hospital.example" in reader.text
    assert "/.auth/logout" in reader.text


@pytest.mark.parametrize("roles", PEOPLE, ids="+".join)
async def test_each_role_opens_its_pages_and_no_other(
    route: Route, signing_in: str, roles: tuple[str, ...]
) -> None:
    """Each page and each form: a form that is refused for its token was not refused for the role."""
    for page in PAGES:
        url = f"{signing_in}/api/pages/{fill(page)}"
        reply = await route.http.request(page.method, url, headers=sign(*roles))
        needed = {*page.roles}
        is_refused = "needs the role" in reply.text
        assert is_refused is not (needed <= PEOPLE[roles]), (page.method, page.path)
        assert (reply.status_code == 403) or not is_refused


async def test_no_form_is_taken_without_its_token_and_origin(route: Route, signing_in: str) -> None:
    """Every form of every page, sent by somebody who may do everything."""
    own, admin = {"origin": signing_in}, sign("admin", "reader", "phi")
    cookie = {"cookie": "relay-form=made-up-token-of-a-form"}
    form = {"content-type": "application/x-www-form-urlencoded"}
    token = b"token=made-up-token-of-a-form"
    attempts = {
        "no token": ({**own, **cookie}, b""),
        "no cookie": (own, token),
        "another cookie": ({**own, "cookie": "relay-form=another-token-of-a-form"}, token),
        "no origin": (cookie, token),
        "a foreign origin": ({**cookie, "origin": "https://evil.example"}, token),
        "another site": ({**own, **cookie, "sec-fetch-site": "cross-site"}, token),
    }
    for page in PAGES:
        if page.method != "POST":
            continue
        url = f"{signing_in}/api/pages/{fill(page)}"
        for name, (headers, body) in attempts.items():
            sent = {**admin, **form, **headers}
            reply = await route.http.post(url, headers=sent, content=body)
            assert reply.status_code == 403, (page.path, name)
        # With both it is taken, and then it has nothing to do: its arguments name nothing.
        sent = {**admin, **form, **own, **cookie}
        reply = await route.http.post(url, headers=sent, content=token)
        assert reply.status_code not in (401, 403), page.path


async def test_where_nobody_can_sign_in_the_pages_say_what_to_turn_on(
    route: Route, closed: str
) -> None:
    for headers in ({}, sign("admin", "phi")):
        reply = await route.http.get(f"{closed}/api/pages/", headers=headers)
        assert reply.status_code == 403
        assert "Easy Auth" in reply.text
        assert "<nav" not in reply.text


async def test_a_laptop_shows_its_pages_under_its_own_name_alone(route: Route) -> None:
    url = f"{route.host.url}/api/pages/"
    assert (await route.http.get(url)).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "[", "localhost.evil.example:7071"):
        reply = await route.http.get(url, headers={"host": host})
        assert reply.status_code in (400, 403), host
        assert "<nav" not in reply.text


PATHS = {
    "/api/pages": 200,
    "/api/pages/": 200,
    "/API/Pages/": 200,
    "/API/PAGES/nothing": 404,
    "/api/pages/nothing": 404,
    "/api/pages/static/relay.css": 200,
    "/api/pages/static/..%2f..%2fpeople.py": 404,
    "/api/pages/static/%2e%2e/people.py": 404,
    "/api/pages/%2e%2e/status": 404,
    "/api/pages/%00": 404,
    "/api/pages/%ff": 404,
    "/api/pages/?nothing=1": 400,
}


@pytest.mark.parametrize("path", PATHS)
async def test_every_reply_is_safe_for_browsers(route: Route, path: str) -> None:
    url = route.host.url + path
    for method in ("GET", "POST", "PUT", "DELETE"):
        reply = await route.http.request(method, url)
        assert (
            SECURITY_HEADERS.items()
            <= {name: reply.headers.get(name, "") for name in SECURITY_HEADERS}.items()
        ), method
        assert reply.status_code < 500
        if method == "GET":
            assert reply.status_code == PATHS[path]
