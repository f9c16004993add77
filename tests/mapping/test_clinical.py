"""The maps of clinical resources and their cases: what the feed and the mirror show of them.

Cases are as in test_cases, in cases/clinical/*.json, on every column of either route.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from integration.core.errors import Rejected
from integration.core.model import Columns, Tables
from integration.fhir import validation
from integration.mapping import engine, load
from integration.mapping.model import AttributeMap, EntityMap, Kind, PartialDate, Route, SearchType
from integration.mapping.r4_elements import find_choice, find_choice_names
from integration.mapping.write_back import apply
from integration.mapping.write_back.inverse_paths import invert_path
from integration.virtual_tables.entity_type import build_entity_type
from local.processes import PROJECT
from tests.builders import TODAY
from tests.mapping import casework, r4, real
from tests.mapping.casework import Case
from tests.mapping.least_rows import LEAST

MAPS = PROJECT / "integration/mapping/maps/clinical"
CASES = Path(__file__).parent / "cases/clinical"

ENTITIES = {
    entity.resource: entity
    for path in sorted(MAPS.glob("*.toml"))
    for entity in [load.parse_map(path.read_text("utf-8"), path.name)]
}
FILES = [json.loads(path.read_text("utf-8")) for path in sorted(CASES.glob("*.json"))]
EACH = [(file, case) for file in FILES for case in file["tests"]]
IDS = [casework.format_title(file, case) for file, case in EACH]


def _format_ids(columns: Iterable[tuple[EntityMap, AttributeMap]]) -> list[str]:
    return [f"{entity.resource}.{attribute.column}" for entity, attribute in columns]


COLUMNS = [(entity, attribute) for entity in ENTITIES.values() for attribute in entity.attributes]
SEARCHED = [(entity, attribute) for entity, attribute in COLUMNS if attribute.virtual_column.search]
SORTED = [
    (entity, attribute)
    for entity, attribute in SEARCHED
    if attribute.virtual_column.search and attribute.virtual_column.search.sorts
]
# The types that FHIR searches by date: https://hl7.org/fhir/R4/search.html#date. Of a Timing
# Microsoft's server keeps no date: it stands where the resources without a date stand.
SORTED_TYPES = {"date", "dateTime", "instant", "Period"}

CHOICES = [(entity, attribute) for entity, attribute in COLUMNS if attribute.kind is Kind.CHOICE]

each_map = pytest.mark.parametrize("entity", ENTITIES.values(), ids=list(ENTITIES))


@cache
def build_tables(resource: str) -> Tables:
    """The columns that the feed has, and those that only the physical table has by the same rules."""
    entity = ENTITIES[resource]
    every = tuple(replace(attribute, route=None) for attribute in entity.attributes)
    return {entity.table: build_entity_type(replace(entity, attributes=every)).columns}


# -- cases -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "case"), EACH, ids=IDS)
def test_a_clinical_resource_becomes_its_row(file: Case, case: Case) -> None:
    casework.check_rows(file, case, ENTITIES[file["map"]], build_tables(file["map"]))


def test_every_clinical_case_has_a_title_of_its_own_and_only_words_that_are_known() -> None:
    casework.check_keys(FILES)


@each_map
def test_the_cases_fill_every_column_of_every_clinical_map(entity: EntityMap) -> None:
    casework.check_columns(entity, _collect_expected(entity))


@each_map
def test_the_cases_show_every_option_that_a_clinical_map_knows(entity: EntityMap) -> None:
    casework.check_options(entity, _collect_expected(entity))


def _collect_expected(entity: EntityMap) -> dict[str, casework.Rows]:
    return casework.collect_expected_rows(
        entity, [file for file in FILES if file["map"] == entity.resource]
    )


# -- what a map may say ----------------------------------------------------------------------------


@each_map
def test_every_clinical_table_has_names_of_its_own(
    entity: EntityMap,
) -> None:
    assert entity.routes[0] is Route.VIRTUAL
    assert entity.enabled
    others = [other for other in ENTITIES.values() if other is not entity]
    for names in ({entity.table}, {entity.entity_set}, {entity.key}):
        assert all({other.table, other.entity_set, other.key}.isdisjoint(names) for other in others)


@each_map
def test_every_lookup_of_a_virtual_table_says_where_it_leads(entity: EntityMap) -> None:
    lookups = [
        attribute
        for attribute in entity.select_route(Route.VIRTUAL).attributes
        if attribute.kind is Kind.LOOKUP
    ]
    known = {*ENTITIES, "Patient", "Practitioner", "Organization"}
    assert [
        attribute.column for attribute in lookups if attribute.virtual_column.target not in known
    ] == []


@each_map
def test_every_column_that_may_be_written_leads_to_one_element(entity: EntityMap) -> None:
    writable = [attribute for attribute in entity.attributes if attribute.virtual_column.writable]
    assert writable
    assert {
        attribute.column: apply.explain_unwritable(entity, attribute) for attribute in writable
    } == dict.fromkeys(attribute.column for attribute in writable)


@pytest.mark.parametrize(("entity", "attribute"), CHOICES, ids=_format_ids(CHOICES))
def test_every_code_that_fhir_allows_has_an_option(
    entity: EntityMap, attribute: AttributeMap
) -> None:
    """Of elements that may have no other codes; the systems of the others are as long as they are."""
    chain = (entity.resource, *_list_elements(attribute.path or "", entity))
    bound = [
        chain[:end] for end in range(len(chain) + 1) if chain[:end] in r4.load_required_codes()
    ]
    for element in bound:
        assert attribute.choices.keys() == r4.load_required_codes()[element]


def test_most_choices_are_of_elements_that_may_have_no_other_codes() -> None:
    chains = [
        (entity.resource, *_list_elements(attribute.path or "", entity))
        for entity, attribute in CHOICES
    ]
    assert sum(chain in r4.load_required_codes() for chain in chains) > len(chains) / 2


@each_map
def test_a_new_resource_is_valid_with_what_the_map_says_and_the_least_that_a_user_can(
    entity: EntityMap,
) -> None:
    changes = LEAST[entity.resource]
    columns = build_entity_type(entity).columns
    new = apply.create_resource(entity, "1", changes, columns, today=TODAY)
    assert [*validation.find_issues(new, entity.resource)] == []
    shown = engine.map_resource(
        entity.select_route(Route.VIRTUAL), new, {entity.table: columns}, today=TODAY
    ).values
    assert {name: _convert_to_feed(shown[name]) for name in changes} == changes
    for name in changes:
        lacking = {other: value for other, value in changes.items() if other != name}
        assert not _is_valid(entity, lacking, columns), name


def _is_valid(entity: EntityMap, changes: apply.Changes, columns: Columns) -> bool:
    try:
        new = apply.create_resource(entity, "1", changes, columns, today=TODAY)
    except Rejected:
        return False
    return not [*validation.find_issues(new, entity.resource)]


def _convert_to_feed(value: object) -> object:
    """As the feed has it."""
    is_day = isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value)
    return datetime.fromisoformat(str(value)).replace(tzinfo=UTC) if is_day else value


# -- searches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("entity", "attribute"), SEARCHED, ids=_format_ids(SEARCHED))
def test_a_search_is_one_of_r4_that_covers_the_element_of_the_column(
    entity: EntityMap, attribute: AttributeMap
) -> None:
    search = attribute.virtual_column.search
    assert search is not None
    type_, covered = r4.load_search_parameters()[entity.resource, search.name]
    if search.type is SearchType.TEXT:
        assert type_ == SearchType.TOKEN
        _check_text_search(attribute)
    else:
        assert search.type == type_
    chains = [_list_elements(path, entity) for path in _split_alternatives(attribute.path or "")]
    for chain in chains:
        assert any(chain[: len(part)] == part for part in covered), chain
    if search.exact:
        # Nothing else is found by it: the element itself, and there is but one.
        assert chains[0] in covered
        assert "first()" not in (attribute.path or "")
        assert attribute.kind in (Kind.CHOICE, Kind.LOOKUP)


def _check_text_search(attribute: AttributeMap) -> None:
    """FHIR's :text knows texts and displays, and no codes."""
    text, *others = _split_alternatives(attribute.path or "")
    assert text.endswith(".text")
    concept = text.removesuffix(".text")
    assert others in ([], [f"{concept}.coding.display"])


