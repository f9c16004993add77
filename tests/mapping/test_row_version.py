"""Which state of a resource is newer than the one that a row shows."""

from __future__ import annotations

from typing import Any

import pytest

from integration.core.model import Column
from integration.core.state_version import StateVersion
from integration.mapping.load import parse_map
from integration.mapping.row_version import build_deletion_mark, is_newer

MAP = parse_map(
    """
resource = "Patient"
[row]
table = "contact"
entity_set = "contacts"
key = "contactid"
id_column = "fhirid"
version_column = "version"
updated_column = "updated"
[[attribute]]
column = "a"
path = "gender"
""",
    "map.toml",
)

T1, T2 = "2024-05-06T07:08:09.5Z", "2024-05-06T07:08:10.1Z"

NEWER = [
    ("no version is shown yet", ("1", T1), (None, None), True),
    ("no version is shown yet, and none is known", (None, None), (None, None), True),
    ("a greater number", ("10", T1), ("9", T2), True),
    ("the same number", ("9", T1), ("9", T1), False),
    ("the same number, written later", ("9", T2), ("9", T1), True),
    ("the same number, a row that rounds", ("9", T1), ("9", T2), False),
    ("a smaller number", ("9", T1), ("10", T2), False),
    ("a smaller number, written later", ("1", T2), ("10", T1), True),
    ("a smaller number in the same second", ("9", T1), ("10", T1), False),
    ("a smaller number without a time", ("9", None), ("10", T1), False),
    ("a greater number, by a clock that is behind", ("10", T1), ("9", T2), True),
    ("a version before the deletion", ("2", T1), ("deleted 3", T2), False),
    ("a version before a deletion without a time", ("2", T2), ("deleted 3", None), False),
    ("a version after the deletion", ("4", T2), ("deleted 3", T1), True),
    ("a first version after the deletion", ("1", T2), ("deleted 3", T1), True),
    ("any version after a deletion without one", ("1", T1), ("deleted", T1), True),
    ("a later time", ("b", T2), ("a", T1), True),
    ("an earlier time", ("b", T1), ("a", T2), False),
    ("the same second, another version", ("b", "2024-05-06T07:08:09.9Z"), ("a", T1), True),
    ("the same second, the same version", ("a", "2024-05-06T07:08:09.9Z"), ("a", T1), False),
    (
        "the same instant in another time zone",
        ("a", "2024-05-06T09:08:09.5+02:00"),
        ("a", T1),
        False,
    ),
    ("no time in FHIR, another version", ("b", None), ("a", T1), True),
    ("no time in FHIR, the same version", ("a", None), ("a", T1), False),
    ("no time in the row, another version", ("b", T1), ("a", None), True),
    ("a number after a word, later", ("2", T2), ("a", T1), True),
    ("a number after a word, earlier", ("2", T1), ("a", T2), False),
    ("no version in FHIR, a later time", (None, T2), ("a", T1), True),
]


@pytest.mark.parametrize(
    ("resource", "row", "newer"), [case[1:] for case in NEWER], ids=[case[0] for case in NEWER]
)
def test_a_resource_replaces_only_an_older_state(
    resource: tuple[Any, Any], row: tuple[Any, Any], newer: bool
) -> None:
    meta = {"versionId": resource[0], "lastUpdated": resource[1]}
    meta = {name: text for name, text in meta.items() if text}
    columns = {"version": row[0], "updated": row[1]}
    assert is_newer(MAP, {"id": "1", "meta": meta}, columns) is newer


@pytest.mark.parametrize(
    ("resource", "row"), [(case[1], case[2]) for case in NEWER if case[2][0] not in (None, "a")]
)
def test_where_an_operator_says_that_fhir_is_right_every_other_state_is_newer(
    resource: tuple[Any, Any], row: tuple[Any, Any]
) -> None:
    meta = {"versionId": resource[0], "lastUpdated": resource[1]}
    columns = {"version": row[0], "updated": row[1]}
    is_same = resource[0] == row[0] and not is_newer(MAP, {"meta": meta}, columns)
    assert is_newer(MAP, {"meta": meta}, columns, fhir_is_right=True) is not is_same


def test_a_row_without_room_for_the_version_of_the_deletion_is_marked_all_the_same() -> None:
    narrow = {"version": Column("version", "String", max_length=10)}
    deletion = StateVersion(id="0123456789", updated=T1, is_deleted=True)
    assert build_deletion_mark(MAP, deletion, narrow) == {"version": "deleted"}
    wide = {"version": Column("version", "String", max_length=50)}
    assert build_deletion_mark(MAP, deletion, wide) == {
        "version": "deleted 0123456789",
        "updated": "2024-05-06T07:08:09Z",
    }


def test_a_resource_without_meta_is_newer_than_nothing() -> None:
    assert is_newer(MAP, {"id": "1"}, {})
