"""More children than one change set holds are written in several, and the row says what it shows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.model import RowResult, WorkItem
from integration.dataverse.batch import MAX_REQUESTS
from integration.dataverse.requests import Change
from integration.mirror import mirror as mirroring
from integration.mirror import row_diff
from integration.mirror.row_diff import ChangePlan, ExistingRows
from tests.builders import Body, patient
from tests.conftest import Route, mirrored_maps

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
DELIVERY = "019caaee-c260-7000-8000-000000000001"
NUMBERS = "msemr_medicalidentifiers"
MANY = 2 * MAX_REQUESTS + 100
STEPS = "its changes went in several steps"


class Killed(BaseException):
    """The worker has ended."""


def anna(count: int, prefix: str = "", **elements: Any) -> Body:
    numbers = [{"system": "urn:mrn", "value": f"{prefix}{n}"} for n in range(count)]
    return patient(id=ANNA, identifier=numbers, **elements)


async def mirror(route: Route, resource: Body) -> RowResult:
    return await again(route, route.fhir_double.add(resource))


async def again(route: Route, resource: str = f"Patient/{ANNA}") -> RowResult:
    await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=resource))
    noted = {row.resource: row for row in await route.journal.list_row_results(DELIVERY)}
    return noted[resource]


async def list_numbers(route: Route) -> set[str]:
    return {row["msemr_value"] for row in await route.dataverse_double.rows(NUMBERS)}


@given(
    concepts=st.integers(0, 30),
    row_changes=st.integers(1, 2),
    children=st.integers(0, 30),
    limit=st.integers(5, 20),
    exists=st.booleans(),
)
def test_a_cut_plan_fits_and_shows_no_version(
    concepts: int, row_changes: int, children: int, limit: int, exists: bool
) -> None:
    entity = mirrored_maps()["Patient"]
    columns = {entity.version_column: "2", "lastname": "x", "nav@odata.bind": "concepts(0)"}
    row = Change(method="PATCH", entity_set="contacts", key="row", columns=columns, etag="1")
    plan = ChangePlan(
        changes=(
            *(Change(method="PATCH", entity_set="c", key=f"c{n}") for n in range(concepts)),
            *[row] * row_changes,
            *(Change(method="PATCH", entity_set="n", key=f"n{n}") for n in range(children)),
        ),
        row_position=concepts,
        notes=(),
        missing=frozenset(),
        linked=frozenset(),
    )
    existing = ExistingRows(row={entity.version_column: "1"} if exists else None)
    cut = row_diff.cut_plan(entity, plan, existing, limit)
    assert len(cut.changes) <= limit
    written = cut.changes[cut.row_position]
    assert (written.key, written.etag) == ("row", "1")
    assert written.columns
    assert written.columns.get(entity.version_column) in (None, "1")
    if concepts >= limit:
        assert not any("bind" in name for name in written.columns)
    taken = [change.key for change in cut.changes if change.key != "row"]
    whole = [change.key for change in plan.changes if change.key != "row"]
    assert taken == whole[: len(taken)]
    if concepts + row_changes + children > limit:
        assert len(cut.changes) == limit or concepts >= limit


async def test_as_many_as_one_change_set_holds_are_written_at_once(route: Route) -> None:
    noted = await mirror(route, anna(MAX_REQUESTS - 1))
    assert noted.action == "created"
    assert len(await list_numbers(route)) == MAX_REQUESTS - 1
    assert len(route.dataverse_double.writes) == 1
    assert not any(STEPS in note for note in noted.notes)


async def test_more_than_that_are_all_written_and_a_note_says_how(route: Route) -> None:
    noted = await mirror(route, anna(MANY))
    assert noted.action == "created"
    assert len(await list_numbers(route)) == MANY
    assert any(STEPS in note for note in noted.notes)
    assert (await again(route)).action == "unchanged"
    updated = await mirror(route, anna(MANY, "b", birthDate="1970-01-01"))
    assert updated.action == "updated"
    assert await list_numbers(route) == {f"b{n}" for n in range(MANY)}
    contact = await route.dataverse_double.contact()
    assert (contact["msemr_azurefhirversion"], contact["birthdate"]) == ("2", "1970-01-01")


@pytest.mark.slow
@pytest.mark.parametrize("is_new", [True, False])
async def test_a_row_shows_a_version_only_with_all_its_children(route: Route, is_new: bool) -> None:
    """The worker ends between two steps; the next one finds what is left to do."""
    shown = None
    if not is_new:
        await mirror(route, anna(1))
        shown = "1"
    route.fhir_double.add(anna(MANY, "b"))

    async def end() -> None:
        raise Killed

    async def pass_by() -> None:
        pass

    route.dataverse_double.will_be_preceded("PATCH", pass_by)
    route.dataverse_double.will_be_preceded("PATCH", end)
    with pytest.raises(Killed):
        await again(route)
    assert (await route.dataverse_double.contact())["msemr_azurefhirversion"] == shown
    noted = await again(route)
    assert noted.action == "updated"
    assert await list_numbers(route) == {f"b{n}" for n in range(MANY)}