@pytest.mark.parametrize(("entity", "attribute"), SORTED, ids=_format_ids(SORTED))
def test_a_column_that_fhir_sorts_by_shows_all_that_fhir_sorts(
    entity: EntityMap, attribute: AttributeMap
) -> None:
    """FHIR sorts a date without a day by its first one, a period by its start, and an element of
    several types by whichever it has. What the column did not show would stand between its rows."""
    paths = _split_alternatives(attribute.path or "")
    every = [invert_path(path, entity.resource) for path in paths]
    shown = [steps for steps in every if steps is not None]
    assert len(shown) == len(paths)
    assert all(path.endswith(".start") for path in paths if "period" in path.lower())
    if {steps[-1].type for steps in shown} != {"instant"}:
        assert attribute.partial is PartialDate.FIRST
    chosen = {find_choice(entity.resource, steps[0].name) for steps in shown} - {None}
    for element in {choice[0] for choice in chosen if choice}:
        sorted_types = find_choice_names(entity.resource, element).keys() & SORTED_TYPES
        assert sorted_types <= {type_ for name, type_ in filter(None, chosen) if name == element}


@each_map
def test_lists_are_sorted_by_a_date_of_the_table(entity: EntityMap) -> None:
    if entity.newest_by is not None:
        type_, _ = r4.load_search_parameters()[entity.resource, entity.newest_by]
        assert type_ == "date"
    is_sorted = any(name is entity for name, _ in SORTED)
    assert is_sorted == (entity.newest_by is not None)


def _split_alternatives(path: str) -> list[str]:
    """(a | b).first() is about a and b."""
    united = re.fullmatch(r"\((.*)\)\.first\(\)", path)
    return united[1].split(" | ") if united else [path]


def _list_elements(path: str, entity: EntityMap) -> tuple[str, ...]:
    for name, variable in entity.variables.items():
        path = path.replace(f"%{name}", variable)
    return r4.strip_functions(path)


# -- real resources --------------------------------------------------------------------------------


@each_map
def test_every_real_clinical_resource_becomes_a_row(entity: EntityMap) -> None:
    """Those of the folder that BUNDLES_DIR names. A path that fails would leave its column empty."""
    named: set[str] = set()
    # With no more than its type and the id that it was given here, it is no resource.
    found = [resource for resource in real.load_resources([entity.resource]) if len(resource) > 2]
    for resource in found:
        mapped = engine.map_resource(entity, resource, build_tables(entity.resource), today=TODAY)
        assert [note for note in mapped.notes if "the path could not be evaluated" in note] == []
        named |= casework.drop_empty(mapped.values).keys()
    assert not found or entity.name_column in named
