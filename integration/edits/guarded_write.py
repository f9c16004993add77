"""Write one resource, on the condition that nobody changes it in between.

What comes from Dataverse takes a write lock as a delivery does, so that no delivery that was
accepted earlier can undo it later. It has to be as valid as what it changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Issue, Misconfigured, Rejected, Unavailable
from integration.core.model import FhirResource, Request, Response
from integration.fhir import validation, write_mark
from integration.fhir.client import FhirServer
from integration.fhir.write_mark import Mark
from integration.journal import write_guard
from integration.journal.write_guard import HeldLocks, SendState, Write, WriteGuard

CONFLICT_STATUSES = (409, 412)

_CONFLICT = Issue(
    "conflict", "somebody has changed the resource since it was read: read it again", "If-Match"
)

HEADERS = {
    "accept": "application/fhir+json",
    "content-type": "application/fhir+json",
    "prefer": "return=representation",
}


class Superseded(Rejected):
    """412: the write comes after `later` in time, the id of a delivery or an edit, and before it by
    its own id."""

    def __init__(self, later: str) -> None:
        super().__init__(_CONFLICT, status=412)
        self.later = later


@dataclass(slots=True)
class WriteAttempt:
    """How far a write has come. `is_sent`: the server may be working on it."""

    is_sent: bool = False
    settled: dict[int, bool] = field(default_factory=dict)

    def record_response(self, response: Response) -> None:
        """Record the answer to the write."""
        self.settled[0] = response.status < 300


@asynccontextmanager
async def lock_resource(
    guard: WriteGuard,
    name: str,
    run_id: str,
    *,
    is_delete: bool = False,
    is_ordered: bool = True,
) -> AsyncIterator[WriteAttempt]:
    """Hold the write lock of the resource `name`, as Type/id.

    Nobody else writes it meanwhile, and no earlier delivery afterwards. `run_id`: sorts by time
    among the ids of deliveries. Raises Superseded where a later one has written it. `is_ordered`:
    False: it keeps others out while it is held, and nobody afterwards.
    """
    locks = HeldLocks(run_id, "feed", guard.token())
    write = Write(name, (0,), ordered=is_ordered)
    await write_guard.claim(guard, locks, [write])
    await write_guard.acquire(guard, locks, [write], are_deletes=is_delete)
    attempt, state = WriteAttempt(), SendState.NOT_SENT
    try:
        if locks.superseded:
            raise Superseded(max(row.written_by for row in locks.previous.values()))
        yield attempt
        state = SendState.ANSWERED
    except (Unavailable, asyncio.CancelledError) as error:
        # Cancelled: the response has taken longer than it may.
        is_outcome_known = isinstance(error, Unavailable) and not error.is_outcome_unknown
        if attempt.is_sent:
            state = SendState.ANSWERED if is_outcome_known else SendState.UNANSWERED
        raise
    finally:
        await write_guard.release(guard, locks, attempt.settled, state)


async def put(
    fhir: FhirServer, name: str, resource: FhirResource, run_id: str, version: str | None = None
) -> Response:
    """Store a resource. `version`: only in the place of this one. Return the answer: that it was
    stored, or a conflict. Raises as `build_write_error` says."""
    condition = {"if-match": f'W/"{version}"'} if version is not None else {}
    body = decimal_json.encode(mark(resource, run_id))
    response = await fhir.send(Request("PUT", name, body, {**HEADERS, **condition}), run_id)
    if response.status >= 300 and response.status not in CONFLICT_STATUSES:
        raise build_write_error(fhir.upstream.name, response.status)
    return response


def mark(resource: FhirResource, run_id: str) -> FhirResource:
    """Return the resource with the mark of this write: a delivery that was accepted earlier must
    not undo it."""
    return write_mark.add_mark(resource, Mark(delivery=run_id, position=0))


def check_valid(before: FhirResource, after: FhirResource) -> None:
    """Raise Rejected for what is not valid FHIR in `after` and was valid in `before`."""
    earlier = _list_issues(before) if before else []
    known = {(issue.text, issue.expression) for issue in earlier}
    added = [issue for issue in _list_issues(after) if (issue.text, issue.expression) not in known]
    if added:
        raise Rejected(*added, status=422)


def _list_issues(resource: FhirResource) -> list[Issue]:
    return list(validation.find_issues(resource, str(resource["resourceType"])))


def get_version(resource: Mapping[str, Any]) -> str:
    """Return the versionId of a resource; "" where it has none."""
    return str(resource.get("meta", {}).get("versionId", ""))


def build_conflict_error() -> Rejected:
    """Build the error for a resource that is not the one that was read."""
    return Rejected(_CONFLICT, status=412)


def build_write_error(upstream: str, status: int) -> Exception:
    """Build the error for an answer, without the server's text, which may quote the patient."""
    if status in (400, 422):
        issue = Issue("processing", f"the FHIR server refused the resource ({status})")
        return Rejected(issue, status=422)
    if status >= 500 or status in (408, 424, 429):
        return Unavailable(
            upstream,
            f"a write was answered {status}",
            # A gateway answers so while the server is still at work.
            is_outcome_unknown=status in (408, 502, 504),
        )
    return Misconfigured(f"{upstream}: a write was answered {status}")
