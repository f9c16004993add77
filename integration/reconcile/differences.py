"""Compare the resources in FHIR with their rows: ids and versions only. Pure."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Unmappable
from integration.core.model import Column, RowResult
from integration.mapping import row_version
from integration.mapping.keys import fit_fhir_id
from integration.mapping.model import EntityMap

Row = Mapping[str, Any]

# https://hl7.org/fhir/R4/datatypes.html#id
ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


class DifferenceKind(StrEnum):
    """How a row differs from its resource."""

    MISSING = "missing"
    BEHIND = "behind"
    TWICE = "shown twice"  # by several rows: a person has to merge them
    LEFT_OVER = "left over"  # the resource was deleted
    UNKNOWN = "unknown"  # the FHIR server has never had the resource, or no longer knows of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A resource whose row is missing or wrong."""

    resource: str  # Type/id
    kind: DifferenceKind
    row: str | None = None  # the primary key, if exactly one row shows the resource
    fhir_version: str | None = None
    row_version: str | None = None

    @property
    def is_repairable(self) -> bool:
        """False for an unknown resource: it may be one of another FHIR server."""
        return self.kind is not DifferenceKind.UNKNOWN


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
            result.action if result else "",
            "; ".join(result.notes) if result else "",
        )


HEADINGS = ("resource", "difference", "row", "fhir_version", "row_version", "action", "notes")


def compare(
    entity: EntityMap,
    resources: Iterable[Mapping[str, Any]],
    rows: Iterable[Row],
    columns: Mapping[str, Column],
) -> Iterator[Difference]:
    """Yield the resources whose row is missing, behind, or not the only one.

    `resources` need only id and meta. `columns` are those of the table in this organisation.
    """
    by_id: defaultdict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        if entity.has_kind_of(row):
            by_id[row[entity.id_column]].append(row)
    for resource in resources:
        # Dataverse's filter ignores the case of letters, but FHIR ids differ by it.
        found = by_id.get(to_row_id(entity, resource["id"], columns), [])
        kind = _classify(entity, resource, found)
        if kind is None:
            continue
        row = found[0] if len(found) == 1 else {}
        yield Difference(
            resource=f"{entity.resource}/{resource['id']}",
            kind=kind,
            row=row.get(entity.key),
            fhir_version=resource.get("meta", {}).get("versionId"),
            row_version=row.get(entity.version_column),
        )


def _classify(
    entity: EntityMap, resource: Mapping[str, Any], found: Sequence[Row]
) -> DifferenceKind | None:
    if not found:
        return DifferenceKind.MISSING
    if len(found) > 1:
        return DifferenceKind.TWICE
    (row,) = found
    if row[entity.version_column] == resource.get("meta", {}).get("versionId"):
        return None
    try:
        return DifferenceKind.BEHIND if row_version.is_newer(entity, resource, row) else None
    except Unmappable:  # a time that cannot be parsed: the mirror decides, and records why
        return DifferenceKind.BEHIND


def to_row_id(entity: EntityMap, identifier: str, columns: Mapping[str, Column]) -> str | None:
    """Return the id as a row keeps it; None if the map refuses an id of this length."""
    try:
        return fit_fhir_id(entity, identifier, columns)
    except Unmappable:
        return None


def list_columns(entity: EntityMap) -> list[str]:
    """List the columns that a comparison needs."""
    kind = [entity.kind_column] if entity.kind_column else []
    return [entity.key, entity.id_column, entity.version_column, entity.updated_column, *kind]


def build_in_filter(column: str, values: Iterable[str]) -> str:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/in"""
    listed = decimal_json.encode(list(values)).decode()
    return f"Microsoft.Dynamics.CRM.In(PropertyName='{column}',PropertyValues={listed})"


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
