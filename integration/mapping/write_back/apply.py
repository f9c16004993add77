"""Writes changed columns into the resource that they show. Pure.

What no column names stays as it is. So does a value that its column shows already: its spelling,
its precision, its time zone. A value that would not be read again as it was written is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from integration.core.errors import Issue, Rejected, Unmappable
from integration.core.model import Column, Columns, FhirResource
from integration.mapping.explain import assume_columns
from integration.mapping.interpreter import interpret_map
from integration.mapping.model import AttributeMap, EntityMap, Kind, Lookup
from integration.mapping.values import parse_instant
from integration.mapping.write_back import element_paths, synonyms
from integration.mapping.write_back.element_paths import Draft, WrittenElements
from integration.mapping.write_back.inverse_paths import Steps, invert_path, is_union
from integration.mapping.write_back.nodes import (
    NodePath,
    find_node_steps,
    join_items,
    make_node_steps,
    split_path,
)
from integration.mapping.write_back.values import can_write, convert_to_fhir, get_value_kind

# The type of a column for an element's; of all others it is text.
_COLUMN_TYPES = {
    "boolean": "boolean",
    "integer": "integer",
    "positiveInt": "integer",
    "unsignedInt": "integer",
    "decimal": "decimal",
}

# Values by column: str, int, Decimal, bool, an aware datetime, a Lookup, or None to clear.
Changes = Mapping[str, Any]


def explain_unwritable(entity: EntityMap, attribute: AttributeMap) -> str | None:
    """Return why a column cannot be written to any resource; None where it can."""
    if attribute.path is None or attribute.kind in (Kind.DEFAULT, Kind.CONCEPT):
        return f"a column of kind {attribute.kind} cannot be written"
    steps = _find_steps(entity, attribute)
    if steps is None and attribute.writeback:
        node_path = split_path(attribute.path, entity.resource, entity.variables)
        steps = None if node_path is None else node_path.steps
    if steps is None:
        return "the path does not lead to one element that can be written"
    type_ = steps[-1].type
    if not can_write(_choose_type(attribute, type_), type_):
        kind = get_value_kind(attribute)
        return f"a column of {kind} cannot be written to an element of type {type_}"
    return None


def write_columns(
    entity: EntityMap,
    resource: FhirResource,
    changes: Changes,
    columns: Columns,
    base: str | None = None,
    *,
    today: date,
) -> FhirResource:
    """Return the resource with these values in its columns, or `resource` itself where the columns
    show them already.

    `columns` has at least those of `changes`; `base` and `today` are as for engine.map_resource.
    Raises Rejected, which names the column and the element.
    """
    writes = _plan_writes(entity, changes, columns)
    read = partial(_read_columns, entity, base=base, today=today)
    values = read(resource, writes)
    changed = [write for write in writes if not write.is_shown_in(values)]
    if not changed:
        return resource
    draft: Draft = element_paths.copy_tree(resource)
    written = WrittenElements()
    locate = partial(_locate, entity, draft, today=today)
    replaceable = frozenset(
        (step.parent, step.name)
        for write in writes
        if write.value is None
        for step in locate(write) or ()
    )
    for write in changed:
        if write.value is not None:
            steps = _locate_or_make(entity, draft, write, today=today)
            _write_column(draft, write, steps, written, replaceable)
    if cleared := [write for write in changed if write.value is None]:
        # Another column's value may be there by now: an element has a column for each type.
        values = read(draft, cleared)
        shown = [write for write in cleared if not write.is_shown_in(values)]
        _clear_columns(draft, [(write, locate(write) or ()) for write in shown], written)
    # A requested value that was there already may have been removed with what it belonged to.
    values = read(draft, writes)
    # But not of a column that shows the first of several elements: another column that was changed
    # has one of these, and so it shows that now.
    lost = [
        write
        for write in writes
        if write not in changed
        and not write.is_shown_in(values)
        and not is_union(write.attribute.path or "")
    ]
    for write in lost:
        if write.value is not None:
            steps = _locate_or_make(entity, draft, write, today=today)
            _write_column(draft, write, steps, written, replaceable)
    _check_written(changed + lost, read(draft, writes))
    _check_others(entity, resource, draft, changed, today=today)
    return draft


def create_resource(
    entity: EntityMap,
    identifier: str,
    changes: Changes,
    columns: Columns,
    base: str | None = None,
    *,
    today: date,
) -> FhirResource:
    """Return a new resource: what the map says of every new one, and the columns that have a value.
    Raises Rejected, as `write_columns` does."""
    constants: FhirResource = element_paths.copy_tree(dict(entity.create))
    new = {"resourceType": entity.resource, "id": identifier, **constants}
    given = {name: value for name, value in changes.items() if value is not None}
    return write_columns(entity, new, given, columns, base, today=today)


# -- columns -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _ColumnWrite:
    """A column to write, and where its value goes."""

    attribute: AttributeMap
    column: Column
    # One of them: where the path leads to in every resource, or how it is found in this one.
    steps: Steps | None
    node_path: NodePath | None
    value: Any
    has_system: bool  # the system of the code has a column, too

    @property
    def name(self) -> str:
        return self.attribute.column

    def is_shown_in(self, values: Mapping[str, Any]) -> bool:
        """Whether the column shows the value."""
        return self._is_equal(values[self.name], self.value)

    def is_readable_in(self, values: Mapping[str, Any]) -> bool:
        """Whether the column shows the value as far as it can: in whole seconds, and without blanks
        around text."""
        value = self.value
        if isinstance(value, datetime):
            value = value.replace(microsecond=0)
        elif isinstance(value, str):
            value = value.strip()
        return self._is_equal(values[self.name], value)

    def _is_equal(self, current: Any, value: Any) -> bool:
        if value is None:
            value = self.attribute.default
        match self.attribute.kind, current, value:
            case Kind.DATE, str(), datetime():
                return _is_same_day(current, value)
            case Kind.DATETIME, str(), datetime():
                return parse_instant(current) == value
            case Kind.LOOKUP, Lookup(resource), _ if not self._has_target(resource):
                current = None
        # In Python, True equals 1.
        return isinstance(current, bool) is isinstance(value, bool) and bool(current == value)

    def _has_target(self, resource: str) -> bool:
        """Whether the lookup is for resources of this type."""
        return self.attribute.virtual_column.target in (None, resource.partition("/")[0])

    def build_rejection(
        self, problem: Unmappable, code: str = "business-rule", status: int = 422
    ) -> Rejected:
        path = element_paths.format_path(self.steps) if self.steps else self.attribute.path
        element = problem.where or path
        return Rejected(Issue(code, f"{self.name}: {problem.why}", element), status=status)


def _is_same_day(current: str, value: datetime) -> bool:
    """Whether a column's day, in whatever form, is that of the instant in UTC."""
    try:
        return current[:10] == value.astimezone(UTC).date().isoformat()
    except OverflowError:
        return False


