"""What others hear of a unit: the work items for the resources that it changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from integration.core.model import EntryResult, WorkItem
from integration.core.state_version import StateVersion
from integration.fhir.entry_results import get_version
from integration.fhir.progress import get_identity, map_targets
from integration.fhir.units import Unit

# By Type/id: the position of the entry that changed the resource, and the work item.
Changes = dict[str, tuple[int, WorkItem]]


def list_changes(
    delivery: str,
    unit: Unit,
    results: Sequence[EntryResult],
    matches: Mapping[int, Sequence[str]],
    restored: Mapping[str, StateVersion],
) -> Changes:
    """Return the changes of resources, each with the version that the FHIR server has stated.

    `matches`: by position, the resources that a condition matched. `restored`: the resources of
    which another delivery's state was restored.
    """
    targets = map_targets(unit)
    deletes = {n for entry in unit.entries if entry.method == "DELETE" for n in entry.positions}
    changes: Changes = {}
    for result in results:
        if not result.is_written:
            continue
        is_deleted = result.position in deletes
        for name in matches.get(result.position, ()):
            item = WorkItem(delivery, resource=name, version=StateVersion(is_deleted=is_deleted))
            changes[name] = (result.position, item)
        name = get_identity(result, targets[result.position])
        version = StateVersion(
            id=get_version(result.etag),
            updated=result.last_modified,
            is_deleted=is_deleted,
        )
        item = WorkItem(delivery, resource=name, version=version, is_create=result.status == 201)
        changes[name] = (result.position, item)
    for name, version in restored.items():
        item = WorkItem(delivery, resource=name, version=version)
        changes[name] = (results[0].position, item)
    return changes
