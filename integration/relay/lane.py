"""Process one lane: write its units to the FHIR server, one after the other.

The results of a unit are recorded before the next unit is sent.
"""

from __future__ import annotations

from collections.abc import Callable

from integration.core.model import Delivery, EntryResult, Status, WorkItem
from integration.fhir.progress import map_targets
from integration.fhir.units import Lane
from integration.journal.bases import MAX_ENTRIES, decode_bases
from integration.journal.store import list_settled
from integration.relay.lane_run import LaneContext, LaneRun
from integration.relay.unit_attempt import release_previous_locks, write_unit


class TimeUp(Exception):
    """The time for one invocation is over, between two units. Nothing has failed."""


async def process_only_unit(
    context: LaneContext, delivery: Delivery, lane: Lane, item: WorkItem
) -> tuple[Delivery, list[EntryResult]]:
    """Write the only unit of a delivery that nobody has begun, as its first work item says. Return
    the delivery as its row is now, and the results of its entries.

    It is recorded that the delivery begins when all is known but before anything is done, so one
    operation holds that and the versions that were found. It also tells whether the row is still
    as intake has added it, which therefore is not read. Until then a worker may end at any point:
    the next one finds the row as it was. Raises Unavailable as `process_lane` does, and
    DeliveryChanged when somebody has begun, cancelled or replayed the delivery.
    """
    (unit,) = lane.units
    run = LaneRun(context=context, delivery=delivery, item=item, is_begun=False, has_results=False)
    await write_unit(run, unit, _name_unit(delivery, 0, 0))
    return run.delivery, [run.settled[position] for position in lane.positions]


def can_begin_at_once(lane: Lane) -> bool:
    """Whether `process_only_unit` can write the lane. A delete is announced before it is known
    which version it deletes, so that takes two records."""
    return (
        len(lane.units) == 1
        and len(lane.units[0].entries) <= MAX_ENTRIES
        and all(entry.method != "DELETE" for entry in lane.units[0].entries)
    )


async def process_lane(
    context: LaneContext,
    delivery: Delivery,
    lane: Lane,
    item: WorkItem,
    is_time_up: Callable[[], bool],
) -> list[EntryResult] | None:
    """Write the lane. Return the results of its entries, or None when the delivery was cancelled.

    Raises Unavailable when some entries must be tried again, and TimeUp when `is_time_up` after a
    unit that is not the last. What is settled stays settled.
    """
    is_retry = await _begin(context, delivery, item)
    progress = LaneRun(context=context, delivery=delivery, item=item, is_retry=is_retry)
    recorded = {}
    if progress.is_retry:
        lane_number = progress.results_lane
        results = list_settled(
            await context.journal.list_entry_results(delivery.id, lane_number), delivery.round
        )
        bases = await context.journal.list_bases(delivery.id, lane_number)
        progress.bases = bases | decode_bases(delivery.bases)  # which are of the first attempt
        recorded = {result.position: result for result in results}
    started = [unit for unit in lane.units if recorded.keys() & map_targets(unit).keys()]
    has_written = False
    for index, unit in enumerate(lane.units):
        name = _name_unit(delivery, progress.lane, index)
        progress.record(unit, [recorded[n] for n in map_targets(unit) if n in recorded])
        if started and unit is started[-1]:
            await release_previous_locks(progress, unit, name)
        if not progress.list_unsettled(unit):
            continue
        if has_written and is_time_up():
            raise TimeUp
        if index and await _is_cancelled(context, delivery):
            return None
        await write_unit(progress, unit, name)
        has_written = True
    return [progress.settled[position] for position in lane.positions]


async def _begin(context: LaneContext, delivery: Delivery, item: WorkItem) -> bool:
    """Record that the lane begins. Return whether its entries may have been attempted before."""
    is_first = await context.journal.begin_lane(delivery.id, item.lane or 0)
    # After the first plan, they were in other lanes before; those of a correction, in the delivery
    # that it corrects.
    return not is_first or delivery.begun or delivery.plan > 1 or delivery.corrects is not None


def _name_unit(delivery: Delivery, lane: int, index: int) -> str:
    """Return the name of a unit: that of no unit of another plan."""
    name = f"{lane}.{index}"
    return name if delivery.plan == 1 else f"{delivery.plan}:{name}"


async def _is_cancelled(context: LaneContext, delivery: Delivery) -> bool:
    current = await context.journal.get_delivery(delivery.id)
    return current is not None and current.status is Status.CANCELLED
