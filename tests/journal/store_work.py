"""Every method of the journal, with something to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from integration.core.model import OPEN, Delivery, DeliveryRequest, EntryResult, RowResult, Status
from integration.journal.azure_store import AzureJournal
from integration.journal.delivery_filter import DeliveryFilter
from integration.journal.store import IndexEntry, Payload
from integration.journal.table_keys import make_delivery_id

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)

ID = make_delivery_id(NOON, 1)

DELIVERY = Delivery(
    id=ID,
    sender="default",
    key="k",
    digest="d",
    accepted=NOON,
    status=Status.ACCEPTED,
    kind="batch",
    entries=1,
    bytes=2,
)

Work = Callable[[AzureJournal], Awaitable[object]]

EVERYTHING: list[tuple[str, Work]] = [
    ("claim_key", lambda it: it.claim_key("north", "k", ID)),
    ("keep", lambda it: it.add_delivery(DELIVERY, Payload(DeliveryRequest("POST"), b"{}"))),
    ("delivery", lambda it: it.get_delivery(ID)),
    ("kept", lambda it: it.get_payload(ID)),
    ("request", lambda it: it.get_request(ID)),
    ("change", lambda it: it.update_delivery(ID, lanes=1)),
    ("change if", lambda it: it.update_delivery(ID, only_if=frozenset(Status), lanes=1)),
    ("claimant", lambda it: it.find_delivery_by_key("north", "k")),
    ("scan", lambda it: anext(it.scan_deliveries(frozenset(Status), None, NOON))),
    ("scan open", lambda it: anext(it.scan_deliveries(OPEN, None, NOON))),
    ("index_open", lambda it: it.index_open(NOON)),
    ("get_indexed_until", lambda it: it.get_indexed_until()),
    ("index_delivery", lambda it: it.index_delivery(ID, NOON)),
    ("scan_index", lambda it: anext(it.scan_index(None))),
    ("move_index_entry", lambda it: it.move_index_entry(IndexEntry("key", ID), NOON)),
    ("forget", lambda it: it.delete_delivery(ID)),
    ("begun", lambda it: it.has_begun(ID)),
    ("page", lambda it: it.list_deliveries(DeliveryFilter(), 10, None)),
    ("keep_lane", lambda it: it.save_lane(ID, 1, 0, b"{}")),
    ("lane", lambda it: it.get_lane(ID, 1, 0)),
    ("keep_fetched", lambda it: it.save_fetched(ID, 1, b"200 {}")),
    ("fetched", lambda it: it.get_fetched(ID, 1)),
    ("newest_event", lambda it: it.get_newest_event("north", "Subscription/s")),
    ("note_event", lambda it: it.record_event("north", "Subscription/s", 1)),
    ("lane_done", lambda it: it.finish_lane(ID, 1, 0)),
    ("begin_plan", lambda it: it.begin_plan(ID, 2)),
    ("record_queued", lambda it: it.record_queued_lanes(ID, 1, [0])),
    ("begin", lambda it: it.begin_lane(ID, 0)),
    ("note", lambda it: it.add_entry_results(ID, 0, [EntryResult(0, 201)])),
    ("outcomes", lambda it: it.list_entry_results(ID)),
    ("outcomes of a lane", lambda it: it.list_entry_results(ID, 0)),
    (
        "note_row",
        lambda it: it.record_row_result(
            RowResult(delivery=ID, resource="Patient/p", table="contact", row=None, action="absent")
        ),
    ),
    ("rows", lambda it: it.list_row_results(ID)),
]
