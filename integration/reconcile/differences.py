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
from integration.mapping import engine
from integration.mapping.keys import fit_fhir_id
from integration.mapping.model import EntityMap

Row = Mapping[str, Any]

# https://hl7.org/fhir/R4/datatypes.html#id
ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


class Is(StrEnum):
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
    is_: Is
    row: str | None = None
    version: str | None = None
    shown: str | None = None

    @property
    def mirrored(self) -> bool:
        """An unknown resource may be one of another FHIR server: its row is left alone."""
        return self.is_ is not Is.UNKNOWN


@dataclass(frozen=True, slots=True)
class Settled:
    """A difference and what became of it; None: nothing was tried."""

    difference: Difference
    outcome: RowResult | None = None

    @property
    def mended(self) -> bool:
        return self.outcome is not None and self.outcome.action != "refused"

    @property
    def cells(self) -> tuple[str, ...]:
        """As a line of a report; see HEADINGS."""
        it, became = self.difference, self.outcome
        notes = "; ".join(became.notes) if became else ""
        values = (it.row, it.version, it.shown, became.action if became else "")
        return (it.resource, it.is_, *(value or "" for value in values), notes)


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
        found = by_id.get(id_in_row(entity, resource["id"], columns), [])
        is_ = _how(entity, resource, found)
        if is_ is None:
            continue
        row = found[0] if len(found) == 1 else {}
        yield Difference(
            f"{entity.resource}/{resource['id']}",
            is_,
            row.get(entity.key),
            resource.get("meta", {}).get("versionId"),
            row.get(entity.version_column),
        )


def _how(entity: EntityMap, resource: Mapping[str, Any], found: Sequence[Row]) -> Is | None:
    if not found:
        return Is.MISSING
    if len(found) > 1:
        return Is.TWICE
    (row,) = found
    if row[entity.version_column] == resource.get("meta", {}).get("versionId"):
        return None
    try:
        return Is.BEHIND if engine.is_newer(entity, resource, row) else None
    except Unmappable:  # a time that cannot be read: the mirror decides, and says why
        return Is.BEHIND


def id_in_row(entity: EntityMap, identifier: str, columns: Mapping[str, Column]) -> str | None:
    """What a row would show; None where the map refuses an id of this length."""
    try:
        return fit_fhir_id(entity, identifier, columns)
    except Unmappable:
        return None


def asked(entity: EntityMap) -> list[str]:
    """The columns that comparing needs."""
    kind = [entity.kind_column] if entity.kind_column else []
    return [entity.key, entity.id_column, entity.version_column, entity.updated_column, *kind]


def among(column: str, values: Iterable[str]) -> str:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/in"""
    listed = decimal_json.encode(list(values)).decode()
    return f"Microsoft.Dynamics.CRM.In(PropertyName='{column}',PropertyValues={listed})"


def table(counts: Mapping[str, Counter[str]]) -> Iterator[str]:
    """Lines of text: a row for each resource type."""
    names = ("looked at", *Is, "mended")
    heads = ("", *names)
    lines = [heads, *((kind, *(f"{of[n]:,}" for n in names)) for kind, of in counts.items())]
    widths = [max(len(line[place]) for line in lines) for place in range(len(heads))]
    for first, *others in lines:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join((first.ljust(widths[0]), *cells))