def _plan_writes(entity: EntityMap, changes: Changes, columns: Columns) -> list[_ColumnWrite]:
    """Return the writes in the order of the map: each finds what those before it wrote."""
    writes = []
    for attribute in entity.attributes:
        name = attribute.column
        if name not in changes:
            continue
        is_writable = attribute.virtual_column.writable or attribute.writeback
        if not is_writable or explain_unwritable(entity, attribute):
            raise _build_read_only_error(entity, name)
        steps, node_path = _find_steps(entity, attribute), None
        if steps is None:
            node_path = split_path(attribute.path or "", entity.resource, entity.variables)
        last = (steps or (node_path.steps if node_path else ()))[-1]
        writes.append(
            _ColumnWrite(
                attribute=_choose_type(attribute, last.type),
                column=columns[name],
                steps=steps,
                node_path=node_path,
                value=changes[name],
                has_system=steps is not None and _has_system(entity, steps),
            )
        )
    if unknown := sorted(changes.keys() - {write.name for write in writes}):
        raise _build_read_only_error(entity, unknown[0])
    return writes


def _choose_type(attribute: AttributeMap, type_: str) -> AttributeMap:
    """Return an attribute that is copied into a column of a type which suits the element's. A map
    of rows that are mirrored does not say of which type its columns are: Dataverse does."""
    if not attribute.writeback or attribute.kind is not Kind.COPY:
        return attribute
    column_type = _COLUMN_TYPES.get(type_, "string")
    return replace(attribute, virtual_column=replace(attribute.virtual_column, type=column_type))


def _locate(entity: EntityMap, draft: Draft, write: _ColumnWrite, *, today: date) -> Steps | None:
    """Return the steps to what a column shows; None: the resource has no such element."""
    if write.steps is not None or write.node_path is None:
        return write.steps
    try:
        return find_node_steps(entity, write.node_path, draft, today=today)
    except Unmappable as problem:
        raise write.build_rejection(problem) from None


def _locate_or_make(entity: EntityMap, draft: Draft, write: _ColumnWrite, *, today: date) -> Steps:
    steps = _locate(entity, draft, write, today=today)
    if steps is not None or write.node_path is None:
        return steps or ()
    try:
        return make_node_steps(entity, write.node_path, draft)
    except Unmappable as problem:
        raise write.build_rejection(problem) from None


def _build_read_only_error(entity: EntityMap, name: str) -> Rejected:
    return Rejected(
        Issue("not-supported", f"{name}: the column cannot be written", entity.resource)
    )


def _find_steps(entity: EntityMap, attribute: AttributeMap) -> Steps | None:
    steps = invert_path(attribute.path or "", entity.resource, entity.variables)
    if steps and attribute.kind is Kind.LOOKUP:
        last = steps[-1]
        # A Reference is written whole: the old one's display and identifier do not fit the new one.
        if (last.parent, last.name) == ("Reference", "reference") and not last.index:
            return steps[:-1]
    return steps


def _has_system(entity: EntityMap, steps: Steps) -> bool:
    if steps[-1].parent != "Coding" or len(steps) < 2:
        return False
    others = [_find_steps(entity, attribute) for attribute in entity.attributes]
    return any(other[:-1] == steps[:-1] and other[-1].name == "system" for other in others if other)


