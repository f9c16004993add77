"""The rows that a resource should be, the rows that are there, and the changes between. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

from integration.core import decimal_json
from integration.core.model import Column
from integration.dataverse.requests import Change
from integration.mapping import engine
from integration.mapping.concepts import CONCEPT_TABLE
from integration.mapping.model import (
    ChildRemoval,
    ChildRow,
    Concept,
    EntityMap,
    ExpandMap,
    Lookup,
    MappedRows,
)

Tables = Mapping[str, Mapping[str, Column]]
Row = Mapping[str, Any]

_STATE = {"statecode", "statuscode"}

# A namespace of our own; rows are found by it for ever, so it never changes.
_NAMESPACE = UUID("5a1d4f0c-6f0e-5b7b-8d39-0d8a52c4e1b7")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a resource of some type has its row: what a lookup needs to point at it."""

    table: str
    entity_set: str


@dataclass(frozen=True, slots=True)
class Found:
    """What Dataverse holds. `keys` of rows by Type/id, `concepts` by type and code, `children` by
    the position of their map among the expands."""

    row: Row | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    concepts: Mapping[tuple[int, str], str] = field(default_factory=dict)
    children: Mapping[int, Sequence[Row]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Planned:
    """`changes` in an order that works, the row's own among them as `row` counts. `missing`:
    Type/id of what lookups should point at and has no row yet."""

    changes: tuple[Change, ...]
    row: int
    notes: tuple[str, ...]
    missing: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Bound:
    """A lookup that is set."""

    navigation: str
    entity_set: str
    key: str


@dataclass(slots=True)
class _Plan:
    """Values on their way to columns, and what comes up on the way."""

    targets: Mapping[str, Target]
    tables: Tables
    found: Found
    concepts: dict[str, Change] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)

    def resolved(self, table: str, columns: Row) -> dict[str, Any]:
        """Links and concepts become rows; None where there is none."""
        return {name: self._value(table, name, value) for name, value in columns.items()}

    def _value(self, table: str, name: str, value: Any) -> Any:
        if isinstance(value, Concept):
            return self._bound(
                table, name, CONCEPT_TABLE.table, CONCEPT_TABLE.entity_set, self._key(value)
            )
        if not isinstance(value, Lookup):
            return value
        kind = value.resource.partition("/")[0]
        target, key = self.targets.get(kind), self.found.keys.get(value.resource)
        if target is None:
            self.notes.append(f"{name}: no map says where a {kind} is")
            return None
        if key is None:
            self.notes.append(f"{name}: the {kind} is not in Dataverse yet")
            self.missing.add(value.resource)
            return None
        return self._bound(table, name, target.table, target.entity_set, key)

    def _bound(self, table: str, name: str, to: str, entity_set: str, key: str) -> Any:
        navigation = (self.tables[table][name].targets or {}).get(to)
        if navigation is None:
            self.notes.append(f"{name}: the column takes no row of {to}")
            return None
        return _Bound(navigation, entity_set, key)

    def _key(self, concept: Concept) -> str:
        known = self.found.concepts.get((concept.type, concept.code))
        if known is None:
            known = derived("concept", concept.type, concept.code)
            columns = CONCEPT_TABLE.build_row(concept)
            self.concepts[known] = Change("PATCH", CONCEPT_TABLE.entity_set, known, columns)
        return known


def planned(
    entity: EntityMap,
    key: str,
    mapped: MappedRows,
    found: Found,
    targets: Mapping[str, Target],
    tables: Tables,
) -> Planned:
    """What has to change so that the rows are as mapped; nothing where they are. `key`: of the
    row, where there is none yet."""
    plan = _Plan(targets, tables, found)
    if found.row is not None:
        key = str(found.row[entity.key])
    own = list(_row_changes(plan, entity, key, mapped.values))
    children = [
        change
        for number, expand in enumerate(entity.expands)
        for change in _child_changes(
            plan,
            entity,
            expand,
            key,
            [child for child in mapped.children if child.expand_map is expand],
            found.children.get(number, ()),
        )
    ]
    if children and not own and found.row is not None:
        # The row guards its children: who comes later finds another etag.
        version = {entity.version_column: mapped.values[entity.version_column]}
        own = [Change("PATCH", entity.entity_set, key, version, found.row["@odata.etag"])]
    before = tuple(plan.concepts.values())
    changes = (*before, *own, *children) if own else ()
    return Planned(changes, len(before), tuple(plan.notes), frozenset(plan.missing))


def links(mapped: MappedRows) -> set[str]:
    """Type/id of everything that lookups point at."""
    return {value.resource for value in _values(mapped) if isinstance(value, Lookup)}


def concepts(mapped: MappedRows) -> set[tuple[int, str]]:
    """Type and code of every concept that is referred to."""
    return {(value.type, value.code) for value in _values(mapped) if isinstance(value, Concept)}


def derived(*parts: Any) -> str:
    """A primary key that follows from what the row is, so that a repeat makes no second one."""
    return str(uuid5(_NAMESPACE, decimal_json.encode(parts).decode()))


