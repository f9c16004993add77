"""An entry of the audit log: who was shown what, or wrote it. Pure.

It holds names of people who ask, types and ids of resources, and counts: no value of a resource, no
text of a query.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# The resources that an entry names. The rest of a page, or of a large delivery, is counted.
MAX_NAMED = 20


class AccessKind(StrEnum):
    """How patient data was shown or written."""

    DELIVERY_ANSWER = "delivery-answer"  # the response bundle of a delivery
    DRY_RUN = "dry-run"  # the plan of what the sender sent
    ROW = "row"  # one row of a virtual table
    ROWS = "rows"  # a page of a virtual table
    COUNT = "count"  # how many rows a virtual table has
    CORRECTION = "correction"  # the corrected bytes that an operator sent for a delivery
    MAP_TRIAL = "map-trial"  # a resource that was read and tried against its map, on a page
    CONTENT = "content"  # what a delivery holds, on a page for operators
    PATIENT = "patient"  # who a patient is, or that there is one, on a page for operators


class AccessAction(StrEnum):
    """What was done: https://hl7.org/fhir/R4/valueset-audit-event-action.html"""

    CREATE = "create"
    READ = "read"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who asks, as well as it is known.

    `principal`: whom the proof told, a subject or a thumbprint; `key`: the name of the function
    key; `user`: the person for whom a system in between asks.
    """

    sender: str | None = None
    principal: str | None = None
    key: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What was shown or written. `resources`: the first of them, as Type/id; `types`: of all of
    them; `number`: how many there are. `status`: of the answer; None: it is not known whether what
    was begun was done."""

    kind: AccessKind
    action: AccessAction = AccessAction.READ
    status: int | None = 200
    types: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    number: int = 0
    delivery: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what, and when. Its id sorts by time, the newest first."""

    id: str
    time: datetime
    reader: Reader
    access: Access


def build_access(
    kind: AccessKind,
    names: Iterable[str],
    *,
    action: AccessAction = AccessAction.READ,
    type_: str | None = None,
    status: int = 200,
    delivery: str | None = None,
) -> Access:
    """Describe an access to the resources of these names: Type/id, or a Type where a resource has
    no id yet. `type_`: what was asked for, which counts when nothing was found."""
    found = list(names)
    types = {name.partition("/")[0] for name in found} | ({type_} if type_ else set())
    with_id = dict.fromkeys(name for name in found if "/" in name)
    return Access(
        kind=kind,
        action=action,
        status=status,
        types=tuple(sorted(types)),
        resources=tuple(with_id)[:MAX_NAMED],
        number=len(found),
        delivery=delivery,
    )
