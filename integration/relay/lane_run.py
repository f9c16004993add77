"""A lane that is being processed: what it needs, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from integration.core.model import Delivery, WorkItem
from integration.fhir.client import FhirServer
from integration.fhir.progress import Progress
from integration.journal.store import Journal
from integration.journal.write_guard import WriteGuard
from integration.queues.queue_sender import ChangeQueues, QueueSender


class DeliveryChanged(Exception):
    """The row of the delivery is no longer as its first work item says. Nothing was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneContext:
    """What processing a lane needs. `change_queues`: which queue receives each change."""

    journal: Journal
    queue: QueueSender
    fhir: FhirServer
    guard: WriteGuard
    change_queues: ChangeQueues


@dataclass(slots=True, kw_only=True)
class LaneRun(Progress):
    """The progress of one lane. `bases`: see `write_decisions`, by position. `is_begun`: that the
    lane begins is recorded. `has_results`: results can be appended."""

    context: LaneContext
    delivery: Delivery
    item: WorkItem
    is_retry: bool = False
    is_begun: bool = True
    has_results: bool = True
    bases: dict[int, str] = field(default_factory=dict)

    @property
    def lane(self) -> int:
        return self.item.lane or 0

    @property
    def results_lane(self) -> int | None:
        """Where the results of this lane's entries may be: with those of its own number, or, after
        the delivery was planned anew, or if it has taken over results, with those of any."""
        is_own = self.delivery.plan == 1 and self.delivery.corrects is None
        return self.lane if is_own else None


async def ensure_begun(progress: LaneRun, bases: Mapping[int, str]) -> None:
    """Record that the delivery begins, unless that is recorded. Raises DeliveryChanged."""
    if progress.is_begun:
        return
    begun = await progress.context.journal.begin_delivery(progress.delivery, bases)
    if begun is None:
        raise DeliveryChanged
    progress.delivery, progress.is_begun = begun, True
    progress.bases |= bases
