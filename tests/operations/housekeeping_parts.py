"""What housekeeping is made from in tests, and a delivery that it looks at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from integration.core.model import Delivery, Status
from integration.journal.flow_log import FlowLog
from integration.operations.housekeeping import Ages, Housekeeping
from tests.conftest import Route

AGES = Ages(timedelta(days=3), timedelta(days=30), timedelta(days=7), timedelta(days=9))

START = datetime(2026, 3, 2, tzinfo=UTC)

DELIVERY = Delivery(
    id="id",
    sender="north",
    key="k",
    digest="d",
    accepted=START,
    status=Status.ACCEPTED,
    kind="batch",
    entries=1,
    bytes=2,
)


def keeping(
    route: Route, queue_sender: Any, runs: Any = None, flow: FlowLog | None = None
) -> Housekeeping:
    return Housekeeping(
        journal=route.journal,
        guard_store=route.guard_store,
        queue=queue_sender,
        activity=route.activity,
        audit=route.audit,
        row_keys=route.row_keys,
        now=route.clock,
        ages=AGES,
        runs=runs,
        flow=flow,
    )
