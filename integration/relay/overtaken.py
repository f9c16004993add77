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
from integration.fhir import entry_results, units, write_decisions
from integration.fhir.json_objects import get_object
from integration.fhir.resource_states import ResourceChange, ResourceVersion
from integration.fhir.write_decisions import ABSENT, Candidate, Step
from integration.relay.preflight import Findings, Preflight

# How often a state is restored while others write the same resource.
_MAX_ATTEMPTS = 4


async def check_overtaken(
    preflight: Preflight, results: Sequence[EntryResult], found: Findings
) -> tuple[Sequence[EntryResult], list[ResourceChange]]:
    """Return the results, those of writes that had overtaken a later delivery as superseded, and
    the resources that were restored. Raises Unavailable."""
    written = [
        (_rebase(found.candidates[result.position]), result)
        for result in results
        if result.is_written and result.position in found.candidates
    ]
    if not preflight.attempt.is_ordered or not written:
        return results, []
    suspects = [
        (candidate, result)
        for candidate, result in written
        if write_decisions.may_have_overtaken(candidate, result)
    ]
    undone: dict[int, ResourceChange] = {}
    histories = await preflight.read_histories([candidate.name for candidate, _ in suspects])
    for (candidate, result), versions in zip(suspects, histories, strict=True):
        if _is_behind(versions, result):
            name = preflight.fhir.upstream.name
            raise Unavailable(name, "a history lags behind the write")
        if write_decisions.find_overtaken(preflight.attempt, candidate, versions):
            undone[candidate.entry.position] = await restore_later(preflight, candidate)
    superseded = {
        position: write_decisions.build_result(found.candidates[position], Step.SUPERSEDED)
        for position in undone
    }
    return [superseded.get(result.position, result) for result in results], [*undone.values()]


async def restore_later(preflight: Preflight, candidate: Candidate) -> ResourceChange:
    """Restore the state of the later delivery that this entry has overtaken, and return what the
    resource has become. Raises Unavailable."""
    for _ in range(_MAX_ATTEMPTS):
        (versions,) = await preflight.read_histories([candidate.name])
        found = write_decisions.find_overtaken(preflight.attempt, candidate, versions)
        if found is None or found.resource is None:
            return ResourceChange(name=candidate.name)  # somebody has written it since
        top = versions[0]
        request = units.build_update(
            candidate.name, found.resource, ABSENT if top.is_deleted else top.version
        )
        response = await preflight.fhir.send(request, preflight.attempt.delivery)
        entries = entry_results.parse_response_entries(response) or [None]
        if entry_results.get_status(entries[0]) in (200, 201):
            etag = get_object(entries[0], "response").get("etag")
            version = entry_results.get_version(etag)
            return ResourceChange(name=candidate.name, version=version)
    raise Unavailable(preflight.fhir.upstream.name, "a later state could not be restored")


def _rebase(candidate: Candidate) -> Candidate:
    """Return the candidate with what was found just before it was sent as its base."""
    return replace(candidate, base=candidate.version)


def _is_behind(versions: Sequence[ResourceVersion], result: EntryResult) -> bool:
    """Whether a history does not show yet what was written. `versions`: newest first."""
    written = entry_results.get_version(result.etag)
    # Some servers do not say which version a deletion is.
    return written is not None and all(version.version not in ("", written) for version in versions)
