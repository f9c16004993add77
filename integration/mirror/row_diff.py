"""The rows that a resource should be, the rows that are there, and the changes between. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

from integration.core import decimal_json
from integration.core.model import Column
from integration.dataverse.requests import Change
from integration.mapping import values
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
class ExistingRows:
    """What Dataverse holds. `keys` of rows by Type/id, `concepts` by type and code, `children` by
    the position of their map among the expands."""

    row: Row | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    concepts: Mapping[tuple[int, str], str] = field(default_factory=dict)
    children: Mapping[int, Sequence[Row]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """`changes` in an order that works, the row's own among them as `row` counts. `missing`:
    Type/id of what lookups should point at and has no row yet."""

    changes: tuple[Change, ...]
    row_position: int
    notes: tuple[str, ...]
    missing: frozenset[str]


@dataclass(frozen=True, slots=True)
class _LookupBinding:
    """A lookup that is set."""

    navigation: str
    entity_set: str
    key: str


@dataclass(slots=True)
class _Planner:
    """Values on their way to columns, and what comes up on the way."""

    targets: Mapping[str, Target]
    tables: Tables
    existing: ExistingRows
    concepts: dict[str, Change] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)

    def resolve(self, table: str, columns: Row) -> dict[str, Any]:
        """Links and concepts become rows; None where there is none."""
        return {name: self._resolve_value(table, name, value) for name, value in columns.items()}

    def _resolve_value(self, table: str, name: str, value: Any) -> Any:
        if isinstance(value, Concept):
            return self._bind(
                table,
                name,
                CONCEPT_TABLE.table,
                CONCEPT_TABLE.entity_set,
                self._find_concept_key(value),
            )
        if not isinstance(value, Lookup):
            return value
        type_ = value.resource.partition("/")[0]
        target, key = self.targets.get(type_), self.existing.keys.get(value.resource)
        if target is None:
            self.notes.append(f"{name}: no map says where a {type_} is")
            return None
        if key is None:
            self.notes.append(f"{name}: the {type_} is not in Dataverse yet")
            self.missing.add(value.resource)
            return None
        return self._bind(table, name, target.table, target.entity_set, key)

    def _bind(self, table: str, name: str, target: str, entity_set: str, key: str) -> Any:
        navigation = (self.tables[table][name].targets or {}).get(target)
        if navigation is None:
            self.notes.append(f"{name}: the column takes no row of {target}")
            return None
        return _LookupBinding(navigation, entity_set, key)

    def _find_concept_key(self, concept: Concept) -> str:
        key = self.existing.concepts.get((concept.type, concept.code))
        if key is None:
            key = derive_key("concept", concept.type, concept.code)
            columns = CONCEPT_TABLE.build_row(concept)
            self.concepts[key] = Change("PATCH", CONCEPT_TABLE.entity_set, key, columns)
        return key


def plan_changes(
    entity: EntityMap,
    key: str,
    mapped: MappedRows,
    existing: ExistingRows,
    targets: Mapping[str, Target],
    tables: Tables,
) -> ChangePlan:
    """What has to change so that the rows are as mapped; nothing where they are. `key`: of the
    row, where there is none yet."""
    planner = _Planner(targets, tables, existing)
    if existing.row is not None:
        key = str(existing.row[entity.key])
    row_changes = list(_plan_row_changes(planner, entity, key, mapped.values))
    child_changes = [
        change
        for number, expand in enumerate(entity.expands)
        for change in _plan_child_changes(
            planner,
            entity,
            expand,
            key,
            [child for child in mapped.children if child.expand_map is expand],
            existing.children.get(number, ()),
        )
    ]
    if child_changes and not row_changes and existing.row is not None:
        # The row guards its children: who comes later finds another etag.
        version = {entity.version_column: mapped.values[entity.version_column]}
        row_changes = [
            Change("PATCH", entity.entity_set, key, version, existing.row["@odata.etag"])
        ]
    concept_changes = tuple(planner.concepts.values())
    changes = (*concept_changes, *row_changes, *child_changes) if row_changes else ()
    return ChangePlan(
        changes, len(concept_changes), tuple(planner.notes), frozenset(planner.missing)
    )


def find_lookups(mapped: MappedRows) -> set[str]:
    """Type/id of everything that lookups point at."""
    return {value.resource for value in _iterate_values(mapped) if isinstance(value, Lookup)}


def find_concepts(mapped: MappedRows) -> set[tuple[int, str]]:
    """Type and code of every concept that is referred to."""
    return {
        (value.type, value.code) for value in _iterate_values(mapped) if isinstance(value, Concept)
    }


def derive_key(*parts: Any) -> str:
    """A primary key that follows from what the row is, so that a repeat makes no second one."""
    return str(uuid5(_NAMESPACE, decimal_json.encode(parts).decode()))


def _iterate_values(mapped: MappedRows) -> Iterator[Any]:
    yield from mapped.values.values()
    for child in mapped.children:
        yield from child.values.values()


def _plan_row_changes(
    planner: _Planner, entity: EntityMap, key: str, values: Row
) -> Iterator[Change]:
    columns = planner.tables[entity.table]
    resolved = planner.resolve(entity.table, values)
    row = planner.existing.row
    if row is None:
        initial = {name: value for name, value in resolved.items() if name not in _STATE}
        yield Change("PATCH", entity.entity_set, key, _build_body(initial, columns, {}), new=True)
        state = {name: value for name, value in resolved.items() if name in _STATE}
        # A row is born active, whatever is asked for.
        if state.get("statecode") not in (None, 0):
            yield Change("PATCH", entity.entity_set, key, state)
        return
    differences = _find_differences(resolved, row)
    if differences:
        body = _build_body(differences, columns, row)
        yield Change("PATCH", entity.entity_set, key, body, row["@odata.etag"])


def _plan_child_changes(
    planner: _Planner,
    entity: EntityMap,
    expand: ExpandMap,
    parent: str,
    children: Sequence[ChildRow],
    existing: Sequence[Row],
) -> Iterator[Change]:
    columns = planner.tables[expand.table]
    navigation = (columns[expand.parent].targets or {}).get(entity.table, expand.parent)
    by_key = {row_[expand.key]: row_ for row_ in existing}
    by_match: dict[str, Row] = {}
    for row_ in existing:
        by_match.setdefault(
            _encode_match(expand, {n: _get_column_value(row_, n) for n in expand.match}), row_
        )
    kept: set[str] = set()
    for child in children:
        resolved = planner.resolve(expand.table, child.values)
        match = _encode_match(expand, {n: _get_plain_value(resolved.get(n)) for n in expand.match})
        if any(_is_unresolved(child, resolved, name) for name in expand.match):
            continue  # it would be another row as soon as its lookup is filled; noted
        key = derive_key(parent, expand.table, match)
        row = by_match.get(match, by_key.get(key))
        if row is not None and row[expand.key] in kept:
            continue  # two items are one row only after their lookups have been followed
        kept.add(row[expand.key] if row is not None else key)
        if row is None:
            body = _build_body(resolved, columns, {})
            body[f"{navigation}@odata.bind"] = f"{entity.entity_set}({parent})"
            yield Change("PATCH", expand.entity_set, key, body)
        elif differences := _find_differences(resolved, row):
            yield Change(
                "PATCH", expand.entity_set, row[expand.key], _build_body(differences, columns, row)
            )
    for row_ in existing:
        if row_[expand.key] not in kept and _is_removable(expand, parent, row_):
            yield Change("DELETE", expand.entity_set, row_[expand.key])


def _is_unresolved(child: ChildRow, resolved: Row, name: str) -> bool:
    return isinstance(child.values.get(name), Lookup) and resolved.get(name) is None


def _is_removable(expand: ExpandMap, parent: str, row: Row) -> bool:
    match = _encode_match(expand, {name: _get_column_value(row, name) for name in expand.match})
    ours = row[expand.key] == derive_key(parent, expand.table, match)
    return expand.remove is ChildRemoval.ALL or (expand.remove is ChildRemoval.OURS and ours)


def _encode_match(expand: ExpandMap, values: Row) -> str:
    return decimal_json.encode([values[name] for name in expand.match]).decode()


def _find_differences(resolved: Row, row: Row) -> dict[str, Any]:
    return {
        n: value
        for n, value in resolved.items()
        if not _is_same(_get_plain_value(value), _get_column_value(row, n))
    }


def _is_same(ours: Any, theirs: Any) -> bool:
    """Dataverse keeps no empty text, and numbers by their value."""
    if isinstance(ours, str) and isinstance(theirs, str):
        return ours == theirs or (
            values.is_datetime_text(ours) and values.is_same_datetime(ours, theirs)
        )
    return bool(ours == theirs) and isinstance(ours, bool) is isinstance(theirs, bool)


def _get_plain_value(value: Any) -> Any:
    return value.key if isinstance(value, _LookupBinding) else value


def _get_column_value(row: Row, name: str) -> Any:
    """A lookup shows under a name of its own."""
    return row.get(f"_{name}_value") if f"_{name}_value" in row else row.get(name)


def _build_body(values: Row, columns: Mapping[str, Column], row: Row) -> dict[str, Any]:
    """As the Web API takes it: a lookup by its navigation property.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/associate-disassociate-entities-using-web-api
    """
    body: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, _LookupBinding):
            body[f"{value.navigation}@odata.bind"] = f"{value.entity_set}({value.key})"
        elif value is None and columns[name].targets:
            if row:
                body[f"{_find_navigation(columns[name], row)}@odata.bind"] = None
        else:
            body[name] = value
    return body


def _find_navigation(column: Column, row: Row) -> str:
    """Of a lookup that may lead to several tables: the one to the table it leads to now."""
    targets = column.targets or {}
    current = str(row.get(f"_{column.name}_value@Microsoft.Dynamics.CRM.lookuplogicalname"))
    return targets.get(current) or next(iter(targets.values()))


def select_columns(names: Iterable[str], columns: Mapping[str, Column]) -> list[str]:
    """These columns as a read names them."""
    return [f"_{name}_value" if columns[name].targets else name for name in dict.fromkeys(names)]
