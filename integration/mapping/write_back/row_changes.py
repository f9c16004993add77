"""Chooses which edits of a row can be written into its resource, and writes them. Pure.

Edits are typed one by one, but may need each other: half an address is refused. So all are tried
together, and what is refused is left out of the next try.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from integration.core.errors import Rejected, Unmappable
from integration.core.model import Columns, FhirResource
from integration.mapping.model import AttributeMap, EntityMap, Kind
from integration.mapping.values import parse_instant
from integration.mapping.write_back import apply

# Raises Rejected for what FHIR does not allow in the second that is not in the first.
CheckValid = Callable[[FhirResource, FhirResource], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedEdits:
    """`resource`: with the edits that can be written, or the same object where none can. `columns`:
    theirs. `refused`: why others cannot, by column, without values."""

    resource: FhirResource
    columns: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


def apply_edits(
    entity: EntityMap,
    resource: FhirResource,
    edits: Mapping[str, Any],
    columns: Columns,
    base: str | None,
    *,
    today: date,
    check_valid: CheckValid,
) -> AppliedEdits:
    """Return the resource with these values of columns, as a row has them."""
    changes, refused = read_values(entity, edits)

    def write(some: Mapping[str, Any]) -> FhirResource:
        new = apply.write_columns(entity, resource, some, columns, base, today=today)
        if new is not resource:
            check_valid(resource, new)
        return new

    while changes:
        try:
            new = write(changes)
        except Rejected as error:
            # It names the column that it is about; what is wrong with the whole, names none.
            culprits = find_culprits(error, changes)
            refused |= dict.fromkeys(culprits, _describe(error))
            changes = {name: value for name, value in changes.items() if name not in culprits}
        else:
            return AppliedEdits(resource=new, columns=tuple(changes), refused=refused)
    return AppliedEdits(resource=resource, refused=refused)


def find_culprits(error: Rejected, changes: Mapping[str, Any]) -> set[str]:
    """Return the columns that a refusal names; all where it names none."""
    named = {issue.text.partition(":")[0] for issue in error.issues} & changes.keys()
    return named or {*changes}


def read_values(
    entity: EntityMap, edits: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of a row's columns as `apply` takes them, and why others cannot be read."""
    changes: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for attribute in entity.attributes:
        if attribute.column in edits:
            try:
                changes[attribute.column] = _read_value(attribute, edits[attribute.column])
            except Unmappable as problem:
                refused[attribute.column] = problem.why
    return changes, refused


def _read_value(attribute: AttributeMap, value: Any) -> Any:
    match attribute.kind, value:
        case Kind.DATE, str():
            try:
                day = date.fromisoformat(value[:10])
            except ValueError:
                raise Unmappable("the value is not a day") from None
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        case Kind.DATETIME, str():
            return parse_instant(value)
    return value


def _describe(error: Rejected) -> str:
    return "; ".join(issue.text for issue in error.issues)
