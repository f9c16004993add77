"""Answer a request for rows, and record in the audit log who asked, and for what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from integration.core.errors import Rejected
from integration.journal.audit_entry import AccessAction, AccessKind, Reader, build_access
from integration.journal.audit_recorder import AuditRecorder, complete, record
from integration.virtual_tables.odata_request import ODataResponse

Work = Callable[[], Awaitable[ODataResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks for: rows of a resource type."""

    kind: AccessKind
    action: AccessAction
    type: str


async def handle_read(
    recorder: AuditRecorder, reader: Reader, asked: Asked, work: Work
) -> ODataResponse:
    """Read, then record what was found, then answer: only now it is known what is shown. A refusal,
    such as 404, tells something, too. Raises what `work` raises, and Unavailable or Misconfigured
    where it cannot be recorded."""
    access = build_access(asked.kind, (), action=asked.action, type_=asked.type)
    try:
        response = await work()
    except Rejected as error:
        await record(recorder, reader, replace(access, status=error.status))
        raise
    shown = build_access(asked.kind, response.names, type_=asked.type, status=response.status)
    await record(recorder, reader, shown)
    return response


async def handle_write(
    recorder: AuditRecorder, reader: Reader, asked: Asked, work: Work
) -> ODataResponse:
    """Record that a write is begun, write, then record what was written. Raises what `work` raises,
    and Unavailable or Misconfigured where it cannot be recorded: then nothing is written."""
    access = build_access(asked.kind, (), action=asked.action, type_=asked.type)
    entry = await record(recorder, reader, replace(access, status=None))
    try:
        response = await work()
    except Rejected as error:
        await complete(recorder, entry, replace(access, status=error.status))
        raise
    written = build_access(
        asked.kind, response.names, action=asked.action, type_=asked.type, status=response.status
    )
    await complete(recorder, entry, written)
    return response
