"""What FHIR has against what rows show. Ids and versions only. Pure."""

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
    """How a row differs."""

    MISSING = "missing"
    BEHIND = "behind"
    TWICE = "shown twice"  # for a person to merge
    LEFT_OVER = "left over"  # the resource was deleted
    UNKNOWN = "unknown"  # the FHIR server never had the resource, or has forgotten it


@dataclass(frozen=True, slots=True)
class Difference:
    """One resource, the row that shows it if there is one, and the version of each."""

    resource: str  # Type/id
    kind: DifferenceKind
    row: str | None = None
    fhir_version: str | None = None
    row_version: str | None = None

    @property
    def is_repairable(self) -> bool:
        """An unknown resource may be one of another FHIR server: its row is left alone."""
        return self.kind is not DifferenceKind.UNKNOWN


@dataclass(frozen=True, slots=True)
class Repair:
    """A difference and what became of it; None: nothing was tried."""

    difference: Difference
    result: RowResult | None = None

    @property
    def is_done(self) -> bool:
        return self.result is not None and self.result.action != "refused"

    @property
    def cells(self) -> tuple[str, ...]:
        """As a line of a report; see HEADINGS."""
        difference, result = self.difference, self.result
        notes = "; ".join(result.notes) if result else ""
        values = (
            difference.row,
            difference.fhir_version,
            difference.row_version,
            result.action if result else "",
        )
        return (difference.resource, difference.kind, *(value or "" for value in values), notes)


HEADINGS = ("resource", "is", "row", "version", "shown", "became", "notes")


def compare(
    entity: EntityMap,
    resources: Iterable[Mapping[str, Any]],
    rows: Iterable[Row],
    columns: Mapping[str, Column],
) -> Iterator[Difference]:
    """The resources, of which id and meta are known, that no row shows as they are."""
    by_id: defaultdict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        if entity.has_kind_of(row):
            by_id[row[entity.id_column]].append(row)
    for resource in resources:
        # By the exact id: Dataverse finds it in other letter case, too, FHIR does not.
        found = by_id.get(to_row_id(entity, resource["id"], columns), [])
        kind = _classify(entity, resource, found)
        if kind is None:
            continue
        row = found[0] if len(found) == 1 else {}
        yield Difference(
            f"{entity.resource}/{resource['id']}",
            kind,
            row.get(entity.key),
            resource.get("meta", {}).get("versionId"),
            row.get(entity.version_column),
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
    except Unmappable:  # a time that cannot be read: the mirror decides, and says why
        return DifferenceKind.BEHIND


def to_row_id(entity: EntityMap, identifier: str, columns: Mapping[str, Column]) -> str | None:
    """What a row would show; None where the map refuses an id of this length."""
    try:
        return fit_fhir_id(entity, identifier, columns)
    except Unmappable:
        return None


def list_columns(entity: EntityMap) -> list[str]:
    """The columns that comparing needs."""
    kind = [entity.kind_column] if entity.kind_column else []
    return [entity.key, entity.id_column, entity.version_column, entity.updated_column, *kind]


def build_in_filter(column: str, values: Iterable[str]) -> str:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/in"""
    listed = decimal_json.encode(list(values)).decode()
    return f"Microsoft.Dynamics.CRM.In(PropertyName='{column}',PropertyValues={listed})"


def render_table(counts: Mapping[str, Counter[str]]) -> Iterator[str]:
    """Lines of text: a row for each resource type."""
    names = ("looked at", *DifferenceKind, "mended")
    heads = ("", *names)
    lines = [heads, *((kind, *(f"{of[n]:,}" for n in names)) for kind, of in counts.items())]
    widths = [max(len(line[place]) for line in lines) for place in range(len(heads))]
    for first, *others in lines:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join((first.ljust(widths[0]), *cells))
