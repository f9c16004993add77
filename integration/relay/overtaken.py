"""What is checked after a unit was sent: no write may have replaced the state of a later delivery.

A FHIR server can make a first write and a delete on no condition. So the relay looks afterwards
whether they have overtaken somebody, and restores the state of the later delivery. The same check
finds out a server that ignores ifMatch. See `fhir.write_decisions`.

A history that lags behind the write shows nobody who was overtaken. So it is asked for again, by a
later attempt, until it shows the write itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from integration.core.errors import Unavailable
from integration.core.model import EntryResult
from integration.core.state_version import NEVER_SEEN, StateVersion
from integration.fhir import entry_results, units, write_decisions
from integration.fhir.json_objects import get_object
from integration.fhir.resource_states import ResourceVersion
from integration.fhir.write_decisions import ABSENT, Candidate, Step
from integration.relay.preflight import Findings, Preflight

# How often a state is restored while others write the same resource.
_MAX_ATTEMPTS = 4


async def check_overtaken(
    preflight: Preflight, results: Sequence[EntryResult], found: Findings
) -> tuple[Sequence[EntryResult], dict[str, StateVersion]]:
    """Return the results, those of writes that had overtaken a later delivery as superseded, and
    the versions of the resources that were restored, by Type/id. Raises Unavailable."""
    written = [
        (_rebase(found.candidates[result.position]), result)
        for result in results
        if result.is_written and result.position in found.candidates
    ]
    if not preflight.attempt.is_ordered or not written:
        return results, {}
    suspects = [
        (candidate, result)
        for candidate, result in written
        if write_decisions.may_have_overtaken(candidate, result)
    ]
    undone: set[int] = set()
    restored: dict[str, StateVersion] = {}
    histories = await preflight.read_histories([candidate.name for candidate, _ in suspects])
    for (candidate, result), versions in zip(suspects, histories, strict=True):
        if _is_behind(versions, result):
            name = preflight.fhir.upstream.name
            raise Unavailable(name, "a history lags behind the write")
        if write_decisions.find_overtaken(preflight.attempt, candidate, versions):
            undone.add(candidate.entry.position)
            restored[candidate.name] = await restore_later(preflight, candidate)
    superseded = {
        result.position: result
        for position in undone
        for result in entry_results.copy_to_duplicates(
            found.candidates[position].entry,
            write_decisions.build_result(found.candidates[position], Step.SUPERSEDED),
        )
    }
    return [superseded.get(result.position, result) for result in results], restored


async def restore_later(preflight: Preflight, candidate: Candidate) -> StateVersion:
    """Restore the state of the later delivery that this entry has overtaken. Return the version
    that the resource has then. Raises Unavailable."""
    for _ in range(_MAX_ATTEMPTS):
        (versions,) = await preflight.read_histories([candidate.name])
        found = write_decisions.find_overtaken(preflight.attempt, candidate, versions)
        if found is None or found.resource is None:
            return _get_newest(versions)  # somebody has written it since
        top = versions[0]
        request = units.build_update(
            candidate.name, found.resource, ABSENT if top.is_deleted else top.version
        )
        response = await preflight.fhir.send(request, preflight.attempt.delivery)
        entries = entry_results.parse_response_entries(response) or [None]
        if entry_results.get_status(entries[0]) in (200, 201):
            etag = get_object(entries[0], "response").get("etag")
            return StateVersion(id=entry_results.get_version(etag))
    raise Unavailable(preflight.fhir.upstream.name, "a later state could not be restored")


def _get_newest(versions: Sequence[ResourceVersion]) -> StateVersion:
    if not versions:
        return NEVER_SEEN
    return StateVersion(id=versions[0].version or None, is_deleted=versions[0].is_deleted)


def _rebase(candidate: Candidate) -> Candidate:
    """Return the candidate with what was found just before it was sent as its base."""
    return replace(candidate, base=candidate.version)


def _is_behind(versions: Sequence[ResourceVersion], result: EntryResult) -> bool:
    """Whether a history does not show yet what was written. `versions`: newest first."""
    written = entry_results.get_version(result.etag)
    # Some servers do not say which version a deletion is.
    return written is not None and all(version.version not in ("", written) for version in versions)
