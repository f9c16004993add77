"""What passed the relay, in a table of Azure Storage: one row for each hour and worker.

Each day is a partition, and within it the newest hour comes first. A row is replaced as a whole.
Its counts are JSON in as many properties as it takes: about ten with 200 senders and 200 elements
that have the longest names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any

import msgspec
from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

from integration.core.flow import NAMES, FlowCounts, HourFlow, UnmappedElement
from integration.journal.azure_day_rows import (
    MAX_PAGE,
    MAX_REQUESTS,
    build_day_query,
    delete_days_before,
    read_rows,
    split_into_transactions,
)
from integration.journal.azure_errors import translate_storage_errors
from integration.journal.azure_tables import RETRY_WRITES
from integration.journal.flow_log import FlowPage
from integration.journal.table_keys import build_activity_key, parse_activity_time

TABLE = "flow"

# Characters of one property, which takes 64 KiB of UTF-16, so four bytes for some characters:
# https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model
_PART = 16_000

# The most rows that one list reads.
_MAX_ROWS = MAX_PAGE * MAX_REQUESTS


class _Content(msgspec.Struct):
    """The counts of a row. `unmapped`: type, path, note and number."""

    senders: dict[str, dict[str, int]]
    unmapped: list[tuple[str, str, str, int]]


_decoder = msgspec.json.Decoder(_Content)


@dataclass(frozen=True, slots=True)
class AzureFlowLog:
    """See integration.journal.flow_log.FlowLog for what each method promises."""

    table: TableClient

    async def save_flows(self, flows: Sequence[HourFlow]) -> None:
        async with translate_storage_errors():
            for group in split_into_transactions([_to_entity(flow) for flow in flows]):
                await self._upsert(group)

    async def _upsert(self, entities: Sequence[dict[str, Any]]) -> None:
        if len(entities) == 1:
            await self.table.upsert_entity(entities[0], mode=UpdateMode.REPLACE, **RETRY_WRITES)
            return
        options = {"mode": UpdateMode.REPLACE}
        await self.table.submit_transaction([("upsert", entity, options) for entity in entities])

    async def list_flows(self, since: datetime) -> FlowPage:
        found, token = await read_rows(
            self.table, build_day_query(since, None), None, _MAX_ROWS, _from_entity
        )
        return FlowPage(tuple(found), is_cut=bool(token))

    async def delete_before(self, before: datetime, limit: int) -> int:
        return await delete_days_before(self.table, before, limit)


def _to_entity(flow: HourFlow) -> dict[str, Any]:
    day, row = build_activity_key(flow.hour, 0, flow.worker)
    content = _Content(
        {name: counts.list_counted() for name, counts in flow.senders.items()},
        [(*astuple(element), number) for element, number in flow.unmapped.items()],
    )
    text = msgspec.json.encode(content).decode()
    parts = [text[start : start + _PART] for start in range(0, len(text), _PART)]
    properties = {f"counts{number}": part for number, part in enumerate(parts)}
    return {"PartitionKey": day, "RowKey": row, "worker": flow.worker, **properties}


def _from_entity(entity: Mapping[str, Any]) -> HourFlow:
    parts = [entity[f"counts{n}"] for n in range(len(entity)) if f"counts{n}" in entity]
    content = _decoder.decode("".join(parts))
    return HourFlow(
        hour=parse_activity_time(entity["RowKey"]),
        worker=entity["worker"],
        # A row of an earlier or later version of this app may have fewer or more counts.
        senders={
            sender: FlowCounts(**{name: counts[name] for name in NAMES if name in counts})
            for sender, counts in content.senders.items()
        },
        unmapped={
            UnmappedElement(type_, path, note): number
            for type_, path, note, number in content.unmapped
        },
    )
