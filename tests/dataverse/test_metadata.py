"""What a table's columns take, from the answers of EntityDefinitions."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import pytest

from integration.core import decimal_json
from integration.core.model import Column
from integration.dataverse.metadata import parse_columns
from integration.dataverse.requests import CASTS, build_columns_query
from tests.doubles import DataverseDouble


def attribute(name: str, type_: str | None, **details: Any) -> dict[str, Any]:
    return {"LogicalName": name, "AttributeType": type_, **details}


def options(*values: int) -> dict[str, Any]:
    return {"Options": [{"Value": value, "Label": {}} for value in values]}


GENERAL = {
    "value": [
        attribute("contactid", "Uniqueidentifier"),
        attribute("lastname", "String"),
        attribute("description", "Memo"),
        attribute("gendercode", "Picklist"),
        attribute("statecode", "State"),
    ]
}


def test_a_column_that_only_the_general_answer_names_has_no_limits() -> None:
    assert parse_columns([GENERAL])["contactid"] == Column("contactid", "Uniqueidentifier")


def test_a_later_answer_adds_what_limits_a_column() -> None:
    found = parse_columns(
        [
            GENERAL,
            {"value": [attribute("lastname", "String", MaxLength=50)]},
            {"value": [attribute("description", "Memo", MaxLength=2000)]},
            {"value": [attribute("gendercode", "Picklist", OptionSet=options(1, 2))]},
            {"value": [attribute("statecode", "State", OptionSet=options(0, 1))]},
        ]
    )
    assert found["lastname"] == Column("lastname", "String", max_length=50)
    assert found["description"] == Column("description", "Memo", max_length=2000)
    assert found["gendercode"] == Column("gendercode", "Picklist", options=frozenset({1, 2}))
    assert found["statecode"] == Column("statecode", "State", options=frozenset({0, 1}))
    assert len(found) == 5


def test_a_type_that_a_later_answer_leaves_out_is_kept() -> None:
    found = parse_columns([GENERAL, {"value": [{"LogicalName": "lastname", "MaxLength": 50}]}])
    assert found["lastname"] == Column("lastname", "String", max_length=50)


def test_options_that_are_missing_or_empty_limit_nothing() -> None:
    for option_set in (None, {}, options()):
        found = parse_columns(
            [{"value": [attribute("gendercode", "Picklist", OptionSet=option_set)]}]
        )
        assert found["gendercode"].options is None


def test_a_global_choice_is_one_too() -> None:
    shared = attribute("use", "Picklist", OptionSet=None, GlobalOptionSet=options(7, 8))
    assert parse_columns([{"value": [shared]}])["use"].options == frozenset({7, 8})


def test_days_and_moments_say_how_they_are_kept() -> None:
    day = attribute("born", "DateTime", Format="DateOnly", DateTimeBehavior={"Value": "UserLocal"})
    found = parse_columns([{"value": [day]}])["born"]
    assert (found.format, found.behavior) == ("DateOnly", "UserLocal")


def test_a_text_has_its_format() -> None:
    columns = parse_columns([{"value": [attribute("mail", "String", Format="Email")]}])
    assert columns["mail"].format == "Email"


def test_numbers_have_their_range() -> None:
    ranged = attribute("x", "Decimal", MinValue=Decimal("-0.5"), MaxValue=9, Precision=2)
    found = parse_columns([{"value": [ranged]}])["x"]
    assert (found.minimum, found.maximum, found.precision) == (Decimal("-0.5"), 9, 2)


@pytest.mark.parametrize(
    ("level", "required"),
    [
        ("None", False),
        ("Recommended", False),
        ("ApplicationRequired", True),
        ("SystemRequired", True),
    ],
)
def test_a_column_says_whether_it_must_be_filled(level: str, required: bool) -> None:
    given = attribute("x", "String", RequiredLevel={"Value": level})
    assert parse_columns([{"value": [given]}])["x"].required is required


def test_a_column_says_when_it_can_be_written() -> None:
    given = attribute("x", "String", IsValidForCreate=True, IsValidForUpdate=False)
    found = parse_columns([{"value": [given]}, {"value": [attribute("x", "String", MaxLength=9)]}])[
        "x"
    ]
    assert (found.writable_on_create, found.writable_on_update) == (True, False)


def test_a_lookup_knows_the_navigation_property_to_each_table() -> None:
    general = {"value": [attribute("parentcustomerid", "Customer"), attribute("x", "String")]}
    ways = {"value": [to("account"), to("contact"), {**to("x"), "ReferencingAttribute": "hidden"}]}
    assert parse_columns([general, ways])["parentcustomerid"].targets == {
        "account": "parentcustomerid_account",
        "contact": "parentcustomerid_contact",
    }


def to(table: str) -> dict[str, Any]:
    return {
        "ReferencingAttribute": "parentcustomerid",
        "ReferencedEntity": table,
        "ReferencingEntityNavigationPropertyName": f"parentcustomerid_{table}",
    }


async def test_the_stand_in_tells_all_of_it(dataverse: DataverseDouble) -> None:
    async with httpx.AsyncClient(transport=dataverse, base_url="http://dataverse") as http:
        found = {}
        for table in ("contact", "msemr_medicalidentifier"):
            answers = [
                await http.get(f"/{build_columns_query(table, cast).path}") for cast in CASTS
            ]
            assert [answer.status_code for answer in answers] == [200] * len(CASTS)
            found |= parse_columns(decimal_json.decode(answer.content) for answer in answers)
    assert found["birthdate"].behavior == "DateOnly"
    assert found["msemr_name1startdate"].behavior == "UserLocal"
    assert found["lastname"].required
    assert found["lastname"].max_length == 50
    assert found["msemr_generalpractioner"].targets == {"contact": "msemr_GeneralPractioner"}
    assert {0, 1} == found["statecode"].options
    assert found["msemr_multiplebirth"].minimum is not None
    assert not found["fullname"].writable_on_create
    assert "contact" in found["msemr_assignee"].targets
    assert found["msemr_use"].options


def test_no_answers_are_no_columns() -> None:
    assert parse_columns([]) == {}
