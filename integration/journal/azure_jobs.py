"""Jobs in a table of Azure Storage.

One row for each job, in the partition of the day of its start, the newest first. A list is a range
of keys. The few open ones have a second row each, in a partition of their own, so that whoever
looks for those that make no progress reads no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from azure.core import MatchConditions
from azure.core.exceptions import (
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.journal.azure_day_rows import (
    DayQuery,
    build_day_query,
    decode_continuation,
    delete_days_before,
    encode_position,
    read_rows,
)
from integration.journal.azure_errors import translate_storage_errors
from integration.journal.azure_tables import RETRY_WRITES
from integration.journal.jobs import (
    OPEN_STATES,
    Job,
    JobFilter,
    JobKind,
    JobPage,
    JobState,
    PreviewSummary,
    bound_job,
)
from integration.journal.table_keys import get_day_partition, is_audit_id, parse_activity_time

TABLE = "jobs"

# Before the partitions of days, which are digits: a list begins behind it, and so does what
# deletes the old ones.
_OPEN_PARTITION = "-open"
_FIRST_DAY = "0"

_MOMENTS = ("started", "progressed", "ended")
_COUNTS = ("found", "looked_at", "done", "left_out", "failed")
_TEXTS = ("started_by", "reason", "waiting", "cursor", "worker")

_filter_decoder = msgspec.json.Decoder(JobFilter)
_summary_decoder = msgspec.json.Decoder(PreviewSummary)


@dataclass(frozen=True, slots=True)
class AzureJobs:
    """See integration.journal.jobs.Jobs for the contract of each method."""

    table: TableClient

    async def add_job(self, job: Job) -> Job:
        async with translate_storage_errors():
            # First, so that a job whose message is lost is always found.
            await self.table.upsert_entity(
                {"PartitionKey": _OPEN_PARTITION, "RowKey": job.id}, **RETRY_WRITES
            )
            try:
                added = await self.table.create_entity(_to_entity(job), **RETRY_WRITES)
            except ResourceExistsError:
                pass  # an earlier attempt has added it
            else:
                return replace(bound_job(job), etag=str(added["etag"]))
        return await self.get_job(job.id) or job

    async def get_job(self, id_: str) -> Job | None:
        if not is_audit_id(id_):
            return None
        async with translate_storage_errors():
            try:
                return _from_entity(await self.table.get_entity(*_build_key(id_)))
            except ResourceNotFoundError:
                return None

    async def save_job(self, job: Job) -> Job | None:
        async with translate_storage_errors():
            try:
                saved = await self.table.update_entity(
                    _to_entity(job),
                    mode=UpdateMode.REPLACE,
                    etag=job.etag or "",
                    match_condition=MatchConditions.IfNotModified,
                    **RETRY_WRITES,
                )
            except (ResourceModifiedError, ResourceNotFoundError):
                return None
        if job.state not in OPEN_STATES:
            await self.close_job(job.id)
        return replace(bound_job(job), etag=str(saved["etag"]))

    async def list_jobs(self, limit: int, after: str | None) -> JobPage:
        last, token = (after, None) if after and is_audit_id(after) else (None, after)
        continuation: Any = decode_continuation(token) if token is not None else None
        query = build_day_query(None, None, last) if last else DayQuery()
        if last is None:
            query.add("PartitionKey ge ?", _FIRST_DAY)
        found, next_ = await read_rows(self.table, query, continuation, limit, _from_entity)
        return JobPage(tuple(found), encode_position(next_) if next_ else None)

    async def list_open_jobs(self) -> Sequence[str]:
        async with translate_storage_errors():
            rows = self.table.query_entities(
                f"PartitionKey eq '{_OPEN_PARTITION}'", select=["RowKey"]
            )
            return [str(row["RowKey"]) async for row in rows]

    async def close_job(self, id_: str) -> None:
        async with translate_storage_errors():
            # Of one that is not there the SDK says nothing.
            await self.table.delete_entity(_OPEN_PARTITION, id_, **RETRY_WRITES)

    async def delete_jobs_before(self, before: datetime, limit: int) -> int:
        return await delete_days_before(self.table, before, limit)


def _build_key(id_: str) -> tuple[str, str]:
    return get_day_partition(parse_activity_time(id_)), id_


def _to_entity(job: Job) -> dict[str, Any]:
    bounded = bound_job(job)
    partition, row = _build_key(job.id)
    values = {name: getattr(bounded, name) for name in (*_MOMENTS, *_COUNTS, *_TEXTS)}
    if bounded.summary is not None:
        values["summary"] = msgspec.json.encode(bounded.summary).decode()
    return {
        "PartitionKey": partition,
        "RowKey": row,
        "kind": str(job.kind),
        "state": str(job.state),
        "filter": msgspec.json.encode(job.filter).decode(),
        **{name: value for name, value in values.items() if value is not None},
    }


def _from_entity(entity: Mapping[str, Any]) -> Job:
    values = {name: entity[name] for name in (*_COUNTS, *_TEXTS, *_MOMENTS) if name in entity}
    for name in _MOMENTS:
        if name in values:
            values[name] = datetime.fromisoformat(values[name].isoformat())
    if "summary" in entity:
        values["summary"] = _summary_decoder.decode(entity["summary"])
    return Job(
        id=entity["RowKey"],
        kind=JobKind(entity["kind"]),
        state=JobState(entity["state"]),
        filter=_filter_decoder.decode(entity["filter"]),
        etag=getattr(entity, "metadata", {}).get("etag"),
        **values,
    )
