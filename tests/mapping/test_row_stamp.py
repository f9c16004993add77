"""A stamp proves by which map, of which version, on which day and with which columns a row was made;
and the digest in it is that by which the map is found again."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from integration.mapping import files, load, row_stamp
from integration.mapping.explain import assume_columns
from integration.mapping.load import build_maps, compute_type_digest, load_shipped_maps

DAY = date(2026, 3, 2)
ENTITY = load_shipped_maps()["Patient"]
COLUMNS = assume_columns(ENTITY)["contact"]
ANNA: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "anna",
    "meta": {"versionId": "3", "lastUpdated": "2026-03-01T12:00:00.230Z"},
}


def read(text: str) -> row_stamp.RowStamp:
    found = row_stamp.parse_stamp(text)
    assert found is not None
    return found


STAMP = read(row_stamp.build_stamp(ENTITY, ANNA, COLUMNS, DAY))


def test_a_stamp_fits_what_it_was_made_of_however_the_server_writes_its_times() -> None:
    assert len(STAMP.text) == row_stamp.LENGTH
    assert (STAMP.map_digest, STAMP.day) == (ENTITY.digest, DAY)
    again = {**ANNA, "meta": {**ANNA["meta"], "lastUpdated": "2026-03-01T12:00:00+00:00"}}
    for resource in (ANNA, again):
        assert row_stamp.is_made_of(STAMP, ENTITY, resource, {**COLUMNS})


@pytest.mark.parametrize(
    "change",
    [
        {"id": "ben"},
        {"meta": {**ANNA["meta"], "versionId": "4"}},
        {"meta": {**ANNA["meta"], "lastUpdated": "2026-03-02T12:00:00Z"}},
    ],
    ids=["another patient", "another version", "a restored server"],
)
def test_a_stamp_does_not_fit_another_state(change: dict[str, Any]) -> None:
    assert not row_stamp.is_made_of(STAMP, ENTITY, {**ANNA, **change}, COLUMNS)


def test_a_stamp_does_not_fit_another_map_day_or_column() -> None:
    other = replace(ENTITY, digest="other")
    assert not row_stamp.is_made_of(STAMP, other, ANNA, COLUMNS)
    assert not row_stamp.is_made_of(replace(STAMP, day=date(2026, 3, 3)), ENTITY, ANNA, COLUMNS)
    longer = replace(COLUMNS["firstname"], max_length=7)
    assert not row_stamp.is_made_of(STAMP, ENTITY, ANNA, {**COLUMNS, "firstname": longer})


@pytest.mark.parametrize(
    "text", [None, "", "0f3a9c21b7de", "x 2026-13-01 5c1d0e9a77b3", STAMP.text + "0", 7]
)
def test_what_is_no_stamp_proves_nothing(text: object) -> None:
    assert row_stamp.parse_stamp(text) is None


@pytest.mark.parametrize(
    ("set_", "enabled"),
    [("healthcare", ()), ("healthcare", ("map_digest", "deceased")), ("plain", ("map_digest",))],
)
def test_the_digest_of_a_map_is_known_without_building_it(
    set_: str, enabled: tuple[str, ...]
) -> None:
    found = list(files.read_map_files(set_, "new", None, enabled))
    built = build_maps(found).entities["Patient"].digest
    assert compute_type_digest(found, "Patient") == built
    assert compute_type_digest(found, "Basic") == ""
    assert load.load_maps(set_, "new", None, enabled).entities["Patient"].digest == built
