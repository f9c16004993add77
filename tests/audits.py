"""Audit logs for tests: a recorder whose ids follow from a counter, and a log that takes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from integration.core.errors import Unavailable
from integration.journal.audit_entry import AuditEntry
from integration.journal.audit_log import AuditLog, MemoryAuditLog
from integration.journal.audit_recorder import AuditRecorder

NOON = datetime(2026, 3, 2, 12, 0, 0, 123457, tzinfo=UTC)


def make_recorder(
    log: AuditLog | None = None, now: Callable[[], datetime] = lambda: NOON, **changes: Any
) -> AuditRecorder:
    numbers = count(1)
    kept = MemoryAuditLog() if log is None else log
    return AuditRecorder(
        log=kept, now=now, new_token=lambda: f"{0xFFFFFFFF - next(numbers):08x}", **changes
    )


@dataclass(slots=True)
class FailingAuditLog(MemoryAuditLog):
    """Takes so many entries, then none; or never answers."""

    takes: int = 0
    hangs: bool = False
    tried: list[AuditEntry] = field(default_factory=list)

    async def put(self, entry: AuditEntry) -> None:
        self.tried.append(entry)
        if self.hangs:
            await asyncio.Event().wait()
        if len(self.tried) > self.takes:
            raise Unavailable("storage", "ServiceRequestError")
        await MemoryAuditLog.put(self, entry)
