"""Fields of queries and forms, and addresses of pages."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Rejected
from integration.pages.http import build_link, check_fields, parse_fields, redirect


def test_fields_without_a_value_are_missing_and_values_are_trimmed() -> None:
    assert parse_fields("a=+1+&b=&c=%20&d") == {"a": "1"}


WRONG = {
    "a field twice": "a=1&b=2&a=3",
    "a field twice with one value": "a=1&a=1",
    "more fields than a form has": "&".join(f"f{number}=1" for number in range(10_000)),
    "no UTF-8": "a=%ff",
    "half of a letter": "a=%c3",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_fields_that_can_be_read_in_two_ways_or_not_at_all_are_refused(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_fields(text)
    assert caught.value.status == 400


@given(st.text(max_size=300))
def test_whatever_is_sent_is_read_or_refused(text: str) -> None:
    fields: dict[str, str] = {}
    with suppress(Rejected):
        fields = parse_fields(text)
    assert all(value and value == value.strip() for value in fields.values())


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.text(min_size=1, max_size=20)))
def test_what_was_sent_is_read_as_it_was_meant(fields: dict[str, str]) -> None:
    stated = {name: value.strip() for name, value in fields.items() if value.strip()}
    assert parse_fields(urlencode(fields)) == stated


def test_a_field_that_the_page_does_not_have_is_named_and_its_value_is_not() -> None:
    with pytest.raises(Rejected, match="the field statsu is not known") as caught:
        check_fields({"statsu": "Jane Roe"}, ("status",))
    assert "Jane" not in str(caught.value)


def test_a_long_name_of_a_field_is_cut() -> None:
    with pytest.raises(Rejected) as caught:
        check_fields({"x" * 5000: "1"}, ())
    assert len(str(caught.value)) < 200


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_link_stays_below_the_pages_and_is_one_line_of_ascii(path: str, value: str) -> None:
    link = build_link(path, {"a": value})
    assert urlsplit(link).netloc == ""
    assert link.startswith("/api/pages/")
    assert link.isascii()
    assert not set(link) & set(" \r\n\t\"'<>\\")


@given(st.text(max_size=60))
def test_a_redirect_stays_on_this_host_and_ends_no_header(path: str) -> None:
    reply = redirect(path)
    assert reply.status == 303
    location = reply.headers["Location"]
    assert location.startswith("/api/pages/")
    assert location.isascii()
    assert location.isprintable()
    assert " " not in location


def test_a_redirect_keeps_the_query_of_its_address() -> None:
    location = redirect("deliveries?status=parked&after=a%2Fb").headers["Location"]
    assert location == "/api/pages/deliveries?status=parked&after=a%2Fb"
