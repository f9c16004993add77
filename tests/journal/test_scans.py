"""No question about deliveries reads more as the tables grow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from azure.core.pipeline.transport import AioHttpTransport
from azure.data.tables.aio import TableClient, TableServiceClient
from azure.storage.blob.aio import BlobServiceClient

from integration.core.flow import HourFlow
from integration.core.model import Activity, Category, Delivery, DeliveryRequest, Status, WorkItem
from integration.journal import azure_store
from integration.journal.activity_log import ActivityFilter
from integration.journal.attention import ConcernFilter
from integration.journal.audit_entry import AccessKind, Reader, build_access
from integration.journal.audit_log import AuditFilter
from integration.journal.audit_recorder import record
from integration.journal.azure_activity import AzureActivityLog
from integration.journal.azure_audit import AzureAuditLog
from integration.journal.azure_configuration import AzureConfigurationStore
from integration.journal.azure_flow import AzureFlowLog
from integration.journal.azure_guard_store import AzureGuardStore
from integration.journal.azure_housekeeping_runs import AzureHousekeepingRuns
from integration.journal.azure_pending_lookups import AzurePendingLookups
from integration.journal.azure_row_keys import AzureRowKeys
from integration.journal.azure_store import AzureJournal
from integration.journal.concern import ConcernKind, build_delivery_concern
from integration.journal.configuration import ConfigurationVersion
from integration.journal.delivery_filter import DeliveryFilter
from integration.journal.guard_store import MEMORY, Claim, WriteLock
from integration.journal.pending_lookups import LookupState
from integration.journal.store import Payload
from integration.journal.table_keys import make_delivery_id
from integration.operations import deliveries
from integration.operations.housekeeping import Ages, Housekeeping, sweep
from integration.operations.status import OpenDeliveries, StatusCheck, report_status
from integration.queues.queue_reader import MemoryQueueReader
from local.services import Running
from tests.audits import make_recorder
from tests.conftest import Route
from tests.journal.recording import PartitionScan, RecordingTransport, TableQueries
from tests.journal.store_work import DELIVERY, EVERYTHING, NOON

pytestmark = pytest.mark.azurite

USES = ("deliveries", "open", "attention", "keys", "rows", "subs")
# Partitions of one delivery, of what is open, or of what people write one by one.
SMALL = ("open", "rows", "configuration", "lookups", "claims")


@dataclass(frozen=True)
class Recorded:
    """A journal whose queries are recorded, and a client of its tables that is not."""

    journal: AzureJournal
    queries: TableQueries
    tables: TableServiceClient
    own: TableServiceClient
    namespace: str

    def open_table(self, use: str) -> TableClient:
        return self.own.get_table_client(f"{self.namespace}{use}")

    async def count_rows(self) -> None:
        """Tell the recorder which rows there are."""
        for use in ("deliveries", "open"):
            rows = self.open_table(use).list_entities(select=["PartitionKey", "RowKey"])
            keys = {(row["PartitionKey"], row["RowKey"]) async for row in rows}
            self.queries.rows[f"{self.namespace}{use}"] = keys
        self.queries.scanned = 0


@pytest.fixture
async def recorded(azurite: Running, namespace: str) -> AsyncIterator[Recorded]:
    queries = TableQueries(frozenset(f"{namespace}{use}" for use in SMALL))
    storage = azurite.storage
    transport: AioHttpTransport = RecordingTransport(queries)
    async with (
        BlobServiceClient.from_connection_string(storage) as blobs,
        TableServiceClient.from_connection_string(storage) as own,
        TableServiceClient.from_connection_string(storage, transport=transport) as tables,
    ):
        container = await blobs.create_container(namespace)
        for use in (
            *USES,
            "activity",
            "audit",
            "flow",
            "configuration",
            "lookups",
            "rowkeys",
            "locks",
            "claims",
        ):
            await own.create_table(f"{namespace}{use}")
        opened = [tables.get_table_client(f"{namespace}{use}") for use in USES]
        yield Recorded(AzureJournal(container, *opened), queries, tables, own, namespace)


async def test_no_method_of_the_journal_scans_a_partition(recorded: Recorded) -> None:
    await recorded.journal.index_open(NOON)  # before the first time there is nothing to read
    for _, work in EVERYTHING:
        with suppress(KeyError, StopAsyncIteration):
            await work(recorded.journal)
    for status in (None, *Status):
        for after in (None, DELIVERY.id):
            await recorded.journal.list_deliveries(DeliveryFilter(status=status), 10, after)
    assert len(recorded.queries.queries) > 10


async def test_no_other_store_scans_a_partition(recorded: Recorded) -> None:
    def opened(use: str) -> TableClient:
        return recorded.tables.get_table_client(f"{recorded.namespace}{use}")

    keys = AzureRowKeys(opened("rowkeys"))
    await keys.add("Patient", {f"p{number}": f"key-{number}" for number in range(30)})
    assert len(await keys.find_keys("Patient", [f"p{number}" for number in range(30)])) == 30
    lookups = AzurePendingLookups(opened("lookups"))
    await lookups.add("Patient/p1", "Patient/p2", LookupState.WAITING)
    assert len(await lookups.list_resources("Patient/p1", LookupState.WAITING)) == 1
    flow = AzureFlowLog(opened("flow"))
    await flow.save_flows([HourFlow(hour=NOON, worker="a")])
    assert len((await flow.list_flows(NOON - timedelta(days=7))).flows) == 1
    await flow.delete_before(NOON, 10)
    guard = AzureGuardStore(opened("locks"), opened("claims"))
    await guard.write({"a" * 64: WriteLock(written_by=DELIVERY.id)})
    await guard.write_claim(
        "unit", Claim(holder="", expires_at=0.0, names=frozenset({b"12345678"}))
    )
    assert len((await guard.read_claims(0)).claims) == 1
    assert await guard.delete_old("ffff", MEMORY + 1.0, 10) == 2
    log = AzureActivityLog(opened("activity"))
    await log.add(
        [
            Activity(
                time=NOON,
                category=Category.ERROR,
                upstream="FHIR server",
                action="read",
                status="500",
            )
        ]
    )
    page = await log.list_entries(ActivityFilter(upstream="FHIR server"), 10, None)
    assert len(page.entries) == 1
    assert await log.delete_before(NOON + timedelta(days=2), 10) == 1


async def test_what_is_configured_is_a_range_of_keys(recorded: Recorded) -> None:
    """The version in use is one operation, however many there were before it."""
    store = AzureConfigurationStore(
        recorded.tables.get_table_client(f"{recorded.namespace}configuration"),
        recorded.journal.container,
    )
    for number in range(1, 4):
        assert await store.add_version(ConfigurationVersion(number=number))
    before = recorded.queries.operations
    assert (await store.read_latest()).number == 3
    assert recorded.queries.operations == before + 1
    assert [version.number for version in await store.list_versions(2, 3)] == [2, 1]
    assert await store.list_drafts() == []


async def test_no_question_about_who_was_shown_what_scans_a_partition(recorded: Recorded) -> None:
    """A page is a range of keys, an entry is one operation, and old days are a range of days."""
    audit = AzureAuditLog(recorded.tables.get_table_client(f"{recorded.namespace}audit"))
    recorder = make_recorder(audit, lambda: NOON)
    before = recorded.queries.operations
    for number in range(4):
        names = [f"Patient/p{number}", "Goal/g"]
        await record(recorder, Reader(sender="north"), build_access(AccessKind.ROWS, names))
    assert recorded.queries.operations == before + 4
    for criteria in (
        AuditFilter(),
        AuditFilter(since=NOON, until=NOON, sender="north", resource="Patient"),
        AuditFilter(resource="Goal/g"),
    ):
        first = await audit.list_entries(criteria, 3, None)
        rest = await audit.list_entries(criteria, 3, first.after)
        assert (len(first.entries), len(rest.entries), rest.after) == (3, 1, None)
    assert await audit.delete_before(NOON + timedelta(days=2), 10) == 4


async def test_no_question_about_what_needs_attention_scans_a_partition(
    recorded: Recorded,
) -> None:
    """A list is a range of keys of a table that holds nothing of what is well."""
    journal = recorded.journal
    for number in range(4):
        since = NOON - timedelta(hours=10 * number)
        kind = ConcernKind.WAITING if number % 2 else ConcernKind.PARKED
        await journal.put_concern(
            build_delivery_concern(kind, f"d{number}", "north", since, reason="the cause")
        )
    every = ConcernFilter()
    narrow = ConcernFilter(
        kinds=frozenset({ConcernKind.PARKED, ConcernKind.WAITING}),
        sender="north",
        since=NOON - timedelta(days=3),
        until=NOON,
    )
    for criteria in (every, narrow):
        first = await journal.list_concerns(criteria, 3, None)
        rest = await journal.list_concerns(criteria, 3, first.after)
        assert (len(first.concerns), len(rest.concerns), rest.after) == (3, 1, None)
    await journal.delete_concern(first.concerns[0].id)
    assert len((await journal.list_concerns(ConcernFilter(resource="x"), 3, None)).concerns) == 0


def test_a_scan_is_recognised() -> None:
    queries = TableQueries(frozenset({"small"}))
    allowed = [
        "t()?$filter=PartitionKey eq 'p' and RowKey eq 'r'",
        "t()?$filter=PartitionKey eq 'p' and RowKey ge 'r' and (status eq 'a' or status eq 'b')",
        "t()?$filter=PartitionKey ge 'p'",
        "t()?$filter=PartitionKey ge ''&$top=51",
        "small()?$filter=PartitionKey eq 'p'",
        "t(PartitionKey='p',RowKey='r')",
    ]
    for address in allowed:
        queries.note("GET", f"http://host/account/{address}")
    refused = [
        "t()",
        "t()?$filter=PartitionKey eq 'p'",
        "t()?$filter=PartitionKey eq 'p' and status eq 'a'",
        "t()?$filter=PartitionKey eq 'p' and (RowKey eq 'a' or RowKey eq 'b')",
        "t()?$filter=PartitionKey gt 'p' or (PartitionKey eq 'p' and RowKey gt 'r')&$top=51",
        "t()?$filter=PartitionKey ge ''",
        "small()?$filter=status eq 'a'",
    ]
    for address in refused:
        with pytest.raises(PartitionScan):
            queries.note("GET", f"http://host/account/{address}")


# --- what grows with what is open, and with nothing else ----------------------------------------


async def add(recorded: Recorded, number: int, status: Status, days: float, first: int = 0) -> None:
    """Add so many deliveries, accepted about so many days before noon."""
    for each in range(first, first + number):
        moment = NOON - timedelta(days=days, seconds=each)
        added: Delivery = replace(
            DELIVERY,
            id=make_delivery_id(moment, each),
            accepted=moment,
            status=status,
            finished=moment if status is Status.DONE else None,
            reason="the cause" if status is Status.PARKED else None,
        )
        await recorded.journal.add_delivery(added, Payload(DeliveryRequest("POST"), b"{}"))


async def swept(recorded: Recorded, route: Route, minutes: float) -> int:
    """Sweep so many minutes after noon. Return how many rows were read."""
    await recorded.count_rows()
    ages = Ages(timedelta(days=3), timedelta(days=30), timedelta(days=7), timedelta(days=7))
    await sweep(
        Housekeeping(
            journal=recorded.journal,
            guard_store=route.guard_store,
            queue=route.queue_sender,
            activity=route.activity,
            audit=route.audit,
            row_keys=route.row_keys,
            now=lambda: NOON + timedelta(minutes=minutes),
            ages=ages,
        )
    )
    return recorded.queries.scanned


async def test_a_sweep_reads_what_is_open_and_what_is_new(recorded: Recorded, route: Route) -> None:
    await add(recorded, 3, Status.ACCEPTED, days=0.5)
    await add(recorded, 2, Status.PARKED, days=20)
    await swept(recorded, route, 0)
    few = await swept(recorded, route, 10)
    await add(recorded, 40, Status.DONE, days=0.4)
    await add(recorded, 40, Status.DONE, days=12)
    many = await swept(recorded, route, 20)
    assert many == few
    assert many <= 12  # the index, twice: what is due, and the oldest
    assert {item.delivery for item, _ in route.queued()} == {
        make_delivery_id(NOON - timedelta(days=0.5, seconds=each), each) for each in range(3)
    }


async def test_what_is_parked_is_found_without_reading_what_is_done(
    recorded: Recorded, route: Route
) -> None:
    await add(recorded, 40, Status.DONE, days=0.01)
    await add(recorded, 2, Status.PARKED, days=0.01, first=100)
    await add(recorded, 2, Status.PARKED, days=9, first=200)
    await swept(recorded, route, 30)
    await add(recorded, 1, Status.PARKED, days=-0.02, first=300)  # since the last sweep
    await recorded.count_rows()

    page = await recorded.journal.list_deliveries(DeliveryFilter(status=Status.PARKED), 3, None)
    rest = await recorded.journal.list_deliveries(
        DeliveryFilter(status=Status.PARKED), 3, page.after
    )
    assert (len(page.deliveries), len(rest.deliveries), rest.after) == (3, 2, None)
    result = await deliveries.replay_all(
        recorded.journal, route.queue_sender, deliveries.ReplayFilter(), NOON, dry_run=False
    )
    assert len(result.deliveries) == 5
    assert recorded.queries.scanned <= 3 * 5


async def test_a_status_report_reads_the_newest_and_what_is_open(
    recorded: Recorded,
) -> None:
    async def report() -> tuple[int, int, OpenDeliveries]:
        """Return the rows and the operations that a report takes, and what it says is open."""
        await recorded.count_rows()
        before = recorded.queries.operations
        found = await report_status(
            StatusCheck(
                journal=recorded.journal,
                queue_reader=MemoryQueueReader(),
                activity=AzureActivityLog(
                    recorded.tables.get_table_client(f"{recorded.namespace}activity")
                ),
                flow=AzureFlowLog(recorded.tables.get_table_client(f"{recorded.namespace}flow")),
                runs=AzureHousekeepingRuns(
                    recorded.tables.get_table_client(f"{recorded.namespace}open")
                ),
                queues=(),
                senders=(),
                sender_problems={},
                schedule=None,
                started=NOON,
                now=lambda: NOON,
                newest=10,
            )
        )
        assert found.unreadable == ()
        assert isinstance(found.deliveries, OpenDeliveries)
        operations = recorded.queries.operations - before
        return recorded.queries.scanned, operations, found.deliveries

    await add(recorded, 2, Status.PARKED, days=9)
    await recorded.journal.index_open(NOON)
    await add(recorded, 20, Status.DONE, days=0.5)
    few = await report()
    await add(recorded, 60, Status.DONE, days=0.6)
    many = await report()
    assert many == few
    scanned, operations, found = few
    assert scanned <= 10 + 1 + 4  # the newest and one more; the index with its own two rows
    # A page, the index, two rows of it, its end; the run; errors and warnings; the flow.
    assert operations <= 9
    assert (found.open, found.parked, found.more) == (2, 2, False)


async def test_a_flow_report_of_days_takes_one_operation(recorded: Recorded) -> None:
    log = AzureFlowLog(recorded.tables.get_table_client(f"{recorded.namespace}flow"))
    hours = [NOON - timedelta(hours=number) for number in range(200)]
    await log.save_flows([HourFlow(hour=hour, worker=name) for hour in hours for name in "abc"])
    before = recorded.queries.operations
    page = await log.list_flows(NOON - timedelta(hours=167))
    assert recorded.queries.operations - before == 1
    assert (len(page.flows), page.is_cut) == (168 * 3, False)


async def test_a_list_of_what_is_rare_is_cut_off_and_can_be_continued(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_store, "_MAX_SCANNED", 4)
    await add(recorded, 9, Status.DONE, days=0.5)
    await add(recorded, 1, Status.CANCELLED, days=3)
    found, pages, after = [], 0, None
    while True:
        page = await recorded.journal.list_deliveries(
            DeliveryFilter(status=Status.CANCELLED), 2, after
        )
        found += [delivery.status for delivery in page.deliveries]
        pages, after = pages + 1, page.after
        if after is None:
            break
    assert (found, pages) == ([Status.CANCELLED], 3)


async def test_a_list_of_a_time_reads_the_rows_of_that_time(recorded: Recorded) -> None:
    for days in (1, 5, 9):
        await add(recorded, 20, Status.DONE, days=days)
    await recorded.count_rows()
    since, until = NOON - timedelta(days=5, seconds=9), NOON - timedelta(days=5, seconds=5)
    criteria = DeliveryFilter(since=since, until=until)
    page = await recorded.journal.list_deliveries(criteria, 3, None)
    rest = await recorded.journal.list_deliveries(criteria, 30, page.after)
    assert (len(page.deliveries), len(rest.deliveries), rest.after) == (3, 2, None)
    narrow = DeliveryFilter(since=since, until=until, sender="nobody", status=Status.DONE)
    assert (await recorded.journal.list_deliveries(narrow, 3, None)).deliveries == ()


async def test_a_replayed_delivery_is_looked_at_within_minutes(
    recorded: Recorded, route: Route
) -> None:
    class Broken:
        async def send(self, *_: object) -> None:
            raise ConnectionError

    await add(recorded, 1, Status.PARKED, days=9)
    await swept(recorded, route, 0)
    id_ = make_delivery_id(NOON - timedelta(days=9), 0)
    now = NOON + timedelta(minutes=5)
    with pytest.raises(ConnectionError):
        await deliveries.replay(recorded.journal, Broken(), id_, now)
    for minutes in (10, 20):
        await swept(recorded, route, minutes)
    assert route.queued() == [(WorkItem(id_), 0)]
