"""Record who was shown what, before it is shown.

A read that cannot be recorded is not answered, and a write that cannot be recorded is not begun,
unless a setting says otherwise: docs/decisions/0031-an-audit-entry-before-the-answer.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from integration.core.errors import Misconfigured, Unavailable
from integration.core.log_events import log_event
from integration.journal.audit_entry import Access, AuditEntry, Reader
from integration.journal.audit_log import AuditLog
from integration.journal.table_keys import build_audit_id


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecorder:
    """What recording needs.

    `new_token` makes hexadecimal text that tells apart entries of one time. `is_on`: whether
    anything is recorded. `is_required`: whether a failure to record is an error. `timeout`: seconds
    that storage has for an entry.
    """

    log: AuditLog
    now: Callable[[], datetime]
    new_token: Callable[[], str]
    is_on: bool = True
    is_required: bool = True
    timeout: float = 5.0


async def record(recorder: AuditRecorder, reader: Reader, access: Access) -> AuditEntry | None:
    """Record an access, before what is read leaves the app, or before a write is begun. Return its
    entry; None: there is none. Raises Unavailable or Misconfigured where it cannot be recorded."""
    if not recorder.is_on:
        return None
    time = recorder.now()
    id_ = build_audit_id(time, recorder.new_token())
    entry = AuditEntry(id=id_, time=time, reader=reader, access=access)
    try:
        await _put(recorder, entry)
    except (Unavailable, Misconfigured) as error:
        if recorder.is_required:
            raise
        log_event("audit.dropped", kind=access.kind, delivery=access.delivery, reason=str(error))
        return None
    return entry


async def complete(recorder: AuditRecorder, entry: AuditEntry | None, access: Access) -> None:
    """Write what has become of a write into its entry.

    The write is done and recorded. So it is answered, even if this fails: whoever hears nothing of
    a write repeats it.
    """
    if entry is None:
        return
    try:
        await _put(recorder, replace(entry, access=access))
    except (Unavailable, Misconfigured) as error:
        log_event("audit.incomplete", kind=access.kind, entry=entry.id, reason=str(error))


async def _put(recorder: AuditRecorder, entry: AuditEntry) -> None:
    try:
        async with asyncio.timeout(recorder.timeout):
            await recorder.log.put(entry)
    except TimeoutError:
        why = f"an audit entry was not stored within {recorder.timeout:g} s"
        raise Unavailable("storage", why) from None
