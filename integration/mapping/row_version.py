"""Which state of its resource a row shows, and whether another one is later. Pure.

The version column has the versionId. Where the resource was deleted, it has a mark: `deleted`, and
the version of the deletion if the FHIR server stated it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import Columns
from integration.core.state_version import Order, StateVersion, compare, get_version
from integration.mapping.model import EntityMap
from integration.mapping.values import format_utc, parse_instant

_DELETED = "deleted"


def read_row_version(entity: EntityMap, row: Mapping[str, Any]) -> StateVersion | None:
    """Return the state that a row shows; None if it shows none."""
    shown, updated = row.get(entity.version_column), row.get(entity.updated_column)
    if shown is None:
        return None
    mark, _, deletion = str(shown).partition(" ")
    if mark == _DELETED:
        return StateVersion(id=deletion or None, updated=updated, is_deleted=True)
    return StateVersion(id=str(shown), updated=updated)


def build_deletion_mark(
    entity: EntityMap, deletion: StateVersion, columns: Columns
) -> dict[str, Any]:
    """Return the version columns of a row whose resource was deleted."""
    mark = _DELETED if deletion.id is None else f"{_DELETED} {deletion.id}"
    max_length = columns[entity.version_column].max_length
    if deletion.id is None or (max_length is not None and len(mark) > max_length):
        return {entity.version_column: _DELETED}
    # Never the time of the version before: a state between the two would look as if it came later.
    return {entity.version_column: mark, entity.updated_column: _format_time(deletion.updated)}


def compare_with_row(
    entity: EntityMap,
    version: StateVersion,
    row: Mapping[str, Any],
    *,
    fhir_is_right: bool = False,
) -> Order:
    """Return how a state stands to the one that `row` shows. `fhir_is_right`: an operator says so,
    since the FHIR server was restored; then every other state than the shown one is newer."""
    shown = read_row_version(entity, row)
    order = Order.NEWER if shown is None else compare(version, shown)
    return Order.NEWER if fhir_is_right and order is not Order.SAME else order


def is_newer(
    entity: EntityMap,
    resource: Mapping[str, Any],
    row: Mapping[str, Any],
    *,
    fhir_is_right: bool = False,
) -> bool:
    """Whether `resource` is a later state than the one that `row` shows, or may be one."""
    order = compare_with_row(entity, get_version(resource), row, fhir_is_right=fhir_is_right)
    return order in (Order.NEWER, Order.PROBABLY_NEWER, Order.UNDECIDED)


def _format_time(instant: str | None) -> str | None:
    try:
        return None if instant is None else format_utc(parse_instant(instant))
    except Unmappable:
        return None
