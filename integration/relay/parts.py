"""What processing needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from math import inf

from integration.core.activity_recorder import ActivityRecorder
from integration.core.byte_budget import ByteBudget
from integration.core.flow_recorder import FlowRecorder
from integration.fhir.units import Limits
from integration.journal.store import Journal
from integration.queues.queue_sender import QueueSender
from integration.relay.fetch import NO_SOURCES, Sources
from integration.relay.lane_run import LaneContext

# Seconds: far less than `functionTimeout` of host.json, which ends the worker.
_MAX_WAIT = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """What processing needs.

    In seconds: a work item older than `max_age` is parked; after `max_duration` the rest of a lane
    is left to a new work item; planning that has waited `max_wait` for its share of the budget goes
    back to the queue.
    """

    context: LaneContext
    limits: Limits
    now: Callable[[], datetime]
    max_age: float
    max_duration: float = inf
    sources: Sources = NO_SOURCES
    activities: ActivityRecorder = field(default_factory=ActivityRecorder)
    flow: FlowRecorder = field(default_factory=FlowRecorder)
    budget: ByteBudget = field(default_factory=ByteBudget)  # of planning
    max_wait: float = _MAX_WAIT

    @property
    def journal(self) -> Journal:
        return self.context.journal

    @property
    def queue(self) -> QueueSender:
        return self.context.queue
