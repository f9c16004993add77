"""Query options: which there are, what they take, which are refused and how."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Rejected
from integration.odata import filter as filters
from integration.odata.addresses import (
    Address,
    Collection,
    Count,
    Entity,
    Metadata,
    ServiceDocument,
)
from integration.odata.expressions import Order
from integration.odata.query import MAX_LENGTH, Query, build_next_link, parse
from tests.odata.sets import KEY, MARKER, OBSERVATIONS, refusal

PROPERTY = OBSERVATIONS.by_name
ALL = Collection(OBSERVATIONS)
ONE = Entity(OBSERVATIONS, KEY)


def refused(text: str, address: Address = ALL) -> tuple[int, str, str | None]:
    rejected = refusal(lambda: parse(text, address))
    return rejected.status, rejected.issues[0].text, rejected.issues[0].expression


def test_nothing_asked_is_everything() -> None:
    assert parse("", ALL) == Query()


def test_every_option_at_once_as_the_provider_sends_them() -> None:
    text = (
        "$select=code,status&$filter=startswith(description,%27O%27%27B%27)%20and%20status%20eq%201"
        "&$orderby=issued%20desc,code&$top=51&$skip=50&$count=true&$skiptoken=ab%2Bc&$format=json"
    )
    assert parse(text, ALL) == Query(
        filter=filters.parse("startswith(description,'O''B') and status eq 1", OBSERVATIONS),
        select=tuple(PROPERTY[name] for name in ("msemr_observationid", "code", "status")),
        order_by=(Order(PROPERTY["issued"], descending=True), Order(PROPERTY["code"])),
        top=51,
        skip=50,
        count=True,
        skip_token="ab+c",
        format="json",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("top=5", Query(top=5)),
        ("$TOP=5", Query(top=5)),
        ("%24top=5", Query(top=5)),
        ("$top=0", Query(top=0)),
        ("$count=false", Query()),
        ("$count=TRUE", Query(count=True)),
        ("$select=*", Query()),
        ("$select=*,code", Query()),
        ("$orderby=code+ASC", Query(order_by=(Order(PROPERTY["code"]),))),
        ("$orderby=code,code desc", Query(order_by=(Order(PROPERTY["code"]),))),
        ("code=secret&x-ms=1&@p=1&&id=7", Query()),
        ("$filter=status+eq%091", Query(filter=filters.parse("status eq 1", OBSERVATIONS))),
        (
            "$filter=description eq 'a=b'",
            Query(filter=filters.parse("description eq 'a=b'", OBSERVATIONS)),
        ),
    ],
)
def test_options_come_with_and_without_dollar_in_any_case_among_strangers(
    text: str, expected: Query
) -> None:
    assert parse(text, ALL) == expected


def test_a_selection_has_the_key_and_the_order_of_the_type() -> None:
    found = parse("$select=status, code,status", ALL).select
    assert [entry.name for entry in found or ()] == ["msemr_observationid", "code", "status"]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("$top=-1", "$top"),
        ("$top=1.5", "$top"),
        ("$top=", "$top"),
        ("$top=²", "$top"),
        ("$top=99999999999", "$top"),
        ("$skip=x", "$skip"),
        ("$count=yes", "$count"),
        ("$top=1&$top=1", "$top"),
        ("$top=1&TOP=2", "$top"),
        ("$select=weight", "weight"),
        ("$select=", "$select"),
        ("$select=code,,status", "$select"),
        ("$select=code/x", "$select"),
        ("$orderby=weight", "weight"),
        ("$orderby=", "$orderby"),
        ("$filter", "$filter"),
        ("$filter=", "$filter"),
        ("$filter=+", "$filter"),
        ("top", "$top"),
        ("$skiptoken=", "$skiptoken"),
        ("$format", "$format"),
        ("$orderby=code up", "$orderby"),
        ("$orderby=code asc desc", "$orderby"),
        ("$filter=weight eq 1", "weight"),
        ("$fliter=1", "$fliter"),
        ("$=1", None),
        ("$%E4=1", None),
        ("$top=%FF", None),
    ],
)
def test_what_is_wrong_is_a_400_with_its_name(text: str, target: str | None) -> None:
    status, _, expression = refused(text)
    assert (status, expression) == (400, target)


@pytest.mark.parametrize(
    "name",
    ["$expand", "expand", "$search", "$apply", "$compute", "$Expand", "$deltatoken", "$levels"],
)
def test_what_odata_defines_and_the_feed_lacks_is_a_501(name: str) -> None:
    assert refused(f"{name}=x")[0] == 501


@pytest.mark.parametrize("item", ["tolower(code)", "patient/name", "code desc,length(code)"])
def test_only_columns_are_sorted_by(item: str) -> None:
    assert refused(f"$orderby={item}")[0] == 501


def test_each_address_has_its_options() -> None:
    assert parse("$select=code", ONE).select is not None
    assert parse("$filter=status eq 1", Count(OBSERVATIONS)).filter is not None
    assert parse("$format=json", ServiceDocument()) == Query(format="json")
    for text, address in [
        ("$filter=status eq 1", ONE),
        ("$top=1", Count(OBSERVATIONS)),
        ("$select=code", Metadata()),
        ("$top=1", ServiceDocument()),
    ]:
        assert refused(text, address)[0] == 400


def test_a_query_beyond_reason_is_refused_unread() -> None:
    assert refused("x=" + "1" * MAX_LENGTH)[0] == 414


def test_no_value_is_ever_repeated() -> None:
    for name in ("$top", "$skip", "$count", "$select", "$orderby", "$filter"):
        assert refused(f"{name}='{MARKER}'")[0] == 400
    assert refused(f"$orderby=code {MARKER}")[0] == 400


# -- the next page -------------------------------------------------------------------------------


def options_of(link: str) -> dict[str, list[str]]:
    assert link.startswith("https://relay.example/api/odata/msemr_observations?")
    return parse_qs(urlsplit(link).query, strict_parsing=True)


def test_the_next_page_is_asked_with_the_same_options_and_what_is_left_of_top() -> None:
    text = "$filter=code eq 'a%26b'&$skip=7&$top=100&$skiptoken=one&code=key&$COUNT=true"
    link = build_next_link("https://relay.example/api/odata/msemr_observations", text, "t/wo&", 50)
    assert options_of(link) == {
        "$filter": ["code eq 'a&b'"],
        "$top": ["50"],
        "$skiptoken": ["t/wo&"],
        "$count": ["true"],
    }


@given(st.text(), st.text(min_size=1))
def test_a_next_link_means_what_was_asked(part: str, token: str) -> None:
    value = quote(part.replace("'", "''"), safe="", errors="replace")
    asked = f"$filter=contains(code,'{value}')&$orderby=code&x={value}"
    safe = token.encode("utf-8", "replace").decode()
    link = build_next_link("https://relay.example/", asked, safe)
    before, after = parse(asked, ALL), parse(urlsplit(link).query, ALL)
    assert (after.filter, after.order_by, after.skip_token) == (
        before.filter,
        before.order_by,
        safe,
    )


def outcome(text: str, address: Any) -> int:
    try:
        return 200 if parse(text, address) else 0
    except Rejected as rejected:
        return rejected.status


NAMES = st.sampled_from(["$filter", "$select", "$orderby", "$top", "$count", "$x", "x", "%24skip"])
TEXTS = st.lists(st.tuples(NAMES, st.text(max_size=8)).map("=".join), max_size=4).map("&".join)


@given(st.text(max_size=40) | TEXTS, st.sampled_from([ALL, ONE, ServiceDocument()]))
def test_any_query_is_understood_or_refused(text: str, address: Any) -> None:
    assert outcome(text, address) in (200, 400, 501)
