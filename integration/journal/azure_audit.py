"""The audit log in a table of Azure Storage.

One row for each entry, in the partition of its day, the newest first. A page is a range of keys;
the table checks the other conditions on the way. An entry of one resource or type has it in a
column of its own. Those of several have `*` there and are looked through here: the table searches
no lists.
https://learn.microsoft.com/azure/storage/tables/table-storage-design-patterns#log-tail-pattern
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.journal.audit_entry import Access, AccessAction, AccessKind, AuditEntry, Reader
from integration.journal.audit_log import AuditFilter, AuditPage, matches
from integration.journal.azure_day_rows import (
    MAX_PAGE,
    DayQuery,
    build_day_query,
    decode_position,
    delete_days_before,
    encode_position,
    is_continuation,
    read_rows,
)
from integration.journal.azure_errors import translate_storage_errors
from integration.journal.table_keys import (
    get_day_partition,
    is_audit_id,
    parse_activity_time,
)

TABLE = "audit"

_SEVERAL = "*"


@dataclass(frozen=True, slots=True)
class AzureAuditLog:
    """See integration.journal.audit_log.AuditLog for what each method promises."""

    table: TableClient

    async def put(self, entry: AuditEntry) -> None:
        async with translate_storage_errors():
            # An upsert, since the SDK repeats a request whose answer was lost.
            await self.table.upsert_entity(_to_entity(entry), mode=UpdateMode.REPLACE)

    async def list_entries(self, criteria: AuditFilter, limit: int, after: str | None) -> AuditPage:
        last, token = _parse_position(after)

        def parse(entity: Mapping[str, Any]) -> AuditEntry | None:
            entry = _from_entity(entity)
            return entry if matches(entry, criteria) else None

        # Without a resource the table itself drops what does not match.
        page_size = None if criteria.resource is None else MAX_PAGE
        query = _build_query(criteria, last)
        found, token = await read_rows(self.table, query, token, limit, parse, page_size=page_size)
        if len(found) > limit:
            found = found[:limit]
            token = {"last": found[-1].id}
        return AuditPage(tuple(found), encode_position(token) if token else None)

    async def delete_before(self, before: datetime, limit: int) -> int:
        return await delete_days_before(self.table, before, limit)


def _parse_position(after: str | None) -> tuple[str | None, Any]:
    """Return the last entry of the page before, or the table's continuation token."""
    if after is None:
        return None, None
    position = decode_position(after)
    if is_continuation(position):
        return None, position
    last = position.get("last")
    if position.keys() != {"last"} or not isinstance(last, str) or not is_audit_id(last):
        raise ValueError("no page has returned this position")
    return last, None


def _to_entity(entry: AuditEntry) -> dict[str, Any]:
    access = entry.access
    values = {
        **asdict(entry.reader),
        "kind": str(access.kind),
        "action": str(access.action),
        "status": access.status,
        "delivery": access.delivery,
        "number": access.number,
        "types": " ".join(access.types),
        "resources": " ".join(access.resources),
        "type": _get_single(access.types),
        "resource": _get_single(access.resources),
    }
    keys = {"PartitionKey": get_day_partition(entry.time), "RowKey": entry.id}
    return keys | {name: value for name, value in values.items() if value is not None}


def _get_single(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else _SEVERAL * bool(names)


def _from_entity(entity: Mapping[str, Any]) -> AuditEntry:
    get = entity.get
    return AuditEntry(
        id=entity["RowKey"],
        time=parse_activity_time(entity["RowKey"]),
        reader=Reader(
            sender=get("sender"), principal=get("principal"), key=get("key"), user=get("user")
        ),
        access=Access(
            kind=AccessKind(entity["kind"]),
            action=AccessAction(entity["action"]),
            status=get("status"),
            types=tuple(entity["types"].split()),
            resources=tuple(entity["resources"].split()),
            number=entity["number"],
            delivery=get("delivery"),
        ),
    )


def _build_query(criteria: AuditFilter, last: str | None) -> DayQuery:
    """Return the query of a list: 12 comparisons at most."""
    query = build_day_query(criteria.since, criteria.until, last)
    for name in ("sender", "user", "delivery", "kind"):
        value = getattr(criteria, name)
        if value is not None:
            query.add(f"{name} eq ?", str(value))
    if criteria.resource is not None and "/" in criteria.resource:
        type_ = criteria.resource.partition("/")[0]
        several = "resource eq ? and ( type eq ? or type eq ? )"
        any_ = f"( resource eq ? or ( {several} ) )"
        query.add(any_, criteria.resource, _SEVERAL, type_, _SEVERAL)
    elif criteria.resource is not None:
        query.add("( type eq ? or type eq ? )", criteria.resource, _SEVERAL)
    return query
