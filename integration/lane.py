"""One lane to the FHIR server, unit by unit, noting every outcome before the next unit goes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from integration.errors import Issue, Unavailable
from integration.fhir import outcome, units
from integration.fhir.client import FhirServer
from integration.fhir.units import Lane, Unit, UnitEntry
from integration.journal.store import Journal
from integration.model import Claim, Delivery, Outcome, Status
from integration.outbox import Outbox
from integration.settings import MIRROR_QUEUE

_FAILED_DEPENDENCY = 424


@dataclass(frozen=True, slots=True)
class Carrier:
    """What carrying a lane needs. `mirrored`: the resource types whose rows Dataverse holds."""

    journal: Journal
    outbox: Outbox
    fhir: FhirServer
    mirrored: frozenset[str]


@dataclass(slots=True)
class _Progress:
    """How far a lane has come; the journal holds the same."""

    carrier: Carrier
    delivery: Delivery
    lane: int
    settled: dict[int, Outcome] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)  # Type/id by placeholder
    broken: bool = False  # a part of a split transaction was refused

    def remember(self, unit: Unit, outcomes: Iterable[Outcome]) -> None:
        targets = _targets(unit)
        for item in outcomes:
            self.settled[item.position] = item
            target = targets[item.position]
            if item.written and item.location and "/" not in target:
                self.answers[target] = _identity(item, target)
            if not item.written and unit.kind == "transaction":
                self.broken = True


async def carry_lane(
    carrier: Carrier, delivery: Delivery, lane: Lane, claim: Claim
) -> list[Outcome] | None:
    """The outcomes of the lane, all noted; None when the delivery was cancelled on the way.

    Raises Unavailable when entries are left to be tried again; what is settled stays settled.
    """
    number = claim.lane or 0
    progress = _Progress(carrier, delivery, number)
    first_try = await carrier.journal.begin(delivery.id, number)
    noted = [] if first_try else await carrier.journal.outcomes(delivery.id, number)
    before = {item.position: item for item in noted}
    for index, unit in enumerate(lane.units):
        known = [before[n] for entry in unit.entries for n in entry.positions if n in before]
        progress.remember(unit, known)
        if not _left(progress, unit):
            continue
        if index and await _cancelled(carrier, delivery):
            return None
        look_first = not first_try or delivery.repeat
        await _carry_unit(progress, unit, f"{number}.{index}", claim.attempt, look_first)
    return [progress.settled[position] for position in lane.positions]


async def _carry_unit(
    progress: _Progress, unit: Unit, name: str, attempt: int, look_first: bool
) -> None:
    """Settle every entry of the unit, or raise Unavailable with the rest left over."""
    carrier, delivery = progress.carrier, progress.delivery
    await _settle(progress, unit, name, _blocked(progress, unit))
    if look_first:
        await _settle(progress, unit, name, await _done_before(progress, unit))
    todo = _left(progress, unit)
    if not todo:
        return
    response = await carrier.fhir.send(units.request(unit, todo, progress.answers), delivery.id)
    answer = outcome.of_unit(unit, todo, response, attempt)
    await _settle(progress, unit, name, answer.settled)
    if answer.unfinished:
        why = f"{len(answer.unfinished)} of {len(todo)} entries are unfinished"
        raise Unavailable(carrier.fhir.neighbour.name, why, answer.retry_after)


async def _settle(progress: _Progress, unit: Unit, name: str, outcomes: Sequence[Outcome]) -> None:
    """Queue the mirror first, then note: a crash between repeats the mirror, which is harmless."""
    if not outcomes:
        return
    carrier, delivery = progress.carrier, progress.delivery
    targets = _targets(unit)
    changed = {_identity(item, targets[item.position]) for item in outcomes if item.written}
    await asyncio.gather(
        *(
            carrier.outbox.send(MIRROR_QUEUE, Claim(delivery.id, resource=identity))
            for identity in sorted(changed)
            if identity.partition("/")[0] in carrier.mirrored
        )
    )
    named = [replace(item, unit=name) for item in outcomes]
    await carrier.journal.note(delivery.id, progress.lane, named)
    progress.remember(unit, named)


async def _done_before(progress: _Progress, unit: Unit) -> list[Outcome]:
    """What an earlier try, or the same bytes before, have created: never to be written again,
    because somebody may have changed it since."""
    todo = _left(progress, unit)
    if not any(entry.created for entry in todo):
        return []
    asked = [entry for entry in todo if "/" in entry.target]
    response = await progress.carrier.fhir.send(units.inquiry(asked), progress.delivery.id)
    found = outcome.of_inquiry(unit, asked, response)
    if found is None:
        name = progress.carrier.fhir.neighbour.name
        raise Unavailable(name, "a look-up was not answered", response.retry_after)
    return list(found.values())


def _blocked(progress: _Progress, unit: Unit) -> list[Outcome]:
    """Entries that cannot go because of what became of earlier ones."""
    todo = _left(progress, unit)
    if progress.broken and unit.kind == "transaction":
        text = "not sent: an earlier part of the transaction was refused"
        return _not_sent(todo, text)
    lost = [entry for entry in todo if not progress.answers.keys() >= set(entry.awaits)]
    text = "not sent: it refers to an entry that was refused"
    return _not_sent(todo if unit.kind == "transaction" and lost else lost, text)


def _not_sent(entries: Iterable[UnitEntry], text: str) -> list[Outcome]:
    issue = Issue("processing", text)
    return [
        item
        for entry in entries
        for item in outcome.spread(entry, outcome.refused(entry, issue, _FAILED_DEPENDENCY))
    ]


def _targets(unit: Unit) -> dict[int, str]:
    return {n: entry.target for entry in unit.entries for n in entry.positions}


def _left(progress: _Progress, unit: Unit) -> list[UnitEntry]:
    return [entry for entry in unit.entries if entry.position not in progress.settled]


def _identity(item: Outcome, target: str) -> str:
    return (item.location or target).partition("/_history/")[0]


async def _cancelled(carrier: Carrier, delivery: Delivery) -> bool:
    current = await carrier.journal.delivery(delivery.id)
    return current is not None and current.status is Status.CANCELLED
