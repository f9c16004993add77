"""Entities, collections and errors as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given

from integration.core import decimal_json
from integration.core.errors import Issue
from integration.odata.bodies import parse_new_entity
from integration.odata.headers import Format
from integration.odata.payload import build_collection, build_entity, build_error, format_entity_url
from tests.odata.sets import KEY, OBSERVATIONS, OTHER, ROOT, ROW, ROWS

PLAIN = {
    "msemr_observationid": str(KEY),
    "description": "Body Weight",
    "code": "kg",
    "status": 935000001,
    "big": 9007199254740993,
    "value": Decimal("81.10"),
    "ratio": None,
    "final": True,
    "issued": "2024-02-29T23:59:59.120000Z",
    "_patient_value": str(OTHER),
    "allergy": None,
}


def one(form: Format, **options: Any) -> dict[str, Any]:
    """As it goes over the wire."""
    found: dict[str, Any] = decimal_json.decode(
        decimal_json.encode(build_entity(ROW, OBSERVATIONS, ROOT, form, **options))
    )
    return found


def test_minimal_tells_context_and_etag() -> None:
    assert one(Format(), version="7") == {
        "@odata.context": f"{ROOT}$metadata#msemr_observations/$entity",
        "@odata.etag": 'W/"7"',
        **PLAIN,
    }


def test_none_tells_nothing_but_values() -> None:
    assert one(Format("none"), version="7") == PLAIN


def test_full_tells_address_and_types() -> None:
    found = one(Format("full"), version="7")
    own_values = f"{ROOT}msemr_observations({KEY})"
    assert {name: value for name, value in found.items() if name not in PLAIN} == {
        "@odata.context": f"{ROOT}$metadata#msemr_observations/$entity",
        "@odata.type": "#FhirRelay.msemr_observation",
        "@odata.id": own_values,
        "@odata.etag": 'W/"7"',
        "@odata.editLink": own_values,
        "msemr_observationid@odata.type": "#Guid",
        "status@odata.type": "#Int32",
        "big@odata.type": "#Int64",
        "value@odata.type": "#Decimal",
        "issued@odata.type": "#DateTimeOffset",
        "_patient_value@odata.type": "#Guid",
    }
    names = list(found)
    assert names.index("status@odata.type") == names.index("status") - 1


def test_decimals_keep_their_digits_on_the_wire() -> None:
    sent = decimal_json.encode(build_entity(ROW, OBSERVATIONS, ROOT, Format()))
    assert b'"value":81.10,' in sent


def test_long_numbers_are_text_where_asked_for() -> None:
    found = one(Format(ieee754=True))
    assert (found["value"], found["big"], found["status"]) == (
        "81.10",
        "9007199254740993",
        935000001,
    )


def test_a_moment_is_written_in_utc_without_needless_digits() -> None:
    row = {**ROW, "issued": datetime(24, 1, 2, 3, tzinfo=UTC)}
    assert build_entity(row, OBSERVATIONS, ROOT, Format())["issued"] == "0024-01-02T03:00:00Z"


def test_a_selection_is_told_in_the_context() -> None:
    select = (OBSERVATIONS.by_name["msemr_observationid"], OBSERVATIONS.by_name["code"])
    assert one(Format(), select=select) == {
        "@odata.context": f"{ROOT}$metadata#msemr_observations(msemr_observationid,code)/$entity",
        "msemr_observationid": str(KEY),
        "code": "kg",
    }


def test_a_page_tells_count_rows_and_where_it_goes_on() -> None:
    link = f"{ROOT}msemr_observations?$skiptoken=x"
    rows = [(ROW, "7"), (ROW, None)]
    page = build_collection(rows, OBSERVATIONS, ROOT, Format(), count=9, next_link=link)
    item = {name: page["value"][1][name] for name in PLAIN}
    assert page == {
        "@odata.context": f"{ROOT}$metadata#msemr_observations",
        "@odata.count": 9,
        "value": [{"@odata.etag": 'W/"7"', **item}, item],
        "@odata.nextLink": link,
    }


def test_a_page_without_metadata_still_tells_count_and_next() -> None:
    page = build_collection([], OBSERVATIONS, ROOT, Format("none"), count=0, next_link="x")
    assert page == {"@odata.count": 0, "value": [], "@odata.nextLink": "x"}
    assert build_collection([], OBSERVATIONS, ROOT, Format("none")) == {"value": []}


def test_an_error_tells_code_message_and_target() -> None:
    assert build_error([Issue("invalid", "no such property", "code")]) == {
        "error": {"code": "invalid", "message": "no such property", "target": "code"}
    }
    several = build_error([Issue("invalid", "one"), Issue("required", "two", "b")])
    assert several["error"] == {
        "code": "invalid",
        "message": "one",
        "details": [{"code": "required", "message": "two", "target": "b"}],
    }


def test_an_address_is_absolute_or_relative() -> None:
    assert format_entity_url(OBSERVATIONS, KEY) == f"msemr_observations({KEY})"
    assert format_entity_url(OBSERVATIONS, KEY, ROOT) == f"{ROOT}msemr_observations({KEY})"


@given(ROWS)
def test_what_is_sent_reads_back_as_it_was(row: dict[str, Any]) -> None:
    for form in (Format(), Format("full"), Format(ieee754=True)):
        sent = build_entity(row, OBSERVATIONS, ROOT, form, version="1")
        json.loads(decimal_json.encode(sent))
        kept = {name: value for name, value in sent.items() if not name.startswith("allergy")}
        body = decimal_json.encode(kept)
        expected = {name: value for name, value in row.items() if name != "allergy"}
        assert parse_new_entity(body, OBSERVATIONS, numbers_as_text=form.ieee754) == expected
