"""Requests to the Dataverse Web API, as bytes on the wire."""

from __future__ import annotations

import json
from decimal import Decimal
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from integration.core.model import Request
from integration.dataverse.requests import (
    CASTS,
    Change,
    build_change,
    build_columns_query,
    build_row_query,
    build_who_am_i,
    quote_literal,
)

ROW = "0b6d3d3e-9c4b-4a53-8f1f-6f0f8a2f4c11"


def create(**columns: object) -> Request:
    return build_change(
        Change(method="PATCH", entity_set="contacts", key=ROW, columns=columns, only_new=True)
    )


def update(**columns: object) -> Request:
    return build_change(
        Change(method="PATCH", entity_set="contacts", key=ROW, columns=columns, etag='W/"7"')
    )


def by_id(value: str) -> Request:
    return build_row_query("contacts", ["contactid"], f"fhirid eq {quote_literal(value)}", 3)


BUILT = [
    by_id("1"),
    create(lastname="Sampleton"),
    update(lastname="Sampleton"),
    build_change(Change(method="DELETE", entity_set="contacts", key=ROW)),
    build_who_am_i(),
    *[build_columns_query("contact", cast) for cast in CASTS],
]


def query(request: Request) -> dict[str, str]:
    found = parse_qs(urlsplit(request.path).query, strict_parsing=True)
    return {name: values[0] for name, values in found.items()}


@pytest.mark.parametrize("request_", BUILT)
def test_every_request_is_relative_and_says_its_version_of_odata(request_: Request) -> None:
    assert request_.path.startswith("api/data/v9.2/")
    assert request_.headers["odata-version"] == "4.0"
    assert request_.headers["odata-maxversion"] == "4.0"
    assert request_.headers["accept"] == "application/json"


def test_rows_are_asked_for_by_a_filter_with_the_columns_that_are_wanted() -> None:
    asked = build_row_query("contacts", ["contactid", "_parent_value"], "name eq 'a b'", 3)
    assert (asked.method, asked.body) == ("GET", None)
    assert urlsplit(asked.path).path == "api/data/v9.2/contacts"
    wanted = {"$select": "contactid,_parent_value", "$filter": "name eq 'a b'", "$top": "3"}
    assert query(asked) == wanted
    assert "lookuplogicalname" in asked.headers["prefer"]


@pytest.mark.parametrize("value", ["O'Sample", "a' or 1 eq 1 or 'b", "a&$top=1", "a#b", "ü +%20"])
def test_a_value_cannot_leave_its_quotes_nor_its_parameter(value: str) -> None:
    asked = by_id(value)
    doubled = value.replace("'", "''")
    assert query(asked)["$filter"] == f"fhirid eq '{doubled}'"
    assert query(asked)["$top"] == "3"
    assert asked.path.isascii()


@pytest.mark.parametrize(
    ("value", "text"), [("a", "'a'"), ("", "''"), ("'", "''''"), ("a'b", "'a''b'")]
)
def test_a_quote_in_a_literal_is_doubled(value: str, text: str) -> None:
    assert quote_literal(value) == text


def test_a_create_never_touches_a_row_that_is_there() -> None:
    asked = create(lastname="Sampleton", suffix=None)
    assert (asked.method, asked.path) == ("PATCH", f"api/data/v9.2/contacts({ROW})")
    assert asked.headers["if-none-match"] == "*"
    assert "if-match" not in asked.headers
    assert json.loads(asked.body or b"") == {"lastname": "Sampleton", "suffix": None}


def test_an_update_never_touches_a_row_that_somebody_changed() -> None:
    asked = update(lastname="Sampleton")
    assert (asked.method, asked.path) == ("PATCH", f"api/data/v9.2/contacts({ROW})")
    assert asked.headers["if-match"] == 'W/"7"'
    assert "if-none-match" not in asked.headers


def test_numbers_in_a_row_stay_numbers() -> None:
    asked = create(amount=Decimal("1.10"), code=7)
    assert asked.body == b'{"amount":1.10,"code":7}'


def test_requests_share_no_headers() -> None:
    first, second = update(), create()
    assert "if-match" in first.headers
    assert "if-match" not in second.headers
    assert "if-match" not in build_who_am_i().headers


@pytest.mark.parametrize("part", CASTS)
def test_columns_are_asked_for_by_kind(part: str) -> None:
    path = unquote(build_columns_query("contact", part).path)
    stem = "api/data/v9.2/EntityDefinitions(LogicalName='contact')"
    assert path.startswith(f"{stem}/{part}?$select=")


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("String", "MaxLength"),
        ("Memo", "MaxLength"),
        ("Picklist", "$expand=OptionSet($select=Options),GlobalOptionSet($select=Options)"),
        ("State", "$expand=OptionSet($select=Options)"),
        ("Status", "$expand=OptionSet($select=Options)"),
        ("DateTime", "Format,DateTimeBehavior"),
        ("Integer", "MinValue,MaxValue"),
        ("BigInt", "MinValue,MaxValue"),
        ("Decimal", "MinValue,MaxValue,Precision"),
        ("Double", "MinValue,MaxValue,Precision"),
        ("Money", "MinValue,MaxValue,Precision"),
    ],
)
def test_columns_are_asked_for_with_what_limits_their_values(kind: str, wanted: str) -> None:
    part = f"Attributes/Microsoft.Dynamics.CRM.{kind}AttributeMetadata"
    assert wanted in build_columns_query("contact", part).path


def test_the_general_question_comes_first_and_asks_who_must_and_may_write() -> None:
    path = build_columns_query("contact", next(iter(CASTS))).path
    for name in ("AttributeType", "RequiredLevel", "IsValidForCreate", "IsValidForUpdate"):
        assert name in path


def test_lookups_are_asked_where_they_lead() -> None:
    path = build_columns_query("contact", "ManyToOneRelationships").path
    assert "ReferencingEntityNavigationPropertyName" in path


def test_the_cheapest_request_reads_who_we_are() -> None:
    assert (build_who_am_i().method, build_who_am_i().path) == ("GET", "api/data/v9.2/WhoAmI")
