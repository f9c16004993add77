"""A reconcile tells why a row differs: FHIR has changed, the map has, or somebody in Dataverse."""

from __future__ import annotations

from dataclasses import replace

import pytest

from integration.core.model import WorkItem
from integration.mapping.model import AttributeMap, EntityMap, Kind
from integration.mirror import mirror as mirroring
from integration.reconcile import walk
from integration.reconcile.differences import Why
from integration.reconcile.run import ReconcileRun
from local.dataverse.organization import CALLER, NURSE_USER
from tests.builders import patient
from tests.conftest import Route
from tests.reconcile.desk import PATIENT, RUN

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
SOMEBODY = {CALLER: NURSE_USER}


def with_digest(entity: EntityMap, digest: str) -> EntityMap:
    """A map that says which one it is, in a column that the organisation has for it."""
    column = AttributeMap(column="department", kind=Kind.MAP)
    return replace(entity, attributes=(*entity.attributes, column), digest=digest)


FIRST = with_digest(PATIENT, "first")
SECOND = with_digest(
    replace(
        PATIENT,
        attributes=tuple(
            replace(item, path="%name.family.lower()") if item.column == "lastname" else item
            for item in PATIENT.attributes
        ),
    ),
    "second",
)


async def mirror(route: Route, entity: EntityMap) -> None:
    changed = replace(route.mirror, maps={"Patient": entity})
    await mirroring.mirror_resource(changed, WorkItem(RUN, resource=f"Patient/{ANNA}"))


async def find_whys(route: Route, entity: EntityMap) -> list[tuple[Why | None, tuple[str, ...]]]:
    run = ReconcileRun(
        mirror=replace(route.mirror, maps={"Patient": entity}),
        fhir=route.fhir,
        dataverse=route.dataverse,
        id=RUN,
        sleep=route.wait,
        dry_run=True,
    )
    return [
        (repair.difference.why, repair.difference.columns)
        async for page in walk.walk_content(run, entity)
        for repair in page.repairs
    ]


@pytest.fixture
async def mirrored(route: Route) -> Route:
    route.fhir_double.add(patient(id=ANNA, name=[{"family": "Upper"}]))
    await mirror(route, FIRST)
    row = await route.dataverse_double.contact()
    assert (row["lastname"], row["department"][:6]) == ("Upper", "first ")
    return route


async def test_what_an_earlier_map_has_written_is_told(mirrored: Route) -> None:
    assert await find_whys(mirrored, SECOND) == [(Why.MAP, ("lastname",))]


async def test_what_somebody_has_changed_is_told_apart_from_another_map(mirrored: Route) -> None:
    """Somebody who wrote any column last is not why another map makes another row."""
    answer = await mirrored.dataverse_double.send(
        "PATCH", f"contacts({ANNA})", {"lastname": "Edited"}, headers=SOMEBODY
    )
    assert answer.status_code == 204
    assert await find_whys(mirrored, FIRST) == [(Why.EDITED, ("lastname",))]
    assert await find_whys(mirrored, SECOND) == [(Why.MAP, ("lastname",))]


async def test_a_change_in_fhir_is_told(mirrored: Route) -> None:
    mirrored.fhir_double.add(patient(id=ANNA, name=[{"family": "Later"}]))
    ((why, columns),) = await find_whys(mirrored, FIRST)
    assert why is Why.FHIR
    assert "lastname" in columns


async def test_another_map_that_makes_the_same_row_is_no_difference(mirrored: Route) -> None:
    assert await find_whys(mirrored, replace(FIRST, digest="third")) == []
    before = len(mirrored.dataverse_double.writes)
    await mirror(mirrored, replace(FIRST, digest="third"))
    assert len(mirrored.dataverse_double.writes) == before
    assert (await mirrored.dataverse_double.contact())["department"][:6] == "first "


async def test_the_digest_is_written_with_what_the_map_changes(mirrored: Route) -> None:
    await mirror(mirrored, SECOND)
    row = await mirrored.dataverse_double.contact()
    assert (row["lastname"], row["department"][:7]) == ("upper", "second ")
    assert await find_whys(mirrored, SECOND) == []


async def test_where_edits_are_written_to_fhir_each_row_gets_the_stamp_of_the_map_in_use(
    mirrored: Route,
) -> None:
    """Else the first edit after each published version would be lost."""
    mirrored.write_back = True
    assert await find_whys(mirrored, FIRST) == []
    third = replace(FIRST, digest="third")
    assert await find_whys(mirrored, third) == [(Why.MAP, ("department",))]
    await mirror(mirrored, third)
    assert await find_whys(mirrored, third) == []
