"""Maps from TOML files: those of a set, with an organisation's own in their place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from integration.core.errors import Misconfigured
from integration.mapping import files
from integration.mapping.check import EXPAND, ROW, Lines, listed, problems
from integration.mapping.check_shown import CREATE, LONGEST, SEARCHED
from integration.mapping.files import MapFile, TomlTable
from integration.mapping.model import (
    AttributeMap,
    ChildRemoval,
    EntityMap,
    ExpandMap,
    Kind,
    LongId,
    LongText,
    PartialDate,
    Route,
    Search,
    SearchType,
    UnmappedElement,
    VirtualColumn,
)
from integration.mapping.write_back.apply import explain_unwritable


@dataclass(frozen=True, slots=True)
class Maps:
    """By resource type; a type whose map is broken has its reason instead. `known`: those too that
    are not in use, since lookups may point at rows that others bring."""

    entities: Mapping[str, EntityMap]
    broken: Mapping[str, str]
    available: Mapping[str, EntityMap]


def load_maps(
    set_: str,
    prefix: str | None = None,
    own_folder: Path | None = None,
    enabled: Collection[str] = (),
) -> Maps:
    """The maps in use: see integration.mapping.files.read. Raises Misconfigured for a setting."""
    return build_maps(files.read_map_files(set_, prefix, own_folder, enabled))


def build_maps(read: Iterable[MapFile]) -> Maps:
    """What the files say. A map that is wrong stops its own table and no other."""
    read = list(read)
    entities: dict[str, EntityMap] = {}
    broken: dict[str, str] = {}
    for file in (each for each in read if each.in_use and "adds_to" not in each.data):
        try:
            entity = _entity(file)
            if entity.resource in entities:
                other = entities.pop(entity.resource).file
                raise Misconfigured(f"{other} and {file.name} both map {entity.resource}")
            entities[entity.resource] = entity
        except Misconfigured as problem:
            _break(file.resource, str(problem), entities, broken)
    for file in (each for each in read if each.in_use and "adds_to" in each.data):
        try:
            entity = entities.get(file.resource) or _no_base(file)
            entities[entity.resource] = _added(entity, file)
        except Misconfigured as problem:
            _break(file.resource, str(problem), entities, broken)
    for resource in broken:
        entities.pop(resource, None)
    return Maps(entities, broken, {**_idle(read), **entities})


@cache
def load_shipped_maps(
    set_: str = "healthcare", prefix: str | None = None
) -> Mapping[str, EntityMap]:
    """The maps that a set has enabled. Raises Misconfigured."""
    found = load_maps(set_, prefix)
    if found.broken:
        raise Misconfigured("; ".join(found.broken.values()))
    return found.entities


def parse_map(text: str, name: str) -> EntityMap:
    """One entity map. Raises Misconfigured with everything that is wrong in the file."""
    return _entity(files.parse_map_file(name, text))


def _idle(read: Iterable[MapFile]) -> dict[str, EntityMap]:
    idle: dict[str, EntityMap] = {}
    for file in read:
        if not file.in_use and "adds_to" not in file.data:
            with suppress(Misconfigured):  # what is wrong is told once it is used
                idle[file.resource] = _entity(file)
    return idle


def _break(
    resource: str, problem: str, entities: dict[str, EntityMap], broken: dict[str, str]
) -> None:
    entities.pop(resource, None)
    broken[resource] = f"{broken[resource]}; {problem}" if resource in broken else problem


def _entity(file: MapFile) -> EntityMap:
    _refuse([file.problem] if file.problem else [])
    data, lines = file.data, Lines(file.text, file.name)
    _refuse([*problems(data, lines)])
    row = data["row"]
    entity = EntityMap(
        resource=data["resource"],
        **{field: row[field] for field in ROW},
        kind_column=row.get("kind_column"),
        long_id=LongId(row.get("long_id", LongId.REFUSE)),
        variables=data.get("variables", {}),
        attributes=_attributes(data["attribute"], lines, "attribute"),
        expands=_expands(data, lines),
        enabled=data.get("enabled", True),
        file=file.name,
        unmapped_elements=_rest(data, lines),
        routes=tuple(map(Route, row.get("routes", [Route.DATAVERSE]))),
        name_column=row.get("name_column"),
        create=row.get("create", {}),
    )
    _refuse([*_unwritable(entity)])
    return entity


def _unwritable(entity: EntityMap) -> Iterator[str]:
    for one in entity.attributes:
        if one.virtual_column.writable and (why := explain_unwritable(entity, one)):
            yield f"{one.defined_at}: {one.column}: {why}"


def _added(entity: EntityMap, file: MapFile) -> EntityMap:
    """The map with what another file adds to it."""
    _refuse([file.problem] if file.problem else [])
    data, lines = file.data, Lines(file.text, file.name)
    _refuse([*problems(data, lines, entity.variables)])
    attributes = _attributes(data.get("attribute", []), lines, "attribute")
    rest = _rest(data, lines)
    taken, more = set(entity.columns), {one.element for one in rest}
    _refuse(
        [f"{one.defined_at}: {one.column}: {entity.file} maps the column already"
         for one in attributes if one.column in taken]
    )  # fmt: skip
    return replace(
        entity,
        variables={**entity.variables, **data.get("variables", {})},
        attributes=entity.attributes + attributes,
        expands=entity.expands + _expands(data, lines),
        file=f"{entity.file}, {file.name}",
        # Who adds columns knows what is left.
        unmapped_elements=(
            *(one for one in entity.unmapped_elements if one.element not in more),
            *rest,
        ),
    )


def _no_base(file: MapFile) -> EntityMap:
    raise Misconfigured(f"{file.name}: there is no map of {file.resource} to add to")


def _refuse(found: list[str]) -> None:
    if found:
        raise Misconfigured("; ".join(found))


def _rest(data: TomlTable, lines: Lines) -> tuple[UnmappedElement, ...]:
    rest: dict[str, str] = data.get("rest", {})
    return tuple(UnmappedElement(name, path, lines.of("rest", name)) for name, path in rest.items())


def _expands(data: TomlTable, lines: Lines) -> tuple[ExpandMap, ...]:
    return tuple(
        ExpandMap(
            **{field: item[field] for field in EXPAND},
            match=tuple(item["match"]),
            remove=ChildRemoval(item.get("remove", ChildRemoval.ALL)),
            attributes=_attributes(item["attribute"], lines, "expand", number),
            defined_at=lines.of("expand", number),
        )
        for number, item in enumerate(data.get("expand", []), 1)
    )


def _attributes(items: list[TomlTable], lines: Lines, *block: object) -> tuple[AttributeMap, ...]:
    return tuple(
        AttributeMap(
            column=item["column"],
            kind=Kind(item.get("kind", Kind.COPY)),
            path=item.get("path"),
            choices={code: tuple(listed(value)) for code, value in item.get("choices", {}).items()},
            default=item.get("default"),
            too_long=LongText(item.get("too_long", LongText.CUT)),
            partial=PartialDate(item.get("partial", PartialDate.OMIT)),
            concept=item.get("concept"),
            route=Route(item["route"]) if "route" in item else None,
            virtual_column=_shown(item),
            defined_at=lines.of(*block, number),
        )
        for number, item in enumerate(items, 1)
    )


def _shown(item: TomlTable) -> VirtualColumn:
    kind, type_ = Kind(item.get("kind", Kind.COPY)), item.get("type", "string")
    search = None
    if "search" in item:
        searched = SearchType(item.get("search_type", SEARCHED[kind]))
        search = Search(item["search"], searched, item.get("exact", False), item.get("sort", False))
    longest = item.get("max_length", LONGEST if type_ == "memo" else 100)
    label, target = item.get("label", ""), item.get("target")
    write = item.get("write", False)
    return VirtualColumn(type_, longest, label, target, search, bool(write), write == CREATE)
