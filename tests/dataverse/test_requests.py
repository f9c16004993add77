"""Requests to the Dataverse Web API, as bytes on the wire."""

from __future__ import annotations

import json
from decimal import Decimal
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from integration.dataverse.requests import (
    CASTS,
    columns_of,
    create,
    find,
    literal,
    update,
    who_am_i,
)
from integration.model import Request

ROW = "0b6d3d3e-9c4b-4a53-8f1f-6f0f8a2f4c11"
BUILT = [
    find("contacts", "contactid", ROW, "fhirid", "1", ["contactid"]),
    create("contacts", ROW, {"lastname": "Sampleton"}),
    update("contacts", ROW, {"lastname": "Sampleton"}, 'W/"7"'),
    who_am_i(),
    *[columns_of("contact", cast) for cast in CASTS],
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


def test_a_row_is_found_by_its_key_or_by_the_fhir_id() -> None:
    asked = find("contacts", "contactid", ROW, "fhirid", "a-1", ["contactid", "versionid"])
    assert asked.method == "GET"
    assert asked.body is None
    assert urlsplit(asked.path).path == "api/data/v9.2/contacts"
    assert query(asked) == {
        "$select": "contactid,versionid",
        "$filter": f"contactid eq {ROW} or fhirid eq 'a-1'",
        "$top": "3",
    }


@pytest.mark.parametrize("value", ["O'Sample", "a' or 1 eq 1 or 'b", "a&$top=1", "a#b", "ü +%20"])
def test_a_value_cannot_leave_its_quotes_nor_its_parameter(value: str) -> None:
    asked = find("contacts", "contactid", ROW, "fhirid", value, ["contactid"])
    doubled = value.replace("'", "''")
    assert query(asked)["$filter"] == f"contactid eq {ROW} or fhirid eq '{doubled}'"
    assert query(asked)["$top"] == "3"
    assert asked.path.isascii()


@pytest.mark.parametrize(
    ("value", "text"), [("a", "'a'"), ("", "''"), ("'", "''''"), ("a'b", "'a''b'")]
)
def test_a_quote_in_a_literal_is_doubled(value: str, text: str) -> None:
    assert literal(value) == text


def test_a_create_never_touches_a_row_that_is_there() -> None:
    asked = create("contacts", ROW, {"lastname": "Sampleton", "suffix": None})
    assert (asked.method, asked.path) == ("PATCH", f"api/data/v9.2/contacts({ROW})")
    assert asked.headers["if-none-match"] == "*"
    assert "if-match" not in asked.headers
    assert json.loads(asked.body or b"") == {"lastname": "Sampleton", "suffix": None}


def test_an_update_never_touches_a_row_that_somebody_changed() -> None:
    asked = update("contacts", ROW, {"lastname": "Sampleton"}, 'W/"7"')
    assert (asked.method, asked.path) == ("PATCH", f"api/data/v9.2/contacts({ROW})")
    assert asked.headers["if-match"] == 'W/"7"'
    assert "if-none-match" not in asked.headers


def test_numbers_in_a_row_stay_numbers() -> None:
    asked = create("contacts", ROW, {"amount": Decimal("1.10"), "code": 7})
    assert asked.body == b'{"amount":1.10,"code":7}'


def test_requests_share_no_headers() -> None:
    first = update("contacts", ROW, {}, 'W/"1"')
    second = create("contacts", ROW, {})
    assert "if-match" in first.headers
    assert "if-match" not in second.headers
    assert "if-match" not in who_am_i().headers


@pytest.mark.parametrize("cast", CASTS)
def test_columns_are_asked_for_by_kind(cast: str) -> None:
    path = unquote(columns_of("contact", cast).path)
    stem = "api/data/v9.2/EntityDefinitions(LogicalName='contact')/Attributes"
    kind = f"/Microsoft.Dynamics.CRM.{cast}" if cast else ""
    assert path.startswith(f"{stem}{kind}?$select=LogicalName,AttributeType")


@pytest.mark.parametrize(
    ("cast", "wanted"),
    [
        ("StringAttributeMetadata", "MaxLength"),
        ("MemoAttributeMetadata", "MaxLength"),
        ("PicklistAttributeMetadata", "$expand=OptionSet($select=Options)"),
        ("StateAttributeMetadata", "$expand=OptionSet($select=Options)"),
    ],
)
def test_columns_are_asked_for_with_what_limits_their_values(cast: str, wanted: str) -> None:
    assert wanted in columns_of("contact", cast).path
    assert cast in CASTS


def test_the_cheapest_request_reads_who_we_are() -> None:
    assert (who_am_i().method, who_am_i().path) == ("GET", "api/data/v9.2/WhoAmI")
