"""What a table's columns take, from the answers of EntityDefinitions."""

from __future__ import annotations

from typing import Any

from integration.dataverse.metadata import columns
from integration.model import Column


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
    assert columns([GENERAL])["contactid"] == Column("contactid", "Uniqueidentifier")


def test_a_later_answer_adds_what_limits_a_column() -> None:
    found = columns(
        [
            GENERAL,
            {"value": [attribute("lastname", "String", MaxLength=50)]},
            {"value": [attribute("description", "Memo", MaxLength=2000)]},
            {"value": [attribute("gendercode", "Picklist", OptionSet=options(1, 2))]},
            {"value": [attribute("statecode", "State", OptionSet=options(0, 1))]},
        ]
    )
    assert found["lastname"] == Column("lastname", "String", 50)
    assert found["description"] == Column("description", "Memo", 2000)
    assert found["gendercode"] == Column("gendercode", "Picklist", options=frozenset({1, 2}))
    assert found["statecode"] == Column("statecode", "State", options=frozenset({0, 1}))
    assert len(found) == 5


def test_a_type_that_a_later_answer_leaves_out_is_kept() -> None:
    found = columns([GENERAL, {"value": [{"LogicalName": "lastname", "MaxLength": 50}]}])
    assert found["lastname"] == Column("lastname", "String", 50)


def test_options_that_are_missing_or_empty_limit_nothing() -> None:
    for option_set in (None, {}, options()):
        found = columns([{"value": [attribute("gendercode", "Picklist", OptionSet=option_set)]}])
        assert found["gendercode"].options is None


def test_no_answers_are_no_columns() -> None:
    assert columns([]) == {}
