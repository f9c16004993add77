"""What of a map differs from another one of the same resource type. Pure.

A change of a map is tried on every resource before it is published. Only what differs is mapped
then, which for one column of forty takes a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from integration.mapping import r4_elements
from integration.mapping.fhirpath.compile import compile_path
from integration.mapping.fhirpath.parser import list_functions
from integration.mapping.model import AttributeMap, EntityMap, ExpandMap, Kind

_WHOLE_RESOURCES = frozenset({"resource", "rootResource", "context"})
_REACHING_ANYTHING = frozenset({"children", "descendants", "repeat"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MapChanges:
    """How a map differs from the one before. `reduced`: the map with nothing but what differs;
    `columns`: those that it fills otherwise, and child tables as `table.*`; `left`: columns that
    are not mapped any more, which rows keep as they are; `is_another_table`: it fills other
    rows."""

    reduced: EntityMap
    columns: tuple[str, ...]
    left: tuple[str, ...]
    is_another_table: bool = False


def find_map_changes(before: EntityMap | None, after: EntityMap) -> MapChanges:
    """Return what differs. `before`: None: the resource type had no map."""
    if before is None or _describe_rows(before) != _describe_rows(after):
        return MapChanges(
            reduced=after, columns=_name_columns(after), left=(), is_another_table=True
        )
    changed = _find_changed_variables(before.variables, after.variables)
    attributes = tuple(
        item
        for item in after.attributes
        if item.kind is not Kind.MAP
        if item not in before.attributes or _uses(_list_paths([item]), changed)
    )
    # It tells whose row it is.
    kinds = tuple(item for item in after.attributes if item.column == after.kind_column)
    kinds = tuple(item for item in kinds if item not in attributes)
    expands = tuple(
        expand
        for expand in after.expands
        if expand not in before.expands
        or _uses([expand.path, *_list_paths(expand.attributes)], changed)
    )
    kept = {item.column for item in after.attributes}
    tables = {expand.table for expand in after.expands}
    return MapChanges(
        reduced=replace(
            after,
            variables=_select_variables(after.variables, (*attributes, *kinds), expands),
            attributes=attributes + kinds,
            expands=expands,
            unmapped_elements=(),
            expected_elements=(),
        ),
        columns=_name_columns(replace(after, attributes=attributes, expands=expands)),
        left=(
            *(item.column for item in before.attributes if item.column not in kept),
            *(f"{item.table}.*" for item in before.expands if item.table not in tables),
        ),
    )


def list_elements(entity: EntityMap) -> tuple[str, ...] | None:
    """Return the elements of a resource that a map looks at, as `_elements` of a search names them;
    None: it may look at any. Id and meta are among them.

    https://hl7.org/fhir/R4/search.html#elements
    """
    paths = [*entity.variables.values(), *_list_paths(entity.attributes)]
    for expand in entity.expands:
        paths += [expand.path, *_list_paths(expand.attributes)]
    named = {"id", "meta", "extension"}  # extension() names no element
    for path in paths:
        compiled = compile_path(path)
        functions = {*list_functions(compiled.tree)}
        if compiled.variables & _WHOLE_RESOURCES or functions & _REACHING_ANYTHING:
            return None
        named |= compiled.elements
    type_ = entity.resource
    return tuple(
        sorted(
            name
            for name in named
            if name == "extension"
            or r4_elements.find_type(type_, name)
            or r4_elements.find_choice_names(type_, name)
        )
    )


def _describe_rows(entity: EntityMap) -> tuple[object, ...]:
    """Return what tells the rows of a map from those of another one."""
    return entity.table, entity.key, entity.version_columns, entity.kind_column, entity.long_id


def _name_columns(entity: EntityMap) -> tuple[str, ...]:
    return (
        *(item.column for item in entity.attributes),
        *dict.fromkeys(f"{expand.table}.*" for expand in entity.expands),
    )


def _find_changed_variables(before: Mapping[str, str], after: Mapping[str, str]) -> frozenset[str]:
    """Return the variables of the map that find something else, or may: also those that use such
    ones."""
    if [name for name in before if name in after] != [name for name in after if name in before]:
        return frozenset({*before, *after})  # one may use those before it alone
    changed = {name for name, path in after.items() if before.get(name) != path}
    # What is not there any more is empty.
    changed |= before.keys() - after.keys()
    while True:
        others = {
            name
            for name, path in after.items()
            if name not in changed and compile_path(path).variables & changed
        }
        if not others:
            return frozenset(changed)
        changed |= others


def _select_variables(
    variables: Mapping[str, str],
    attributes: Sequence[AttributeMap],
    expands: Sequence[ExpandMap],
) -> dict[str, str]:
    """Return the variables that these use, themselves or through others: each is evaluated for
    every resource."""
    paths = [*_list_paths(attributes), *(expand.path for expand in expands)]
    paths += [path for expand in expands for path in _list_paths(expand.attributes)]
    used: set[str] = set()
    while paths:
        found = compile_path(paths.pop()).variables & variables.keys() - used
        used |= found
        paths += [variables[name] for name in found]
    return {name: path for name, path in variables.items() if name in used}


def _uses(paths: Iterable[str], changed: frozenset[str]) -> bool:
    return any(compile_path(path).variables & changed for path in paths)


def _list_paths(attributes: Iterable[AttributeMap]) -> list[str]:
    return [item.path for item in attributes if item.path is not None]
