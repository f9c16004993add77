"""VERB read_kept_entry: one entry of a kept delivery, as it came and as the relay sends it.

The plan follows from the bytes and from what the delivery states, so it is made again. Nothing is
fetched, sent or recorded. What comes out is a patient's data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from integration.core.byte_budget import ByteBudget
from integration.core.errors import Issue, Rejected
from integration.core.model import Delivery, EntryResult
from integration.core.offload import offload
from integration.fhir import units
from integration.fhir.entries import Contents, Entry
from integration.fhir.original_entry import EntryText, find_original, parse_entry
from integration.fhir.plan import PLANNER, Plan, plan
from integration.fhir.progress import Progress, map_targets
from integration.fhir.resource_ids import Naming
from integration.fhir.units import Limits, Stamp, UnitEntry
from integration.journal.store import Journal, Payload
from integration.relay import fetch
from integration.relay.preflight import UNGUARDED

# The most bytes of a delivery, with all that was fetched for it, that are planned to show one entry
# of it. With small entries, planning takes about a second for each MB.
MAX_BYTES = 4_000_000

# Seconds to wait for a share of the budget: a person waits.
_MAX_WAIT = 10.0

_TOO_LARGE = f"the delivery has more than {MAX_BYTES // 1_000_000} MB, so it is not planned again"

_ANOTHER_PLANNER = (
    "Another version of this app has planned the delivery, or will plan it anew. What it sends may "
    "differ from this."
)
_CONDITIONAL = (
    "The entry has a condition. Where that matched a resource, it was sent to this resource by its "
    "id."
)
_VERSIONED = (
    "Where the resource was there already, it was sent with ifMatch and the version that the relay "
    "had found."
)
_IN_TRANSACTION = (
    "Links to other entries of the same transaction are shown as the FHIR server has resolved them."
)
_WAITING = "Links to entries whose id is not known yet are shown as placeholders: urn:uuid."


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptEntry:
    """An entry. `name`: its Type/id, or its type, as far as it is known; `original`: as it came;
    `sent`: as the relay sends it. None: there is none, and `reason` says why. `sent_as`: the
    position of the canonical entry that is sent for it. `notes`: what to know of `sent`."""

    name: str | None = None
    original: EntryText | None = None
    sent: EntryText | None = None
    sent_as: int | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _KeptOnly:
    """What was fetched for a delivery. Nothing is fetched, and nothing is saved. Raises Rejected
    when it is more than `bytes_left`."""

    journal: Journal
    bytes_left: int

    async def get_fetched(self, id_: str, number: int) -> bytes | None:
        data = await self.journal.get_fetched(id_, number)
        self.bytes_left -= len(data or b"")
        if self.bytes_left < 0:
            raise Rejected(Issue("too-costly", _TOO_LARGE))
        return data

    async def save_fetched(self, id_: str, number: int, data: bytes) -> bytes:
        return data


async def read_kept_entry(
    journal: Journal,
    budget: ByteBudget,
    delivery: Delivery,
    position: int,
    *,
    results: Sequence[EntryResult],
) -> KeptEntry:
    """Return an entry of a delivery. `results`: of its entries, which tell the ids that links got.

    Raises KeyError when the bytes are deleted, and Overloaded when too much else is planned.
    """
    if delivery.bytes > MAX_BYTES:
        return KeptEntry(reason=_TOO_LARGE)
    async with budget.take(delivery.bytes, _MAX_WAIT):
        payload = await journal.get_payload(delivery.id)
        kept = _KeptOnly(journal, MAX_BYTES - len(payload.body))
        try:
            contents, size = await fetch.read_contents(fetch.NO_SOURCES, kept, delivery.id, payload)
        except Rejected as error:
            original = find_original(payload.body, payload.request, position, None)
            return KeptEntry(original=original, reason=f"it cannot be read: {error}")
        show = partial(_show, delivery, payload, contents, position=position, results=results)
        return await offload(size, show)


def _show(
    delivery: Delivery,
    payload: Payload,
    contents: Contents,
    *,
    position: int,
    results: Sequence[EntryResult],
) -> KeptEntry:
    entry = contents.entries[position] if position < len(contents.entries) else None
    original = find_original(payload.body, payload.request, position, entry)
    if entry is None:
        return KeptEntry(original=original, reason="the delivery has no such entry")
    naming = Naming(delivery.sender, delivery.key, payload.request.policy.trust == "uuids")
    limits = Limits(delivery.unit_max_entries, delivery.unit_max_bytes, delivery.over_limit)
    made = plan(contents, naming, limits, delivery.write_order)
    found = KeptEntry(name=_name_entry(entry), original=original)
    for refused, issue in made.refused:
        if refused.position == position:
            return replace(found, reason=f"not sent: {issue.text}")
    return _add_sent(found, delivery, made, position=position, results=results)


def _name_entry(entry: Entry) -> str | None:
    return entry.identity or entry.type or None


def _add_sent(
    found: KeptEntry,
    delivery: Delivery,
    made: Plan,
    *,
    position: int,
    results: Sequence[EntryResult],
) -> KeptEntry:
    """Return the entry with what the relay sends for it: its links lead where they led then."""
    known = {result.position: result for result in results}
    lane = next(lane for lane in made.lanes if position in lane.positions)
    progress, sent, earlier = Progress(), None, dict[str, str]()
    for unit in lane.units:
        for entry in unit.entries:
            if position in entry.positions:
                sent, earlier = entry, dict(progress.identities)
        progress.record(unit, [known[n] for n in map_targets(unit) if n in known])
    if sent is None:
        raise LookupError("a lane has a position that none of its units has")
    is_ordered = delivery.write_order != UNGUARDED
    body = units.build_entry(sent, earlier, Stamp(delivery=delivery.id, ordered=is_ordered))
    inside = [name for name in sent.awaits if name not in earlier and name in progress.identities]
    body = units.fill_placeholders(body, inside, progress.identities)
    unknown = [name for name in sent.awaits if name not in progress.identities]
    notes = [
        *([_ANOTHER_PLANNER] if delivery.planner != PLANNER else []),
        *_list_notes(sent, is_ordered=is_ordered),
        *([_IN_TRANSACTION] if inside else []),
        *([_WAITING] if unknown else []),
    ]
    return replace(
        found,
        name=sent.target if "/" in sent.target else found.name,
        sent=parse_entry(body),
        sent_as=None if sent.position == position else sent.position,
        notes=tuple(notes),
    )


def _list_notes(entry: UnitEntry, *, is_ordered: bool) -> list[str]:
    if not is_ordered:
        return []
    if entry.condition is not None:
        return [_CONDITIONAL]
    is_versioned = entry.method in ("PUT", "PATCH") and not entry.has_precondition
    return [_VERSIONED] if is_versioned and not entry.created else []
