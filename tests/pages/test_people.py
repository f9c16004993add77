"""Who looks at the pages: what the platform says of a person, and what anybody could write there."""

from __future__ import annotations

import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Rejected
from integration.pages.people import Person, Role, SignIn, identify_person
from tests.pages.asking import CLOSED, EASY_AUTH, LAPTOP, ROLE_CLAIM, SITE, build_principal

# What each app role may do: rows are roles that somebody has, columns those that pages ask for.
TABLE = {
    Role.READER: {Role.READER},
    Role.OPERATOR: {Role.READER, Role.OPERATOR},
    Role.ADMIN: {Role.READER, Role.OPERATOR, Role.ADMIN},
    Role.PHI: {Role.PHI},
}


def encode(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def identify(principal: str | None, sign_in: SignIn = EASY_AUTH, url: str = SITE) -> Person | None:
    headers = {} if principal is None else {"x-ms-client-principal": principal}
    return identify_person(sign_in, headers, url)


@pytest.mark.parametrize("role", Role)
def test_a_role_includes_what_the_table_says_and_no_more(role: Role) -> None:
    person = Person(name="ada", roles=frozenset({role}))
    assert {wanted for wanted in Role if person.can(wanted)} == TABLE[role]


@pytest.mark.parametrize("type_", ["roles", ROLE_CLAIM, "whatever role_typ names"])
def test_roles_are_read_wherever_the_platform_puts_them(type_: str) -> None:
    claims = [{"typ": type_, "val": "Operator"}, {"typ": "other", "val": "admin"}]
    person = identify(build_principal(claims=claims, role_typ="whatever role_typ names"))
    assert person is not None
    assert person.roles == {Role.OPERATOR}


def test_a_role_that_the_app_does_not_have_counts_for_nothing() -> None:
    person = identify(build_principal("owner", "reader "))
    assert person is not None
    assert person.roles == frozenset()


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"preferred_username": "ada@x.example", "name": "Ada"}, "ada@x.example"),
        ({"name": "Ada"}, "Ada"),
        ({"what": "Ada"}, "Ada"),
        ({"name": " \u202e\x00\n"}, "unknown"),
        ({"name": "A\r\nSet-Cookie: x"}, "ASet-Cookie: x"),
        ({}, "unknown"),
        ({"name": "A" * 1000}, "A" * 128),
    ],
)
def test_a_name_is_short_and_printable(claims: dict[str, str], name: str) -> None:
    stated = [{"typ": type_, "val": value} for type_, value in claims.items()]
    person = identify(build_principal(claims=stated, name_typ="what"))
    assert person is not None
    assert person.name == name


def test_without_a_principal_somebody_has_to_sign_in() -> None:
    assert identify(None) is None


WRONG = {
    "empty": "",
    "no base64": "%%%",
    "base64 with a line break": encode('{"claims": []}')[:8] + "\n" + encode('{"claims": []}')[8:],
    "no padding": encode('{"claims": [] }').rstrip("=") + "A",
    "no UTF-8": encode(b'{"claims": [{"typ": "roles", "val": "\xff"}]}'),
    "no JSON": encode("{"),
    "two headers joined": f"{build_principal('reader')},{build_principal('admin')}",
    "no object": encode("[]"),
    "no claims": encode("{}"),
    "claims of another shape": encode('{"claims": {"roles": "admin"}}'),
    "a role that is no text": encode('{"claims": [{"typ": "roles", "val": ["admin"]}]}'),
    "letters of no ASCII": "é" * 8,
    "a surrogate": "\ud800",
    "deep": encode('{"claims": [], "x": ' + "[" * 40_000),
    "deep and whole": encode('{"claims": [], "x": ' + "[" * 20_000 + "]" * 20_000 + "}"),
    "huge": encode(json.dumps({"claims": [{"typ": "x", "val": "x"}] * 3000})),
}


@pytest.mark.parametrize("principal", WRONG.values(), ids=WRONG)
def test_a_header_that_cannot_be_read_is_nobody(principal: str) -> None:
    with pytest.raises(Rejected) as caught:
        identify(principal)
    assert caught.value.status == 403


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(encode)))
def test_whatever_the_header_says_without_a_role_nobody_gets_one(principal: str) -> None:
    roles: frozenset[Role] = frozenset()
    with suppress(Rejected):
        person = identify(principal)
        assert person is not None
        roles = person.roles
    assert roles == frozenset()


@pytest.mark.parametrize("sign_in", [CLOSED, LAPTOP], ids=["closed", "open"])
def test_the_header_says_nothing_where_the_platform_does_not_authenticate(sign_in: SignIn) -> None:
    with pytest.raises(Rejected) as caught:
        identify(build_principal("admin", "phi"), sign_in)
    assert caught.value.status == 403


def test_where_nobody_can_sign_in_it_is_said_what_to_turn_on() -> None:
    with pytest.raises(Rejected, match=r"Easy Auth.*docs/pages\.md"):
        identify(None, CLOSED)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:7071/", "http://localhost:7071/x", "http://LOCALHOST/", "http://[::1]/"],
)
def test_without_sign_in_whoever_is_at_the_laptop_may_do_all(url: str) -> None:
    person = identify(None, LAPTOP, url)
    assert person is not None
    assert all(map(person.can, Role))


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "0.0.0.0",  # noqa: S104
            "10.0.0.1",
        ),
        *("[", "[::1", "[::2]", "127.0.0.1@evil.example", "evil.example#@127.0.0.1", ""),
    ],
)
def test_without_sign_in_no_other_name_leads_to_the_pages(host: str) -> None:
    with pytest.raises(Rejected) as caught:
        identify(None, LAPTOP, f"http://{host}/api/pages/")
    assert caught.value.status == 403
