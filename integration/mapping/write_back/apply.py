"""Attribute maps run backwards: columns that were changed, into the resource that they show. Pure.

What no column names stays as it is, and so does what a column shows already: its spelling, its
precision, its time zone. What would not be read again as it was written is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from integration.core.errors import Issue, Rejected, Unmappable
from integration.core.model import Column
from integration.mapping import engine
from integration.mapping.model import AttributeMap, EntityMap, Kind, Lookup
from integration.mapping.values import instant
from integration.mapping.write_back import element_paths, synonyms
from integration.mapping.write_back.element_paths import Draft, Written
from integration.mapping.write_back.inverse_paths import Steps, invert_path
from integration.mapping.write_back.values import fhir_value, takes

Columns = Mapping[str, Column]
Changes = Mapping[str, Any]


def explain_unwritable(entity: EntityMap, attribute: AttributeMap) -> str | None:
    """Why a column can be written in no resource; None where it can."""
    if attribute.path is None or attribute.kind in (Kind.DEFAULT, Kind.CONCEPT):
        return f"what is of kind {attribute.kind} cannot be written"
    steps = _steps(entity, attribute)
    if steps is None:
        return "the path does not lead to one element that can be written"
    if not takes(attribute, steps[-1].type):
        kind = attribute.virtual_column.type if attribute.kind is Kind.COPY else attribute.kind
        return f"a column of {kind} cannot be written to an element of type {steps[-1].type}"
    return None


def write_columns(
    entity: EntityMap,
    resource: dict[str, Any],
    changes: Changes,
    columns: Columns,
    base: str | None = None,
) -> dict[str, Any]:
    """The resource with these values in its columns; `resource` itself where it shows them already.

    A value is str, int, Decimal, bool, an aware datetime, a Link, or None to clear. `columns` are
    those of `changes` at least; `base` is as for engine.apply. Raises Rejected, which names the
    column and the element.
    """
    targets = _targets(entity, changes, columns)
    shown = _shown(entity, resource, targets, base)
    fresh = [each for each in targets if not each.is_in(shown)]
    if not fresh:
        return resource
    draft: Draft = element_paths.copied(resource)
    done = Written()
    given_up = frozenset(
        (step.parent, step.name) for each in targets if each.value is None for step in each.steps
    )
    for each in fresh:
        if each.value is not None:
            _write(draft, each, done, given_up)
    if cleared := [each for each in fresh if each.value is None]:
        # Another column's value may stand there by now: one element, a column for each type.
        shown = _shown(entity, draft, cleared, base)
        _clear(draft, [each for each in cleared if not each.is_in(shown)], done)
    # What was asked for, and was there already, may have gone with what it belonged to.
    shown = _shown(entity, draft, targets, base)
    lost = [each for each in targets if each not in fresh and not each.is_in(shown)]
    for each in lost:
        if each.value is not None:
            _write(draft, each, done, given_up)
    _check(fresh + lost, _shown(entity, draft, targets, base))
    return draft


def create_resource(
    entity: EntityMap,
    identifier: str,
    changes: Changes,
    columns: Columns,
    base: str | None = None,
) -> dict[str, Any]:
    """A new resource: what the map says of every new one, then the columns that have a value.
    Raises Rejected."""
    constants: dict[str, Any] = element_paths.copied(dict(entity.create))
    new = {"resourceType": entity.resource, "id": identifier, **constants}
    given = {name: value for name, value in changes.items() if value is not None}
    return write_columns(entity, new, given, columns, base)


# -- columns -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Target:
    """A column to write, and where its value goes."""

    attribute: AttributeMap
    column: Column
    steps: Steps
    value: Any
    has_system: bool  # the system of the code has a column, too

    @property
    def name(self) -> str:
        return self.attribute.column

    def is_in(self, shown: Mapping[str, Any]) -> bool:
        return self._reads(shown[self.name], self.value)

    def is_read(self, shown: Mapping[str, Any]) -> bool:
        """As `is_in`, by what a column can show: whole seconds, and text without blanks around."""
        value = self.value
        if isinstance(value, datetime):
            value = value.replace(microsecond=0)
        return self._reads(shown[self.name], value.strip() if isinstance(value, str) else value)

    def _reads(self, shown: Any, value: Any) -> bool:
        if value is None:
            value = self.attribute.default
        match self.attribute.kind, shown, value:
            case Kind.DATE, str(), datetime():
                return _is_day(shown, value)
            case Kind.DATETIME, str(), datetime():
                return instant(shown) == value
            case Kind.LOOKUP, Lookup(resource), _ if not self._leads_to(resource):
                shown = None
        # True is 1 to Python.
        return isinstance(shown, bool) is isinstance(value, bool) and bool(shown == value)

    def _leads_to(self, resource: str) -> bool:
        """Whether the lookup is for resources of this type."""
        return self.attribute.virtual_column.target in (None, resource.partition("/")[0])

    def refused(
        self, problem: Unmappable, code: str = "business-rule", status: int = 422
    ) -> Rejected:
        where = problem.where or element_paths.named(self.steps)
        return Rejected(Issue(code, f"{self.name}: {problem.why}", where), status=status)


def _is_day(shown: str, value: datetime) -> bool:
    """However the day is shown, it is that of the same moment in UTC."""
    try:
        return shown[:10] == value.astimezone(UTC).date().isoformat()
    except OverflowError:
        return False


def _targets(entity: EntityMap, changes: Changes, columns: Columns) -> list[_Target]:
    """In the order of the map: what is written first decides what the next finds."""
    targets = []
    for attribute in entity.attributes:
        name = attribute.column
        if name not in changes:
            continue
        steps = _steps(entity, attribute)
        if (
            steps is None
            or not attribute.virtual_column.writable
            or explain_unwritable(entity, attribute)
        ):
            raise _read_only(entity, name)
        has_system = _has_system(entity, steps)
        targets.append(_Target(attribute, columns[name], steps, changes[name], has_system))
    if unknown := sorted(changes.keys() - {each.name for each in targets}):
        raise _read_only(entity, unknown[0])
    return targets


def _read_only(entity: EntityMap, name: str) -> Rejected:
    return Rejected(
        Issue("not-supported", f"{name}: the column cannot be written", entity.resource)
    )


def _steps(entity: EntityMap, attribute: AttributeMap) -> Steps | None:
    steps = invert_path(attribute.path or "", entity.resource, entity.variables)
    if steps and attribute.kind is Kind.LOOKUP:
        last = steps[-1]
        # A Reference is written whole: its display and its identifier are those of the old one.
        if (last.parent, last.name) == ("Reference", "reference") and not last.index:
            return steps[:-1]
    return steps


def _has_system(entity: EntityMap, steps: Steps) -> bool:
    if steps[-1].parent != "Coding" or len(steps) < 2:
        return False
    others = [_steps(entity, each) for each in entity.attributes]
    return any(other[:-1] == steps[:-1] and other[-1].name == "system" for other in others if other)


def _shown(
    entity: EntityMap, resource: dict[str, Any], targets: Iterable[_Target], base: str | None
) -> Mapping[str, Any]:
    """What these columns show of the resource."""
    some = tuple(each.attribute for each in targets)
    columns = {name: Column(name, "String") for name in entity.version_columns}
    columns |= {each.name: each.column for each in targets}
    entity = replace(entity, attributes=some, expands=(), unmapped_elements=())
    return engine.map_resource(entity, resource, {entity.table: columns}, base).values


def _check(targets: Iterable[_Target], shown: Mapping[str, Any]) -> None:
    for each in targets:
        if not each.is_read(shown):
            why = "the column would not show it"
            if each.value is None:
                why = "FHIR has more of them, and the column would show the next"
            raise each.refused(Unmappable(why))


# -- elements ------------------------------------------------------------------------------------


def _write(
    draft: Draft, target: _Target, done: Written, given_up: frozenset[tuple[str, str]]
) -> None:
    steps, last = target.steps, target.steps[-1]
    try:
        allowed = element_paths.rule(last).targets
        value = fhir_value(target.attribute, target.value, last.type, target.column, allowed)
    except Unmappable as problem:
        raise target.refused(problem, "value", 400) from None
    try:
        place, there = element_paths.made(draft, steps)
        old = element_paths.at(draft, place) if there == len(steps) else None
        if target.attribute.kind is Kind.COPY and _is_longer(old, target.column):
            raise Unmappable("FHIR holds more than the column shows, which would be lost")
        done.add(*element_paths.held(draft, place))
        if type(old) is type(value) and old == value:
            return
        element_paths.put(draft, steps, place, value, given_up)
        choice = target.attribute.kind is Kind.CHOICE
        # Codes of one choice are of one system; others need a column that says which.
        same = target.has_system or (choice and str(old) in target.attribute.choices)
        adds = old is None and not choice
        synonyms.drop(draft, steps, place, done, adds=adds, same_system=same)
    except Unmappable as problem:
        raise target.refused(problem) from None


def _is_longer(value: Any, column: Column) -> bool:
    """Whether the column shows its beginning, or nothing of it."""
    if not isinstance(value, str) or column.max_length is None:
        return False
    return len(value.strip().encode("utf-16-le", "surrogatepass")) > 2 * column.max_length


def _clear(draft: Draft, targets: Iterable[_Target], done: Written) -> None:
    cleared = [each for each in targets if each.value is None]
    found = []
    for each in cleared:
        try:
            for place in element_paths.found(draft, each.steps)[:1]:
                found += synonyms.cleared(draft, each.steps, place, done)
        except Unmappable as problem:
            raise each.refused(problem) from None
    try:
        element_paths.clear(draft, found)
    except Unmappable as problem:
        inside = problem.where or ""
        asked = (one for one in cleared if element_paths.named(one.steps).startswith(inside))
        raise next(asked).refused(problem) from None
