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
from integration.model import Claim, RowOutcome
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


async def mirror(it: Mirror, claim: Claim) -> None:
    """Bring the row of `claim.resource` up to date. A neighbour's trouble puts the claim back."""
    entity = it.maps[(claim.resource or "").partition("/")[0]]
    try:
        result = await _mirror(it, entity, claim)
    except (Unavailable, Misconfigured) as error:
        back = put_back(claim, error, it.now(), it.max_age)
        extra = {"delivery": claim.delivery, "resource": claim.resource, "reason": str(error)}
        if back.delay is not None:
            level = logging.ERROR if isinstance(error, Misconfigured) else logging.WARNING
            log.log(level, "row.put_back", extra={**extra, "attempt": claim.attempt})
            await it.outbox.send(MIRROR_QUEUE, back.claim, back.delay)
            return
        log.error("row.parked", extra=extra)
        result = replace(_outcome(entity, claim, None, "parked"), notes=(str(error),))
    await it.journal.note_row(result)
    log.info(
        "row.mirrored",
        extra={
            "delivery": claim.delivery,
            "resource": claim.resource,
            "row": result.row,
            "action": result.action,
            "notes": len(result.notes),
        },
    )


async def park(it: Mirror, claim: Claim, reason: str) -> None:
    """Give up on a row until an operator looks at it."""
    entity = it.maps[(claim.resource or "").partition("/")[0]]
    log.error("row.parked", extra={"delivery": claim.delivery, "resource": claim.resource})
    await it.journal.note_row(replace(_outcome(entity, claim, None, "parked"), notes=(reason,)))


async def _mirror(it: Mirror, entity: EntityMap, claim: Claim) -> RowOutcome:
    assert claim.resource is not None
    columns = await it.dataverse.columns(entity.table)
    missing = misfits(entity, columns)
    if missing:
        raise Misconfigured("; ".join(missing))
    for _ in range(_RACES):
        # Read again after every lost race: FHIR may have moved on as well.
        resource = await it.fhir.read(claim.resource, claim.delivery)
        try:
            row = await _find(it, entity, claim)
            if resource is None:
                result = await _gone(it, entity, claim, row)
            elif row is not None and not engine.is_newer(entity, resource, row):
                result = _outcome(entity, claim, row, "unchanged", resource)
            else:
                mapped = engine.apply(entity, resource, columns)
                result = await _write(it, entity, claim, row, mapped.columns)
                if result is not None:
                    result = replace(result, notes=mapped.notes + result.notes)
        except Unmappable as problem:
            result = replace(_outcome(entity, claim, None, "refused"), notes=(str(problem),))
        if result is not None:
            return result
    raise Unavailable(it.dataverse.neighbour.name, "the row keeps changing")


async def _find(it: Mirror, entity: EntityMap, claim: Claim) -> dict[str, Any] | None:
    """By FHIR id, since rows that others made have keys of their own, or by our primary key."""
    kind, _, identifier = (claim.resource or "").partition("/")
    key = engine.primary_key(kind, identifier)
    columns = [entity.key, entity.version_column, entity.updated_column, "statecode"]
    request = requests.find(
        entity.entity_set, entity.key, key, entity.id_column, identifier, columns
    )
    response = await it.dataverse.send(request, claim.delivery)
    if response.status != 200:
        raise Unmappable(f"the look-up was answered {response.status} {error_code(response)}")
    found = rows(response)
    if len(found) > 1:
        raise Unmappable(f"more than one {entity.table} has this FHIR id: merge them")
    return found[0] if found else None


async def _write(
    it: Mirror,
    entity: EntityMap,
    claim: Claim,
    row: Mapping[str, Any] | None,
    columns: Mapping[str, Any],
) -> RowOutcome | None:
    """None when somebody else wrote the row in between."""
    if row is None:
        kind, _, identifier = (claim.resource or "").partition("/")
        key = engine.primary_key(kind, identifier)
        # A row is born active; its state is set on the next pass, which sees a row.
        born = {name: value for name, value in columns.items() if name not in _STATE}
        request = requests.create(entity.entity_set, key, born)
        action, again = "created", columns.get("statecode") not in (None, 0)
    else:
        key = row[entity.key]
        request = requests.update(entity.entity_set, key, columns, row["@odata.etag"])
        action, again = "updated", False
    response = await it.dataverse.send(request, claim.delivery)
    if response.status == 412 or (response.status == 404 and row is not None):
        return None
    version = columns.get(entity.version_column)
    result = RowOutcome(claim.delivery, claim.resource or "", entity.table, key, action, version)
    if response.status >= 400:
        note = f"answered {response.status} {error_code(response)}".strip()
        return replace(result, action="refused", notes=(note,))
    if again:
        created = await _find(it, entity, claim)
        return await _write(it, entity, claim, created, columns) if created else None
    return result


async def _gone(
    it: Mirror, entity: EntityMap, claim: Claim, row: Mapping[str, Any] | None
) -> RowOutcome | None:
    """Deleted in FHIR: the row is deactivated, never deleted, since others may refer to it."""
    if row is None:
        return _outcome(entity, claim, None, "absent")
    if row.get("statecode") == _INACTIVE["statecode"]:
        return _outcome(entity, claim, row, "unchanged")
    result = await _write(it, entity, claim, row, _INACTIVE)
    return (
        replace(result, action="deactivated") if result and result.action != "refused" else result
    )


def _outcome(
    entity: EntityMap,
    claim: Claim,
    row: Mapping[str, Any] | None,
    action: str,
    resource: Mapping[str, Any] | None = None,
) -> RowOutcome:
    return RowOutcome(
        claim.delivery,
        claim.resource or "",
        entity.table,
        row[entity.key] if row else None,
        action,
        (resource or {}).get("meta", {}).get("versionId"),
    )
