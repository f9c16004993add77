"""What of a map differs from the one before is found, and nothing else is mapped to tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.mapping import engine
from integration.mapping.explain import assume_columns
from integration.mapping.load import load_shipped_maps
from integration.mapping.map_changes import find_map_changes, list_elements
from integration.mapping.model import AttributeMap, EntityMap, Kind
from tests.builders import TODAY, patient

PATIENT = load_shipped_maps()["Patient"]


def change(name: str, **values: Any) -> EntityMap:
    """The shipped map with another attribute for one column."""
    return replace(
        PATIENT,
        attributes=tuple(
            replace(item, **values) if item.column == name else item for item in PATIENT.attributes
        ),
    )


def test_the_same_map_changes_nothing() -> None:
    changes = find_map_changes(PATIENT, replace(PATIENT, file="another.toml"))
    assert (changes.columns, changes.left, changes.is_another_table) == ((), (), False)
    assert changes.reduced.expands == ()


def test_a_column_that_is_added_or_filled_otherwise_is_all_that_changes() -> None:
    added = AttributeMap(column="nickname", kind=Kind.COPY, path="name.given.first()")
    assert find_map_changes(
        PATIENT, replace(PATIENT, attributes=(*PATIENT.attributes, added))
    ).columns == ("nickname",)
    assert find_map_changes(PATIENT, change("lastname", path="%name.given.first()")).columns == (
        "lastname",
    )


def test_a_column_that_is_not_mapped_any_more_is_left_as_it_is() -> None:
    shorter = replace(PATIENT, attributes=PATIENT.attributes[:-1], expands=())
    changes = find_map_changes(PATIENT, shorter)
    assert changes.columns == ()
    assert changes.left[0] == PATIENT.attributes[-1].column
    assert set(changes.left[1:]) == {f"{expand.table}.*" for expand in PATIENT.expands}


def test_what_uses_a_changed_variable_changes_also_through_others() -> None:
    variables = {**PATIENT.variables, "own_names": "name"}
    changes = find_map_changes(PATIENT, replace(PATIENT, variables=variables))
    assert {"lastname", "firstname"} <= {*changes.columns}
    assert "birthdate" not in changes.columns


def test_variables_in_another_order_may_find_anything_else() -> None:
    variables = dict(reversed(PATIENT.variables.items()))
    changes = find_map_changes(PATIENT, replace(PATIENT, variables=variables))
    assert "lastname" in changes.columns


def test_another_table_has_other_rows() -> None:
    changes = find_map_changes(PATIENT, replace(PATIENT, table="account"))
    assert changes.is_another_table
    assert find_map_changes(None, PATIENT).is_another_table


def test_what_tells_whose_row_it_is_stays() -> None:
    changes = find_map_changes(PATIENT, change("lastname", path="id"))
    assert changes.reduced.kind_value == PATIENT.kind_value
    assert changes.columns == ("lastname",)


@pytest.mark.parametrize("table", [expand.table for expand in PATIENT.expands])
def test_children_that_are_made_otherwise_are_told_by_their_table(table: str) -> None:
    expands = tuple(
        replace(expand, path=f"({expand.path}).first()") if expand.table == table else expand
        for expand in PATIENT.expands
    )
    changes = find_map_changes(PATIENT, replace(PATIENT, expands=expands))
    assert changes.columns == (f"{table}.*",)
    assert [expand.table for expand in changes.reduced.expands] == [table]


@pytest.mark.parametrize(
    ("path", "elements"),
    [
        ("%name.family", ("extension", "id", "meta", "name")),
        ("deceased.ofType(dateTime)", ("deceased", "extension", "id", "meta")),
        ("extension('urn:x').value", ("extension", "id", "meta")),
        ("contact.name.family", ("contact", "extension", "id", "meta", "name")),
        ("%resource.name.family", None),
        ("descendants().code", None),
    ],
)
def test_the_elements_that_a_change_looks_at_are_known_or_it_looks_at_all(
    path: str, elements: tuple[str, ...] | None
) -> None:
    variables = {"name": "name.where(family.exists()).first()"} if "%name" in path else {}
    attribute = AttributeMap(column="lastname", kind=Kind.COPY, path=path)
    entity = replace(PATIENT, attributes=(attribute,), expands=(), variables=variables)
    assert list_elements(entity) == elements


_PATIENTS = st.builds(
    lambda names, gender, born, telecom: patient(
        id="p1", name=names, gender=gender, birthDate=born, telecom=telecom
    ),
    st.lists(
        st.fixed_dictionaries(
            {"family": st.sampled_from(["A", "B"])},
            optional={"use": st.sampled_from(["official", "nickname", "maiden"])},
        ),
        max_size=3,
    ),
    st.sampled_from(["male", "female", "other"]),
    st.sampled_from(["1980-05-01", "1980"]),
    st.lists(
        st.fixed_dictionaries(
            {"system": st.sampled_from(["phone", "email"]), "value": st.sampled_from(["1", "2"])}
        ),
        max_size=3,
    ),
)
_CHANGED = st.sampled_from(
    [
        change("lastname", path="name.family.last()"),
        change("birthdate", default="1900-01-01"),
        replace(PATIENT, variables={**PATIENT.variables, "own_names": "name"}),
        replace(PATIENT, variables={**PATIENT.variables, "reach": "telecom.where(rank = 1)"}),
        replace(PATIENT, attributes=PATIENT.attributes[3:]),
    ]
)


@given(resource=_PATIENTS, changed=_CHANGED)
def test_what_differs_maps_as_the_whole_map_does_and_the_rest_is_as_before(
    resource: dict[str, Any], changed: EntityMap
) -> None:
    tables = assume_columns(changed)
    tables |= {name: {**assume_columns(PATIENT)[name], **tables[name]} for name in tables}
    changes = find_map_changes(PATIENT, changed)

    def map_(entity: EntityMap) -> dict[str, Any]:
        return dict(engine.map_resource(entity, resource, tables, today=TODAY).values)

    before, after, reduced = map_(PATIENT), map_(changed), map_(changes.reduced)
    elements = list_elements(changes.reduced)
    if elements is not None:  # what a server leaves out makes no difference
        part = {
            name: value
            for name, value in resource.items()
            if name == "resourceType" or name in elements
        }
        found = engine.map_resource(changes.reduced, part, tables, today=TODAY).values
        assert {name: found[name] for name in changes.columns} == {
            name: reduced[name] for name in changes.columns
        }
    assert {name: reduced[name] for name in changes.columns} == {
        name: after[name] for name in changes.columns
    }
    for name in after.keys() - {*changes.columns}:
        assert after[name] == before[name]
