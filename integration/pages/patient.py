"""The page of one patient: what FHIR has, what its row shows, and what led there.

It costs up to three requests to the FHIR server, one to Dataverse (and those for the columns of its
tables, once in ten minutes), one look at the activity log, of at most ten storage operations, one
list of concerns, and one read for each of the deliveries that are named, 40 at most. All parts are
read at the same time, each within a time of its own: what cannot be read says so, and the rest is
shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from integration.core.errors import IntegrationError, Issue, Rejected
from integration.core.model import Activity, Delivery, WorkItem
from integration.core.state_version import NEVER_SEEN
from integration.fhir.client import CurrentState
from integration.fhir.grammar import is_id
from integration.fhir.units import CREATED
from integration.fhir.version_list import ListedVersion
from integration.journal.activity_log import ActivityFilter
from integration.journal.attention import ConcernFilter
from integration.journal.audit_entry import AccessKind, Reader, build_access
from integration.journal.audit_recorder import record
from integration.journal.concern import Concern
from integration.operations.mirror_again import MirrorProgress, find_progress, mirror_again
from integration.operations.status import Unreadable
from integration.pages.attention import KINDS
from integration.pages.compiled_maps import load_mirror
from integration.pages.http import Reply, redirect
from integration.pages.parts import PagesParts
from integration.pages.patient_facts import (
    Touch,
    describe_patient,
    judge_row,
    list_touches,
    parse_time,
)
from integration.pages.people import Role
from integration.pages.view import View, render
from integration.queues.names import MIRROR_QUEUE

if TYPE_CHECKING:  # it imports the mapping engine, which takes long to load
    from integration.mirror.row_state import RowStates

T = TypeVar("T")

# How much of each is shown.
MAX_VERSIONS = 20
MAX_RESULTS = 20
MAX_CONCERNS = 20
MAX_TOUCHES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """What was read. `versions`: up to one more than is shown. `results`: of the mirror, the newest
    first."""

    state: CurrentState | Unreadable
    versions: Sequence[ListedVersion] | Unreadable
    rows: RowStates | Unreadable
    is_mirrored: bool | Unreadable
    results: Sequence[Activity] | Unreadable
    concerns: Sequence[Concern] | Unreadable

    @property
    def is_gone(self) -> bool:
        """Whether FHIR says that there is no such patient, or none any more."""
        return not isinstance(self.state, Unreadable) and self.state.resource is None

    @property
    def was_deleted(self) -> bool:
        """Whether it is gone, and was there before."""
        if isinstance(self.state, Unreadable) or not self.is_gone:
            return False
        has_versions = not isinstance(self.versions, Unreadable) and bool(self.versions)
        return self.state.version != NEVER_SEEN or has_versions


async def show_patient(view: View) -> Reply:
    """Show a patient. Who looks is recorded before the answer leaves."""
    resource = _name_resource(view)
    looked = await _look(view.parts, resource)
    touches = list_touches(_cut(looked.versions, MAX_VERSIONS), looked.results)
    # Of all of them: a version that is shown names its delivery, too.
    deliveries = await _find_deliveries(view.parts, touches)
    progress = await _find_progress(view, resource, view.fields.get("mirrored"))
    status = 200
    if looked.is_gone:
        status = 410 if looked.was_deleted else 404
    access = build_access(AccessKind.PATIENT, [resource], status=status)
    await record(view.parts.audit, Reader(user=view.person.name), access)
    shown = None
    if not isinstance(looked.state, Unreadable) and looked.state.resource is not None:
        shown = describe_patient(looked.state.resource)
    return render(
        view,
        "patient.html",
        status=status,
        id=view.arguments["id"],
        resource=resource,
        looked=looked,
        shown=shown,
        verdict=judge_row(
            looked.state,
            looked.rows,
            is_mirrored=looked.is_mirrored,
            concerns=looked.concerns,
            results=looked.results,
        ),
        versions=_cut(looked.versions, MAX_VERSIONS),
        has_more_versions=len(_list(looked.versions)) > MAX_VERSIONS,
        touches=touches[:MAX_TOUCHES],
        created=CREATED,
        kinds=KINDS,
        deliveries=deliveries,
        is_unreadable=_is_unreadable,
        parse_time=parse_time,
        delivery=view.fields.get("mirrored"),
        progress=progress,
        can_mirror=view.person.can(Role.OPERATOR),
    )


async def mirror_patient(view: View) -> Reply:
    """Have the patient's row brought up to date now, and show what becomes of that."""
    resource, parts = _name_resource(view), view.parts
    delivery = await mirror_again(
        parts.journal,
        parts.patients.queue,
        parts.patients.change_queues,
        resource,
        new_id=parts.patients.new_id,
        now=parts.now(),
    )
    if not view.person.can(Role.PHI):  # the page of the patient is not for everybody
        return redirect(f"{_get_path(view)}/mirrored?delivery={delivery}")
    return redirect(f"{_get_path(view)}?mirrored={delivery}")


