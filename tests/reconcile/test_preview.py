"""What a changed map would change is told before it is published, and is what then changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from integration.core.model import WorkItem
from integration.journal.jobs import Job, JobState, PreviewSummary
from integration.mapping.model import AttributeMap, EntityMap, Kind
from integration.mirror import mirror as mirroring
from tests.builders import MARKER, patient
from tests.conftest import Route
from tests.reconcile.desk import PATIENT, RUN, Desk, FlakyJobs

IDS = [f"1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d{number:02d}" for number in range(6)]


@pytest.fixture
def desk(route: Route) -> Desk:
    return Desk(route, page_size=2)


def with_column(column: str, path: str) -> EntityMap:
    """The shipped map with a column more, or a column filled otherwise."""
    others = tuple(item for item in PATIENT.attributes if item.column != column)
    added = AttributeMap(column=column, kind=Kind.COPY, path=path)
    return replace(PATIENT, attributes=(*others, added))


async def plant(desk: Desk) -> None:
    """Patients with a row each; every second one has a nickname."""
    for number, id_ in enumerate(IDS):
        names = [{"family": f"{MARKER}{number}", "given": [f"Given {number}"]}]
        if number % 2:
            names.append({"use": "nickname", "given": [f"Nick {number}"]})
        await desk.mirrored(patient(id=id_, name=names))


async def publish(desk: Desk, changed: EntityMap) -> dict[str, set[str]]:
    """Use a changed map for every patient. Return which columns of which row have changed."""
    rows = {row["contactid"]: row for row in await desk.route.dataverse_double.contacts()}
    mirror = replace(desk.route.mirror, maps={"Patient": changed})
    for id_ in IDS:
        await mirroring.mirror_resource(mirror, WorkItem(RUN, resource=f"Patient/{id_}"))
    found = {}
    for row in await desk.route.dataverse_double.contacts():
        id_ = row["contactid"]
        names = {name for name in row if row[name] != rows[id_].get(name)}
        # Dataverse makes these by itself.
        names -= {"@odata.etag", "versionnumber", "modifiedon", "fullname"}
        if names:
            found[f"Patient/{id_}"] = names
    return found


def count(job: Job) -> tuple[JobState, int | None, int, int, int, int]:
    return job.state, job.found, job.looked_at, job.done, job.left_out, job.failed


CHANGES: list[Callable[[], EntityMap]] = [
    lambda: with_column("department", "name.where(use = 'nickname').given.first()"),
    lambda: with_column("lastname", "%name.family.lower()"),
    lambda: with_column("firstname", "%name.given.first()"),
    lambda: PATIENT,
]


@pytest.mark.parametrize("make", CHANGES)
async def test_what_it_tells_is_what_changes_then(
    desk: Desk, make: Callable[[], EntityMap]
) -> None:
    await plant(desk)
    job = await desk.preview(make())
    assert job.state is JobState.DONE
    changed = await publish(desk, make())
    assert job.summary is not None
    counted: dict[str, int] = {}
    for names in changed.values():
        for name in names:
            counted[name] = counted.get(name, 0) + 1
    assert job.summary.columns == counted
    assert {*job.summary.examples} == changed.keys()
    assert job.done == len(changed)
    assert job.looked_at == len(IDS)


async def test_it_writes_nothing_and_keeps_no_value(desk: Desk) -> None:
    await plant(desk)
    before = len(desk.route.dataverse_double.writes)
    job = await desk.preview(with_column("lastname", "%name.family.lower()"))
    assert job.done == len(IDS)
    assert len(desk.route.dataverse_double.writes) == before
    assert MARKER not in repr(job)


async def test_what_staff_have_typed_into_a_new_column_is_told_to_change(desk: Desk) -> None:
    """A column that the map begins to fill is cleared where FHIR has nothing for it."""
    await plant(desk)
    await desk.route.dataverse_double.write(IDS[0], department="typed by somebody")
    job = await desk.preview(
        with_column("department", "name.where(use = 'nickname').given.first()")
    )
    assert job.summary is not None
    assert job.summary.columns == {"department": 4}
    assert f"Patient/{IDS[0]}" in job.summary.examples


async def test_a_resource_without_a_row_is_counted_by_itself(desk: Desk) -> None:
    await plant(desk)
    desk.route.fhir_double.add(patient(id="new"))
    job = await desk.preview(with_column("lastname", "%name.family.lower()"))
    assert job.summary is not None
    assert (job.summary.without_row, job.done) == (1, len(IDS))


async def test_a_row_that_is_behind_counts_only_where_the_change_is(desk: Desk) -> None:
    await plant(desk)
    desk.route.fhir_double.add(patient(id=IDS[0], name=[{"family": "Later"}]))
    job = await desk.preview(
        with_column("department", "name.where(use = 'nickname').given.first()")
    )
    assert job.summary is not None
    assert job.summary.columns == {"department": 3}


async def test_slices_go_on_where_the_one_before_ended(desk: Desk) -> None:
    await plant(desk)
    desk.limits = {"max_items": 1}
    job = await desk.preview(with_column("lastname", "%name.family.lower()"))
    assert count(job) == (JobState.DONE, 6, 6, 6, 0, 0)


async def test_a_slice_that_ends_anywhere_counts_nothing_twice(desk: Desk) -> None:
    await plant(desk)
    whole = replace(desk, jobs=FlakyJobs())
    await whole.preview(with_column("lastname", "%name.family.lower()"))
    for failing in range(1, whole.jobs.saves):
        again = replace(desk, jobs=FlakyJobs(failing=failing))
        job = await again.preview(with_column("lastname", "%name.family.lower()"))
        assert count(job) == (JobState.DONE, 6, 6, 6, 0, 0)
        assert job.summary == PreviewSummary(
            columns={"lastname": 6}, examples=tuple(f"Patient/{id_}" for id_ in IDS)
        )


async def test_a_map_that_does_not_fit_the_tables_ends_it_and_says_why(desk: Desk) -> None:
    await plant(desk)
    job = await desk.preview(with_column("abc_missing", "id"))
    assert job.state is JobState.FAILED
    assert "abc_missing" in (job.reason or "")
