"""What passed the relay, by hour and worker: its contract, an implementation in memory for tests,
and one that adds what the worker that is asked has not stored yet.

docs/decisions/0038-flow-is-counted-by-hour.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from integration.core.flow import HourFlow
from integration.core.flow_recorder import FlowRecorder
from integration.journal.table_keys import get_day_partition


@dataclass(frozen=True, slots=True)
class FlowPage:
    """The counts of several workers and hours. `is_cut`: there are more than were read."""

    flows: tuple[HourFlow, ...]
    is_cut: bool


class FlowReader(Protocol):
    """Raises Unavailable when the storage does not answer."""

    async def list_flows(self, since: datetime) -> FlowPage:
        """Return the counts of every worker of the hours from `since` on, the newest first."""


class FlowLog(FlowReader, Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def save_flows(self, flows: Sequence[HourFlow]) -> None:
        """Store counts, each in the place of those of its hour and worker."""

    async def delete_before(self, before: datetime, limit: int) -> int:
        """Delete up to `limit` rows of the days before that of `before`. Return how many were
        deleted."""


@dataclass(slots=True)
class MemoryFlowLog:
    """The same contract in a dictionary, for tests."""

    flows: dict[tuple[datetime, str], HourFlow] = field(default_factory=dict)

    async def save_flows(self, flows: Sequence[HourFlow]) -> None:
        self.flows |= {(flow.hour, flow.worker): flow for flow in flows}

    async def list_flows(self, since: datetime) -> FlowPage:
        found = [self.flows[key] for key in sorted(self.flows, reverse=True) if key[0] >= since]
        return FlowPage(tuple(found), is_cut=False)

    async def delete_before(self, before: datetime, limit: int) -> int:
        day = get_day_partition(before)
        old = [key for key in sorted(self.flows) if get_day_partition(key[0]) > day][:limit]
        for key in old:
            del self.flows[key]
        return len(old)


@dataclass(frozen=True, slots=True)
class LiveFlow:
    """What is stored, and what this worker has counted since: it need not wait for its own next
    write."""

    log: FlowReader
    recorder: FlowRecorder

    async def list_flows(self, since: datetime) -> FlowPage:
        stored = await self.log.list_flows(since)
        counted = {(flow.hour, flow.worker): flow for flow in self.recorder.list_hours()}
        counted = {key: flow for key, flow in counted.items() if flow.hour >= since}
        others = [flow for flow in stored.flows if (flow.hour, flow.worker) not in counted]
        return FlowPage((*counted.values(), *others), stored.is_cut)
