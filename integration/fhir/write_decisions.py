"""What becomes of an entry: sent, and on which condition, or settled without being sent. Pure.

Deliveries A and B, accepted in this order, update one resource. Workers die, answers get lost,
queues do not keep order, servers rewrite what they store, and clocks differ; still the state of B
must stand in the end, and a retry must not undo what somebody else changed since. No lock and no
clock decides it, but the resource itself:

- Every PUT and PATCH leaves a mark of its entry in the resource (`write_mark`).
- Before a unit is sent, one search finds the version and the mark of each resource that it writes.
  An entry replaces just that version (`ifMatch`), so a look that was outdated does no harm: the
  server answers 412, and the relay looks again.
- At the first attempt of an entry, that version is recorded as its *base*; that there was none,
  too, where a condition finds nothing. When a later attempt finds another version, the history of
  the resource tells what has happened since.

First attempt, or the resource is still at its base:

| the resource | decision |
|---|---|
| has the mark of a later delivery | superseded |
| exists | send, on condition of its version |
| is absent | send without a condition: no server has one for this |

A later attempt, and the resource is no longer at its base:

| its history since then | decision |
|---|---|
| has our mark, and none of a later delivery before it | done |
| has our mark after that of a later delivery | overtaken: restore that one |
| has the mark of a later delivery | superseded |
| has a change or a deletion by somebody else | superseded |
| has only writes of earlier deliveries, and edits (below) | send, on condition of its version |

Where no base was recorded, nothing was sent by this attempt or an earlier one. A mark of our own
delivery is then of another entry, or of a worker that is ahead, and the history tells which. What
somebody else has written there came before us, and keeps nothing out.

An edit from Dataverse changes a few elements of what a delivery has brought, and keeps its mark. A
delivery that brings another state of all is written over it, at a later attempt as at the first.

No server makes a first write or a delete conditional on a version. These lock the name of their
resource (`journal.write_guard`), and hear there of a later delete. An update takes no lock,
so a delete is announced first, by an extension beside the mark: whoever sees it waits for the lock.
What arrives after its lease all the same is found afterwards: a first write must be answered with
201, any other write with the version after the one that was found. Otherwise the write has
overtaken another, the history tells whose, and the state of a later delivery is restored. So it is
on a server that ignores ifMatch, too.

A resource that the delivery itself creates has an id that nobody else knows. Its first attempt
needs no look, and where a later one finds the resource, the first was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import takewhile

from integration.core.errors import Issue
from integration.core.model import EntryResult
from integration.core.write_order import is_later
from integration.fhir import entry_results, operation_outcome
from integration.fhir.resource_states import ResourceState, ResourceVersion
from integration.fhir.units import CREATED, UnitEntry

ABSENT = ""  # the version of a resource that does not exist

_CONFLICT = 409

SUPERSEDED = Issue(
    "conflict",
    "superseded: a later delivery has written this resource already",
    severity="warning",
)
CHANGED = Issue(
    "conflict",
    "superseded: the resource has changed since this write was first sent; it was not sent again",
    severity="warning",
)
DELETED = Issue(
    "deleted",
    "the resource that an earlier delivery of the same content created was deleted since by "
    "somebody else; send it with another Idempotency-Key and fullUrl to create it anew",
)
_OTHER_VERSION = Issue(
    "informational",
    "the resource was written before, and has another version since, which stands",
    severity="information",
)


class Step(Enum):
    """What to do with an entry."""

    SEND = "send"
    DONE = "done"
    DONE_AND_CHANGED = "done, and changed since"
    SUPERSEDED = "a later delivery's state stands"
    CHANGED = "somebody else's state stands"
    DELETED = "somebody else deleted it"
    OVERTAKEN = "restore the state of a later delivery"
    ASK_HISTORY = "ask for the history"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at the entries of a delivery.

    `is_ordered`: whether its writes are earlier or later than others. `is_retry`: an earlier
    attempt has begun. `is_repeat`: the same bytes were delivered before, with the same ids.
    `corrects`: the delivery in whose place this one was sent; what that one has found, and written,
    is the base here.
    """

    delivery: str
    corrects: str | None = None
    is_ordered: bool = True
    is_retry: bool = False
    is_repeat: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An entry, and what is known about the resource that it writes.

    `state`: None if there is no such resource. `base`: its version when the entry was first
    attempted, ABSENT if there was none; None if that is not known.
    """

    entry: UnitEntry
    name: str  # Type/id
    state: ResourceState | None
    base: str | None = None

    @property
    def version(self) -> str:
        """Return its present version."""
        return self.state.version if self.state else ABSENT

    @property
    def needs_lock(self) -> bool:
        """Whether it is written on no condition, or while somebody else may do so."""
        if self.entry.created:
            return False
        if self.entry.method == "DELETE":
            return True
        if self.state is None:
            return self.is_first_write
        return self.state.is_delete_announced

    @property
    def is_first_write(self) -> bool:
        """Whether it would make the resource, with an id that the sender chose."""
        return self.state is None and self.entry.method == "PUT" and not self.entry.created


def decide(attempt: Attempt, candidate: Candidate) -> Step:
    """Decide by the present state; see the table above."""
    if candidate.entry.created:
        return _decide_created(attempt, candidate)
    if _has_moved(attempt, candidate):
        return Step.ASK_HISTORY
    return _decide_unmoved(attempt, candidate)


def decide_by_history(
    attempt: Attempt, candidate: Candidate, versions: Sequence[ResourceVersion]
) -> Step:
    """Decide by all versions of the resource, newest first; see the table above."""
    entry = candidate.entry
    recent = _list_since(versions, candidate.base)
    is_gone = bool(versions) and versions[0].is_deleted
    if entry.created and attempt.is_repeat and is_gone:
        return Step.DELETED
    is_done = any(_is_own(attempt, entry, version) for version in versions)
    if entry.method == "DELETE":
        is_done = any(version.is_deleted for version in recent)
    if is_done:
        if find_overtaken(attempt, candidate, versions) is not None:
            return Step.OVERTAKEN
        is_own = bool(versions) and _is_own(attempt, entry, versions[0])
        is_last = is_gone if entry.method == "DELETE" else is_own
        return Step.DONE if is_last else Step.DONE_AND_CHANGED
    if entry.created:
        return Step.DONE if is_gone else Step.SEND
    if not attempt.is_ordered:
        return Step.SEND
    if any(_is_later(attempt, entry, version) for version in recent):
        return Step.SUPERSEDED
    pairs = zip(recent, [*recent[1:], *versions[len(recent) :][:1], None], strict=False)
    # Without a base nothing was sent before, so nobody has changed what this entry has written.
    if candidate.base is not None and any(_is_foreign(*pair) for pair in pairs):
        return Step.CHANGED
    if attempt.corrects and _was_removed(attempt, candidate, versions):
        return Step.CHANGED
    return _decide_unmoved(attempt, candidate)


def find_overtaken(
    attempt: Attempt, candidate: Candidate, versions: Sequence[ResourceVersion]
) -> ResourceVersion | None:
    """Return the version of a later delivery that the write of this entry has replaced, if any.

    `versions`: newest first. None too if somebody has changed the resource after that write.
    """
    entry, recent = candidate.entry, _list_since(versions, candidate.base)
    for index, version in enumerate(recent):
        if _is_later(attempt, entry, version):
            return version if index else None
        is_own_delete = entry.method == "DELETE" and version.is_deleted
        if version.mark is None and not is_own_delete and not version.is_delete_announced:
            return None
    return None


def may_have_overtaken(candidate: Candidate, result: EntryResult) -> bool:
    """Whether the answer to a write leaves open that it has replaced more than it was meant to."""
    if candidate.version == ABSENT:
        return result.status == 200 and candidate.entry.method == "PUT"
    written = entry_results.get_version(result.etag) or ""
    if written.isdigit() and candidate.version.isdigit():
        return int(written) > int(candidate.version) + 1
    # Versions that are no numbers: https://hl7.org/fhir/R4/resource.html#Meta
    return candidate.entry.method == "DELETE" or candidate.entry.condition is not None


def build_result(candidate: Candidate, step: Step) -> EntryResult:
    """Return the result of an entry that is not sent, or not again."""
    entry, name = candidate.entry, candidate.name
    if step is Step.DELETED:
        return EntryResult(
            position=entry.position,
            status=_CONFLICT,
            full_url=entry.full_url,
            issues=[operation_outcome.as_json(DELETED)],
        )
    if step in (Step.SUPERSEDED, Step.OVERTAKEN, Step.CHANGED):
        return build_superseded_result(entry, name, CHANGED if step is Step.CHANGED else SUPERSEDED)
    if entry.method == "DELETE":
        return EntryResult(position=entry.position, status=204, full_url=entry.full_url)
    state = candidate.state
    location = f"{name}/_history/{state.version}" if state and state.version else name
    updated = state.meta.get("lastUpdated") if state else None
    return EntryResult(
        position=entry.position,
        status=200,
        full_url=entry.full_url,
        location=location,
        etag=f'W/"{state.version}"' if state and state.version else None,
        last_modified=updated if isinstance(updated, str) else None,
        issues=[operation_outcome.as_json(_OTHER_VERSION)]
        if step is Step.DONE_AND_CHANGED
        else None,
    )


def tells_other_version(result: EntryResult) -> bool:
    """Whether a result names a version that somebody else has made after the write."""
    return operation_outcome.as_json(_OTHER_VERSION) in (result.issues or ())


def build_superseded_result(
    entry: UnitEntry, name: str | None, issue: Issue = SUPERSEDED
) -> EntryResult:
    """Return the result of an entry that is not sent because a later write stands. `name` is its
    Type/id, if known."""
    return EntryResult(
        position=entry.position,
        status=_CONFLICT,
        full_url=entry.full_url,
        location=name,
        issues=[operation_outcome.as_json(issue)],
        superseded=True,
    )


def _decide_created(attempt: Attempt, candidate: Candidate) -> Step:
    if not (attempt.is_retry or attempt.is_repeat):
        return Step.SEND
    state = candidate.state
    if state is None:
        return Step.ASK_HISTORY
    mark = state.mark
    if mark is None or mark.position != candidate.entry.position:
        return Step.DONE_AND_CHANGED
    # A first version has overtaken nobody. Numbers are a convention that Microsoft and HAPI keep.
    if state.version == "1":
        return Step.DONE
    return Step.ASK_HISTORY if mark.delivery == CREATED else Step.DONE_AND_CHANGED


def _has_moved(attempt: Attempt, candidate: Candidate) -> bool:
    """Whether something has happened to the resource since the first attempt, or may have."""
    if not attempt.is_retry:
        return False
    if not attempt.is_ordered:
        return True  # its base was not recorded
    if candidate.base is None:
        # The earlier attempt ended before it sent anything; unless the resource says otherwise: of
        # two chains for one delivery the other may be ahead.
        mark = candidate.state.mark if candidate.state else None
        return mark is not None and mark.delivery == attempt.delivery
    if candidate.version != candidate.base:
        return True
    return candidate.base == ABSENT and candidate.entry.method == "PUT"


def _decide_unmoved(attempt: Attempt, candidate: Candidate) -> Step:
    entry, state = candidate.entry, candidate.state
    if not attempt.is_ordered:
        return Step.SEND
    rank = state.mark.rank if state and state.mark else None
    if rank is not None and is_later(rank, entry.rank(attempt.delivery)):
        return Step.SUPERSEDED
    return Step.SEND


def _list_since(versions: Sequence[ResourceVersion], base: str | None) -> list[ResourceVersion]:
    """Return the versions since the first attempt. Where the resource was absent then, these are
    all since it was last absent."""
    if base:
        return list(takewhile(lambda version: version.version != base, versions))
    return list(takewhile(lambda version: not version.is_deleted, versions))


def _is_own(attempt: Attempt, entry: UnitEntry, version: ResourceVersion) -> bool:
    mark = version.mark
    return (
        mark is not None
        and mark.delivery == entry.rank(attempt.delivery).delivery
        and mark.position == entry.position
    )


def _was_removed(
    attempt: Attempt, candidate: Candidate, versions: Sequence[ResourceVersion]
) -> bool:
    """Whether what the corrected delivery has written was deleted, or removed with its history. A
    create does not say which delivery it is of, but its id is that of nobody else."""
    if not versions:
        return bool(candidate.base)
    return versions[0].is_deleted and any(
        version.mark is not None and version.mark.delivery in (CREATED, attempt.corrects)
        for version in versions
    )


def _is_later(attempt: Attempt, entry: UnitEntry, version: ResourceVersion) -> bool:
    rank = version.mark.rank if version.mark else None
    return rank is not None and is_later(rank, entry.rank(attempt.delivery))


def _is_foreign(version: ResourceVersion, before: ResourceVersion | None) -> bool:
    """Whether somebody else than the relay made this version: they drop the mark, or leave it as it
    was in the version before, and delete what nobody has announced."""
    if before is not None and version.edited == before.version:
        return False
    if version.is_deleted:
        return before is None or not before.is_delete_announced
    if version.is_delete_announced and not (before and before.is_delete_announced):
        return False
    if version.mark is None:
        return True
    return before is not None and before.mark == version.mark