def _values(mapped: MappedRows) -> Iterator[Any]:
    yield from mapped.values.values()
    for child in mapped.children:
        yield from child.values.values()


def _row_changes(plan: _Plan, entity: EntityMap, key: str, wanted: Row) -> Iterator[Change]:
    columns = plan.tables[entity.table]
    resolved = plan.resolved(entity.table, wanted)
    row = plan.found.row
    if row is None:
        born = {name: value for name, value in resolved.items() if name not in _STATE}
        yield Change("PATCH", entity.entity_set, key, _body(born, columns, {}), new=True)
        state = {name: value for name, value in resolved.items() if name in _STATE}
        # A row is born active, whatever is asked for.
        if state.get("statecode") not in (None, 0):
            yield Change("PATCH", entity.entity_set, key, state)
        return
    different = _different(resolved, row)
    if different:
        body = _body(different, columns, row)
        yield Change("PATCH", entity.entity_set, key, body, row["@odata.etag"])


def _child_changes(
    plan: _Plan,
    entity: EntityMap,
    expand: ExpandMap,
    parent: str,
    wanted: Sequence[ChildRow],
    have: Sequence[Row],
) -> Iterator[Change]:
    columns = plan.tables[expand.table]
    navigation = (columns[expand.parent].targets or {}).get(entity.table, expand.parent)
    by_key = {each[expand.key]: each for each in have}
    by_match: dict[str, Row] = {}
    for each in have:
        by_match.setdefault(_match(expand, {n: _shown(each, n) for n in expand.match}), each)
    kept: set[str] = set()
    for child in wanted:
        resolved = plan.resolved(expand.table, child.values)
        match = _match(expand, {n: _plain(resolved.get(n)) for n in expand.match})
        if any(_is_unfollowed(child, resolved, name) for name in expand.match):
            continue  # it would be another row as soon as its lookup is filled; noted
        key = derived(parent, expand.table, match)
        row = by_match.get(match, by_key.get(key))
        if row is not None and row[expand.key] in kept:
            continue  # two items are one row only after their lookups have been followed
        kept.add(row[expand.key] if row is not None else key)
        if row is None:
            body = _body(resolved, columns, {})
            body[f"{navigation}@odata.bind"] = f"{entity.entity_set}({parent})"
            yield Change("PATCH", expand.entity_set, key, body)
        elif different := _different(resolved, row):
            yield Change(
                "PATCH", expand.entity_set, row[expand.key], _body(different, columns, row)
            )
    for each in have:
        if each[expand.key] not in kept and _goes(expand, parent, each):
            yield Change("DELETE", expand.entity_set, each[expand.key])


def _is_unfollowed(child: ChildRow, resolved: Row, name: str) -> bool:
    return isinstance(child.values.get(name), Lookup) and resolved.get(name) is None


def _goes(expand: ExpandMap, parent: str, row: Row) -> bool:
    match = _match(expand, {name: _shown(row, name) for name in expand.match})
    ours = row[expand.key] == derived(parent, expand.table, match)
    return expand.remove is ChildRemoval.ALL or (expand.remove is ChildRemoval.OURS and ours)


def _match(expand: ExpandMap, values: Row) -> str:
    return decimal_json.encode([values[name] for name in expand.match]).decode()


def _different(resolved: Row, row: Row) -> dict[str, Any]:
    return {n: value for n, value in resolved.items() if not _same(_plain(value), _shown(row, n))}


def _same(ours: Any, theirs: Any) -> bool:
    """Dataverse keeps no empty text, and numbers by their value."""
    if isinstance(ours, str) and isinstance(theirs, str):
        return ours == theirs or (
            engine.is_datetime_text(ours) and engine.is_same_datetime(ours, theirs)
        )
    return bool(ours == theirs) and isinstance(ours, bool) is isinstance(theirs, bool)


def _plain(value: Any) -> Any:
    return value.key if isinstance(value, _Bound) else value


def _shown(row: Row, name: str) -> Any:
    """A lookup shows under a name of its own."""
    return row.get(f"_{name}_value") if f"_{name}_value" in row else row.get(name)


def _body(values: Row, columns: Mapping[str, Column], row: Row) -> dict[str, Any]:
    """As the Web API takes it: a lookup by its navigation property.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/associate-disassociate-entities-using-web-api
    """
    body: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, _Bound):
            body[f"{value.navigation}@odata.bind"] = f"{value.entity_set}({value.key})"
        elif value is None and columns[name].targets:
            if row:
                body[f"{_navigation(columns[name], row)}@odata.bind"] = None
        else:
            body[name] = value
    return body


def _navigation(column: Column, row: Row) -> str:
    """Of a lookup that may lead to several tables: the one to the table it leads to now."""
    targets = column.targets or {}
    now = str(row.get(f"_{column.name}_value@Microsoft.Dynamics.CRM.lookuplogicalname"))
    return targets.get(now) or next(iter(targets.values()))


def selected(names: Iterable[str], columns: Mapping[str, Column]) -> list[str]:
    """These columns as a read names them."""
    return [f"_{name}_value" if columns[name].targets else name for name in dict.fromkeys(names)]
