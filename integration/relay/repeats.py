"""Find the entries that would write what is there already.

An EHR sends the same content again and again. To write it would make a version in FHIR, and a write
in Dataverse, each time. It is left out where the resource is still as an entry with the same digest
has written it, which its history tells. The mark of the earlier write then stands for this one too,
so nothing may come in between: no delivery that is still open, or has refused entries, which may be
replayed or corrected, and no version of the source, since what finds that mark would overwrite what
is repeated here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from integration.core.model import OPEN
from integration.fhir import units
from integration.fhir.resource_states import ResourceVersion
from integration.fhir.write_decisions import Candidate
from integration.fhir.write_mark import read_edited_version
from integration.journal.attention import ConcernFilter
from integration.journal.concern import ConcernKind
from integration.journal.store import Journal
from integration.journal.table_keys import parse_accepted_time

# What may still be replayed or corrected. A delivery that is parked or held is open, but for one
# that a correction has taken the place of: its concern stays until the correction has ended.
_REFUSED = frozenset({ConcernKind.ENTRIES, ConcernKind.PARKED, ConcernKind.HELD})

# Concerns that are read at most. With more, what is repeated is written.
_MAX_CONCERNS = 500

_MAX_SKEW = timedelta(hours=1)


def is_same_content(candidate: Candidate, identities: Mapping[str, str]) -> bool:
    """Whether the last write of the relay had the content of this entry, and its source version.

    `identities`: `Type/id` by placeholder, as far as they are known.
    """
    mark = candidate.state.mark if candidate.state else None
    return (
        candidate.state is not None
        and mark is not None
        and mark.ordered
        and mark.digest != ""
        # An edit from Dataverse keeps the mark, and is not what that entry has written.
        and read_edited_version({"meta": candidate.state.meta}) is None
        and candidate.entry.method == "PUT"
        and not candidate.entry.has_precondition
        and mark.source_version == candidate.entry.source_version
        and mark.digest == units.compute_digest(candidate.entry, identities)
    )


def is_unchanged(candidate: Candidate, versions: Sequence[ResourceVersion]) -> bool:
    """Whether nobody has changed the resource since that write. `versions`: newest first."""
    if candidate.state is None or not versions:
        return False
    newest, mark = versions[0], candidate.state.mark
    before = versions[1].mark if len(versions) > 1 else None
    return newest.version == candidate.version and newest.mark == mark != before


async def list_open_between(journal: Journal, after: str, before: str) -> list[str]:
    """Return the ids of the deliveries that were accepted between these two, and are open or have
    refused entries. Where there are too many of the latter, return `before`."""
    since, until = parse_accepted_time(after), parse_accepted_time(before)
    is_open = [
        delivery.id
        async for delivery in journal.scan_deliveries(OPEN, since, until)
        if after < delivery.id < before
    ]
    # A delivery ends after it was accepted, by the clock of another worker.
    criteria = ConcernFilter(kinds=_REFUSED, since=since - _MAX_SKEW)
    page = await journal.list_concerns(criteria, _MAX_CONCERNS, None)
    named = [concern.delivery for concern in page.concerns if after < concern.delivery < before]
    return [*is_open, *named] if page.after is None else [*is_open, *named, before]
