"""What can be wrong with a row, and the comparison by ids and versions alone. Pure."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import Column, Row, RowResult
from integration.dataverse.requests import Change
from integration.mapping import row_version
from integration.mapping.model import EntityMap
from integration.mapping.primary_keys import ServerKeys, fit_fhir_id
from integration.mirror import row_lookup

# https://hl7.org/fhir/R4/datatypes.html#id
ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


class DifferenceKind(StrEnum):
    """How a row differs from its resource."""

    MISSING = "missing"
    BEHIND = "behind"
    AHEAD = "ahead"  # it shows a later version than FHIR has
    DIFFERENT = "different"  # the version is right, a column or a child is not
    ANOTHER = "shows another"  # a row with the key of this resource shows something else
    TWICE = "shown twice"  # by several active rows
    LEFT_OVER = "left over"  # the resource was deleted
    UNKNOWN = "unknown"  # the FHIR server has never had the resource, or no longer knows of it
    ORPHANED = "orphaned"  # a child row of no row


class Why(StrEnum):
    """What has changed since a row was right."""

    FHIR = "FHIR has changed"
    EDITED = "somebody has changed it in Dataverse"
    MAP = "the map has changed, or what is in use on this day"
    CHILDREN = "child rows have changed, or their map"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A row that is missing or wrong.

    `resource`: Type/id; of an orphaned child, which shows none, the table. `columns`: names of what
    differs. `why`: what has changed since the row was right, as far as the row tells. `steps`:
    changes that the mirror does not make and that must precede it, each with a condition. `also`:
    Type/id of another resource that has to be mirrored after them.
    """

    resource: str
    kind: DifferenceKind
    row: str | None = None  # the primary key, if exactly one row shows the resource
    fhir_version: str | None = None
    row_version: str | None = None
    columns: tuple[str, ...] = ()
    why: Why | None = None
    steps: tuple[Change, ...] = ()
    also: str | None = None
    is_repairable: bool = True


@dataclass(frozen=True, slots=True)
class Repair:
    """A difference, and the result of mirroring the resource again; None if that was not tried."""

    difference: Difference
    result: RowResult | None = None

    @property
    def is_done(self) -> bool:
        return self.result is not None and self.result.action != "refused"

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of its line in a report, as HEADINGS names them."""
        difference, result = self.difference, self.result
        return (
            difference.resource,
            difference.kind,
            difference.row or "",
            difference.fhir_version or "",
            difference.row_version or "",
            ", ".join(difference.columns),
            difference.why or "",
            result.action if result else "",
            "; ".join(result.notes) if result else "",
        )


HEADINGS = (
    "resource",
    "difference",
    "row",
    "fhir_version",
    "row_version",
    "columns",
    "why",
    "action",
    "notes",
)


def compare_versions(
    entity: EntityMap,
    resources: Iterable[Mapping[str, Any]],
    rows: Iterable[Row],
    columns: Mapping[str, Column],
    *,
    server_keys: ServerKeys,
    fhir_is_right: bool = False,
) -> Iterator[Difference]:
    """Yield the resources whose row is missing, behind, or not the only one.

    `resources` need only id and meta, `rows` only the columns of `list_columns`. `columns` are
    those of the table in this organisation.
    """
    by_id: defaultdict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        if entity.has_kind_of(row):
            by_id[row[entity.id_column]].append(row)
    for resource in resources:
        # Dataverse's filter ignores the case of letters, but FHIR ids differ by it.
        shown = by_id.get(to_row_id(entity, resource["id"], columns), [])
        found = row_lookup.find_shown(entity, server_keys, resource["id"], shown)
        kind = _classify(entity, resource, found, fhir_is_right=fhir_is_right)
        if kind is not None:
            yield build_difference(entity, resource, kind, found[0] if len(found) == 1 else None)


def build_difference(
    entity: EntityMap,
    resource: Mapping[str, Any],
    kind: DifferenceKind,
    row: Row | None = None,
    **details: Any,
) -> Difference:
    """Return a difference of a resource. `row`: the only one that shows it. `details`: the other
    fields of Difference."""
    row = row or {}
    return Difference(
        resource=f"{entity.resource}/{resource['id']}",
        kind=kind,
        row=row.get(entity.key),
        fhir_version=resource.get("meta", {}).get("versionId"),
        row_version=row.get(entity.version_column),
        **details,
    )


def _classify(
    entity: EntityMap, resource: Mapping[str, Any], found: Sequence[Row], *, fhir_is_right: bool
) -> DifferenceKind | None:
    if not found:
        return DifferenceKind.MISSING
    if len(found) > 1:
        return DifferenceKind.TWICE
    (row,) = found
    if row[entity.version_column] == resource.get("meta", {}).get("versionId"):
        return None
    try:
        is_newer = row_version.is_newer(entity, resource, row, fhir_is_right=fhir_is_right)
    except Unmappable:  # a time that cannot be parsed: the mirror decides, and records why
        return DifferenceKind.BEHIND
    return DifferenceKind.BEHIND if is_newer else None


def to_row_id(entity: EntityMap, identifier: str, columns: Mapping[str, Column]) -> str | None:
    """Return the id as a row keeps it; None if the map refuses an id of this length."""
    try:
        return fit_fhir_id(entity, identifier, columns)
    except Unmappable:
        return None


def list_columns(entity: EntityMap) -> list[str]:
    """List the columns that a comparison of versions needs."""
    kind = [entity.kind_column] if entity.kind_column else []
    return [
        entity.key,
        entity.id_column,
        entity.version_column,
        entity.updated_column,
        "statecode",
        *kind,
    ]


def render_table(counts: Mapping[str, Counter[str]]) -> Iterator[str]:
    """Yield the lines of a table: headings, then a line for each resource type."""
    names = ("compared", *DifferenceKind, "repaired")
    heads = ("", *names)
    lines = [
        heads,
        *((title, *(f"{count[name]:,}" for name in names)) for title, count in counts.items()),
    ]
    widths = [max(len(line[place]) for line in lines) for place in range(len(heads))]
    for first, *others in lines:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join((first.ljust(widths[0]), *cells))