def _read_columns(
    entity: EntityMap,
    resource: FhirResource,
    writes: Iterable[_ColumnWrite],
    *,
    base: str | None,
    today: date,
) -> Mapping[str, Any]:
    """Return what these columns show of the resource."""
    writes = list(writes)
    columns = {name: Column(name, "String") for name in entity.version_columns}
    columns |= {write.name: write.column for write in writes}
    attributes = tuple(write.attribute for write in writes)
    entity = replace(entity, attributes=attributes, expands=(), unmapped_elements=())
    tables = {entity.table: columns}
    # A map for this write alone is not worth compiling.
    return interpret_map(entity, resource, tables, base, today=today).values


def _check_written(writes: Iterable[_ColumnWrite], values: Mapping[str, Any]) -> None:
    for write in writes:
        if not write.is_readable_in(values):
            why = "the column would not show the value"
            if write.value is None:
                why = "FHIR has more than one value, and the column would show the next one"
            raise write.build_rejection(Unmappable(why))


def _check_others(
    entity: EntityMap,
    resource: FhirResource,
    draft: Draft,
    writes: Iterable[_ColumnWrite],
    *,
    today: date,
) -> None:
    """Raise Rejected where a column that nobody has written loses its value: a last name that is in
    the name's text alone goes when the first name becomes a part."""
    nodes = [write for write in writes if write.node_path is not None and write.value is not None]
    if not nodes:
        return
    tables, names = assume_columns(entity), {write.name for write in writes}
    before, after = (
        interpret_map(entity, state, tables, today=today).values for state in (resource, draft)
    )
    for name, value in before.items():
        if value is not None and after.get(name) is None and name not in names:
            why = f"it would take its value from the column {name}: write that as well"
            raise _find_related_write(entity, name, nodes).build_rejection(Unmappable(why))


def _find_related_write(
    entity: EntityMap, name: str, writes: Sequence[_ColumnWrite]
) -> _ColumnWrite:
    """Return the write below the node that a column shows as well, else the first."""
    path = next((item.path for item in entity.attributes if item.column == name), None) or ""
    same = (write for write in writes if write.node_path and f"{write.node_path.prefix}." in path)
    return next(same, writes[0])


# -- elements ------------------------------------------------------------------------------------


def _write_column(
    draft: Draft,
    write: _ColumnWrite,
    steps: Steps,
    written: WrittenElements,
    replaceable: frozenset[tuple[str, str]],
) -> None:
    attribute, last = write.attribute, steps[-1]
    try:
        targets = element_paths.get_rule(last).targets
        value = convert_to_fhir(attribute, write.value, last.type, write.column, targets)
    except Unmappable as problem:
        raise write.build_rejection(problem, "value", 400) from None
    try:
        place, existing = element_paths.make_place(draft, steps)
        old = element_paths.get_at(draft, place) if existing == len(steps) else None
        if attribute.kind is Kind.COPY and _is_longer_than(write.column, old):
            raise Unmappable("FHIR holds more than the column shows, which would be lost")
        written.add(*element_paths.get_holder(draft, place))
        if type(old) is type(value) and old == value:
            return
        element_paths.put_value(draft, steps, place, value, replaceable)
        is_choice = attribute.kind is Kind.CHOICE
        # The codes of a choice are of one system; other codes need a column for their system.
        same_system = write.has_system or (is_choice and str(old) in attribute.choices)
        adds = old is None and not is_choice
        synonyms.drop_synonyms(draft, steps, place, written, adds=adds, same_system=same_system)
        if write.node_path is not None:
            synonyms.drop_whole_text(draft, steps, place, written)
            if write.node_path.joined_from is not None:
                join_items(draft, steps)
    except Unmappable as problem:
        raise write.build_rejection(problem) from None


def _is_longer_than(column: Column, value: Any) -> bool:
    """Whether the column shows only the beginning of a text, or nothing of it."""
    if not isinstance(value, str) or column.max_length is None:
        return False
    return len(value.strip().encode("utf-16-le", "surrogatepass")) > 2 * column.max_length


def _is_number(steps: Steps) -> bool:
    return (steps[-1].parent, steps[-1].name) == ("ContactPoint", "value") and len(steps) > 1


def _clear_columns(
    draft: Draft, writes: Iterable[tuple[_ColumnWrite, Steps]], written: WrittenElements
) -> None:
    cleared, places = [*writes], []
    for write, steps in cleared:
        try:
            for place in element_paths.find_places(draft, steps)[:1] if steps else ():
                if write.node_path is not None and _is_number(steps):
                    places.append((steps[:-1], place[:-1]))  # without it the item says nothing
                else:
                    places += synonyms.find_clearable(draft, steps, place, written)
            if write.node_path is not None and write.node_path.joined_from is not None:
                join_items(draft, steps)
        except Unmappable as problem:
            raise write.build_rejection(problem) from None
    try:
        element_paths.clear_places(draft, places)
    except Unmappable as problem:
        element = problem.where or ""
        affected = (
            write
            for write, steps in cleared
            if steps and element_paths.format_path(steps).startswith(element)
        )
        raise next(affected).build_rejection(problem) from None
