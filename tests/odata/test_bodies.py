"""What clients write: types, bounds, columns that cannot be written, control information."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Rejected
from integration.odata.bodies import parse_changes, parse_new_entity
from integration.odata.model import EntityType, Property, Type
from tests.odata.sets import KEY, MARKER, OBSERVATIONS, OTHER, refusal


def read(body: str | dict[str, Any], *, as_text: bool = False) -> dict[str, Any]:
    text = body if isinstance(body, str) else json.dumps(body)
    return parse_changes(text.encode(), OBSERVATIONS, numbers_as_text=as_text).values


def refused(body: str | dict[str, Any], **options: Any) -> tuple[int, str, str | None]:
    rejected = refusal(lambda: read(body, **options))
    return rejected.status, rejected.issues[0].text, rejected.issues[0].expression


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("description", '"Grüße 🎈"', "Grüße 🎈"),
        ("description", '""', ""),
        ("description", "null", None),
        ("status", "-2147483648", -(2**31)),
        ("big", "9223372036854775807", 2**63 - 1),
        ("value", "1.10", Decimal("1.10")),
        ("value", "5", Decimal(5)),
        ("value", "-1234567.123", Decimal("-1234567.123")),
        ("ratio", "0.1000000000000000055511151231257827", Decimal("0.1000000000000000055511151231257827")),
        ("final", "false", False),
        ("issued", '"2024-02-29T12:00:00+02:00"', datetime(2024, 2, 29, 10, tzinfo=UTC)),
        ("issued", '"2024-02-29T12:00:00.1234567Z"', datetime.fromisoformat("2024-02-29T12:00:00.123456+00:00")),
        ("_patient_value", f'"{str(OTHER).upper()}"', OTHER),
    ],
)  # fmt: skip
def test_a_value_of_the_right_type_is_taken_exactly(name: str, text: str, value: Any) -> None:
    found = read(f'{{"{name}": {text}}}')
    assert found == {name: value}
    assert str(found[name]) == str(value)
    assert type(found[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("description", "1"),
        ("description", "true"),
        ("description", '["x"]'),
        ("description", '{"x": 1}'),
        ("description", f'"{"x" * 21}"'),
        ("status", "null"),
        ("status", '"1"'),
        ("status", "true"),
        ("status", "1.0"),
        ("status", "1.5"),
        ("status", "2147483648"),
        ("status", "1e2"),
        ("big", "9223372036854775808"),
        ("big", "1" + "0" * 400),
        ("big", '"1"'),
        ("value", '"1.1"'),
        ("value", "true"),
        ("value", "1.1234"),
        ("value", "12345678.123"),
        ("value", "1e10"),
        ("value", "1e9999"),
        ("final", "1"),
        ("final", '"true"'),
        ("issued", '"2024-02-29"'),
        ("issued", '"2024-02-29T12:00:00"'),
        ("issued", '"2023-02-29T12:00:00Z"'),
        ("issued", "1700000000"),
        ("_patient_value", '"x"'),
        ("_patient_value", f'"{{{OTHER}}}"'),
        ("_patient_value", f'"{OTHER.hex}"'),
        ("_patient_value", "1"),
    ],
)
def test_a_value_of_another_type_or_beyond_its_bounds_is_refused(name: str, text: str) -> None:
    status, _, target = refused(f'{{"{name}": {text}}}')
    assert (status, target) == (400, name)


def test_long_numbers_are_text_only_where_the_content_type_says_so() -> None:
    body = {"big": "9007199254740993", "value": "1.10"}
    assert read(body, as_text=True) == {"big": 2**53 + 1, "value": Decimal("1.10")}
    assert read({"big": 1, "value": 1}, as_text=True) == {"big": 1, "value": Decimal(1)}
    for wrong in ({"status": "1"}, {"big": "1.5"}, {"value": "NaN"}, {"value": "x"}, {"big": ""}):
        assert refused(wrong, as_text=True)[0] == 400


def test_an_unknown_property_is_refused_by_its_name() -> None:
    assert refused({"weight": 1}) == (400, "msemr_observations has no property weight", "weight")
    assert refused({"Code": "x"})[2] == "Code"
    assert refused({"a b": 1})[2] is None


def test_a_column_that_cannot_be_written_is_compared_by_whoever_changes_the_row() -> None:
    changes = parse_changes(b'{"allergy": "x", "code": "y"}', OBSERVATIONS)
    assert (changes.values, changes.read_only) == ({"code": "y"}, {"allergy": "x"})
    assert refused({"allergy": 1})[2] == "allergy"


def test_a_new_entity_has_no_value_for_a_column_that_cannot_be_written() -> None:
    refused_ = refusal(lambda: parse_new_entity(b'{"allergy": "x"}', OBSERVATIONS))
    assert str(refused_) == "allergy cannot be written"
    assert parse_new_entity(b'{"allergy": null, "code": "x"}', OBSERVATIONS) == {"code": "x"}


def test_an_all_zero_key_is_no_key() -> None:
    body = json.dumps({"msemr_observationid": str(UUID(int=0)), "code": "x"}).encode()
    assert parse_new_entity(body, OBSERVATIONS) == {"code": "x"}


def test_a_key_may_be_chosen_for_what_is_created_and_is_ignored_in_a_change() -> None:
    body = json.dumps({"msemr_observationid": str(KEY), "code": "x"}).encode()
    assert parse_new_entity(body, OBSERVATIONS) == {"msemr_observationid": KEY, "code": "x"}
    assert parse_changes(body, OBSERVATIONS).values == {"code": "x"}
    assert refused({"msemr_observationid": "x"})[2] == "msemr_observationid"
    assert refused({"msemr_observationid": None})[2] == "msemr_observationid"


def test_control_information_and_annotations_are_ignored() -> None:
    assert read(
        {
            "@odata.context": "x",
            "@odata.type": "#Other",
            "@odata.etag": 'W/"1"',
            "@odata.id": 1,
            "code@odata.type": "#String",
            "code": "x",
            "code@My.Term": {"deep": [1]},
            "patient@odata.associationLink": "x",
        }
    ) == {"code": "x"}


@pytest.mark.parametrize(
    "name", ["patient@odata.bind", "patient@bind", "@odata.removed", "@removed"]
)
def test_control_information_that_orders_something_is_refused(name: str) -> None:
    assert refused({name: MARKER, "code": "x"})[0] == 501


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "1", "null", '"x"', '{"code": "x"', '{"code": NaN}', "{'code': 1}"]
)
def test_what_is_no_json_object_is_refused(body: str) -> None:
    assert refused(body)[0] == 400


def test_bytes_that_are_no_text_are_refused() -> None:
    for body in (b'{"code": "\xff"}', b"\xef\xbb\xbf{", b'{"code": "\\ud800"}'):
        assert refusal(lambda body=body: parse_changes(body, OBSERVATIONS)).status == 400


def test_deep_bodies_are_refused() -> None:
    deep = '{"code@x":' + "[" * 50 + "]" * 50 + "}"
    assert "nested more than" in refused(deep)[1]
    assert refused('{"code":' + "[" * 100_000)[0] == 400


def test_no_value_is_ever_repeated() -> None:
    for item in OBSERVATIONS.properties:
        refusal(lambda name=item.name: read({name: [MARKER]}))
    refusal(lambda: read({"description": MARKER * 3}))
    refusal(lambda: read('{"code": "' + MARKER))


NUMBERS = st.decimals(allow_nan=False, allow_infinity=False).filter(
    lambda n: abs(n.adjusted()) < 50
)


@given(NUMBERS, st.integers(1, 20), st.integers(0, 10))
def test_a_decimal_is_taken_whole_or_refused(number: Decimal, precision: int, scale: int) -> None:
    entity = EntityType(
        "t",
        "ts",
        "id",
        (
            Property("id", Type.GUID, nullable=False),
            Property("n", Type.DECIMAL, precision=precision, scale=scale, writable=True),
        ),
    )
    written = f"{number:f}"
    digits = len(written.strip("-").replace(".", "").lstrip("0"))
    places = len(written.partition(".")[2])
    fits = digits <= precision and places <= scale
    try:
        found = parse_new_entity(f'{{"n": {written}}}'.encode(), entity)
    except Rejected:
        assert not fits
    else:
        assert fits
        assert str(found["n"]) == str(Decimal(written))
