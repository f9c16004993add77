"""The plan of changes: which rows a resource should have, which it has, and what to write. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid5

from integration.core import decimal_json
from integration.core.model import Column, Columns, Row, Tables
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

_STATE = {"statecode", "statuscode"}

# Whether the row was merged into another one, and has been inactive since. Only tables whose rows
# can be merged have this column.
# https://learn.microsoft.com/power-apps/developer/data-platform/merge-records
MERGED = "merged"

_NOTHING: Mapping[str, str] = MappingProxyType({})

# The namespace of the keys that this app derives. Rows are found by it, so it must never change.
_NAMESPACE = UUID("5a1d4f0c-6f0e-5b7b-8d39-0d8a52c4e1b7")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows of a resource type are: what a lookup needs to point at one."""

    table: str
    entity_set: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingRows:
    """What Dataverse has. `keys`: of the rows that lookups point at, by `Type/id`. `concepts`: keys
    by type and code. `children`: by the position of their map among the expand maps."""

    row: Row | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    concepts: Mapping[tuple[int, str], str] = field(default_factory=dict)
    children: Mapping[int, Sequence[Row]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePlan:
    """The changes, in an order that Dataverse accepts. `row_position`: which of them writes the
    row itself. `missing`: `Type/id` of each resource that a lookup points at and that has no row
    yet. `linked`: of each one that the changes set a lookup to."""

    changes: tuple[Change, ...]
    row_position: int
    notes: tuple[str, ...]
    missing: frozenset[str]
    linked: frozenset[str]

    def is_of_row(self, position: int) -> bool:
        """Whether this change writes the row itself, not a child or a concept."""
        return self.changes[position].key == self.changes[self.row_position].key

    @property
    def removed(self) -> list[str]:
        """The entity set of each child row that is removed."""
        return [change.entity_set for change in self.changes if change.method == "DELETE"]

    @property
    def other_keys(self) -> list[str]:
        """The keys of all that is changed, but for the row itself."""
        return [c.key for n, c in enumerate(self.changes) if not self.is_of_row(n)]


def plan_changes(
    entity: EntityMap,
    key: str,
    mapped: MappedRows,
    existing: ExistingRows,
    *,
    targets: Mapping[str, Target],
    tables: Tables,
    refused: Mapping[str, str] = _NOTHING,
    is_stamped: bool = True,
) -> ChangePlan:
    """Return what has to be written so that the rows are as mapped: no change where they are.

    `key`: of the row, if it is to be created. `targets`: by resource type. `refused`: by key, why
    Dataverse refused to change a child or a concept: it stays as it is, and a note says so.
    `is_stamped`: the row's stamp, if it has one, is good; else that alone is a reason to write.
    """
    planner = _Planner(targets, tables, existing, refused)
    own_key = key
    if existing.row is not None:
        key = str(existing.row[entity.key])
    row_changes = list(
        _plan_row_changes(planner, entity, key, mapped.values, is_stamped=is_stamped)
    )
    child_changes = [
        change
        for position, expand in enumerate(entity.expands)
        for change in _plan_child_changes(
            planner,
            _Parent(entity, key, own_key),
            expand,
            [child for child in mapped.children if child.expand_map is expand],
            existing.children.get(position, ()),
        )
    ]
    if child_changes and not row_changes and existing.row is not None:
        # Write the row, too: its new etag fails whoever planned child changes from the old state.
        version = {entity.version_column: mapped.values[entity.version_column]}
        row_changes = [
            Change(
                method="PATCH",
                entity_set=entity.entity_set,
                key=key,
                columns=version,
                etag=existing.row["@odata.etag"],
            )
        ]
    concept_changes = tuple(planner.concepts.values())
    changes = (*concept_changes, *row_changes, *child_changes) if row_changes else ()
    return ChangePlan(
        changes=changes,
        row_position=len(concept_changes),
        notes=tuple(planner.notes),
        missing=frozenset(planner.missing),
        linked=frozenset(planner.linked),
    )


def cut_plan(entity: EntityMap, plan: ChangePlan, existing: ExistingRows, limit: int) -> ChangePlan:
    """Return the first `limit` changes of a plan that has more. The row is written with them, on
    its condition, but shows no new version: a row shows a version with all its children."""
    first = plan.row_position
    (row_change, *_), others = (
        [change for number, change in enumerate(plan.changes) if plan.is_of_row(number) is is_row]
        for is_row in (True, False)
    )
    hidden = {entity.version_column, entity.updated_column, entity.map_column}
    columns = {k: v for k, v in (row_change.columns or {}).items() if k not in hidden}
    if entity.map_column is not None:  # the old stamp would prove what is not there any more
        columns[entity.map_column] = None
    if first >= limit:  # the concepts alone are too many: no lookup can be set to all of them
        columns = {name: v for name, v in columns.items() if not name.endswith("@odata.bind")}
    if not columns and existing.row is not None:
        columns = {entity.version_column: existing.row.get(entity.version_column)}
    concepts, children = others[:first][: limit - 1], others[first:]
    children = children[: limit - 1 - len(concepts)] if first < limit else []
    return replace(
        plan,
        changes=(*concepts, replace(row_change, columns=columns), *children),
        row_position=len(concepts),
    )


def find_lookups(mapped: MappedRows) -> set[str]:
    """Return `Type/id` of every resource that a lookup points at."""
    return {value.resource for value in _iterate_values(mapped) if isinstance(value, Lookup)}


def find_concepts(mapped: MappedRows) -> set[tuple[int, str]]:
    """Return type and code of every concept that a lookup points at."""
    values = _iterate_values(mapped)
    return {(value.type, value.code) for value in values if isinstance(value, Concept)}


def list_differences(values: Mapping[str, Any], row: Row, columns: Iterable[str]) -> Iterator[str]:
    """Yield those of these columns in which a row differs from mapped values, but for lookups."""
    for name in columns:
        value = values.get(name)
        is_link = isinstance(value, Lookup | Concept)
        if name in values and not is_link and not is_same(value, get_column_value(row, name)):
            yield name


def derive_key(*parts: Any) -> str:
    """Return a primary key that follows from what the row is: writing it twice makes one row."""
    return str(uuid5(_NAMESPACE, decimal_json.encode(parts).decode()))


def select_columns(names: Iterable[str], columns: Columns) -> list[str]:
    """Return these columns as a query selects them: a lookup is read under another name."""
    return [f"_{name}_value" if columns[name].targets else name for name in dict.fromkeys(names)]


def _iterate_values(mapped: MappedRows) -> Iterator[Any]:
    yield from mapped.values.values()
    for child in mapped.children:
        yield from child.values.values()


# -- mapped values to column values ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _LookupBinding:
    """The value of a lookup column that points at a row. `resource`: as `Type/id`; None: a
    concept."""

    navigation: str
    entity_set: str
    key: str
    resource: str | None = None


@dataclass(slots=True)
class _Planner:
    """Turns mapped values into column values. Collects the concepts to create, notes, the resources
    that have no row yet, and those that lookups are set to."""

    targets: Mapping[str, Target]
    tables: Tables
    existing: ExistingRows
    refused: Mapping[str, str]
    concepts: dict[str, Change] = field(default_factory=dict)  # by key
    notes: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    linked: set[str] = field(default_factory=set)

    def leave_out(self, key: str) -> bool:
        """Whether Dataverse refused the row with this key: then a note says why."""
        reason = self.refused.get(key)
        if reason is not None and reason not in self.notes:
            self.notes.append(reason)
        return reason is not None

    def resolve(self, table: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Replace lookups and concepts by bindings; by None where there is no row to point at."""
        return {name: self._resolve_value(table, name, value) for name, value in values.items()}

    def build_body(
        self, values: Mapping[str, Any], columns: Columns, row: Row | None = None
    ) -> dict[str, Any]:
        """Return the body of a write: it sets a lookup by its navigation property.

        `row`: as it is now; None: it is being created.
        https://learn.microsoft.com/power-apps/developer/data-platform/webapi/associate-disassociate-entities-using-web-api
        """
        body: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, _LookupBinding):
                body[f"{value.navigation}@odata.bind"] = f"{value.entity_set}({value.key})"
                self.linked |= {value.resource} if value.resource else set()
            elif value is None and columns[name].targets:
                if row:
                    body[f"{_find_navigation(columns[name], row)}@odata.bind"] = None
            else:
                body[name] = value
        return body

    def _resolve_value(self, table: str, name: str, value: Any) -> Any:
        if isinstance(value, Concept):
            concepts = Target(CONCEPT_TABLE.table, CONCEPT_TABLE.entity_set)
            concept_key = self._get_concept_key(value)
            return concept_key and self._bind(table, name, concepts, concept_key)
        if not isinstance(value, Lookup):
            return value
        type_ = value.resource.partition("/")[0]
        target, key = self.targets.get(type_), self.existing.keys.get(value.resource)
        if target is None:
            self.notes.append(f"{name}: no entity map says which table has the rows of {type_}")
            return None
        if key is None:
            self.notes.append(f"{name}: the {type_} is not in Dataverse yet")
            self.missing.add(value.resource)
            return None
        return self._bind(table, name, target, key, value.resource)

    def _bind(
        self, table: str, name: str, target: Target, key: str, resource: str | None = None
    ) -> _LookupBinding | None:
        navigation = (self.tables[table][name].targets or {}).get(target.table)
        if navigation is None:
            self.notes.append(f"{name}: the column does not accept rows of {target.table}")
            return None
        return _LookupBinding(navigation, target.entity_set, key, resource)

    def _get_concept_key(self, concept: Concept) -> str | None:
        """Return the key of the concept's row. Plan to create the row if there is none; None: that
        was refused."""
        key = self.existing.concepts.get((concept.type, concept.code))
        if key is None:
            key = derive_key("concept", concept.type, concept.code)
            if self.leave_out(key):
                return None
            self.concepts[key] = Change(
                method="PATCH",
                entity_set=CONCEPT_TABLE.entity_set,
                key=key,
                columns=CONCEPT_TABLE.build_row(concept),
            )
        return key


# -- the row --------------------------------------------------------------------------------------


def _plan_row_changes(
    planner: _Planner,
    entity: EntityMap,
    key: str,
    values: Mapping[str, Any],
    *,
    is_stamped: bool,
) -> Iterator[Change]:
    columns, row = planner.tables[entity.table], planner.existing.row
    resolved = planner.resolve(entity.table, values)
    if row is None:
        initial = {name: value for name, value in resolved.items() if name not in _STATE}
        body = planner.build_body(initial, columns)
        yield Change(
            method="PATCH", entity_set=entity.entity_set, key=key, columns=body, only_new=True
        )
        # Dataverse creates each row as active, whatever the request says.
        state = {name: value for name, value in resolved.items() if name in _STATE}
        if state.get("statecode") not in (None, 0):
            yield Change(
                method="PATCH", entity_set=entity.entity_set, key=key, columns=state, etag="*"
            )
        return
    if row.get(MERGED):
        # Whoever merged it made it inactive: the resource's state is not for this row any more.
        planner.notes.append(
            f"the row of {entity.table} was merged into another one by hand: it stays inactive"
        )
        resolved = {name: value for name, value in resolved.items() if name not in _STATE}
    differences = _find_differences(resolved, row)
    # Another map that makes the same row is no reason to write it, unless edits are looked for.
    if differences.keys() - {entity.map_column if is_stamped else None}:
        yield Change(
            method="PATCH",
            entity_set=entity.entity_set,
            key=key,
            columns=planner.build_body(differences, columns, row),
            etag=row["@odata.etag"],
        )


# -- its children ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parent:
    """The row that child rows belong to. `own_key`: what its key would be if this app had made it.
    Who merges the app's row into another one moves the child rows that were made for it."""

    entity: EntityMap
    key: str
    own_key: str


def _plan_child_changes(
    planner: _Planner,
    parent: _Parent,
    expand: ExpandMap,
    children: Sequence[ChildRow],
    existing: Sequence[Row],
) -> Iterator[Change]:
    columns = planner.tables[expand.table]
    targets = columns[expand.parent].targets or {}
    navigation = targets.get(parent.entity.table, expand.parent)
    by_key = {row[expand.key]: row for row in existing}
    by_match: dict[str, Row] = {}
    for row in existing:
        by_match.setdefault(_encode_row_match(expand, row), row)
    kept: set[str] = set()
    for child in children:
        resolved = planner.resolve(expand.table, child.values)
        if any(_is_unresolved(planner, child, resolved, name) for name in expand.match):
            continue  # a row of it now would be another one once its lookup is filled; noted
        match = _encode_match(expand, {n: _to_plain(resolved.get(n)) for n in expand.match})
        key = derive_key(parent.key, expand.table, match)
        found = by_match.get(match, by_key.get(key))
        if found is not None and found[expand.key] in kept:
            continue  # two items that turn out to be one row, now that their lookups are resolved
        if planner.leave_out(key if found is None else found[expand.key]):
            kept.add(key if found is None else found[expand.key])
            continue
        if found is None:
            kept.add(key)
            body = planner.build_body(resolved, columns)
            body[f"{navigation}@odata.bind"] = f"{parent.entity.entity_set}({parent.key})"
            yield Change(method="PATCH", entity_set=expand.entity_set, key=key, columns=body)
            continue
        kept.add(found[expand.key])
        if differences := _find_differences(resolved, found):
            yield Change(
                method="PATCH",
                entity_set=expand.entity_set,
                key=found[expand.key],
                columns=planner.build_body(differences, columns, found),
                etag="*",  # whoever has deleted it meanwhile did not want half a row
            )
    for row in existing:
        is_unwanted = row[expand.key] not in kept and _is_removable(expand, parent, row)
        if is_unwanted and not planner.leave_out(row[expand.key]):
            yield Change(method="DELETE", entity_set=expand.entity_set, key=row[expand.key])


def _is_unresolved(
    planner: _Planner, child: ChildRow, resolved: Mapping[str, Any], name: str
) -> bool:
    value = child.values.get(name)
    is_refused = isinstance(value, Concept) and (
        derive_key("concept", value.type, value.code) in planner.refused
    )
    return is_refused or (isinstance(value, Lookup) and resolved.get(name) is None)


def _is_removable(expand: ExpandMap, parent: _Parent, row: Row) -> bool:
    match = _encode_row_match(expand, row)
    keys = {derive_key(key, expand.table, match) for key in (parent.key, parent.own_key)}
    ours = row[expand.key] in keys
    return expand.remove is ChildRemoval.ALL or (expand.remove is ChildRemoval.OURS and ours)


def _encode_row_match(expand: ExpandMap, row: Row) -> str:
    return _encode_match(expand, {name: get_column_value(row, name) for name in expand.match})


def _encode_match(expand: ExpandMap, values: Mapping[str, Any]) -> str:
    """Return the columns that tell one child from another as one text."""
    return decimal_json.encode([values[name] for name in expand.match]).decode()


# -- comparing and writing values -----------------------------------------------------------------


def _find_differences(resolved: Mapping[str, Any], row: Row) -> dict[str, Any]:
    return {
        name: value
        for name, value in resolved.items()
        if not is_same(_to_plain(value), get_column_value(row, name))
    }


def is_same(mapped: Any, current: Any) -> bool:
    """Whether a mapped value and a row's are the same: Dataverse keeps no empty text, and numbers
    by their value."""
    if isinstance(mapped, str) and isinstance(current, str):
        return mapped == current or (
            values.is_datetime_text(mapped) and values.is_same_datetime(mapped, current)
        )
    return bool(mapped == current) and isinstance(mapped, bool) is isinstance(current, bool)


def _to_plain(value: Any) -> Any:
    """Return a resolved value as a row shows it."""
    return value.key if isinstance(value, _LookupBinding) else value


def get_column_value(row: Row, name: str) -> Any:
    """Return a value of a row, which shows a lookup under another name."""
    return row.get(f"_{name}_value") if f"_{name}_value" in row else row.get(name)


def _find_navigation(column: Column, row: Row) -> str:
    """Return the navigation property to the table that the lookup points at now, of several."""
    targets = column.targets or {}
    current = str(row.get(f"_{column.name}_value@Microsoft.Dynamics.CRM.lookuplogicalname"))
    return targets.get(current) or next(iter(targets.values()))
