"""Begin a correction: record what it takes over from the delivery that it corrects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from integration.core.errors import Issue, Rejected
from integration.core.model import Delivery, EntryResult, Status
from integration.core.offload import offload
from integration.fhir import bundle
from integration.fhir.correction import (
    Corrected,
    TakenOver,
    is_created,
    read_corrected,
    take_over,
)
from integration.fhir.entries import Contents
from integration.fhir.prepare import prepare
from integration.fhir.resource_ids import Naming
from integration.fhir.rights import refuse_forbidden
from integration.fhir.units import Limits, UnitEntry
from integration.journal.bases import decode_bases
from integration.journal.store import NO_LANE, Journal, Payload


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The entries of a delivery that can be sent, and which of them it creates."""

    entries: tuple[UnitEntry, ...]
    created: frozenset[int]


async def record_taken_over(journal: Journal, correction: Delivery) -> None:
    """Record the results of entries that are not sent again, and the bases of the others. Repeating
    it changes nothing. The caller holds a share of the budget for both bodies.

    Raises Rejected when the bytes of the corrected delivery are deleted: what it has written is not
    known then.
    """
    for later in reversed(await _list_unended(journal, correction)):
        await _take_over(journal, later)


async def _list_unended(journal: Journal, correction: Delivery) -> list[Delivery]:
    """Return a correction, and those before it that may have ended before they took anything over:
    what they have not, it would not find. The latest first."""
    found = [correction]
    corrected = await journal.get_delivery(correction.corrects or "")
    while corrected is not None and corrected.corrects and corrected.status is not Status.DONE:
        found.append(corrected)
        corrected = await journal.get_delivery(corrected.corrects)
    return found


async def _take_over(journal: Journal, correction: Delivery) -> None:
    limits = Limits(correction.unit_max_entries, correction.unit_max_bytes, correction.over_limit)
    corrected = await journal.get_delivery(correction.corrects or "")
    try:
        payloads = (
            await journal.get_payload(correction.corrects or ""),
            await journal.get_payload(correction.id),
        )
    except KeyError:
        corrected = None
    if corrected is None:
        text = "the bytes of the delivery that this one corrects are deleted"
        raise Rejected(Issue("conflict", text), status=409)
    results = {result.position: result for result in await journal.list_entry_results(corrected.id)}
    bases = await journal.list_bases(corrected.id) | decode_bases(corrected.bases)
    work = partial(_compare, correction, payloads, limits, results=results, bases=bases)
    found = await offload(sum(len(payload.body) for payload in payloads), work)
    known = {result.position for result in await journal.list_entry_results(correction.id)}
    new = [result for result in found.results if result.position not in known]
    if new or found.bases:
        await journal.begin_lane(correction.id, NO_LANE)
    if found.bases:
        await journal.record_bases(correction.id, NO_LANE, found.bases)
    if new:
        await journal.add_entry_results(correction.id, NO_LANE, new)


def _compare(
    correction: Delivery,
    payloads: tuple[Payload, Payload],
    limits: Limits,
    *,
    results: Mapping[int, EntryResult],
    bases: Mapping[int, str],
) -> TakenOver:
    naming = Naming(correction.sender, correction.key)
    prepare_ = partial(_prepare, naming=naming, limits=limits, write_order=correction.write_order)
    before, after = payloads
    corrections = prepare_(_read_correction(after))
    corrected = Corrected(
        # One that was held because it cannot be read has no results: nothing of it was sent.
        entries=prepare_(read_corrected(before.body, before.request)).entries
        if results or bases
        else (),
        results=results,
        bases=bases,
    )
    return take_over(corrected, corrections.entries, corrections.created)


def _read_correction(payload: Payload) -> Contents:
    contents = bundle.read(payload.body, payload.request)
    return refuse_forbidden(contents, payload.request.rights, alone=True)


def _prepare(contents: Contents, naming: Naming, limits: Limits, write_order: str) -> _Prepared:
    prepared, _ = prepare(contents, naming, limits, write_order, is_correction=True)
    created = frozenset(entry.position for entry in contents.entries if is_created(entry))
    return _Prepared(tuple(item.unit_entry for item in prepared), created)