async def show_mirrored(view: View) -> Reply:
    """Show what has become of it: nothing of the patient but the id, so a look is not recorded."""
    delivery = view.fields.get("delivery")
    progress = await _find_progress(view, _name_resource(view), delivery)
    if progress is None:
        raise Rejected(Issue("required", "state the delivery that holds the result"))
    return render(
        view,
        "mirrored.html",
        id=view.arguments["id"],
        delivery=delivery,
        progress=progress,
        shows_patients=view.person.can(Role.PHI),
    )


def _name_resource(view: View) -> str:
    """Return Type/id of the address. Raises Rejected for what is no id of FHIR."""
    id_ = view.arguments["id"]
    if not is_id(id_):
        text = "This is no id of FHIR: those have up to 64 letters, digits, dots and hyphens."
        raise Rejected(Issue("not-found", text), status=404)
    return f"Patient/{id_}"


def _get_path(view: View) -> str:
    return f"patients/{view.arguments['id']}"


async def _look(parts: PagesParts, resource: str) -> _Looked:
    """Read all parts at the same time."""
    patients, correlation = parts.patients, parts.patients.new_id(parts.now())
    fhir = patients.fhir
    (state, versions), (rows, is_mirrored), (results, concerns) = await asyncio.gather(
        asyncio.gather(
            _read(parts, fhir.read_current(WorkItem(correlation, resource=resource))),
            _read(parts, fhir.list_versions(resource, correlation, MAX_VERSIONS + 1)),
        ),
        asyncio.gather(
            _find_rows(parts, resource, correlation),
            _read(parts, _is_mirrored(parts)),
        ),
        asyncio.gather(
            _read(parts, _find_results(parts, resource)),
            _read(parts, _find_concerns(parts, resource)),
        ),
    )
    return _Looked(
        state=state,
        versions=versions,
        rows=rows,
        is_mirrored=is_mirrored,
        results=results,
        concerns=concerns,
    )


async def _read(parts: PagesParts, work: Awaitable[T]) -> T | Unreadable:
    try:
        async with asyncio.timeout(parts.patients.timeout):
            return await work
    except TimeoutError:
        return Unreadable(f"not read within {parts.patients.timeout:g} s")
    except IntegrationError as error:
        return Unreadable(str(error))


async def _find_rows(parts: PagesParts, resource: str, correlation: str) -> RowStates | Unreadable:
    """Read its row. The first page of a worker loads the maps, which is not of the part's time."""
    try:
        mirror = await load_mirror(parts.patients)
    except IntegrationError as error:
        return Unreadable(str(error))
    from integration.mirror.row_state import find_row_states

    return await _read(parts, find_row_states(mirror, resource, correlation))


async def _is_mirrored(parts: PagesParts) -> bool:
    return (await parts.patients.change_queues()).get("Patient") == MIRROR_QUEUE


async def _find_results(parts: PagesParts, resource: str) -> Sequence[Activity]:
    criteria = ActivityFilter(resource=resource, action="mirror")
    return (await parts.activity.list_entries(criteria, MAX_RESULTS, None)).entries


async def _find_concerns(parts: PagesParts, resource: str) -> Sequence[Concern]:
    criteria = ConcernFilter(resource=resource)
    return (await parts.journal.list_concerns(criteria, MAX_CONCERNS, None)).concerns


async def _find_deliveries(
    parts: PagesParts, touches: Sequence[Touch]
) -> dict[str, Delivery | Unreadable | None]:
    """Return the deliveries by id. None: it is not in the journal, since older ones are deleted,
    and what was written through a virtual table is none."""
    ids = list(dict.fromkeys(touch.delivery for touch in touches))
    get = parts.journal.get_delivery
    found = await asyncio.gather(*(_read(parts, get(id_)) for id_ in ids))
    return dict(zip(ids, found, strict=True))


async def _find_progress(
    view: View, resource: str, delivery: str | None
) -> MirrorProgress | Unreadable | None:
    if delivery is None:
        return None
    parts = view.parts
    return await _read(parts, find_progress(parts.journal, parts.activity, resource, delivery))


def _list(part: Sequence[T] | Unreadable) -> Sequence[T]:
    return () if isinstance(part, Unreadable) else part


def _cut(part: Sequence[T] | Unreadable, limit: int) -> Sequence[T] | Unreadable:
    return part if isinstance(part, Unreadable) else part[:limit]


def _is_unreadable(part: object) -> bool:
    return isinstance(part, Unreadable)
