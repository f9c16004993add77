"""The shipped maps and their cases: no column, and no code of a choice, that no case has shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.mapping import files, load
from integration.mapping.model import EntityMap, Route
from tests.mapping import casework

CASES = Path(__file__).parent / "cases"
PREFIX = "new"


def _load_maps(set_: str) -> Iterator[EntityMap]:
    """Every map of the set, with what other files add to it; those of clinical resources, which
    both sets have, are in test_clinical."""
    every = files.list_map_names(set_)
    found = load.load_maps(set_, PREFIX, None, every)
    assert found.broken == {}
    yield from (entity for entity in found.entities.values() if entity.routes == (Route.DATAVERSE,))


MAPS = [(set_, entity) for set_ in ("healthcare", "plain") for entity in _load_maps(set_)]
IDS = [f"{set_}: {entity.resource}" for set_, entity in MAPS]


def _collect_expected(set_: str, entity: EntityMap) -> dict[str, casework.Rows]:
    files = (json.loads(path.read_text("utf-8")) for path in sorted(CASES.glob("*.json")))
    its = [
        file
        for file in files
        if (file.get("set", "healthcare"), file["map"]) == (set_, entity.resource)
    ]
    return casework.collect_expected_rows(entity, its)


@pytest.mark.parametrize(("set_", "entity"), MAPS, ids=IDS)
def test_the_cases_fill_every_column_of_every_map(set_: str, entity: EntityMap) -> None:
    casework.check_columns(entity, _collect_expected(set_, entity))


@pytest.mark.parametrize(("set_", "entity"), MAPS, ids=IDS)
def test_the_cases_show_every_option_that_a_map_knows(set_: str, entity: EntityMap) -> None:
    casework.check_options(entity, _collect_expected(set_, entity))


def test_every_shipped_map_has_cases() -> None:
    for set_, entity in MAPS:
        assert _collect_expected(set_, entity)[entity.table], f"{set_}: {entity.resource}"
