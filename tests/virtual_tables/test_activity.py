"""A request for a virtual table is one operation of the activity log."""

from __future__ import annotations

from integration.journal.activity_log import MemoryActivityLog
from tests.virtual_tables.conftest import Feed


async def test_the_calls_of_a_request_have_an_operation_and_those_of_the_next_another(
    feed: Feed,
) -> None:
    log = MemoryActivityLog()
    feed.tables.reader.fhir.upstream.activities.store = log.add
    await feed.put({"resourceType": "Location", "id": "w1", "name": "Ward 1"})
    shape = feed.tables.entity_types["Location"]
    for _ in range(2):
        assert len(await feed.every(shape.type.set)) == 1
    first, second = dict.fromkeys(entry.operation for entry in log.entries)
    assert first
    assert second
    assert {entry.table for entry in log.entries} == {shape.entity.table}
