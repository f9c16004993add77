"""VERB mirror: one resource's current state in FHIR becomes its row in Dataverse.

Level-triggered: a claim says that something changed, never what. So claims may come twice, late
or in any order, and no older state can replace a newer one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from integration.dataverse import requests
from integration.dataverse.client import Dataverse, error_code, rows
from integration.errors import Misconfigured, Unavailable, Unmappable
from integration.fhir.client import FhirServer
from integration.journal.store import Journal
from integration.mapping import engine
from integration.mapping.load import misfits
from integration.mapping.model import EntityMap
from integration.model import Claim, Column, Response, RowOutcome
from integration.outbox import Outbox, put_back
from integration.settings import MIRROR_QUEUE

log = logging.getLogger(__name__)

# Lost races against other writers of one row, before the claim goes back to the queue.
_RACES = 5

_STATE = {"statecode", "statuscode"}

# https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/contact
_INACTIVE = {"statecode": 1, "statuscode": 2}


@dataclass(frozen=True, slots=True)
class Mirror:
    """What mirroring needs. `maps` by resource type; ages in seconds."""

    journal: Journal
    outbox: Outbox
    fhir: FhirServer
    dataverse: Dataverse
    maps: Mapping[str, EntityMap]
    now: Callable[[], datetime]
    max_age: float


@dataclass(frozen=True, slots=True)
class _Subject:
    """The resource that a claim names, and the row that shows it."""

    entity: EntityMap
    delivery: str
    resource: str  # Type/id
    key: str  # the primary key of a row of ours

    @property
    def id(self) -> str:
        return self.resource.partition("/")[2]

    def outcome(
        self, action: str, key: str | None = None, version: str | None = None, *notes: str
    ) -> RowOutcome:
        table = self.entity.table
        return RowOutcome(self.delivery, self.resource, table, key, action, version, notes)


async def mirror(it: Mirror, claim: Claim) -> None:
    """Bring the row of `claim.resource` up to date. A neighbour's trouble puts the claim back."""
    subject = _subject(it, claim)
    extra: dict[str, object] = {"delivery": claim.delivery, "resource": claim.resource}
    try:
        result = await _mirrored(it, subject)
    except (Unavailable, Misconfigured) as error:
        back = put_back(claim, error, it.now(), it.max_age)
        if back.delay is None:
            await park(it, claim, str(error))
            return
        level = logging.ERROR if isinstance(error, Misconfigured) else logging.WARNING
        extra |= {"reason": str(error), "attempt": claim.attempt}
        log.log(level, "row.put_back", extra=extra)
        await it.outbox.send(MIRROR_QUEUE, back.claim, back.delay)
        return
    await it.journal.note_row(result)
    extra |= {"row": result.row, "action": result.action, "notes": len(result.notes)}
    log.info("row.mirrored", extra=extra)


async def park(it: Mirror, claim: Claim, reason: str) -> None:
    """Give up on a row until an operator looks at it."""
    extra = {"delivery": claim.delivery, "resource": claim.resource, "reason": reason}
    log.error("row.parked", extra=extra)
    await it.journal.note_row(_subject(it, claim).outcome("parked", None, None, reason))


def _subject(it: Mirror, claim: Claim) -> _Subject:
    resource = claim.resource or ""
    kind, _, identifier = resource.partition("/")
    key = engine.primary_key(kind, identifier)
    return _Subject(it.maps[kind], claim.delivery, resource, key)


async def _mirrored(it: Mirror, subject: _Subject) -> RowOutcome:
    columns = await it.dataverse.columns(subject.entity.table)
    missing = misfits(subject.entity, columns)
    if missing:
        raise Misconfigured("; ".join(missing))
    try:
        for _ in range(_RACES):
            result = await _once(it, subject, columns)
            if result is not None:
                return result
    except Unmappable as problem:
        return subject.outcome("refused", None, None, str(problem))
    raise Unavailable(it.dataverse.neighbour.name, "the row keeps changing")


