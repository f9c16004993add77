"""The stand-in's tables are those that the public sources describe, column by column."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from local.dataverse import tables
from local.dataverse.tables import Column, Table

CATALOG = tables.load()

# In the sources without a schema name, and the table it points at is not in this catalogue.
LEFT_OUT = {("account", "msemr_payororganization")}
# Every table has it, though the sources of the child tables leave it out.
ADDED = {"versionnumber"}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The column facts, merged from public sources: see its own `about`."""
    named = os.environ.get("DATAVERSE_SCHEMA")
    if not named:
        pytest.skip("DATAVERSE_SCHEMA names no file of column facts")
    read: dict[str, Any] = json.loads(Path(named).read_text("utf-8"))
    return read


def stated(schema: dict[str, Any], fact: dict[str, Any]) -> dict[str, Any]:
    """What a source states of a column; what it is silent about is not here."""
    options = fact.get("options") or schema["optionSets"].get(fact.get("optionSet"))
    bind = fact.get("bind")
    whole = {
        "type": fact.get("type"),
        "schema_name": fact.get("schemaName"),
        "required": fact.get("required"),
        "max_length": fact.get("maxLength") if fact["type"] != "Image" else None,
        "minimum": float(fact["min"]) if "min" in fact else None,
        "maximum": float(fact["max"]) if "max" in fact else None,
        "precision": fact.get("accuracy"),
        "format": fact.get("format") if fact["type"] != "Image" else None,
        "behavior": fact.get("behavior"),
        "options": [option["value"] for option in options] if options else None,
        "global_choice": fact.get("optionSet"),
        "targets": tuple(fact["targets"]) if "targets" in fact else None,
        "navigation": bind if isinstance(bind, dict) else navigation(fact, bind),
        "read_only": fact.get("readOnly"),
        "cascade_delete": fact.get("cascadeDelete"),
    }
    return {name: value for name, value in whole.items() if value is not None}


def navigation(fact: dict[str, Any], bind: str | None) -> dict[str, str] | None:
    return {target: bind for target in fact["targets"]} if bind else None


def offered(column: Column, name: str) -> Any:
    value = getattr(column, name)
    if name == "options":
        return [option.value for option in value]
    return dict(value) if name == "navigation" else value


@pytest.mark.parametrize("table", CATALOG.by_name.values(), ids=lambda table: table.name)
def test_a_table_has_the_columns_that_the_sources_describe(
    table: Table, schema: dict[str, Any]
) -> None:
    facts = schema["tables"][table.name]
    described = {name for name in facts["columns"] if (table.name, name) not in LEFT_OUT}
    assert table.columns.keys() - ADDED == described - ADDED
    assert (table.entity_set, table.primary_id, table.primary_name) == (
        facts["entitySet"],
        facts["primaryId"],
        facts["primaryName"],
    )
    assert (table.ownership, table.change_tracking) == (facts["ownership"], facts["changeTracking"])


@pytest.mark.parametrize("table", CATALOG.by_name.values(), ids=lambda table: table.name)
def test_every_column_is_what_the_sources_say_it_is(table: Table, schema: dict[str, Any]) -> None:
    different = {}
    for name, fact in schema["tables"][table.name]["columns"].items():
        if (table.name, name) in LEFT_OUT:
            continue
        column, expected = table.columns[name], stated(schema, fact)
        wrong = {
            part: (offered(column, part), value)
            for part, value in expected.items()
            if offered(column, part) != value
        }
        if wrong:
            different[name] = wrong
    assert different == {}


def test_the_tables_that_patients_their_people_and_their_care_need_are_there() -> None:
    assert set(CATALOG.by_name) == {
        "account",
        "contact",
        "msemr_allergyintolerance",
        "msemr_codeableconcept",
        "msemr_condition",
        "msemr_contactlink",
        "msemr_encounter",
        "msemr_medicalidentifier",
        "msemr_medicationrequest",
        "msemr_observation",
        "msemr_relatedperson",
    }


def test_lookups_lead_to_tables_by_navigation_properties() -> None:
    """Lookups of the tables above, at least, can be bound to rows that can exist here."""
    for table in CATALOG.by_name.values():
        for column, target in table.navigations.values():
            assert target in column.targets


def test_an_organizations_own_columns_join_the_tables_under_its_prefix() -> None:
    catalog = tables.load(tables.read_additions(prefix="abc"))
    contact = catalog.by_name["contact"]
    assert contact.columns["abc_fhirid"].max_length == 64
    assert contact.navigations["abc_Patient"][1] == "contact"
    assert ("abc_fhirid", "abc_fhirtype") in [key.columns for key in contact.keys]
    assert "abc_fhirid" not in CATALOG.by_name["contact"].columns


def test_columns_of_a_table_that_is_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="no table contacts"):
        tables.load({"contacts": {"columns": {}}})
