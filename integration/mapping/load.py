"""Loads maps from TOML files: those of a set, with an organisation's own in their place."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

from integration.core.errors import Misconfigured
from integration.mapping import files
from integration.mapping.check_map_file import (
    DEFAULT_SEARCH_TYPES,
    EXPAND_KEYS,
    MAX_LENGTH,
    ROW_KEYS,
    WRITE_ON_CREATE,
    BlockLines,
    as_list,
    check_map_file,
)
from integration.mapping.files import MapFile, TomlTable
from integration.mapping.model import (
    Absent,
    AttributeMap,
    ChildRemoval,
    Conflict,
    EntityMap,
    ExpandMap,
    Kind,
    LongId,
    LongText,
    NotedElement,
    PartialDate,
    Route,
    Search,
    SearchType,
    VirtualColumnOptions,
)
from integration.mapping.write_back.apply import explain_unwritable
from integration.mapping.write_back.inverse_paths import invert_path

_DEFAULT_MAX_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Maps:
    """Maps by resource type."""

    entities: Mapping[str, EntityMap]  # in use
    broken: Mapping[str, str]  # in use, but wrong: what is wrong, by resource type
    # In use or not: a lookup may point at a row that someone else writes.
    available: Mapping[str, EntityMap]
    # Not in use, and wrong: what is wrong, by the name of the file.
    broken_unused: Mapping[str, str] = field(default_factory=dict)


def load_maps(
    set_: str,
    prefix: str | None = None,
    own_folder: Path | None = None,
    enabled: Collection[str] = (),
) -> Maps:
    """Load the maps of a set; the arguments are those of `files.read_map_files`. Raises
    Misconfigured for a wrong setting; a wrong map is among the `broken` ones."""
    return build_maps(files.read_map_files(set_, prefix, own_folder, enabled))


def build_maps(map_files: Iterable[MapFile]) -> Maps:
    """Build the maps of these files. A map that is wrong stops its own table and no other."""
    map_files = list(map_files)
    in_use = [file for file in map_files if file.in_use]
    entities: dict[str, EntityMap] = {}
    broken: dict[str, str] = {}
    for file in in_use:
        if not file.adds_to_map:
            try:
                entity = _build_entity_map(file)
                if entity.resource in entities:
                    other = entities.pop(entity.resource).file
                    raise Misconfigured(
                        f"{other} and {file.name} both map {entity.resource}: remove one of them"
                    )
                entities[entity.resource] = entity
            except Misconfigured as problem:
                _record_broken(file.resource, str(problem), entities, broken)
    for file in in_use:
        if file.adds_to_map:
            try:
                entities[file.resource] = _extend_entity_map(entities.get(file.resource), file)
            except Misconfigured as problem:
                _record_broken(file.resource, str(problem), entities, broken)
    for resource in broken:
        entities.pop(resource, None)
    unused, broken_unused = _build_unused_maps(map_files)
    return Maps(entities, broken, {**unused, **entities}, broken_unused)


@cache
def load_shipped_maps(
    set_: str = "healthcare", prefix: str | None = None
) -> Mapping[str, EntityMap]:
    """Load the maps that are enabled in a set as it is shipped. Raises Misconfigured."""
    maps = load_maps(set_, prefix)
    if maps.broken:
        raise Misconfigured("; ".join(maps.broken.values()))
    return maps.entities


def compute_type_digest(map_files: Iterable[MapFile], resource: str) -> str:
    """Return what the digest of the map of a type is, without building it."""
    used = [file for file in map_files if file.in_use and file.resource == resource]
    digest = ""
    for file in sorted(used, key=lambda file: file.adds_to_map):
        data = [digest, file.data] if file.adds_to_map else file.data
        digest = _compute_digest(data)
    return digest


def parse_map(text: str, name: str) -> EntityMap:
    """Parse one entity map from the text of its file. Raises Misconfigured with everything that is
    wrong in it."""
    return _build_entity_map(files.parse_map_file(name, text))


def _build_unused_maps(
    map_files: Iterable[MapFile],
) -> tuple[dict[str, EntityMap], dict[str, str]]:
    """Return the maps that are not in use, and what is wrong with others, by their files."""
    unused: dict[str, EntityMap] = {}
    broken: dict[str, str] = {}
    for file in map_files:
        if not file.in_use and not file.adds_to_map:
            try:
                unused[file.resource] = _build_entity_map(file)
            except Misconfigured as problem:
                broken[file.name] = str(problem)
    return unused, broken


def _record_broken(
    resource: str, problem: str, entities: dict[str, EntityMap], broken: dict[str, str]
) -> None:
    entities.pop(resource, None)
    broken[resource] = f"{broken[resource]}; {problem}" if resource in broken else problem


def _raise_problems(problems: list[str]) -> None:
    if problems:
        raise Misconfigured("; ".join(problems))


def _build_entity_map(file: MapFile) -> EntityMap:
    _raise_problems([file.problem] if file.problem else [])
    data, lines = file.data, BlockLines(file.text, file.name)
    _raise_problems([*check_map_file(data, lines)])
    row = data["row"]
    entity = EntityMap(
        resource=data["resource"],
        **{key: row[key] for key in ROW_KEYS},
        kind_column=row.get("kind_column"),
        long_id=LongId(row.get("long_id", LongId.REFUSE)),
        variables=data.get("variables", {}),
        attributes=_build_attribute_maps(data["attribute"], lines, "attribute"),
        expands=_build_expand_maps(data, lines),
        enabled=data.get("enabled", True),
        file=file.name,
        digest=_compute_digest(data),
        unmapped_elements=_build_noted_elements(data, "rest", lines),
        expected_elements=_build_noted_elements(data, "expected", lines),
        routes=tuple(map(Route, row.get("routes", [Route.DATAVERSE]))),
        name_column=row.get("name_column"),
        newest_by=row.get("newest_by"),
        patient_lookup=row.get("patient_lookup"),
        create=row.get("create", {}),
        make=data.get("make", {}),
    )
    made = data.get("make", {})
    _raise_problems(
        [*_find_unwritable(entity, entity.attributes), *_find_unmakeable(entity, made, lines)]
    )
    return entity


def _find_unwritable(entity: EntityMap, attributes: Iterable[AttributeMap]) -> Iterator[str]:
    for attribute in attributes:
        key = "write" if attribute.virtual_column.writable else "writeback"
        is_written = attribute.virtual_column.writable or attribute.writeback
        if is_written and (why := explain_unwritable(entity, attribute)):
            yield f"{attribute.defined_at}: {attribute.column}: {why}; remove {key}"


def _find_unmakeable(
    entity: EntityMap, made: Mapping[str, str], lines: BlockLines
) -> Iterator[str]:
    for name, path in made.items():
        if invert_path(path, entity.resource) is None:
            where = lines.locate("make", name)
            yield (
                f"{where}: make.{name}: this does not say what to make; write a chain of elements, "
                "each with where(x = 'literal' and ...) at most"
            )


def _extend_entity_map(entity: EntityMap | None, file: MapFile) -> EntityMap:
    """Return the map with what another file adds to it."""
    if entity is None:
        raise Misconfigured(
            f"{file.name}: there is no map of {file.resource} that it could add to: enable one, or "
            "disable this file"
        )
    _raise_problems([file.problem] if file.problem else [])
    data, lines = file.data, BlockLines(file.text, file.name)
    _raise_problems([*check_map_file(data, lines, entity.variables)])
    attributes = _build_attribute_maps(data.get("attribute", []), lines, "attribute")
    unmapped = _build_noted_elements(data, "rest", lines)
    expected = _build_noted_elements(data, "expected", lines)
    mapped = set(entity.columns)
    _raise_problems(
        [f"{item.defined_at}: {item.column}: {entity.file} maps the column already; remove it here"
         for item in attributes if item.column in mapped]
    )  # fmt: skip
    extended = replace(
        entity,
        variables={**entity.variables, **data.get("variables", {})},
        make={**entity.make, **data.get("make", {})},
        attributes=entity.attributes + attributes,
        expands=entity.expands + _build_expand_maps(data, lines),
        file=f"{entity.file}, {file.name}",
        digest=_compute_digest([entity.digest, data]),
        # With the columns it adds, a file knows best what is left of an element.
        unmapped_elements=_replace_elements(entity.unmapped_elements, unmapped),
        expected_elements=_replace_elements(entity.expected_elements, expected),
    )
    made = data.get("make", {})
    _raise_problems(
        [*_find_unwritable(extended, attributes), *_find_unmakeable(extended, made, lines)]
    )
    return extended


def _compute_digest(data: object) -> str:
    """Return what tells apart maps that say something else, whatever their comments: 48 bits in
    hexadecimal."""
    text = json.dumps(data, default=str)  # TOML has dates
    return sha256(text.encode()).hexdigest()[:12]


def _replace_elements(
    elements: tuple[NotedElement, ...], others: tuple[NotedElement, ...]
) -> tuple[NotedElement, ...]:
    """Return both, each element once: as the others have it."""
    replaced = {item.element for item in others}
    return (*(item for item in elements if item.element not in replaced), *others)


def _build_noted_elements(
    data: TomlTable, table: str, lines: BlockLines
) -> tuple[NotedElement, ...]:
    paths: dict[str, str] = data.get(table, {})
    return tuple(
        NotedElement(element, path, lines.locate(table, element)) for element, path in paths.items()
    )


def _build_expand_maps(data: TomlTable, lines: BlockLines) -> tuple[ExpandMap, ...]:
    return tuple(
        ExpandMap(
            **{key: item[key] for key in EXPAND_KEYS},
            match=tuple(item["match"]),
            remove=ChildRemoval(item.get("remove", ChildRemoval.OURS)),
            attributes=_build_attribute_maps(item["attribute"], lines, "expand", number),
            defined_at=lines.locate("expand", number),
        )
        for number, item in enumerate(data.get("expand", []), 1)
    )


def _build_attribute_maps(
    items: list[TomlTable], lines: BlockLines, *block: object
) -> tuple[AttributeMap, ...]:
    return tuple(
        AttributeMap(
            column=item["column"],
            kind=Kind(item.get("kind", Kind.COPY)),
            path=item.get("path"),
            choices={
                code: tuple(as_list(value)) for code, value in item.get("choices", {}).items()
            },
            default=item.get("default"),
            too_long=LongText(item.get("too_long", LongText.CUT)),
            partial=PartialDate(item.get("partial", PartialDate.OMIT)),
            absent=Absent(item.get("absent", Absent.CLEAR)),
            writeback=item.get("writeback", False),
            conflict=Conflict(item.get("conflict", Conflict.FHIR)),
            concept=item.get("concept"),
            route=Route(item["route"]) if "route" in item else None,
            virtual_column=_build_virtual_column(item),
            defined_at=lines.locate(*block, number),
        )
        for number, item in enumerate(items, 1)
    )


def _build_virtual_column(item: TomlTable) -> VirtualColumnOptions:
    kind, type_ = Kind(item.get("kind", Kind.COPY)), item.get("type", "string")
    search = None
    if "search" in item:
        search = Search(
            item["search"],
            SearchType(item.get("search_type", DEFAULT_SEARCH_TYPES[kind])),
            exact=item.get("exact", False),
            sorts=item.get("sort", False),
        )
    default_max_length = MAX_LENGTH if type_ == "memo" else _DEFAULT_MAX_LENGTH
    write = item.get("write", False)
    return VirtualColumnOptions(
        type=type_,
        max_length=item.get("max_length", default_max_length),
        label=item.get("label", ""),
        target=item.get("target"),
        search=search,
        writable=bool(write),
        create_only=write == WRITE_ON_CREATE,
    )
