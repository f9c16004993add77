"""An entity map says what its virtual table is."""

from __future__ import annotations

import pytest

from integration.core.errors import Misconfigured
from integration.mapping import load
from integration.mapping.model import EntityMap, Route
from integration.provision.model import (
    ManualTask,
    Requirements,
    Role,
    VirtualColumn,
    VirtualLookup,
)
from integration.provision.tables import ExistingTable, plan_virtual_columns
from integration.provision.virtual_tables import build_virtual_table, build_virtual_tables
from tests.mapping.least_rows import LEAST
from tests.provision.observation_map import OBSERVATION

KNOWN = load.load_shipped_maps()


@pytest.fixture
def observation() -> EntityMap:
    return load.parse_map(OBSERVATION, "observation.toml")


def columns(entity: EntityMap) -> dict[str, VirtualColumn]:
    table = build_virtual_table(entity, "abc", KNOWN)
    return {each.name: each for each in (table.name_column, *table.columns)}


def test_its_names_are_the_publishers_and_its_external_names_the_feeds(
    observation: EntityMap,
) -> None:
    table = build_virtual_table(observation, "abc", KNOWN)
    assert table.name == "abc_ve_observation"
    assert (table.entity_set, table.entity_type) == ("msemr_observations", "msemr_observation")
    assert (table.key, table.label) == ("msemr_observationid", "Observation")
    name = VirtualColumn(
        name="abc_description",
        external_name="msemr_description",
        label="Name",
        type="String",
        max_length=200,
    )
    assert table.name_column == name
    assert name not in table.columns


@pytest.mark.parametrize(
    ("column", "type_"),
    [
        ("abc_status", "Picklist"),
        ("abc_comment", "Memo"),
        ("abc_value", "Decimal"),
        ("abc_issued", "DateTime"),
        ("abc_day", "DateTime"),
        ("abc_azurefhirid", "String"),
        ("abc_azurefhirversion", "String"),
        ("abc_azurefhirlastupdatedon", "DateTime"),
    ],
)
def test_a_column_has_the_type_in_which_the_feed_shows_it(
    observation: EntityMap, column: str, type_: str
) -> None:
    assert columns(observation)[column].type == type_


def test_a_day_is_told_from_an_instant(observation: EntityMap) -> None:
    assert columns(observation)["abc_day"].is_date_only
    assert not columns(observation)["abc_issued"].is_date_only


def test_an_option_is_named_by_the_first_code_that_means_it(observation: EntityMap) -> None:
    assert columns(observation)["abc_status"].options == (
        (935000000, "Final"),
        (935000001, "Entered in error"),
        (935000002, "Amended"),
    )


def test_a_constant_is_no_column(observation: EntityMap) -> None:
    assert "abc_kind" not in columns(observation)


def test_a_lookup_leads_to_a_table_that_has_rows_and_one_that_does_not_is_tried(
    observation: EntityMap,
) -> None:
    table = build_virtual_table(observation, "abc", KNOWN)
    external = "_msemr_subjectpatient_value"
    assert table.lookups == (
        VirtualLookup("abc_subjectpatient", external, "Subjectpatient", "contact"),
    )
    assert [(lookup.name, lookup.target) for lookup in table.tried_lookups] == [
        ("abc_encounter", "abc_ve_encounter")
    ]


def test_the_patient_is_shown_in_columns_of_every_table_of_patients() -> None:
    for entity in KNOWN.values():
        if Route.VIRTUAL in entity.routes and entity.patient_lookup is not None:
            found = columns(entity)
            name, born = found["abc_patientfullname"], found["abc_patientbirthdate"]
            assert (name.external_name, name.type) == ("msemr_patientfullname", "String")
            assert (born.type, born.is_date_only) == ("DateTime", True)
            lookup = f"abc_{entity.patient_lookup.removeprefix('msemr_')}"
            # Dataverse makes a column of this name for each lookup.
            assert f"{lookup}name" not in found


@pytest.mark.parametrize("set_", ["healthcare", "plain"])
def test_dataverse_has_a_column_for_all_that_a_new_row_needs(set_: str) -> None:
    """Lookups that are only tried do not count: an organisation may refuse them."""
    maps = load.load_maps(set_, "abc").available
    for type_, least in LEAST.items():
        table = build_virtual_table(maps[type_], "abc", maps)
        columns = {column.external_name for column in (*table.columns, table.name_column)}
        lookups = {lookup.external_name for lookup in table.lookups}
        assert {name for name in least if f"_{name}_value" not in lookups} <= columns, type_


def test_only_maps_that_may_be_virtual_have_a_virtual_table(observation: EntityMap) -> None:
    used = [KNOWN["Patient"], observation]
    assert [each.name for each in build_virtual_tables(KNOWN, used, "abc")] == [
        "abc_ve_observation"
    ]


def test_a_choice_cannot_stand_for_a_row() -> None:
    text = OBSERVATION.replace('name_column = "msemr_description"', 'name_column = "msemr_status"')
    with pytest.raises(Misconfigured, match=r"observation\.toml: row\.name_column"):
        build_virtual_table(load.parse_map(text, "observation.toml"), "abc", KNOWN)


def test_options_without_an_external_value_are_for_a_person(observation: EntityMap) -> None:
    table = build_virtual_table(observation, "abc", KNOWN)
    (choice, *_) = [column for column in table.columns if column.type == "Picklist"]
    found = {
        column.name: {"AttributeType": column.type, "ExternalName": column.external_name}
        for column in table.columns
    }
    requirements = Requirements(
        prefix="abc",
        solution="s",
        custom_tables=(),
        virtual_tables=(table,),
        feed=None,
        role=Role("r", {}, ()),
    )
    for unnamed, tasks in ((frozenset[str](), 0), (frozenset({choice.name}), 1)):
        existing = ExistingTable(id="1", columns=found, unnamed_options=unnamed)
        items = list(plan_virtual_columns(requirements, {table.name: existing}))
        told = [item for item in items if isinstance(item, ManualTask)]
        assert len(told) == tasks
        assert all("external value" in item.description for item in told)
