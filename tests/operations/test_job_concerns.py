"""A job of one kind of concern does what a list of that kind shows, and nothing else."""

from __future__ import annotations

import pytest

from integration.core.errors import Rejected
from integration.core.model import Status
from integration.journal.concern import (
    ROW_KINDS,
    Concern,
    ConcernKind,
    build_concern_id,
    build_delivery_concern,
)
from integration.journal.concerns import change_with_concern
from integration.journal.jobs import JobKind
from integration.operations import jobs
from integration.operations.job_request import (
    JobRequest,
    build_job_filter,
    describe_job,
    parse_job_request,
)
from integration.queues.names import MIRROR_QUEUE, RELAY_QUEUE
from tests.doubles import Clock
from tests.operations.test_jobs import Bench, counts

ROWS = sorted(ROW_KINDS)
OF_DELIVERIES = (ConcernKind.PARKED, ConcernKind.HELD, ConcernKind.WAITING)


@pytest.fixture
def desk(clock: Clock) -> Bench:
    return Bench(clock)


async def add_one_of_each(desk: Bench) -> dict[str, ConcernKind]:
    """Have one delivery, or row, need attention in each way. Return their kinds, by delivery."""
    (parked,) = await desk.park()
    (held,) = await desk.park(kind="held")
    waiting = await desk.add()
    concern = build_delivery_concern(
        ConcernKind.WAITING, waiting.id, "north", desk.clock(), reason="answered 403"
    )
    assert await change_with_concern(
        desk.journal,
        waiting,
        concern,
        only_if=frozenset({Status.ACCEPTED}),
        waiting=desk.clock(),
        for_operator=True,
    )
    found = {
        parked: ConcernKind.PARKED,
        held: ConcernKind.HELD,
        waiting.id: ConcernKind.WAITING,
    }
    for kind in ROWS:
        delivery = await desk.add(status=Status.DONE)
        row = Concern(
            id=build_concern_id(desk.clock(), kind),
            since=desk.clock(),
            kind=kind,
            delivery=delivery.id,
            sender="north",
            reason="refused",
            resource=f"Patient/{kind}",
        )
        await desk.journal.put_concern(row)
        found[delivery.id] = kind
    return found


@pytest.mark.parametrize("kind", [*OF_DELIVERIES, *(kind for kind in ROWS if "incom" not in kind)])
async def test_a_replay_of_one_kind_leaves_the_others(desk: Bench, kind: ConcernKind) -> None:
    kinds = await add_one_of_each(desk)
    request = JobRequest(
        kind=JobKind.REPLAY, filter=build_job_filter(JobKind.REPLAY, {"concern": kind})
    )
    assert (await jobs.count_targets(desk.parts, request)).number == 1
    job = await desk.run(concern=kind)
    assert counts(job) == (1, 1, 1, 0, 0)
    queued = [*desk.queued(RELAY_QUEUE), *desk.queued(MIRROR_QUEUE)]
    assert [kinds[id_] for id_ in queued] == [kind]


@pytest.mark.parametrize("kind", OF_DELIVERIES)
async def test_a_cancel_of_one_kind_leaves_the_others(desk: Bench, kind: ConcernKind) -> None:
    kinds = await add_one_of_each(desk)
    await desk.run(JobKind.CANCEL, concern=kind)
    cancelled = [id_ for id_ in kinds if await desk.status(id_) is Status.CANCELLED]
    assert [kinds[id_] for id_ in cancelled] == [kind]


async def test_a_job_says_of_which_kind_it_is_as_it_was_asked_for(desk: Bench) -> None:
    job = await desk.start(concern="row-parked", sender="north")
    described = describe_job(job)["filter"]
    assert described == {"concern": "row-parked", "sender": "north"}
    again = parse_job_request({"kind": "replay", "filter": described})
    assert again.filter == job.filter


@pytest.mark.parametrize(
    ("kind", "filter_"),
    [
        (JobKind.REPLAY, {"concern": "row-incomplete"}),
        (JobKind.REPLAY, {"concern": "parked", "status": "parked"}),
        (JobKind.REPLAY, {"concern": "entries", "attention": "entries"}),
        (JobKind.REPLAY, {"concern": "lost"}),
        (JobKind.CANCEL, {"concern": "entries"}),
        (JobKind.CANCEL, {"concern": "row-parked"}),
    ],
)
def test_what_no_job_does_to_a_kind_is_refused(kind: JobKind, filter_: dict[str, str]) -> None:
    with pytest.raises(Rejected):
        build_job_filter(kind, filter_)


@pytest.mark.parametrize("name", ["sender", "reason", "kind"])
@pytest.mark.parametrize("text", ["x" * 201, "two\nlines"])
def test_a_text_that_the_row_of_a_job_cannot_hold_is_refused(name: str, text: str) -> None:
    with pytest.raises(Rejected):
        build_job_filter(JobKind.REPLAY, {"status": "parked", name: text})
    assert build_job_filter(JobKind.REPLAY, {"status": "parked", name: "x" * 200})
