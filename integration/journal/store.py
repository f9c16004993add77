"""The journal: its contract, and an implementation in memory for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from integration.core.model import OPEN, Delivery, DeliveryRequest, EntryResult, RowResult, Status
from integration.journal.attention import Concerns, MemoryConcerns
from integration.journal.bases import encode_bases
from integration.journal.bounds import bound_row_result, bound_texts
from integration.journal.delivery_filter import DeliveryFilter, matches
from integration.journal.lane_bits import add_lanes, count_lanes
from integration.journal.table_keys import build_index_key, is_between, parse_accepted_time

# Results of rows that are deleted together: https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions
ROWS_PER_BATCH = 100

# The lane of results of entries that are in no lane.
NO_LANE = -1


@dataclass(frozen=True, slots=True)
class Payload:
    """The bytes of a delivery, and the request that they came with."""

    request: DeliveryRequest
    body: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Deliveries, newest first. `after`: where the next page begins; None: there is no more."""

    deliveries: tuple[Delivery, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A delivery in the index of open ones. `key`: of the entry, and when it is due."""

    key: str
    delivery: str


def never() -> bool:
    """Say that there is time left."""
    return False


class Journal(Concerns, Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def claim_key(self, sender: str, key: str, delivery: str) -> str:
        """Claim a delivery key for good. Return the id of the first delivery that claimed it."""

    async def find_delivery_by_key(self, sender: str, key: str) -> str | None:
        """Return the id of the delivery that has claimed this key, if any."""

    async def add_delivery(self, delivery: Delivery, payload: Payload) -> Delivery | None:
        """Add a delivery and its bytes. Repeating it changes nothing. Return the delivery, with
        the etag of its row only if this call has added the row. Return None, and add nothing, when
        bytes of another digest are stored under this id already."""

    async def get_delivery(self, id_: str) -> Delivery | None:
        """Return the delivery; None when there is none with this id."""

    async def get_payload(self, id_: str) -> Payload:
        """Return the bytes of a delivery. Raises KeyError when they are deleted."""

    async def get_request(self, id_: str) -> DeliveryRequest:
        """Return what came with the bytes of a delivery. Raises KeyError when they are deleted."""

    async def save_request(self, id_: str, request: DeliveryRequest) -> None:
        """Replace what came with the bytes of a delivery, when it is judged anew. Raises KeyError
        when they are deleted."""

    async def update_delivery(
        self,
        id_: str,
        only_if: frozenset[Status] | None = None,
        *,
        only_plan: int | None = None,
        unless_corrected: bool = False,
        only_attention: str | None = None,
        seen: Delivery | None = None,
        **changes: Any,
    ) -> bool:
        """Set some fields of a delivery. With `only_if`, only if it exists and has one of these
        statuses; with `only_plan`, only if its plan has this number; with `unless_corrected`, only
        if no correction has taken its place; with `only_attention`, only if it names this concern.
        Return whether the fields were set. `seen`: the delivery as it was read, which saves a read
        when it is still like that."""

    async def update_deliveries(
        self, changes: Sequence[tuple[Delivery, Mapping[str, Any]]]
    ) -> list[bool]:
        """Set some fields of each of these deliveries whose row is still as it was read. Return for
        each whether they were set. A hundred of one day take one operation."""

    async def mark_queued(self, ids: Sequence[str]) -> None:
        """Record that the work items of these deliveries are queued: `unqueued` of none is set any
        more. A hundred of one day take one operation."""

    async def list_deliveries(
        self, criteria: DeliveryFilter, limit: int, after: str | None
    ) -> Page:
        """Return up to `limit` deliveries, newest first, from `after` on. A page may be short and
        have a next one: the search is cut off when it reads too much."""

    def scan_deliveries(
        self, statuses: frozenset[Status], since: datetime | None, until: datetime | None
    ) -> AsyncIterator[Delivery]:
        """Iterate over all deliveries with one of these statuses that were accepted from `since`
        to `until`, both included, newest first. For open deliveries it reads no others."""

    async def list_open(self, since: datetime | None, until: datetime | None) -> list[str]:
        """Return the ids of the open deliveries that were accepted from `since` to `until`, both
        included, the oldest first. It reads keys alone: one that has just ended may be among them.
        """

    async def index_open(self, until: datetime) -> None:
        """Add to the index the open deliveries that were accepted up to `until`, due at once. It
        reads what was accepted since it was called last."""

    async def get_indexed_until(self) -> datetime | None:
        """Return the `until` of the last `index_open`; None: it was never called."""

    async def index_delivery(self, id_: str, due: datetime) -> None:
        """Add one delivery to the index."""

    async def index_deliveries(self, ids: Sequence[str], due: datetime) -> None:
        """Add these deliveries to the index. A hundred take one operation."""

    def scan_index(self, due: datetime | None) -> AsyncIterator[IndexEntry]:
        """Iterate over the index, the earliest due first: over what is due by then; None: over all
        of it. A delivery may have several entries."""

    async def move_index_entry(self, entry: IndexEntry, due: datetime | None) -> None:
        """Make an entry due at another time; None: delete it."""

    async def delete_delivery(self, id_: str, is_over: Callable[[], bool] = never) -> bool:
        """Delete a delivery: its bytes, lanes and results in batches, and at last itself. Its key
        stays claimed. Return whether all of it is deleted: before each batch `is_over` says whether
        to leave the rest. Repeating it completes a deletion that broke off."""

    async def begin_plan(self, id_: str, plan: int, **changes: Any) -> bool:
        """Begin plan number `plan` of a delivery, after the one before it, and set some fields.
        No lane of it is queued or done. Return whether it was begun: another worker may have begun
        it."""

    async def save_lane(self, id_: str, plan: int, lane: int, data: bytes) -> None:
        """Save a lane of a plan whose lanes are queued one by one."""

    async def get_lane(self, id_: str, plan: int, lane: int) -> bytes:
        """Return a saved lane. Raises KeyError when it is deleted."""

    async def record_queued_lanes(self, id_: str, plan: int, lanes: Collection[int]) -> None:
        """Record that these lanes are queued. Of another plan than the delivery's, do nothing."""

    async def save_fetched(self, id_: str, number: int, data: bytes) -> bytes:
        """Save an answer that was fetched for a delivery, unless one is saved already. Return the
        saved one."""

    async def get_fetched(self, id_: str, number: int) -> bytes | None:
        """Return what was fetched; None when nothing is saved under this number."""

    async def get_newest_event(self, sender: str, subscription: str) -> int:
        """Return the highest recorded event number of a subscription; 0 without any."""

    async def record_event(self, sender: str, subscription: str, number: int) -> None:
        """Record an event number. One that is not higher than the recorded one changes nothing."""

    async def finish_lane(self, id_: str, plan: int, lane: int) -> bool:
        """Record that a lane is done. Return whether all lanes of the plan are. A lane of another
        plan than the delivery's counts for nothing."""

    async def begin_lane(self, id_: str, lane: int) -> bool:
        """Record that processing of a lane begins. Return whether this is its first attempt."""

    async def begin_delivery(self, seen: Delivery, bases: Mapping[int, str]) -> Delivery | None:
        """Record that the relay begins with a delivery whose row is still as it was `seen`, and the
        versions that its entries found: it does in one operation what `begin_lane` and
        `record_bases` do for a lane. Return the delivery as its row is now. Return None, and record
        nothing, when the row has changed: somebody may have begun, cancelled or replayed it. Also
        when the answer was lost, so whoever is told None has to read the row."""

    async def has_begun(self, id_: str) -> bool:
        """Whether the relay has begun a delivery: more than its bytes is saved. What
        `begin_delivery` has recorded is in the delivery itself."""

    async def add_entry_results(self, id_: str, lane: int, results: Sequence[EntryResult]) -> None:
        """Append results of entries. Call `begin_lane` or `save_entry_results` of the same lane
        before."""

    async def save_entry_results(self, id_: str, lane: int, results: Sequence[EntryResult]) -> None:
        """Record the first results of a lane for which `begin_delivery` was called, in one
        operation. If another worker has begun the lane meanwhile, append them."""

    async def record_bases(self, id_: str, lane: int, bases: Mapping[int, str]) -> None:
        """Record the versions that entries, by position, found at their first attempt: see
        fhir.write_decisions. Call `begin_lane` of the same lane before."""

    async def list_bases(self, id_: str, lane: int | None = None) -> dict[int, str]:
        """Return the recorded versions of one lane, or of all lanes, by position: the first of each
        entry."""

    async def list_entry_results(self, id_: str, lane: int | None = None) -> list[EntryResult]:
        """Return the results of one lane, or of all lanes, by position: the first of each
        entry."""

    async def record_row_result(self, result: RowResult) -> None:
        """Record the result of one resource at Dataverse. It replaces an earlier one.

        Of many notes the first are kept, and the number of the others: see bounds."""

    async def list_row_results(self, id_: str) -> Sequence[RowResult]:
        """Return the results of the rows of a delivery."""

    async def count_mirrored(self, id_: str) -> int:
        """Return how many resources have a row result under this delivery."""


def keep_first_by_position(results: Sequence[EntryResult]) -> list[EntryResult]:
    """Return the result of each entry, by position: the first of the last round that it has one
    of. A later attempt of the same round cannot change it, nor can a late worker of an earlier
    round."""
    found: dict[int, EntryResult] = {}
    for result in results:
        known = found.get(result.position)
        if known is None or known.round < result.round:
            found[result.position] = result
    return [found[position] for position in sorted(found)]


def list_settled(results: Sequence[EntryResult], round_: int) -> list[EntryResult]:
    """Return the results of entries that are not to be sent in this round: all but those that were
    refused in an earlier one."""
    return [result for result in results if result.round >= round_ or not result.is_refused]


@dataclass(slots=True)
class MemoryJournal(MemoryConcerns):
    """The same contract in dictionaries, for tests."""

    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    payloads: dict[str, Payload] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)  # of the payloads
    lanes: dict[tuple[str, int, int], bytes] = field(default_factory=dict)
    fetched: dict[tuple[str, int], bytes] = field(default_factory=dict)
    events: dict[tuple[str, str], int] = field(default_factory=dict)
    index: dict[str, str] = field(default_factory=dict)  # delivery by key
    indexed_until: datetime | None = None
    bases: dict[tuple[str, int], dict[int, str]] = field(default_factory=dict)
    entry_results: dict[str, dict[int, list[EntryResult]]] = field(default_factory=dict)
    row_results: dict[tuple[str, str, str], RowResult] = field(default_factory=dict)
    changes: int = 0  # of rows of deliveries: the next one's etag

    async def claim_key(self, sender: str, key: str, delivery: str) -> str:
        return self.keys.setdefault((sender, key), delivery)

    async def find_delivery_by_key(self, sender: str, key: str) -> str | None:
        return self.keys.get((sender, key))

    async def add_delivery(self, delivery: Delivery, payload: Payload) -> Delivery | None:
        if self.digests.setdefault(delivery.id, delivery.digest) != delivery.digest:
            return None
        self.payloads.setdefault(delivery.id, payload)
        if delivery.id in self.deliveries:
            return delivery
        return self._set_delivery(delivery)

    def _set_delivery(self, delivery: Delivery) -> Delivery:
        self.changes += 1
        self.deliveries[delivery.id] = replace(delivery, etag=str(self.changes))
        return self.deliveries[delivery.id]

    async def get_delivery(self, id_: str) -> Delivery | None:
        return self.deliveries.get(id_)

    async def get_payload(self, id_: str) -> Payload:
        return self.payloads[id_]

    async def get_request(self, id_: str) -> DeliveryRequest:
        return self.payloads[id_].request

    async def save_request(self, id_: str, request: DeliveryRequest) -> None:
        self.payloads[id_] = replace(self.payloads[id_], request=request)

    async def update_delivery(
        self,
        id_: str,
        only_if: frozenset[Status] | None = None,
        *,
        only_plan: int | None = None,
        unless_corrected: bool = False,
        only_attention: str | None = None,
        seen: Delivery | None = None,
        **changes: Any,
    ) -> bool:
        delivery = self.deliveries.get(id_)
        if only_if is not None and (delivery is None or delivery.status not in only_if):
            return False
        if only_plan is not None and (delivery is None or delivery.plan != only_plan):
            return False
        if unless_corrected and (delivery is None or delivery.corrected_by is not None):
            return False
        if only_attention not in (None, delivery.attention if delivery else None):
            return False
        self._set_delivery(replace(self.deliveries[id_], **bound_texts(changes)))
        return True

    async def update_deliveries(
        self, changes: Sequence[tuple[Delivery, Mapping[str, Any]]]
    ) -> list[bool]:
        done = []
        for seen, values in changes:
            current = self.deliveries.get(seen.id)
            done.append(current is not None and current.etag == seen.etag)
            if done[-1]:
                await self.update_delivery(seen.id, **values)
        return done

    async def mark_queued(self, ids: Sequence[str]) -> None:
        for id_ in ids:
            if id_ in self.deliveries:
                await self.update_delivery(id_, unqueued=False)

    async def list_deliveries(
        self, criteria: DeliveryFilter, limit: int, after: str | None
    ) -> Page:
        ids = sorted(self.deliveries, reverse=True)
        matching = [
            self.deliveries[id_]
            for id_ in ids
            if matches(self.deliveries[id_], criteria) and (after is None or id_ < after)
        ]
        page = matching[:limit]
        return Page(tuple(page), page[-1].id if len(matching) > limit else None)

    async def scan_deliveries(
        self, statuses: frozenset[Status], since: datetime | None, until: datetime | None
    ) -> AsyncIterator[Delivery]:
        for id_ in sorted(self.deliveries, reverse=True):
            if self.deliveries[id_].status in statuses and is_between(id_, since, until):
                yield self.deliveries[id_]

    async def list_open(self, since: datetime | None, until: datetime | None) -> list[str]:
        found = [item.id async for item in self.scan_deliveries(OPEN, since, until)]
        return found[::-1]

    async def index_open(self, until: datetime) -> None:
        async for delivery in self.scan_deliveries(OPEN, self.indexed_until, until):
            await self.index_delivery(delivery.id, parse_accepted_time(delivery.id))
        self.indexed_until = until

    async def get_indexed_until(self) -> datetime | None:
        return self.indexed_until

    async def index_delivery(self, id_: str, due: datetime) -> None:
        self.index[build_index_key(id_, due)] = id_

    async def index_deliveries(self, ids: Sequence[str], due: datetime) -> None:
        for id_ in ids:
            await self.index_delivery(id_, due)

    async def scan_index(self, due: datetime | None) -> AsyncIterator[IndexEntry]:
        for key in sorted(self.index):
            if due is None or key < build_index_key("~", due):
                yield IndexEntry(key, self.index[key])

    async def move_index_entry(self, entry: IndexEntry, due: datetime | None) -> None:
        self.index.pop(entry.key, None)
        if due is not None:
            await self.index_delivery(entry.delivery, due)

    async def delete_delivery(self, id_: str, is_over: Callable[[], bool] = never) -> bool:
        rows = [key for key in self.row_results if key[0] == id_]
        for number, key in enumerate(rows):
            if number % ROWS_PER_BATCH == 0 and is_over():
                return False
            del self.row_results[key]
        by_delivery: tuple[dict[str, Any], ...] = (self.payloads, self.digests, self.entry_results)
        for by_id in (*by_delivery, self.deliveries):
            by_id.pop(id_, None)
        by_id_and_part: tuple[dict[Any, Any], ...] = (
            self.lanes,
            self.fetched,
            self.bases,
        )
        for records in by_id_and_part:
            for key in [key for key in records if key[0] == id_]:
                del records[key]
        return True

    async def begin_plan(self, id_: str, plan: int, **changes: Any) -> bool:
        unplanned: dict[str, Any] = {
            "queued_lanes": b"",
            "done_lanes": b"",
            "lanes": 0,
            "lanes_done": 0,
        }
        return await self.update_delivery(
            id_, only_plan=plan - 1, plan=plan, **unplanned, **changes
        )

    async def save_lane(self, id_: str, plan: int, lane: int, data: bytes) -> None:
        self.lanes[id_, plan, lane] = data

    async def get_lane(self, id_: str, plan: int, lane: int) -> bytes:
        return self.lanes[id_, plan, lane]

    async def record_queued_lanes(self, id_: str, plan: int, lanes: Collection[int]) -> None:
        queued = add_lanes(self.deliveries[id_].queued_lanes, lanes)
        await self.update_delivery(id_, only_plan=plan, queued_lanes=queued)

    async def save_fetched(self, id_: str, number: int, data: bytes) -> bytes:
        return self.fetched.setdefault((id_, number), data)

    async def get_fetched(self, id_: str, number: int) -> bytes | None:
        return self.fetched.get((id_, number))

    async def get_newest_event(self, sender: str, subscription: str) -> int:
        return self.events.get((sender, subscription), 0)

    async def record_event(self, sender: str, subscription: str, number: int) -> None:
        before = self.events.get((sender, subscription), 0)
        self.events[sender, subscription] = max(before, number)

    async def finish_lane(self, id_: str, plan: int, lane: int) -> bool:
        delivery = self.deliveries[id_]
        done = add_lanes(delivery.done_lanes, (lane,))
        count = count_lanes(done)
        is_current = await self.update_delivery(
            id_, only_plan=plan, done_lanes=done, lanes_done=count
        )
        return is_current and count >= delivery.lanes

    async def begin_lane(self, id_: str, lane: int) -> bool:
        lanes = self.entry_results.setdefault(id_, {})
        if lane in lanes:
            return False
        lanes[lane] = []
        return True

    async def begin_delivery(self, seen: Delivery, bases: Mapping[int, str]) -> Delivery | None:
        current = self.deliveries.get(seen.id)
        if current is None or current.etag != seen.etag:
            return None
        begun: dict[str, Any] = {"begun": True, "bases": encode_bases(bases)}
        return replace(seen, **begun, etag=self._set_delivery(replace(current, **begun)).etag)

    async def has_begun(self, id_: str) -> bool:
        seen = (*self.lanes, *self.fetched)
        return id_ in self.entry_results or any(delivery == id_ for delivery, *_ in seen)

    async def add_entry_results(self, id_: str, lane: int, results: Sequence[EntryResult]) -> None:
        self.entry_results[id_][lane].extend(results)

    async def save_entry_results(self, id_: str, lane: int, results: Sequence[EntryResult]) -> None:
        self.entry_results.setdefault(id_, {}).setdefault(lane, []).extend(results)

    async def record_bases(self, id_: str, lane: int, bases: Mapping[int, str]) -> None:
        recorded = self.bases.setdefault((id_, lane), {})
        self.bases[id_, lane] = {**bases, **recorded}

    async def list_bases(self, id_: str, lane: int | None = None) -> dict[int, str]:
        return {
            position: version
            for (delivery, number), bases in self.bases.items()
            if delivery == id_ and lane in (None, number)
            for position, version in bases.items()
        }

    async def list_entry_results(self, id_: str, lane: int | None = None) -> list[EntryResult]:
        lanes = self.entry_results.get(id_, {})
        chosen = lanes.values() if lane is None else [lanes.get(lane, [])]
        return keep_first_by_position([result for part in chosen for result in part])

    async def record_row_result(self, result: RowResult) -> None:
        key = (result.delivery, result.resource, result.table)
        self.row_results[key] = bound_row_result(result)

    async def list_row_results(self, id_: str) -> Sequence[RowResult]:
        return [row for (delivery, *_), row in self.row_results.items() if delivery == id_]

    async def count_mirrored(self, id_: str) -> int:
        return len({resource for delivery, resource, _ in self.row_results if delivery == id_})
