"""A form is taken from a page of this app, in the browser that was shown it, and from nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Rejected
from integration.pages.forms import build_cookie, check_form, check_origin, read_token
from tests.pages.asking import SITE, TOKEN, build_form, build_request

LAPTOP = "http://127.0.0.1:7071"


def test_a_form_of_this_app_is_taken() -> None:
    check_form(build_form("x"), {"token": TOKEN})


def test_a_browser_that_says_the_origin_alone_is_believed() -> None:
    check_form(build_form("x", headers={"sec-fetch-site": None}), {"token": TOKEN})


FOREIGN = {
    "no origin": {"origin": None},
    "an empty origin": {"origin": ""},
    "an opaque origin": {"origin": "null"},
    "another host": {"origin": "https://evil.example"},
    "another scheme": {"origin": "http://relay.example"},
    "another port": {"origin": f"{SITE}:8443"},
    "a name that begins alike": {"origin": f"{SITE}.evil.example"},
    "a path": {"origin": f"{SITE}/"},
    "two origins": {"origin": f"{SITE},{SITE}"},
    "a neighbouring host": {"sec-fetch-site": "same-site"},
    "another site": {"sec-fetch-site": "cross-site"},
    "an address that was typed": {"sec-fetch-site": "none"},
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_a_form_from_elsewhere_is_refused(headers: dict[str, str | None]) -> None:
    request = build_form("x", headers=headers)
    for check in (check_origin, lambda asked: check_form(asked, {"token": TOKEN})):
        with pytest.raises(Rejected) as caught:
            check(request)
        assert caught.value.status == 403


OTHERS = {
    "no cookie": {"cookie": None},
    "an empty cookie": {"cookie": "__Host-relay-form="},
    "a cookie of another token": {"cookie": f"__Host-relay-form={TOKEN}x"},
    "a cookie that any host may set": {"cookie": f"relay-form={TOKEN}"},
    "a quoted cookie": {"cookie": f'__Host-relay-form="{TOKEN}"'},
    "a cookie that is too long": {"cookie": f"__Host-relay-form={TOKEN * 10}"},
}


@pytest.mark.parametrize("headers", OTHERS.values(), ids=OTHERS)
def test_a_form_without_the_cookie_of_its_page_is_refused(headers: dict[str, str | None]) -> None:
    with pytest.raises(Rejected) as caught:
        check_form(build_form("x", headers=headers), {"token": TOKEN})
    assert caught.value.status == 403


@given(st.text(max_size=80).filter(lambda token: token != TOKEN))
def test_a_form_with_any_other_token_is_refused(token: str) -> None:
    with pytest.raises(Rejected) as caught:
        check_form(build_form("x"), {"token": token})
    assert caught.value.status == 403


@pytest.mark.parametrize(
    "cookie",
    [
        f"AppServiceAuthSession=a+b/c==; __Host-relay-form={TOKEN}",
        f'prefs={{"a": [1, 2]}}; __Host-relay-form={TOKEN}',
        f"a[b]=1;;=; __Host-relay-form={TOKEN};",
        f"{'x' * 50_000}; __Host-relay-form={TOKEN}",
    ],
)
def test_cookies_of_others_do_not_hide_the_token(cookie: str) -> None:
    assert read_token(build_request(headers={"cookie": cookie})) == TOKEN


@given(st.text(max_size=300))
def test_whatever_is_in_the_cookie_header_it_is_read_without_an_error(cookie: str) -> None:
    read_token(build_request(headers={"cookie": cookie}))


def test_the_cookie_is_of_this_host_over_tls_and_of_no_script() -> None:
    cookie = build_cookie(build_request(), TOKEN)
    name, *attributes = cookie.split("; ")
    assert name == f"__Host-relay-form={TOKEN}"
    assert {*attributes} == {"Path=/", "HttpOnly", "SameSite=Lax", "Secure"}


def test_a_laptop_has_a_cookie_without_tls() -> None:
    request = build_request(origins=frozenset({LAPTOP}))
    cookie = build_cookie(request, TOKEN)
    assert cookie.startswith("relay-form=")
    assert "Secure" not in cookie
