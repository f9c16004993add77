"""What is said to the upstreams, and what comes of it, is in the activity log, and no patient is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from typing import Any

import httpx
import pytest

from integration.core.activity_recorder import (
    BATCH_SIZE,
    ActivityContext,
    ActivityRecorder,
    add_activity_context,
    categorize_status,
    get_activity_context,
    share_activity_contexts,
)
from integration.core.errors import Misconfigured, Rejected, Unavailable
from integration.core.model import Activity, Category, Request, RowResult, WorkItem
from integration.fhir.units import Limits
from integration.journal.activity_log import MemoryActivityLog
from integration.mirror import mirror as mirroring
from integration.operations import activity as activity_log
from integration.operations import health
from tests.builders import MARKER, Body, bundle, entry, observation, patient
from tests.conftest import Route, told_by

FHIR, DATAVERSE = "FHIR server", "Dataverse"
START = datetime(2026, 3, 2, tzinfo=UTC)

Told = tuple[str, str, str]


def told(route: Route) -> list[Told]:
    """(upstream, action, status) of each entry that is kept, the oldest first."""
    return [(item.upstream, item.action, item.status) for item in route.activity.entries]


async def mirrored(route: Route, resource: Body) -> RowResult:
    identity = route.fhir_double.add(resource)
    await mirroring.mirror_resource(route.mirror, WorkItem("d", resource=identity))
    (row,) = [
        item for item in await route.journal.list_row_results("d") if item.resource == identity
    ]
    return row


# --- what is noted -----------------------------------------------------------------------------


async def test_a_delivery_is_followed_to_its_row(route: Route) -> None:
    put = entry(patient(id="p1"), method="PUT", url="Patient/p1")
    delivery = await route.deliver(bundle(put))
    await route.process_all(delivery)
    await mirroring.mirror_resource(route.mirror, WorkItem(delivery, resource="Patient/p1"))

    assert [item for item in told(route) if item[1] != "metadata"] == [
        (FHIR, "look-up", "200"),
        (FHIR, "look-up", "200"),  # again, with the lock of a first write
        (FHIR, "write unit 0.0", "200"),
        (FHIR, "read", "200"),
        (DATAVERSE, "look-up", "200"),
        (DATAVERSE, "create", "204"),
        (DATAVERSE, "mirror", "created"),
    ]
    entries = route.activity.entries
    assert {item.delivery for item in entries} == {delivery}
    assert {item.resource for item in entries if item.upstream == DATAVERSE} == {"Patient/p1"}
    assert {item.category for item in entries} == {Category.INFORMATION}
    row = (await route.dataverse_double.contact())["contactid"]
    create, result = (item for item in entries if item.action in ("create", "mirror"))
    assert (create.table, create.row) == (result.table, result.row) == ("contact", row)


async def test_every_request_that_an_upstream_heard_is_an_entry(route: Route) -> None:
    """One for item resource that asked, where they share a request."""
    route.limits = Limits(entries=2)
    people = [entry(patient(id=f"p{n}"), method="PUT", url=f"Patient/p{n}") for n in range(5)]
    delivery = await route.deliver(bundle(*people, kind="batch"))
    await route.process_all(delivery)
    for claim, _ in route.queued("mirror"):
        await mirroring.mirror_resource(route.mirror, claim)
    calls = [item for item in route.activity.entries if item.action != "mirror"]
    assert len([item for item in calls if item.upstream == FHIR]) == len(route.fhir_double.received)
    heard = route.dataverse_double.received
    assert len([item for item in calls if item.upstream == DATAVERSE]) == len(heard)


async def test_questions_that_go_in_one_request_are_entries_of_all_who_asked(route: Route) -> None:
    identities = [route.fhir_double.add(patient(id=f"p{n}")) for n in range(3)]
    claims = [WorkItem(f"d{n}", resource=identity) for n, identity in enumerate(identities)]
    await asyncio.gather(*(mirroring.mirror_resource(route.mirror, claim) for claim in claims))
    looked = [item for item in route.activity.entries if item.action == "look-up"]
    assert {(item.delivery, item.resource) for item in looked} == {
        (claim.delivery, claim.resource) for claim in claims
    }
    created = [item for item in route.activity.entries if item.action == "create"]
    assert sorted(str(item.resource) for item in created) == identities


async def test_a_unit_of_several_resources_names_none(route: Route) -> None:
    entries = [entry(patient()), entry(observation())]
    await route.process(await route.deliver(bundle(*entries)))
    (written,) = route.activity.entries
    assert (written.action, written.resource) == ("write unit 0.0", None)


async def test_what_was_not_mapped_is_told_with_its_reason(route: Route) -> None:
    row = await mirrored(route, patient(id="p1", gender=MARKER, birthDate="1980"))
    result = route.activity.entries[-1]
    assert (result.action, result.status, result.category) == ("mirror", "created", "warning")
    assert result.notes == row.notes
    assert any(note.startswith("birthdate: ") for note in result.notes)


async def test_what_a_batch_refused_within_a_200_is_told(route: Route) -> None:
    route.fhir_double.refuses = {"Observation"}
    entries = [entry(patient()), entry(observation()), entry(observation())]
    await route.process(await route.deliver(bundle(*entries, kind="batch")))
    sent, refused = route.activity.entries
    assert (sent.status, refused.status, refused.category) == ("200", "refused", "error")
    assert refused.action == sent.action == "write unit 0.0"
    assert refused.notes == ("422: 2 of 3",)


async def test_a_race_that_was_lost_is_told(route: Route) -> None:
    identity = route.fhir_double.add(patient(id="p1"))
    await mirroring.mirror_resource(route.mirror, WorkItem("d", resource=identity))
    row = await route.dataverse_double.contact()
    route.fhir_double.add(patient(id="p1", gender="male"))

    async def meddle() -> None:
        await route.dataverse_double.write(row["contactid"], jobtitle="by hand")

    route.dataverse_double.will_be_preceded("PATCH", meddle)
    await mirroring.mirror_resource(route.mirror, WorkItem("d", resource=identity))
    updates = [item for item in route.activity.entries if item.action == "update"]
    assert [(item.status, item.category) for item in updates] == [
        ("412", "warning"),
        ("204", "information"),
    ]


async def test_an_upstream_that_is_away_is_recorded_and_the_item_requeued(route: Route) -> None:
    route.fhir_double.down = 503
    identity = route.fhir_double.add(patient(id="p1"))
    await mirroring.mirror_resource(route.mirror, WorkItem("d", resource=identity))
    calls = [item for item in route.activity.entries if item.action == "read"]
    assert [(item.status, item.category) for item in calls] == [("503", "warning")] * 3
    last = route.activity.entries[-1]
    assert (last.action, last.status, last.category) == ("mirror", "requeued", "warning")
    assert last.notes == ("FHIR server: answered 503",)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (httpx.ConnectError(MARKER), "unreachable"),
        (httpx.ReadTimeout(MARKER), "not in time"),
        (httpx.ReadError(MARKER), "broken off"),
        (asyncio.CancelledError(MARKER), "given up"),
    ],
)
async def test_an_answer_that_never_came_is_told(
    route: Route, error: BaseException, status: str
) -> None:
    async def fail(*_: Any) -> httpx.Response:
        raise error

    route.fhir_double.script += [fail] * 3
    async with route.activities.track(delivery="d"):
        with pytest.raises(type(error) if status == "given up" else Unavailable):
            await route.fhir.read("Patient/p1", "d")
    assert {item.status for item in route.activity.entries} == {status}
    assert {item.category for item in route.activity.entries} == {Category.ERROR}
    assert MARKER not in repr(route.activity.entries)


async def test_how_long_an_answer_took_is_told_without_the_wait_for_a_place(route: Route) -> None:
    async def slow() -> None:
        route.clock.later(1.5)

    route.fhir_double.add(patient(id="p1"))
    route.fhir_double.will_wait_for(slow)
    async with route.activities.track():
        await route.fhir.read("Patient/p1", "d")
    assert [item.duration for item in route.activity.entries] == [1500]


async def test_a_row_that_was_given_up_on_is_told(route: Route) -> None:
    await mirroring.park(route.mirror, WorkItem("d", resource="Patient/p1"), "failed repeatedly")
    (parked,) = route.activity.entries
    assert (parked.status, parked.category) == ("parked", "error")
    assert (parked.delivery, parked.resource, parked.table) == ("d", "Patient/p1", "contact")
    assert parked.notes == ("failed repeatedly",)


async def test_a_row_without_a_map_is_told_without_a_table(route: Route) -> None:
    await mirroring.mirror_resource(route.mirror, WorkItem("d", resource="Basic/b1"))
    (back,) = route.activity.entries
    assert (back.status, back.category, back.table) == ("requeued", "error", None)


async def test_a_look_at_the_upstreams_is_told(route: Route) -> None:
    await health.check_upstreams(
        health.UpstreamCheck(route.journal, route.fhir, route.dataverse, route.clock)
    )
    await route.activities.flush()
    assert sorted(told(route)) == [(DATAVERSE, "health", "200"), (FHIR, "health", "200")]


async def test_no_entry_names_a_patient(route: Route) -> None:
    """Identifiers in conditions, names in bodies, values that do not fit: none is noted."""
    route.fhir_double.refuses = {"Location"}
    marked = patient(identifier=[{"system": "urn:mrn", "value": MARKER}], gender=MARKER)
    found = {"method": "PUT", "url": f"Patient?identifier=urn:mrn|{MARKER}"}
    deliveries = [
        bundle(entry(marked, f"urn:{MARKER}", ifNoneExist=f"identifier=urn:mrn|{MARKER}")),
        bundle(entry(marked, **found)),
        bundle(entry({"resourceType": "Location", "name": MARKER}), kind="batch"),
        bundle(
            {"request": {"method": "GET", "url": f"Patient?identifier={MARKER}/{MARKER}"}},
            kind="batch",
        ),
        bundle({"request": {"method": "DELETE", "url": f"Patient?name={MARKER}"}}, kind="batch"),
    ]
    for body in deliveries:
        await route.process_all(await route.deliver(body))
    for claim, _ in route.queued("mirror"):
        await mirroring.mirror_resource(route.mirror, claim)
    assert len(route.activity.entries) > 15
    assert MARKER not in repr(route.activity.entries)
    assert MARKER in repr(route.fhir_double.received)


# --- what is thought of a status ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "statuses", "category"),
    [
        ("GET", (200, 304, 404, 410), Category.INFORMATION),
        ("POST", (200, 201, 204), Category.INFORMATION),
        ("PATCH", (404, 409, 410, 412), Category.WARNING),
        ("GET", (408, 429, 503), Category.WARNING),
        ("GET", (400, 401, 403, 500, 502, 504), Category.ERROR),
        ("POST", (400, 413, 422), Category.ERROR),
    ],
)
def test_the_category_follows_from_the_status(
    method: str, statuses: Sequence[int], category: Category
) -> None:
    assert {categorize_status(status, method) for status in statuses} == {category}


# --- what is being done ------------------------------------------------------------------------


async def test_what_is_done_is_known_inside_and_in_tasks_and_nowhere_else() -> None:
    async def seen() -> ActivityContext:
        await asyncio.sleep(0)
        return get_activity_context()

    with add_activity_context(delivery="d"):
        with add_activity_context(action="read"):
            first, second = await asyncio.gather(seen(), asyncio.create_task(seen()))
        assert get_activity_context() == ActivityContext(delivery="d")
    assert first == second == ActivityContext(delivery="d", action="read")
    assert get_activity_context() == ActivityContext()
    with (
        share_activity_contexts(
            [
                ActivityContext(delivery="a"),
                ActivityContext(delivery="b"),
                ActivityContext(delivery="a"),
            ]
        ),
        add_activity_context(action="look-up"),
    ):
        assert get_activity_context() == ActivityContext(delivery="a", action="look-up")
    assert get_activity_context() == ActivityContext()


# --- which operation it belongs to -------------------------------------------------------------


async def test_every_entry_of_a_run_has_its_operation_and_no_other_run_has_it(
    route: Route,
) -> None:
    put = entry(patient(id="p1"), method="PUT", url="Patient/p1")
    delivery = await route.deliver(bundle(put))
    await route.process_all(delivery)
    for _ in range(2):
        await mirroring.mirror_resource(route.mirror, WorkItem(delivery, resource="Patient/p1"))
    operations = [item.operation for item in route.activity.entries]
    changes = [one for one, next_ in pairwise(operations) if one != next_]
    assert None not in operations
    assert len(set(operations)) == 3
    assert len(changes) == 2


async def test_runs_that_share_a_request_have_it_each_in_their_operation(route: Route) -> None:
    identities = [route.fhir_double.add(patient(id=f"p{n}")) for n in range(3)]
    claims = [WorkItem("d", resource=identity) for identity in identities]
    await asyncio.gather(*(mirroring.mirror_resource(route.mirror, claim) for claim in claims))
    by_action = {
        action: {item.operation for item in route.activity.entries if item.action == action}
        for action in ("look-up", "create", "mirror")
    }
    assert by_action["look-up"] == by_action["create"] == by_action["mirror"]
    assert len(by_action["mirror"]) == 3


async def test_a_part_for_the_same_is_of_the_operation_and_one_for_another_is_not(
    worker: Worker,
) -> None:
    async with worker.activities.track(delivery="d", resource="Patient/1"):
        worker.call()
        async with worker.activities.track():
            worker.call()
        async with worker.activities.track(delivery="d", resource="Patient/1", action="notify"):
            worker.call()
        async with worker.activities.track(resource="Patient/2"):
            worker.call()
        worker.call()
    worker.call()
    await worker.activities.flush()
    (tracked, after) = worker.kept.groups
    assert [item.operation for item in tracked] == ["o1", "o1", "o1", "o2", "o1"]
    assert [item.operation for item in after] == [None]


# --- when it is kept ---------------------------------------------------------------------------


class Kept:
    """A store that counts, and fails when it is told to."""

    def __init__(self) -> None:
        self.groups: list[Sequence[Activity]] = []
        self.trouble: Exception | None = None

    async def __call__(self, entries: Sequence[Activity]) -> None:
        await asyncio.sleep(0)
        if self.trouble:
            raise self.trouble
        self.groups.append(entries)

    @property
    def sizes(self) -> list[int]:
        return [len(group) for group in self.groups]


class Worker:
    """Activities, the store, and a clock that goes when it is told to."""

    def __init__(self) -> None:
        self.kept = Kept()
        self.seconds = 100.0
        now = lambda: START + timedelta(seconds=self.seconds)  # noqa: E731
        ids = count(1)
        self.activities = ActivityRecorder(
            self.kept, now, lambda: self.seconds, new_id=lambda: f"o{next(ids)}"
        )

    def call(self, times: int = 1) -> None:
        for _ in range(times):
            self.activities.record_call(FHIR, "GET", 200, 0.25)


@pytest.fixture
def worker() -> Worker:
    return Worker()


async def test_entries_are_kept_together_when_the_work_ends(worker: Worker) -> None:
    async with worker.activities.track(delivery="d"):
        worker.call(3)
        assert worker.kept.sizes == []
    assert worker.kept.sizes == [3]
    (entry_,) = set(worker.kept.groups[0])
    assert entry_ == Activity(
        time=START + timedelta(seconds=100),
        category=Category.INFORMATION,
        upstream=FHIR,
        action="get",
        status="200",
        delivery="d",
        duration=250,
        operation="o1",
    )


async def test_work_side_by_side_shares_one_operation(worker: Worker) -> None:
    async def work() -> None:
        async with worker.activities.track():
            await asyncio.sleep(0)
            worker.call(2)

    await asyncio.gather(*(work() for _ in range(16)))
    assert worker.kept.sizes == [32]


async def test_many_entries_are_kept_before_the_work_ends(worker: Worker) -> None:
    async with worker.activities.track():
        for _ in range(2 * BATCH_SIZE + 1):
            worker.call()
            await asyncio.sleep(0)
        assert worker.kept.sizes[0] <= BATCH_SIZE + 1
        assert len(worker.kept.sizes) == 2
    assert sum(worker.kept.sizes) == 2 * BATCH_SIZE + 1


async def test_entries_do_not_wait_long_for_other_work_to_end(worker: Worker) -> None:
    async with worker.activities.track():
        async with worker.activities.track():
            worker.call()
        assert worker.kept.sizes == []
        worker.seconds += 6
        async with worker.activities.track():
            pass
        assert worker.kept.sizes == [1]


async def test_with_a_delay_all_work_until_then_shares_one_operation(worker: Worker) -> None:
    due: list[tuple[float, Callable[[], None]]] = []
    worker.activities.delay = 1.0
    worker.activities.call_later = lambda delay, act: due.append((delay, act))
    for _ in range(3):
        async with worker.activities.track():
            worker.call(2)
    assert worker.kept.sizes == []
    ((delay, act),) = due
    assert delay == 1.0
    act()
    while not worker.kept.sizes:
        await asyncio.sleep(0)
    assert worker.kept.sizes == [6]
    worker.call()
    assert len(due) == 2


async def test_what_work_that_failed_has_done_is_kept(worker: Worker) -> None:
    async def work() -> None:
        async with worker.activities.track():
            worker.call()
            raise Unavailable("order", "away")

    with pytest.raises(Unavailable, match="away"):
        await work()
    assert worker.kept.sizes == [1]


@pytest.mark.parametrize(
    "trouble", [Unavailable("storage", "away"), Misconfigured("a role"), ValueError(MARKER)]
)
async def test_a_log_that_fails_costs_no_work_and_is_told_once(
    worker: Worker, trouble: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    worker.kept.trouble = trouble
    for _ in range(3):
        async with worker.activities.track():
            worker.call(2)
    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.WARNING, "activity.dropped")
    assert record.__dict__["entries"] == 2
    assert MARKER not in told_by(caplog.records)
    assert worker.activities.pending == []

    worker.kept.trouble = None
    async with worker.activities.track():
        worker.call()
    worker.kept.trouble = trouble
    async with worker.activities.track():
        worker.call()
    assert worker.kept.sizes == [1]
    assert len(caplog.records) == 2


async def test_a_log_that_is_off_notes_nothing(route: Route) -> None:
    route.activities.store = None
    await mirrored(route, patient(id="p1"))
    assert route.activities.pending == route.activity.entries == []


# --- what is asked for -------------------------------------------------------------------------


async def test_entries_are_chosen_by_the_query_parameters(route: Route) -> None:
    await mirrored(route, patient(id="p1"))
    await mirrored(route, patient(id="p2", birthDate="1980"))
    everything = len(route.activity.entries)
    day = route.clock.now.astimezone(UTC).date().isoformat()
    (row,) = {str(item.row) for item in route.activity.entries if item.status == "created"} - {
        str(item.row) for item in route.activity.entries if item.resource == "Patient/p1"
    }
    asked: list[tuple[Body, int]] = [
        ({"_count": "500"}, everything),
        ({"_count": "500", "since": day, "code": "key"}, everything),
        ({"until": "2026-03-01T00:00:00Z"}, 0),
        ({"resource": "Patient/p1", "action": "create"}, 1),
        ({"resource": "Patient", "action": "create"}, 2),
        ({"resource": "Observation"}, 0),
        ({"category": "warning"}, 1),
        ({"delivery": "d", "status": "created"}, 2),
        ({"delivery": "", "row": row, "table": "contact"}, 2),
        ({"upstream": DATAVERSE, "action": "mirror", "duration": "0"}, 2),
        ({"duration": "1"}, 0),
    ]
    for params, number in asked:
        page = await activity_log.find_activity(route.activity, params)
        assert (len(page.entries), page.after) == (number, None), params


async def test_pages_are_as_long_as_was_asked(route: Route) -> None:
    await mirrored(route, patient(id="p1"))
    first = await activity_log.find_activity(route.activity, {"_count": "2"})
    assert len(first.entries) == 2
    second = await activity_log.find_activity(
        route.activity, {"_count": "2", "after": str(first.after)}
    )
    newest = route.activity.entries[::-1]
    assert [*first.entries, *second.entries] == newest[:4]


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"_count": "0"}, "_count"),
        ({"_count": "501"}, "_count"),
        ({"category": "loud"}, "category"),
        ({"category": ""}, "category"),
        ({"since": "yesterday"}, "since"),
        ({"until": "2026-03-02T10:00:00"}, "until"),
        ({"duration": "-1"}, "duration"),
        ({"duration": "9999999999"}, "duration"),
        ({"after": "x"}, "after"),
    ],
)
async def test_what_the_log_cannot_be_asked_is_refused(params: Body, where: str) -> None:
    with pytest.raises(Rejected) as caught:
        await activity_log.find_activity(MemoryActivityLog(), params)
    assert (caught.value.status, caught.value.issues[0].expression) == (400, where)


async def test_a_request_that_nobody_explained_is_told_by_its_method(route: Route) -> None:
    async with route.activities.track():
        await route.fhir.send(Request("GET", "metadata"), "d")
    assert told(route) == [(FHIR, "get", "200")]
