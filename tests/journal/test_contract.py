"""What the journal promises, held by the in-memory double and by Azure Storage alike."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from typing import Any

import pytest
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient

from integration.core.model import (
    OPEN,
    Delivery,
    DeliveryRequest,
    EntryResult,
    Rights,
    RowResult,
    Status,
)
from integration.journal.azure_store import AzureJournal
from integration.journal.bases import MAX_ENTRIES, decode_bases
from integration.journal.delivery_filter import DeliveryFilter
from integration.journal.lane_bits import count_lanes, list_open_lanes, list_unqueued_lanes
from integration.journal.store import NO_LANE, Journal, MemoryJournal, Payload
from integration.journal.table_keys import make_delivery_id

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture(params=["memory", pytest.param("azure", marks=pytest.mark.azurite)])
async def journal(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Journal]:
    if request.param == "memory":
        yield MemoryJournal()
        return
    storage = request.getfixturevalue("azurite").storage
    async with AsyncExitStack() as stack:
        blobs = await stack.enter_async_context(BlobServiceClient.from_connection_string(storage))
        tables = await stack.enter_async_context(TableServiceClient.from_connection_string(storage))
        container = await blobs.create_container(namespace)
        names = [
            f"{namespace}{use}"
            for use in ("deliveries", "open", "attention", "keys", "rows", "subs")
        ]
        yield AzureJournal(container, *[await tables.create_table(name) for name in names])


def made(moment: datetime = NOON, number: int = 0, **fields: Any) -> Delivery:
    values: dict[str, Any] = {
        "id": make_delivery_id(moment, number),
        "sender": "default",
        "key": "key",
        "digest": "digest",
        "accepted": moment,
        "status": Status.ACCEPTED,
        "kind": "batch",
        "entries": 2,
        "bytes": 2,
    }
    return Delivery(**{**values, **fields})


def kept(body: bytes = b"{}", **received: Any) -> Payload:
    return Payload(DeliveryRequest("POST", **received), body)


async def found(journal: Journal, delivery: Delivery) -> Delivery:
    known = await journal.get_delivery(delivery.id)
    assert known is not None
    return known


async def keep(journal: Journal, *deliveries: Delivery) -> None:
    for each in deliveries:
        await journal.add_delivery(each, kept())


# --- keys --------------------------------------------------------------------------------------


async def test_a_key_belongs_to_the_first_delivery_that_took_it(journal: Journal) -> None:
    assert await journal.claim_key("north", "k1", "first") == "first"
    assert await journal.claim_key("north", "k1", "second") == "first"
    assert await journal.claim_key("north", "k1", "first") == "first"


async def test_a_key_is_a_sender_s_own(journal: Journal) -> None:
    assert await journal.claim_key("north", "k1", "first") == "first"
    assert await journal.claim_key("south", "k1", "second") == "second"
    assert await journal.claim_key("north", "k2", "third") == "third"


async def test_of_many_that_take_a_key_at_once_one_gets_it(journal: Journal) -> None:
    ids = [f"delivery-{number}" for number in range(10)]
    got = await asyncio.gather(*(journal.claim_key("north", "k1", id_) for id_ in ids))
    assert len(set(got)) == 1
    assert got[0] in ids


@pytest.mark.parametrize("sender", ["a/b\\c#d?e", "Klinik Süd", "x" * 2000, "o'neil", "\t"])
async def test_a_sender_may_be_called_anything(journal: Journal, sender: str) -> None:
    assert await journal.claim_key(sender, "k1", "first") == "first"
    assert await journal.claim_key(sender, "k1", "second") == "first"


# --- deliveries --------------------------------------------------------------------------------


async def test_bytes_are_kept_exactly(journal: Journal) -> None:
    body = b'\x00\xff\r\n {"resourceType" : "Patient"} ' + gzip.compress(b"x") * 10
    one = made()
    await journal.add_delivery(one, kept(body))
    assert (await journal.get_payload(one.id)).body == body


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # the SDK's own way
async def test_many_bytes_are_kept_exactly(journal: Journal) -> None:
    one, body = made(), bytes(range(256)) * 20_000
    await journal.add_delivery(one, kept(body))
    await journal.save_lane(one.id, 1, 0, body)
    assert (await journal.get_payload(one.id)).body == body
    assert await journal.get_lane(one.id, 1, 0) == body


async def test_no_bytes_at_all_are_kept_too(journal: Journal) -> None:
    one = made()
    await journal.add_delivery(one, kept(b""))
    assert (await journal.get_payload(one.id)).body == b""


async def test_what_was_asked_is_kept_with_the_bytes(journal: Journal) -> None:
    one = made()
    asked = DeliveryRequest(
        "PUT",
        type="Patient",
        id="p1",
        format="ndjson",
        if_match='W/"1"',
        if_none_match="*",
        if_none_exist="identifier=urn:mrn|7&name=Zoë",
    )
    await journal.add_delivery(one, Payload(asked, b"{}"))
    assert (await journal.get_payload(one.id)).request == asked


async def test_a_delivery_is_found_as_it_was_noted(journal: Journal) -> None:
    here = timezone(timedelta(hours=5, minutes=30))
    one = made(NOON.astimezone(here).replace(microsecond=123456), repeat=True, sender="Klinik Süd")
    await keep(journal, one)
    assert await journal.get_delivery(one.id) == one


async def test_keeping_it_again_changes_nothing(journal: Journal) -> None:
    one = made()
    await journal.add_delivery(one, kept(b"first"))
    await journal.update_delivery(one.id, status=Status.PROCESSING, lanes=3)
    await journal.add_delivery(replace(one, kind="other"), kept(b"second"))
    found = await journal.get_delivery(one.id)
    assert found == replace(one, status=Status.PROCESSING, lanes=3)
    assert (await journal.get_payload(one.id)).body == b"first"


async def test_other_bytes_are_not_kept_under_the_same_id(journal: Journal) -> None:
    """The first request may have ended between its bytes and its row."""
    one = made()
    assert await journal.add_delivery(one, kept(b"first"))
    assert not await journal.add_delivery(replace(one, digest="other"), kept(b"second"))
    assert await journal.add_delivery(one, kept(b"first"))
    assert (await journal.get_payload(one.id)).body == b"first"
    assert (await found(journal, one)).digest == one.digest


async def test_a_delivery_that_is_not_there_is_none_and_its_bytes_an_error(
    journal: Journal,
) -> None:
    unknown = make_delivery_id(NOON, 99)
    assert await journal.get_delivery(unknown) is None
    with pytest.raises(KeyError):
        await journal.get_payload(unknown)
    with pytest.raises(KeyError):
        await journal.get_lane(unknown, 1, 0)
    assert await journal.list_entry_results(unknown) == []
    assert await journal.list_entry_results(unknown, 0) == []
    assert list(await journal.list_row_results(unknown)) == []


async def test_a_change_overwrites_some_fields_and_leaves_the_others(journal: Journal) -> None:
    one, other = made(), made(number=1)
    await keep(journal, one, other)
    changes: dict[str, Any] = {
        "status": Status.DONE,
        "lanes": 2,
        "units": 4,
        "written": 5,
        "refused": 1,
        "split": True,
        "finished": NOON + timedelta(seconds=5),
        "reason": "because",
    }
    await journal.update_delivery(one.id, **changes)
    assert await journal.get_delivery(one.id) == replace(one, **changes)
    assert await journal.get_delivery(other.id) == other


async def test_a_change_can_take_back_what_was_noted(journal: Journal) -> None:
    """As when a parked delivery is carried after all."""
    one = made()
    await keep(journal, one)
    await journal.update_delivery(one.id, status=Status.PARKED, reason="too old")
    await journal.update_delivery(one.id, status=Status.DONE, reason=None)
    found = await journal.get_delivery(one.id)
    assert found is not None
    assert not found.reason


async def test_a_change_can_depend_on_the_state_that_it_changes(journal: Journal) -> None:
    one = made()
    await keep(journal, one)
    assert await journal.update_delivery(
        one.id, only_if=frozenset({Status.ACCEPTED, Status.PARKED}), status=Status.CANCELLED
    )
    assert not await journal.update_delivery(
        one.id, only_if=frozenset({Status.ACCEPTED}), status=Status.PROCESSING, lanes=3
    )
    assert await journal.get_delivery(one.id) == replace(one, status=Status.CANCELLED)
    nobody = make_delivery_id(NOON, 99)
    assert not await journal.update_delivery(nobody, only_if=frozenset(Status), status=Status.DONE)
    assert await journal.get_delivery(nobody) is None


async def test_of_many_that_change_a_state_at_once_one_does(journal: Journal) -> None:
    one = made(status=Status.PARKED)
    await keep(journal, one)
    parked = frozenset({Status.PARKED})
    done = await asyncio.gather(
        *(
            journal.update_delivery(one.id, only_if=parked, status=Status.ACCEPTED)
            for _ in range(10)
        )
    )
    assert sorted(done) == [False] * 9 + [True]


async def test_who_took_a_key_can_be_asked_without_taking_it(journal: Journal) -> None:
    assert await journal.find_delivery_by_key("north", "k1") is None
    assert await journal.claim_key("north", "k1", "first") == "first"
    assert await journal.find_delivery_by_key("north", "k1") == "first"
    assert await journal.find_delivery_by_key("south", "k1") is None


# --- what housekeeping asks --------------------------------------------------------------------


async def ids_of(journal: Journal, *statuses: Status, **times: datetime) -> list[str]:
    found = journal.scan_deliveries(frozenset(statuses), times.get("since"), times.get("until"))
    return [delivery.id async for delivery in found]


async def test_deliveries_are_found_by_state_and_time_the_newest_first(journal: Journal) -> None:
    states = [Status.DONE, Status.PARKED, Status.CANCELLED]
    days = [made(NOON - timedelta(hours=8 * n), n, status=states[n % 3]) for n in range(9)]
    await keep(journal, *days)
    ids = [delivery.id for delivery in days]
    assert await ids_of(journal, *states) == ids
    assert await ids_of(journal, Status.PARKED) == ids[1::3]
    assert await ids_of(journal, Status.DONE, Status.PARKED) == [
        id_ for n, id_ in enumerate(ids) if n % 3 != 2
    ]
    assert await ids_of(journal, *states, until=NOON - timedelta(hours=16)) == ids[2:]
    assert await ids_of(journal, *states, since=NOON - timedelta(hours=16)) == ids[:3]
    between = {"since": NOON - timedelta(hours=41), "until": NOON - timedelta(hours=15)}
    assert await ids_of(journal, *states, **between) == ids[2:6]
    assert await ids_of(journal, Status.ACCEPTED) == []


async def list_index(journal: Journal, due: datetime | None = None) -> list[str]:
    return [entry.delivery async for entry in journal.scan_index(due)]


async def test_the_index_holds_what_was_open_when_it_was_filled(journal: Journal) -> None:
    states = [Status.ACCEPTED, Status.PROCESSING, Status.PARKED, Status.DONE, Status.CANCELLED]
    old = [made(NOON - timedelta(days=4 * n), n, status=each) for n, each in enumerate(states)]
    young = made(NOON + timedelta(seconds=1), 9)
    await keep(journal, *old, young)
    await journal.index_open(NOON)
    assert await list_index(journal) == [each.id for each in old[2::-1]]

    await journal.update_delivery(old[0].id, status=Status.DONE)
    await journal.index_open(NOON + timedelta(days=2))
    await journal.index_open(NOON)
    assert await list_index(journal) == [old[2].id, old[1].id, old[0].id, young.id]
    assert await ids_of(journal, *OPEN) == [young.id, old[1].id, old[2].id]


async def test_open_deliveries_are_found_before_they_are_in_the_index(journal: Journal) -> None:
    moments = [NOON - timedelta(days=days) for days in (2, 1, 0, -1)]
    two, one, now, later = (made(moment, n) for n, moment in enumerate(moments))
    await keep(journal, two, one)
    await journal.index_open(NOON - timedelta(hours=1))
    await keep(journal, now, later)
    ids = [later.id, now.id, one.id, two.id]
    assert await ids_of(journal, Status.ACCEPTED) == ids
    assert await ids_of(journal, Status.ACCEPTED, until=NOON) == ids[1:]
    assert await ids_of(journal, Status.ACCEPTED, since=NOON - timedelta(hours=30)) == ids[:3]
    page = await journal.list_deliveries(DeliveryFilter(status=Status.ACCEPTED), 2, later.id)
    assert ([each.id for each in page.deliveries], page.after) == (ids[1:3], one.id)


async def test_an_entry_of_the_index_is_due_when_it_was_told(journal: Journal) -> None:
    one, other = made(), made(number=1)
    await journal.index_delivery(one.id, NOON)
    await journal.index_delivery(other.id, NOON + timedelta(hours=1))
    assert await list_index(journal, NOON - timedelta(seconds=1)) == []
    assert await list_index(journal, NOON) == [one.id]
    (entry, _) = [each async for each in journal.scan_index(None)]
    for _ in range(2):  # a run that breaks off is repeated
        await journal.move_index_entry(entry, NOON + timedelta(days=900))
    assert await list_index(journal) == [other.id, one.id]
    (_, entry) = [each async for each in journal.scan_index(None)]
    await journal.move_index_entry(entry, NOON + timedelta(days=900))
    assert await list_index(journal) == [other.id, one.id]
    for _ in range(2):
        await journal.move_index_entry(entry, None)
    assert await list_index(journal) == [other.id]


async def test_whether_anybody_has_begun_with_a_delivery(journal: Journal) -> None:
    lane, seen, early = (made(number=n) for n in range(3))
    await keep(journal, lane, seen, early)
    assert not await journal.has_begun(lane.id)
    await journal.save_lane(lane.id, 1, 0, b"{}")
    await journal.begin_lane(seen.id, 0)
    assert [await journal.has_begun(each.id) for each in (lane, seen, early)] == [True, True, False]


async def test_the_lanes_that_are_left(journal: Journal) -> None:
    one = made()
    await keep(journal, one)
    await journal.update_delivery(one.id, lanes=10)
    assert list_open_lanes(await found(journal, one)) == list(range(10))
    for lane in (0, 3, 9):
        await journal.finish_lane(one.id, 1, lane)
    await journal.record_queued_lanes(one.id, 1, [0, 1, 2, 8])
    await journal.record_queued_lanes(one.id, 1, [4])
    assert list_open_lanes(await found(journal, one)) == [1, 2, 4, 5, 6, 7, 8]
    assert list_unqueued_lanes(await found(journal, one)) == [5, 6, 7]


async def test_lanes_of_another_plan_count_for_nothing(journal: Journal) -> None:
    one = made()
    await keep(journal, one)
    await journal.update_delivery(one.id, lanes=2)
    await journal.save_lane(one.id, 1, 0, b"old")
    await journal.record_queued_lanes(one.id, 1, [0, 1])
    await journal.finish_lane(one.id, 1, 0)

    assert await journal.begin_plan(one.id, 2, planner=7, unit_max_entries=3)
    assert not await journal.begin_plan(one.id, 2, planner=8)
    begun = await found(journal, one)
    assert (begun.plan, begun.planner, begun.unit_max_entries) == (2, 7, 3)
    assert (begun.lanes, begun.lanes_done, list_unqueued_lanes(begun)) == (0, 0, [])

    await journal.update_delivery(one.id, lanes=1)
    await journal.save_lane(one.id, 2, 0, b"new")
    assert not await journal.finish_lane(one.id, 1, 0)
    await journal.record_queued_lanes(one.id, 1, [0])
    assert list_unqueued_lanes(await found(journal, one)) == [0]
    assert await journal.get_lane(one.id, 1, 0) == b"old"
    assert await journal.get_lane(one.id, 2, 0) == b"new"
    assert await journal.finish_lane(one.id, 2, 0)


async def test_a_change_can_depend_on_the_plan(journal: Journal) -> None:
    one = made()
    await keep(journal, one)
    assert await journal.update_delivery(one.id, only_plan=1, lanes=2)
    assert not await journal.update_delivery(one.id, only_plan=2, lanes=3)
    assert (await found(journal, one)).lanes == 2
    assert not await journal.begin_plan(make_delivery_id(NOON, 99), 2)


async def test_a_change_of_what_was_seen_heeds_what_has_changed_since(journal: Journal) -> None:
    one = made()
    await keep(journal, one)
    active, seen = frozenset({Status.ACCEPTED}), await found(journal, one)
    assert await journal.update_delivery(one.id, only_if=active, seen=seen, units=1)
    assert await journal.update_delivery(one.id, only_if=active, seen=seen, lanes=1)
    await journal.update_delivery(one.id, status=Status.CANCELLED)
    assert not await journal.update_delivery(one.id, only_if=active, seen=seen, status=Status.DONE)
    known = await found(journal, one)
    assert (known.status, known.units, known.lanes) == (Status.CANCELLED, 1, 1)


async def test_a_forgotten_delivery_leaves_its_key_and_nothing_else(journal: Journal) -> None:
    one, other = made(), made(number=1)
    for each in (one, other):
        await journal.claim_key("north", each.id, each.id)
        await keep(journal, each)
        await journal.update_delivery(each.id, lanes=2)
        await journal.save_lane(each.id, 1, 1, b"lane")
        await journal.finish_lane(each.id, 1, 1)
        await journal.begin_lane(each.id, 1)
        await journal.add_entry_results(each.id, 1, [EntryResult(0, 201)])
        await journal.save_fetched(each.id, 1, b"fetched")
        await journal.record_row_result(
            RowResult(
                delivery=each.id,
                resource="Patient/p1",
                table="contact",
                row="key",
                action="created",
            )
        )
    for _ in range(2):
        await journal.delete_delivery(one.id)
        assert await journal.get_delivery(one.id) is None
    with pytest.raises(KeyError):
        await journal.get_payload(one.id)
    with pytest.raises(KeyError):
        await journal.get_lane(one.id, 1, 1)
    assert await journal.list_entry_results(one.id) == []
    assert list(await journal.list_row_results(one.id)) == []
    assert await journal.get_fetched(one.id, 1) is None
    assert not await journal.has_begun(one.id)
    assert await journal.find_delivery_by_key("north", one.id) == one.id
    assert [each.status for each in await journal.list_entry_results(other.id)] == [201]
    assert await journal.get_lane(other.id, 1, 1) == b"lane"
    assert await journal.get_fetched(other.id, 1) == b"fetched"
    assert len(await journal.list_row_results(other.id)) == 1


async def test_the_rows_of_a_delivery_are_deleted_in_batches_until_the_time_is_over(
    journal: Journal,
) -> None:
    one = made()
    await keep(journal, one)
    for start in range(0, 900, 100):
        await asyncio.gather(*(add_row(journal, one.id, start + each) for each in range(100)))
    asked = count()
    assert not await journal.delete_delivery(one.id, lambda: next(asked) >= 2)
    left = len(await journal.list_row_results(one.id))
    assert 0 < left < 900
    assert await journal.get_delivery(one.id) is not None
    assert await journal.delete_delivery(one.id)
    assert await journal.get_delivery(one.id) is None
    assert list(await journal.list_row_results(one.id)) == []
    assert next(asked) < 15  # not for each row


async def add_row(journal: Journal, delivery: str, number: int) -> None:
    await journal.record_row_result(
        RowResult(
            delivery=delivery,
            resource=f"Patient/p{number}",
            table="contact",
            row=None,
            action="created",
        )
    )


async def test_resources_with_row_results_are_counted_once_each(journal: Journal) -> None:
    one, other = made(), made(number=1)
    assert await journal.count_mirrored(one.id) == 0
    for delivery, resource, table in (
        (one, "Patient/p1", "contact"),
        (one, "Patient/p1", "account"),
        (one, "Patient/p2", "contact"),
        (one, "Practitioner/p2", "contact"),
        (other, "Patient/p3", "contact"),
    ):
        result = RowResult(
            delivery=delivery.id, resource=resource, table=table, row=None, action="absent"
        )
        await journal.record_row_result(result)
    assert await journal.count_mirrored(one.id) == 3


async def test_what_was_queued_with_an_entry_is_recorded_with_its_result(journal: Journal) -> None:
    one = made()
    await keep(journal, one)
    await journal.begin_lane(one.id, 0)
    results = [EntryResult(0, 201, queued=["Patient/p1", "Patient/p2"]), EntryResult(1, 201)]
    await journal.add_entry_results(one.id, 0, results)
    assert await journal.list_entry_results(one.id) == results


# --- the list ----------------------------------------------------------------------------------


async def test_the_list_is_newest_first_over_several_days(journal: Journal) -> None:
    hours = [0, 1, 11, 13, 30, 24 * 40, 24 * 400]
    made_then = [made(NOON - timedelta(hours=each)) for each in hours]
    await keep(journal, *made_then[::2], *made_then[1::2])
    page = await journal.list_deliveries(DeliveryFilter(), 50, None)
    assert [each.id for each in page.deliveries] == [each.id for each in made_then]
    assert page.after is None


async def test_pages_follow_each_other_without_gap_or_repeat(journal: Journal) -> None:
    made_then = [made(NOON - timedelta(hours=9 * each), each) for each in range(7)]
    await keep(journal, *made_then)
    seen: list[str] = []
    after = None
    for size in (3, 3, 1):
        page = await journal.list_deliveries(DeliveryFilter(), 3, after)
        assert len(page.deliveries) == size
        seen += [each.id for each in page.deliveries]
        after = page.after
    assert seen == [each.id for each in made_then]
    assert after is None


async def test_a_page_that_is_just_full_is_the_last(journal: Journal) -> None:
    await keep(journal, *[made(number=number) for number in range(3)])
    assert (await journal.list_deliveries(DeliveryFilter(), 3, None)).after is None
    assert (await journal.list_deliveries(DeliveryFilter(), 2, None)).after is not None


async def test_deliveries_of_one_moment_are_paged_too(journal: Journal) -> None:
    await keep(journal, *[made(number=number) for number in range(5)])
    first = await journal.list_deliveries(DeliveryFilter(), 3, None)
    rest = await journal.list_deliveries(DeliveryFilter(), 3, first.after)
    ids = [each.id for each in (*first.deliveries, *rest.deliveries)]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 5


async def test_what_comes_in_meanwhile_does_not_shift_the_pages(journal: Journal) -> None:
    await keep(journal, *[made(number=number) for number in range(4)])
    first = await journal.list_deliveries(DeliveryFilter(), 2, None)
    await keep(journal, made(NOON + timedelta(days=1)))
    rest = await journal.list_deliveries(DeliveryFilter(), 2, first.after)
    assert not {each.id for each in rest.deliveries} & {each.id for each in first.deliveries}
    assert len(rest.deliveries) == 2


async def test_what_waits_is_found_among_the_open_deliveries_page_by_page(
    journal: Journal,
) -> None:
    all_ = [made(NOON - timedelta(hours=9 * each), each) for each in range(6)]
    await keep(journal, *all_)
    waiting = [all_[1], all_[2], all_[5]]
    for each in waiting:
        await journal.update_delivery(each.id, waiting=NOON, next_attempt=NOON)
    await journal.update_delivery(all_[3].id, waiting=NOON, status=Status.PARKED)
    wanted = DeliveryFilter(waiting=True)
    first = await journal.list_deliveries(wanted, 2, None)
    rest = await journal.list_deliveries(wanted, 2, first.after)
    assert [each.id for each in first.deliveries] == [all_[1].id, all_[2].id]
    assert [each.id for each in rest.deliveries] == [all_[5].id]
    only_processing = DeliveryFilter(waiting=True, status=Status.PROCESSING)
    assert (await journal.list_deliveries(only_processing, 2, None)).deliveries == ()


async def test_the_list_can_be_narrowed_to_a_status_across_days(journal: Journal) -> None:
    made_then = [made(NOON - timedelta(hours=9 * each), each) for each in range(6)]
    await keep(journal, *made_then)
    parked = made_then[1::2]
    for each in parked:
        await journal.update_delivery(each.id, status=Status.PARKED)
    first = await journal.list_deliveries(DeliveryFilter(status=Status.PARKED), 2, None)
    rest = await journal.list_deliveries(DeliveryFilter(status=Status.PARKED), 2, first.after)
    ids = [each.id for each in (*first.deliveries, *rest.deliveries)]
    assert ids == [each.id for each in parked]
    assert {each.status for each in first.deliveries} == {Status.PARKED}


async def test_an_empty_journal_has_an_empty_page(journal: Journal) -> None:
    page = await journal.list_deliveries(DeliveryFilter(), 50, None)
    assert (page.deliveries, page.after) == ((), None)


# --- lanes -------------------------------------------------------------------------------------


async def test_a_lane_is_kept_exactly_and_the_last_word_counts(journal: Journal) -> None:
    one = made()
    await keep(journal, one)
    await journal.save_lane(one.id, 1, 0, b"first")
    await journal.save_lane(one.id, 1, 0, b"\x00again")
    await journal.save_lane(one.id, 1, 1, b"other")
    assert await journal.get_lane(one.id, 1, 0) == b"\x00again"
    assert await journal.get_lane(one.id, 1, 1) == b"other"


async def test_a_delivery_is_complete_with_its_last_lane(journal: Journal) -> None:
    one = made()
    await keep(journal, one)
    await journal.update_delivery(one.id, lanes=3)
    assert not await journal.finish_lane(one.id, 1, 2)
    assert not await journal.finish_lane(one.id, 1, 0)
    assert not await journal.finish_lane(one.id, 1, 2)
    assert await journal.finish_lane(one.id, 1, 1)
    assert await journal.finish_lane(one.id, 1, 0)


async def test_of_lanes_that_end_together_exactly_one_is_the_last(journal: Journal) -> None:
    one = made()
    await keep(journal, one)
    await journal.update_delivery(one.id, lanes=20)
    last = await asyncio.gather(*(journal.finish_lane(one.id, 1, lane) for lane in range(20)))
    assert sum(last) == 1


async def test_a_lane_s_number_may_be_high(journal: Journal) -> None:
    one = made()
    await keep(journal, one)
    await journal.update_delivery(one.id, lanes=2)
    assert not await journal.finish_lane(one.id, 1, 5000)
    assert await journal.finish_lane(one.id, 1, 64)


async def test_finished_lanes_are_counted_once_and_change_nothing_else(journal: Journal) -> None:
    one = made()
    await keep(journal, one)
    await journal.update_delivery(one.id, lanes=2, status=Status.PROCESSING)
    for _ in range(2):
        await journal.finish_lane(one.id, 1, 1)
        found = await journal.get_delivery(one.id)
        assert found is not None
        assert count_lanes(found.done_lanes) == 1
        changed = {"lanes": 2, "lanes_done": 1, "done_lanes": found.done_lanes}
        assert found == replace(one, status=Status.PROCESSING, **changed)


# --- outcomes ----------------------------------------------------------------------------------


async def test_a_lane_knows_whether_it_was_tried_before(journal: Journal) -> None:
    one = made()
    await keep(journal, one)
    assert await journal.begin_lane(one.id, 0)
    assert not await journal.begin_lane(one.id, 0)
    assert await journal.begin_lane(one.id, 1)
    assert await journal.begin_lane(one.id, NO_LANE)
    assert not await journal.begin_lane(one.id, 0)


async def test_a_delivery_begins_as_it_was_added(journal: Journal) -> None:
    added = await journal.add_delivery(made(), kept())
    assert added is not None
    begun = await journal.begin_delivery(added, {0: "1", 1: ""})
    assert begun is not None
    known = await found(journal, added)
    assert known == begun
    assert (known.begun, decode_bases(known.bases)) == (True, {0: "1", 1: ""})
    assert await journal.update_delivery(
        added.id, only_if=OPEN, seen=begun, status=Status.DONE, bases=b""
    )
    assert decode_bases((await found(journal, added)).bases) == {}


async def test_a_delivery_begins_once(journal: Journal) -> None:
    added = await journal.add_delivery(made(), kept())
    assert added is not None
    begun = await asyncio.gather(*(journal.begin_delivery(added, {0: str(n)}) for n in range(4)))
    assert len([each for each in begun if each is not None]) == 1


@pytest.mark.parametrize("changes", [{"status": Status.CANCELLED}, {"unqueued": True}])
async def test_a_delivery_that_has_changed_does_not_begin(
    journal: Journal, changes: dict[str, Any]
) -> None:
    added = await journal.add_delivery(made(), kept())
    assert added is not None
    await journal.update_delivery(added.id, **changes)
    assert await journal.begin_delivery(added, {}) is None
    assert not (await found(journal, added)).begun
    await journal.delete_delivery(added.id)
    assert await journal.begin_delivery(added, {}) is None


async def test_only_who_has_added_a_delivery_knows_how_it_was_added(journal: Journal) -> None:
    first, second = [await journal.add_delivery(made(), kept()) for _ in range(2)]
    assert first is not None
    assert second is not None
    assert first.etag
    assert second.etag is None


async def test_results_that_are_saved_at_once_come_back_with_those_that_follow(
    journal: Journal,
) -> None:
    one = made()
    await journal.save_entry_results(one.id, 0, [EntryResult(0, 201), EntryResult(1, 422)])
    assert not await journal.begin_lane(one.id, 0)
    await journal.add_entry_results(one.id, 0, [EntryResult(1, 500), EntryResult(2, 204)])
    await journal.record_bases(one.id, 0, {3: "7"})
    await journal.begin_lane(one.id, 1)
    await journal.add_entry_results(one.id, 1, [EntryResult(3, 200)])
    for lane, statuses in ((0, [201, 422, 204]), (None, [201, 422, 204, 200])):
        listed = await journal.list_entry_results(one.id, lane)
        assert [each.status for each in listed] == statuses
    assert await journal.list_bases(one.id, 0) == {3: "7"}


async def test_results_that_another_worker_has_recorded_first_stay(journal: Journal) -> None:
    one = made()
    await journal.begin_lane(one.id, 0)
    await journal.add_entry_results(one.id, 0, [EntryResult(0, 201)])
    await journal.save_entry_results(one.id, 0, [EntryResult(0, 500), EntryResult(1, 204)])
    assert [each.status for each in await journal.list_entry_results(one.id, 0)] == [201, 204]


async def test_the_versions_of_a_large_unit_fit_into_a_row(journal: Journal) -> None:
    added = await journal.add_delivery(made(), kept())
    assert added is not None
    longest = {position: "v" * 64 for position in range(MAX_ENTRIES)}
    await journal.begin_delivery(added, longest)
    assert decode_bases((await found(journal, added)).bases) == longest


async def test_beginning_again_keeps_what_was_noted(journal: Journal) -> None:
    one = made()
    await journal.begin_lane(one.id, 0)
    await journal.add_entry_results(one.id, 0, [EntryResult(0, 201)])
    await journal.begin_lane(one.id, 0)
    assert await journal.list_entry_results(one.id, 0) == [EntryResult(0, 201)]


async def test_outcomes_come_back_whole_and_in_the_sender_s_order(journal: Journal) -> None:
    one = made()
    issue = {"severity": "error", "code": "invariant", "diagnostics": "line\nbreak\r\u2028 ä"}
    whole = EntryResult(
        3,
        422,
        full_url="urn:uuid:1",
        location="Patient/p/_history/1",
        etag='W/"1"',
        last_modified="2026-03-02T12:00:00Z",
        issues=[issue],
        unit="0.1",
        resource='{"value": 1.10, "text": "\\n\u2028 ä"}\n',
    )
    await journal.begin_lane(one.id, 0)
    await journal.begin_lane(one.id, 1)
    await journal.begin_lane(one.id, NO_LANE)
    await journal.add_entry_results(one.id, 1, [EntryResult(2, 201)])
    await journal.add_entry_results(one.id, 0, [whole, EntryResult(0, 204)])
    await journal.add_entry_results(one.id, NO_LANE, [EntryResult(1, 422)])
    assert await journal.list_entry_results(one.id) == [
        EntryResult(0, 204),
        EntryResult(1, 422),
        EntryResult(2, 201),
        whole,
    ]
    assert await journal.list_entry_results(one.id, 0) == [EntryResult(0, 204), whole]
    assert await journal.list_entry_results(one.id, NO_LANE) == [EntryResult(1, 422)]
    assert await journal.list_entry_results(one.id, 7) == []


async def test_the_first_note_of_an_entry_counts(journal: Journal) -> None:
    one = made()
    await journal.begin_lane(one.id, 0)
    await journal.add_entry_results(one.id, 0, [EntryResult(0, 201), EntryResult(1, 422)])
    await journal.add_entry_results(
        one.id, 0, [EntryResult(0, 500), EntryResult(1, 201), EntryResult(2, 204)]
    )
    assert [each.status for each in await journal.list_entry_results(one.id)] == [201, 422, 204]


async def test_noting_nothing_is_no_trouble(journal: Journal) -> None:
    one = made()
    await journal.begin_lane(one.id, 0)
    await journal.add_entry_results(one.id, 0, [])
    assert await journal.list_entry_results(one.id, 0) == []


async def test_deliveries_do_not_share_outcomes(journal: Journal) -> None:
    one, other = made(), made(number=1)
    for each, status in ((one, 201), (other, 422)):
        await journal.begin_lane(each.id, 0)
        await journal.add_entry_results(each.id, 0, [EntryResult(0, status)])
    assert [each.status for each in await journal.list_entry_results(one.id)] == [201]


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # the SDK's own way
async def test_outcomes_beyond_one_append_are_all_there(journal: Journal) -> None:
    one = made()
    issues = [{"severity": "error", "code": "invariant", "diagnostics": "x" * 50_000}]
    many = [EntryResult(position, 422, issues=issues) for position in range(100)]
    await journal.begin_lane(one.id, 0)
    await journal.add_entry_results(one.id, 0, many)
    assert await journal.list_entry_results(one.id, 0) == many


# --- what was fetched --------------------------------------------------------------------------


async def test_the_first_answer_that_is_kept_counts(journal: Journal) -> None:
    one = made()
    assert await journal.get_fetched(one.id, 1) is None
    assert await journal.save_fetched(one.id, 1, b"200 {}") == b"200 {}"
    assert await journal.save_fetched(one.id, 1, b"404 ") == b"200 {}"
    assert await journal.get_fetched(one.id, 1) == b"200 {}"


async def test_answers_are_kept_apart_by_number_and_delivery(journal: Journal) -> None:
    one, other = made(), made(number=1)
    for each, number in ((one, 1), (one, 2), (other, 1)):
        await journal.save_fetched(each.id, number, f"{each.id} {number}".encode())
    assert await journal.get_fetched(one.id, 2) == f"{one.id} 2".encode()
    assert await journal.get_fetched(other.id, 1) == f"{other.id} 1".encode()
    assert await journal.get_fetched(other.id, 2) is None


# --- events of subscriptions -------------------------------------------------------------------

ODD = ("https://a.example/fhir/Subscription/1?a=b#c\\d", "Subscription/\u00e4\n", "s" * 5000)


@pytest.mark.parametrize("subscription", ODD)
async def test_the_highest_event_of_a_subscription_is_known(
    journal: Journal, subscription: str
) -> None:
    assert await journal.get_newest_event("lab", subscription) == 0
    for number in (3, 10**17, 4):
        await journal.record_event("lab", subscription, number)
    assert await journal.get_newest_event("lab", subscription) == 10**17
    assert await journal.get_newest_event("ward", subscription) == 0
    assert await journal.get_newest_event("lab", "another") == 0


async def test_of_events_that_come_together_the_highest_stays(journal: Journal) -> None:
    numbers = [5, 9, 1, 20, 7, 12, 3, 16]
    await asyncio.gather(*(journal.record_event("lab", "s", number) for number in numbers))
    assert await journal.get_newest_event("lab", "s") == 20


# --- rows --------------------------------------------------------------------------------------


async def test_a_later_note_of_a_row_replaces_the_earlier(journal: Journal) -> None:
    one = made()
    first = RowResult(
        delivery=one.id,
        resource="Patient/p1",
        table="contact",
        row=None,
        action="refused",
        version=None,
        notes=("answered 400",),
    )
    later = RowResult(
        delivery=one.id,
        resource="Patient/p1",
        table="contact",
        row="key",
        action="created",
        version="2",
    )
    other = RowResult(
        delivery=one.id,
        resource="Patient/P1",
        table="contact",
        row="other",
        action="created",
        version="1",
        notes=("ä: cut",),
    )
    for each in (first, other, later):
        await journal.record_row_result(each)
    found = await journal.list_row_results(one.id)
    assert sorted(found, key=lambda row: row.resource) == [other, later]


async def test_a_row_with_hundreds_of_notes_is_recorded_with_the_first_of_them(
    journal: Journal,
) -> None:
    """A property takes 64 KiB: Azure refuses more as PropertyValueTooLarge."""
    notes = tuple(f'msemr_value_{n}: "längst\0" zu lang für die Spalte 患者' for n in range(900))
    base: dict[str, Any] = {"resource": "Patient/p1", "table": "contact", "row": "key"}
    result = RowResult(delivery=made().id, action="updated", notes=notes, **base)
    await journal.record_row_result(result)
    (found,) = await journal.list_row_results(made().id)
    *kept_notes, last = found.notes
    assert tuple(kept_notes) == notes[: len(kept_notes)]
    assert last == f"and {900 - len(kept_notes)} more"


async def test_a_long_reason_is_kept_as_far_as_a_row_takes_it(journal: Journal) -> None:
    await keep(journal, made())
    await journal.update_delivery(made().id, status=Status.PARKED, reason="why " * 20_000)
    found = await journal.get_delivery(made().id)
    assert found is not None
    assert (found.reason or "").startswith("why why")
    assert len(found.reason or "") < 32_768


async def test_deliveries_do_not_share_rows(journal: Journal) -> None:
    one, two = made(), made(number=1)
    await journal.record_row_result(
        RowResult(
            delivery=one.id, resource="Patient/p1", table="contact", row="key", action="created"
        )
    )
    assert list(await journal.list_row_results(two.id)) == []


# --- what came with the bytes --------------------------------------------------------------------


async def test_what_came_with_the_bytes_is_read_without_them(journal: Journal) -> None:
    delivery = made(answer_due=True)
    await journal.add_delivery(delivery, kept(b"{}", answer_to="lab/jour f\u00e9ri\u00e9.json"))
    assert (await journal.get_request(delivery.id)).answer_to == "lab/jour f\u00e9ri\u00e9.json"
    assert (await found(journal, delivery)).answer_due
    await journal.update_delivery(delivery.id, answer_due=False)
    assert not (await found(journal, delivery)).answer_due
    await journal.delete_delivery(delivery.id)
    with pytest.raises(KeyError):
        await journal.get_request(delivery.id)


async def test_the_index_says_up_to_when_it_is_filled(journal: Journal) -> None:
    assert await journal.get_indexed_until() is None
    await journal.index_open(NOON)
    assert await journal.get_indexed_until() == NOON


async def test_what_came_with_the_bytes_can_be_replaced_and_the_bytes_stay(
    journal: Journal,
) -> None:
    delivery = made()
    await journal.add_delivery(delivery, kept(b'{"a": 1}', answer_to="lab/x.json"))
    request = await journal.get_request(delivery.id)
    narrow = Rights(types=("Patient",))
    await journal.save_request(delivery.id, replace(request, rights=narrow))
    payload = await journal.get_payload(delivery.id)
    assert (payload.body, payload.request.rights) == (b'{"a": 1}', narrow)
    assert payload.request.answer_to == "lab/x.json"
    assert await journal.add_delivery(delivery, kept(b'{"a": 1}')) is not None, "its digest stays"
    await journal.delete_delivery(delivery.id)
    with pytest.raises(KeyError):
        await journal.save_request(delivery.id, request)


@pytest.mark.parametrize("is_one_blob", [True, False])
async def test_a_result_of_a_later_round_replaces_that_of_an_earlier_one(
    journal: Journal, is_one_blob: bool
) -> None:
    delivery = made()
    await keep(journal, delivery)
    first = [EntryResult(0, 201), EntryResult(1, 422)]
    if is_one_blob:
        await journal.save_entry_results(delivery.id, 0, first)
    else:
        await journal.begin_lane(delivery.id, 0)
        await journal.add_entry_results(delivery.id, 0, first)
    await journal.begin_lane(delivery.id, 1)
    again = [EntryResult(1, 201, round=1), EntryResult(1, 500, round=1)]
    await journal.add_entry_results(delivery.id, 1, again)
    await journal.add_entry_results(delivery.id, 0, [EntryResult(1, 201)])
    results = await journal.list_entry_results(delivery.id)
    assert [(each.status, each.round) for each in results] == [(201, 0), (201, 1)]


async def test_what_a_delivery_waits_for_is_kept_and_cleared(journal: Journal) -> None:
    delivery = made()
    await keep(journal, delivery)
    moment = delivery.accepted
    waits: dict[str, Any] = {
        "waiting": moment,
        "next_attempt": moment,
        "parked": moment,
        "reason": "answered 503",
        "attempts": 2,
        "for_operator": True,
    }
    await journal.update_delivery(delivery.id, **waits)
    known = await found(journal, delivery)
    assert {name: getattr(known, name) for name in waits} == waits
    cleared = {"waiting": None, "next_attempt": None, "parked": None, "reason": None}
    await journal.update_delivery(delivery.id, **cleared, attempts=0)
    known = await found(journal, delivery)
    assert [getattr(known, name) for name in cleared] == [None] * 4
    assert (known.attempts, known.for_operator) == (0, True)


# --- many at once ------------------------------------------------------------------------------


async def test_many_deliveries_are_changed_where_their_rows_are_as_they_were_read(
    journal: Journal,
) -> None:
    days = [NOON - timedelta(days=number % 2) for number in range(230)]
    several = [made(day, number) for number, day in enumerate(days)]
    await keep(journal, *several)
    seen = [await found(journal, delivery) for delivery in several]
    await journal.update_delivery(seen[7].id, reason="changed meanwhile")
    gone = made(NOON, 999, etag=seen[0].etag)
    changes = {"status": Status.CANCELLED, "job": "j", "reason": None}
    asked = [*seen, gone, made(NOON, 998)]

    done = await journal.update_deliveries([(delivery, changes) for delivery in asked])

    assert [index for index, is_done in enumerate(done) if not is_done] == [7, 230, 231]
    read = [await found(journal, delivery) for delivery in seen]
    assert {(item.status, item.job) for item in read if item.id != seen[7].id} == {
        (Status.CANCELLED, "j")
    }
    assert read[7].status is Status.ACCEPTED
    assert await journal.get_delivery(gone.id) is None
    assert await journal.update_deliveries([]) == []


async def test_many_deliveries_are_noted_as_queued_though_one_is_deleted(journal: Journal) -> None:
    several = [made(NOON, number, unqueued=True) for number in range(3)]
    await keep(journal, *several)
    await journal.mark_queued([made(NOON, 99).id, *(item.id for item in several)])
    assert [(await found(journal, item)).unqueued for item in several] == [False] * 3
    assert await journal.get_delivery(made(NOON, 99).id) is None


async def test_many_deliveries_are_indexed_and_listed_the_oldest_first(journal: Journal) -> None:
    several = [made(NOON + timedelta(seconds=number), number) for number in range(120)]
    await keep(journal, *several)
    await journal.index_open(NOON - timedelta(days=40))  # what is newer is read from the list
    await journal.index_deliveries([item.id for item in several], NOON)
    await journal.index_deliveries([], NOON)
    indexed = [entry.delivery async for entry in journal.scan_index(None)]
    assert sorted(indexed) == [item.id for item in several]
    ids = await journal.list_open(NOON + timedelta(seconds=10), NOON + timedelta(seconds=12))
    assert ids == [item.id for item in several[10:13]]
    assert await journal.list_open(None, None) == [item.id for item in several]
