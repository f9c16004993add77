"""Maps from TOML files: those of a set, with an organisation's own in their place."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from integration.errors import Misconfigured
from integration.mapping.check import EXPAND, ROW, Lines, listed, problems
from integration.mapping.model import (
    AttributeMap,
    EntityMap,
    ExpandMap,
    Kind,
    LongId,
    Partial,
    Remove,
    TooLong,
)

FOLDER = Path(__file__).parent / "maps"

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Maps:
    """By resource type; a type whose map is broken has its reason instead."""

    entities: Mapping[str, EntityMap]
    broken: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a map, or of additions to one."""

    name: str
    text: str

    @property
    def stem(self) -> str:
        return self.name.removesuffix(".toml")

    @property
    def resource(self) -> str:
        """What it maps, even where it is no TOML: by its text, else by its name."""
        said = re.search(r'^\s*(?:resource|adds_to)\s*=\s*["\'](\w+)["\']', self.text, re.M)
        return said[1] if said else self.stem.title().replace("_", "")


def maps(
    set_: str,
    prefix: str | None = None,
    own_folder: Path | None = None,
    enabled: Collection[str] = (),
) -> Maps:
    """The maps in use. `prefix` is the publisher's, for {prefix}; files in `own_folder` replace
    those of the same name; `enabled` names files that are used only where they are named.

    A map that is wrong stops its own table and no other. Raises Misconfigured for a setting.
    """
    files = _files(set_, own_folder)
    named = {name.removesuffix(".toml") for name in enabled}
    strangers = sorted(named - {name.removesuffix(".toml") for name in files})
    if strangers:
        raise Misconfigured(f"there is no map {', '.join(strangers)} to enable")
    entities: dict[str, EntityMap] = {}
    broken: dict[str, str] = {}
    additions: list[tuple[_File, Data]] = []
    for name, path in files.items():
        file = _read(path, name, prefix)
        try:
            data = _decoded(file)
            if not data.get("enabled", True) and file.stem not in named:
                continue
            if "adds_to" in data:
                additions.append((file, data))
                continue
            entity = _entity(file, data)
            if entity.resource in entities:
                other = entities.pop(entity.resource).file
                raise Misconfigured(f"{other} and {name} both map {entity.resource}")
            entities[entity.resource] = entity
        except Misconfigured as problem:
            _break(file.resource, str(problem), entities, broken)
    for file, data in additions:
        try:
            entity = entities.get(file.resource) or _no_base(file)
            entities[entity.resource] = _added(entity, file, data)
        except Misconfigured as problem:
            _break(file.resource, str(problem), entities, broken)
    for resource in broken:
        entities.pop(resource, None)
    return Maps(entities, broken)


def names(set_: str, prefix: str | None = None, own_folder: Path | None = None) -> list[str]:
    """Every file of the set and of the organisation, by the names that enable them."""
    return [name.removesuffix(".toml") for name in _files(set_, own_folder)]


@cache
def shipped(set_: str = "healthcare", prefix: str | None = None) -> Mapping[str, EntityMap]:
    """The maps that a set has enabled. Raises Misconfigured."""
    found = maps(set_, prefix)
    if found.broken:
        raise Misconfigured("; ".join(found.broken.values()))
    return found.entities


def parse(text: str, name: str) -> EntityMap:
    """One entity map. Raises Misconfigured with everything that is wrong in the file."""
    file = _File(name, text)
    return _entity(file, _decoded(file))


def _files(set_: str, own_folder: Path | None) -> dict[str, Path]:
    files = {path.name: path for path in sorted((FOLDER / set_).glob("*.toml"))}
    if not files:
        raise Misconfigured(f"there is no set of maps called {set_}")
    if own_folder is not None:
        if not own_folder.is_dir():
            raise Misconfigured("the folder of the organisation's own maps is not there")
        files |= {path.name: path for path in sorted(own_folder.glob("*.toml"))}
    return files


def _read(path: Path, name: str, prefix: str | None) -> _File:
    text = path.read_text("utf-8")
    return _File(name, text.replace("{prefix}", prefix) if prefix else text)


def _break(
    resource: str, problem: str, entities: dict[str, EntityMap], broken: dict[str, str]
) -> None:
    entities.pop(resource, None)
    broken[resource] = f"{broken[resource]}; {problem}" if resource in broken else problem


def _decoded(file: _File) -> Data:
    try:
        data = tomllib.loads(file.text)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"{file.name}: {error}") from None
    wants = [n for n, line in enumerate(file.text.splitlines(), 1) if "{prefix}" in line]
    if wants and data.get("enabled", True):
        raise Misconfigured(f"{file.name}:{wants[0]}: {{prefix}} is not set: set MAP_PREFIX")
    return data


def _entity(file: _File, data: Data) -> EntityMap:
    lines = Lines(file.text, file.name)
    _refuse([*problems(data, lines)])
    row = data["row"]
    return EntityMap(
        resource=data["resource"],
        **{field: row[field] for field in ROW},
        kind_column=row.get("kind_column"),
        long_id=LongId(row.get("long_id", LongId.REFUSE)),
        variables=data.get("variables", {}),
        attributes=_attributes(data["attribute"], lines, "attribute"),
        expands=_expands(data, lines),
        enabled=data.get("enabled", True),
        file=file.name,
    )


def _added(entity: EntityMap, file: _File, data: Data) -> EntityMap:
    """The map with what another file adds to it."""
    lines = Lines(file.text, file.name)
    _refuse([*problems(data, lines, entity.variables)])
    attributes = _attributes(data.get("attribute", []), lines, "attribute")
    taken = set(entity.columns)
    _refuse(
        [f"{one.where}: {one.column}: {entity.file} maps the column already"
         for one in attributes if one.column in taken]
    )  # fmt: skip
    return replace(
        entity,
        variables={**entity.variables, **data.get("variables", {})},
        attributes=entity.attributes + attributes,
        expands=entity.expands + _expands(data, lines),
        file=f"{entity.file}, {file.name}",
    )


def _no_base(file: _File) -> EntityMap:
    raise Misconfigured(f"{file.name}: there is no map of {file.resource} to add to")


def _refuse(found: list[str]) -> None:
    if found:
        raise Misconfigured("; ".join(found))


def _expands(data: Data, lines: Lines) -> tuple[ExpandMap, ...]:
    return tuple(
        ExpandMap(
            **{field: item[field] for field in EXPAND},
            match=tuple(item["match"]),
            remove=Remove(item.get("remove", Remove.ALL)),
            attributes=_attributes(item["attribute"], lines, "expand", number),
            where=lines.of("expand", number),
        )
        for number, item in enumerate(data.get("expand", []), 1)
    )


def _attributes(items: list[Data], lines: Lines, *block: object) -> tuple[AttributeMap, ...]:
    return tuple(
        AttributeMap(
            column=item["column"],
            kind=Kind(item.get("kind", Kind.COPY)),
            path=item.get("path"),
            choices={code: tuple(listed(value)) for code, value in item.get("choices", {}).items()},
            default=item.get("default"),
            too_long=TooLong(item.get("too_long", TooLong.CUT)),
            partial=Partial(item.get("partial", Partial.OMIT)),
            concept=item.get("concept"),
            where=lines.of(*block, number),
        )
        for number, item in enumerate(items, 1)
    )
