"""Which columns of the physical table show a property, and what Dataverse is asked by them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from integration.core.model import Column, Columns
from integration.mapping.load import load_shipped_maps
from integration.mapping.model import EntityMap
from integration.odata.expressions import And, Compare, Constant, Expression, Field, In, Not, Or
from integration.odata.query import Query
from integration.virtual_tables.entity_type import build_entity_type
from integration.virtual_tables.physical.filter import build_filter
from integration.virtual_tables.physical.query import plan_rows
from integration.virtual_tables.physical.rows import parse_row
from integration.virtual_tables.physical.table import (
    PhysicalTable,
    build_physical_table,
    list_related_tables,
)
from integration.virtual_tables.physical.write import convert_values

MAPS = load_shipped_maps()
PATIENT = UUID("00000000-0000-4000-8000-000000000001")


def lookup(name: str, *targets: str) -> Column:
    return Column(name, "Lookup", targets={target: f"{name}_{target}" for target in targets})


def build(resource: str, *columns: Column, related: dict[str, Columns] | None = None) -> Any:
    entity: EntityMap = MAPS[resource]
    fixed = [
        Column(entity.key, "Uniqueidentifier"),
        Column(entity.id_column, "String"),
        Column(entity.version_column, "String"),
        Column(entity.updated_column, "DateTime"),
    ]
    found = {column.name: column for column in (*fixed, *columns)}
    return build_physical_table(build_entity_type(entity), entity, found, related or {}, MAPS)


def is_equal(table: PhysicalTable, name: str, value: Any) -> Compare:
    return Compare("eq", Field(table.type.by_name[name]), Constant(value))


# -- lookups ---------------------------------------------------------------------------------------


def test_a_lookup_is_shown_by_the_column_for_its_type_alone() -> None:
    """The provider of a claim is a person or an organisation: each has a column."""
    table = build(
        "Claim",
        lookup("msemr_providerpractitioner", "contact"),
        lookup("msemr_organization", "account"),
    )
    shown = {
        name: [column.column.name for column in table.columns[name]]
        for name in ("_msemr_providerpractitioner_value", "_msemr_organization_value")
    }
    assert shown == {
        "_msemr_providerpractitioner_value": ["msemr_providerpractitioner"],
        "_msemr_organization_value": ["msemr_organization"],
    }


ENCOUNTER = (
    lookup("msemr_subjectpatient", "contact"),
    lookup("msemr_encounterpatientidentifier", "contact"),
)


def test_columns_that_hold_the_same_are_one_to_a_filter_and_written_together() -> None:
    table = build("Encounter", *ENCOUNTER)
    name = "_msemr_subjectpatient_value"
    found = build_filter(is_equal(table, name, PATIENT), table)
    assert found.text == f"_msemr_subjectpatient_value eq {PATIENT}"
    assert found.is_exact
    assert convert_values(table, {name: PATIENT}) == {
        "msemr_subjectpatient_contact@odata.bind": f"/contacts({PATIENT})",
        "msemr_encounterpatientidentifier_contact@odata.bind": f"/contacts({PATIENT})",
    }


def test_where_the_map_has_a_column_that_the_table_lacks_its_copy_shows_the_property() -> None:
    table = build("Encounter", ENCOUNTER[1])
    row = {"_msemr_encounterpatientidentifier_value": str(PATIENT)}
    assert parse_row(row, table)["_msemr_subjectpatient_value"] == PATIENT


# -- columns of other rows -------------------------------------------------------------------------


@pytest.mark.parametrize("secured", [True, False])
def test_a_secured_column_shows_nothing_wherever_it_is(*, secured: bool) -> None:
    contact = {"fullname": Column("fullname", "String", secured=secured)}
    table = build("Encounter", *ENCOUNTER, related={"contact": contact})
    names = [name for name, columns in table.columns.items() if any(c.lookup for c in columns)]
    assert bool(names) is not secured
    assert list_related_tables({column.name: column for column in ENCOUNTER}) == ["contact"]


# -- order -----------------------------------------------------------------------------------------


def test_a_list_is_sorted_by_each_column_of_its_date() -> None:
    """An observation is made at a moment or in a period: the table has a column for each."""
    table = build(
        "Observation",
        Column("msemr_effectivetypedatetime", "DateTime"),
        Column("msemr_effectivestart", "DateTime"),
    )
    path = plan_rows(Query(), table).path
    names = [column.name for column in table.newest]
    assert len(names) == 2, names
    ordered = ",".join([*(f"{name} desc" for name in names), "msemr_observationid asc"])
    assert f"$orderby={ordered}".replace(" ", "%20") in path


# -- filters ---------------------------------------------------------------------------------------


def build_conditions(table: PhysicalTable) -> dict[str, Expression]:
    field = Field(table.type.by_name["_msemr_subjectpatient_value"])
    some = In(field, tuple(UUID(int=number) for number in range(1, 300)))
    others = In(field, tuple(UUID(int=number) for number in range(300, 600)))
    return {
        "none of no values": In(field, ()),
        "not none of no values": Not(In(field, ())),
        "any of nothing": Or(()),
        "not all of nothing": Not(And(())),
        "one of too many": Or((some, others)),
        "none of too many": Not(Or((some, others))),
    }


@pytest.mark.parametrize("name", build_conditions(build("Encounter", *ENCOUNTER)))
def test_what_dataverse_cannot_be_asked_is_looked_at_here(name: str) -> None:
    table = build("Encounter", *ENCOUNTER)
    found = build_filter(build_conditions(table)[name], table)
    assert (found.text, found.is_exact) in [(None, False), (None, True)], found
    if name in ("none of no values", "any of nothing", "not all of nothing"):
        assert not found.is_exact, "no row satisfies it"


# -- days ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "midnight",
    [
        "2026-03-04T10:00:00Z",  # in Honolulu
        "2026-03-04T00:00:00Z",
        "2026-03-03T11:00:00Z",  # in Auckland, in summer
        "2026-03-04T10:30:00Z",  # as the mirror writes it
    ],
)
def test_a_day_is_the_same_wherever_somebody_has_entered_it(midnight: str) -> None:
    day = Column("msemr_effectivetypedatetime", "DateTime", behavior="UserLocal")
    table = build("Observation", day)
    (shown,) = table.columns["msemr_effectivetypedatetime"]
    dated = replace(table, columns={**table.columns, shown.name: (replace(shown, is_day=True),)})
    value = parse_row({shown.name: midnight}, dated)[shown.name]
    assert str(value) == "2026-03-04 00:00:00+00:00"
