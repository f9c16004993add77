"""Build what housekeeping and the status report need: see integration.operations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from integration.app.settings import Settings, get_events_queue, get_housekeeping_schedule_text
from integration.core.cron import Schedule, find_next, parse
from integration.journal.flow_log import FlowReader
from integration.operations.health import UpstreamCheck
from integration.operations.housekeeping import Ages, Housekeeping
from integration.operations.status import StatusCheck
from integration.queues.names import APP_QUEUES

if TYPE_CHECKING:  # its SDKs are slow to import
    from integration.app.storage_clients import StatusStores, Stores

_NONE: Mapping[str, str] = MappingProxyType({})


def build_housekeeping(
    settings: Settings, stores: Stores, now: Callable[[], datetime], max_duration: float
) -> Housekeeping:
    """Build what housekeeping needs."""
    return Housekeeping(
        journal=stores.journal,
        guard_store=stores.guard_store,
        queue=stores.queue,
        activity=stores.activity,
        audit=stores.audit,
        row_keys=stores.row_keys,
        now=now,
        ages=Ages(
            max_age=timedelta(seconds=settings.max_age),
            retention=timedelta(days=settings.retention_days),
            activity=timedelta(days=settings.activity_days),
            audit=timedelta(days=settings.audit.days),
        ),
        max_duration=max_duration,
        runs=stores.runs,
        flow=stores.flow,
        jobs=stores.jobs,
        due_days=stores.due_days,
    )


def build_status_check(
    stores: Stores | StatusStores,
    senders: Collection[str],
    *,
    now: Callable[[], datetime],
    sender_problems: Mapping[str, str] = _NONE,
    upstream_check: UpstreamCheck | None = None,
    flow: FlowReader | None = None,
) -> StatusCheck:
    """Build what a report on the status is made from. `senders`: the names of the listed ones.
    `flow`: what passed; None: as it is stored."""
    return StatusCheck(
        journal=stores.journal,
        queue_reader=stores.queue_reader,
        activity=stores.activity,
        runs=stores.runs,
        flow=flow or stores.flow,
        queues=(*APP_QUEUES[:2], get_events_queue(), *APP_QUEUES[2:]),
        senders=senders,
        sender_problems=sender_problems,
        schedule=_parse_schedule(get_housekeeping_schedule_text(), now()),
        started=now(),
        now=now,
        upstream_check=upstream_check,
    )


def _parse_schedule(text: str, now: datetime) -> Schedule | None:
    """Return None for what the host may understand and this app does not, such as a time span."""
    try:
        schedule = parse(text)
        find_next(schedule, now)
    except ValueError:
        return None
    return schedule