async def _once(it: Mirror, subject: _Subject, columns: Mapping[str, Column]) -> RowOutcome | None:
    """From both sides as they are now; None when either has moved on meanwhile."""
    entity = subject.entity
    resource = await it.fhir.read(subject.resource, subject.delivery)
    row = await _find(it, subject)
    if resource is None:
        return await _deactivate(it, subject, row)
    if row is not None and not engine.is_newer(entity, resource, row):
        return subject.outcome("unchanged", row[entity.key], row[entity.version_column])
    mapped = engine.apply(entity, resource, columns)
    if row is None:
        result = await _create(it, subject, mapped.columns)
    else:
        result = await _update(it, subject, row, mapped.columns)
    return replace(result, notes=mapped.notes + result.notes) if result else None


async def _find(it: Mirror, subject: _Subject) -> dict[str, Any] | None:
    """By FHIR id, since rows that others made have keys of their own, or by our primary key."""
    entity = subject.entity
    books = (entity.key, entity.id_column, entity.version_column, entity.updated_column)
    request = requests.find(
        entity.entity_set,
        entity.key,
        subject.key,
        entity.id_column,
        subject.id,
        (*books, "statecode"),
    )
    response = await it.dataverse.send(request, subject.delivery)
    if response.status != 200:
        raise Unmappable(f"the look-up was answered {response.status} {error_code(response)}")
    found = rows(response)
    if len(found) > 1:
        raise Unmappable(f"more than one {entity.table} has this FHIR id: merge them")
    # Dataverse compares text without regard to case; FHIR does not.
    if found and found[0][entity.id_column] not in (None, subject.id):
        raise Unmappable(f"a {entity.table} has this FHIR id in other letter case")
    return found[0] if found else None


async def _create(it: Mirror, subject: _Subject, columns: Mapping[str, Any]) -> RowOutcome | None:
    """A row is born active. One that is to be inactive is born without its version, so that the
    next pass, or the next claim if this one ends here, sees a row that is not up to date."""
    entity = subject.entity
    inactive = columns.get("statecode") not in (None, 0)
    left_out = _STATE | ({entity.version_column} if inactive else set())
    born = {name: value for name, value in columns.items() if name not in left_out}
    request = requests.create(entity.entity_set, subject.key, born)
    response = await it.dataverse.send(request, subject.delivery)
    if response.status == 412 or (response.status < 400 and inactive):
        return None
    if response.status >= 400:
        return _refused(subject, response)
    # A delete in between has found no row to deactivate.
    if await it.fhir.read(subject.resource, subject.delivery) is None:
        return None
    return subject.outcome("created", subject.key, columns.get(entity.version_column))


async def _update(
    it: Mirror, subject: _Subject, row: Mapping[str, Any], columns: Mapping[str, Any]
) -> RowOutcome | None:
    entity, key = subject.entity, row[subject.entity.key]
    request = requests.update(entity.entity_set, key, columns, row["@odata.etag"])
    response = await it.dataverse.send(request, subject.delivery)
    if response.status in (404, 412):
        return None
    if response.status >= 400:
        return _refused(subject, response)
    return subject.outcome("updated", key, columns.get(entity.version_column))


async def _deactivate(
    it: Mirror, subject: _Subject, row: Mapping[str, Any] | None
) -> RowOutcome | None:
    """Deleted in FHIR: the row is deactivated, never deleted, since others may refer to it."""
    if row is None:
        return subject.outcome("absent")
    key = row[subject.entity.key]
    if row.get("statecode") == _INACTIVE["statecode"]:
        return subject.outcome("unchanged", key)
    result = await _update(it, subject, row, _INACTIVE)
    done = result is not None and result.action == "updated"
    return subject.outcome("deactivated", key) if done else result


def _refused(subject: _Subject, response: Response) -> RowOutcome:
    note = f"answered {response.status} {error_code(response)}".strip()
    return subject.outcome("refused", None, None, note)
