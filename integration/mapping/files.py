"""Reads the files of maps, and tells which are in use without looking at what they map.

So a worker whose mirror has nothing to do yet knows what is mirrored: compiling the paths of a map
takes a hundred times as long as reading it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from integration.core.errors import Misconfigured

MAPS_FOLDER = Path(__file__).parent / "maps"

# The maps of the resources around a patient, which every set has.
CLINICAL_SET = "clinical"

TomlTable = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapFile:
    """The file of a map, or of additions to one. `problem`: why nothing can be read from it.
    `origin`: the shipped set that has it, or "version" and a number where it was published; None:
    the organisation's own folder has it."""

    name: str
    text: str
    origin: str | None = None
    data: TomlTable = field(default_factory=dict)
    problem: str | None = None
    in_use: bool = True

    @property
    def resource(self) -> str:
        """The resource type that it maps. Of a file that is no TOML: by its text, else its name."""
        match = re.search(r'^\s*(?:resource|adds_to)\s*=\s*["\'](\w+)["\']', self.text, re.M)
        return match[1] if match else _get_stem(self.name).title().replace("_", "")

    @property
    def adds_to_map(self) -> bool:
        """Whether it adds to the map in another file."""
        return "adds_to" in self.data


@dataclass(frozen=True, slots=True)
class MapText:
    """The text of a file, and its `origin`: see MapFile."""

    text: str
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class MappedTable:
    """The table of a resource type, and its possible routes, the default first."""

    resource: str
    table: str
    entity_set: str
    routes: tuple[str, ...]


def read_map_files(
    set_: str,
    prefix: str | None = None,
    own_folder: Path | None = None,
    enabled: Collection[str] = (),
) -> list[MapFile]:
    """Read every file of a set of maps, and of an organisation's own folder: see `read_map_texts`
    and `parse_map_files`."""
    return parse_map_files(read_map_texts(set_, own_folder), prefix, enabled)


def read_map_texts(set_: str, own_folder: Path | None = None) -> dict[str, MapText]:
    """Read the text of every file of a set of maps, and of an organisation's own folder, by name. A
    file in `own_folder` replaces the one of the same name. Raises Misconfigured for a wrong
    setting."""
    paths = _find_paths(set_, own_folder)
    return {
        name: MapText(path.read_text("utf-8"), _find_origin(path, own_folder))
        for name, path in paths.items()
    }


def parse_map_files(
    texts: Mapping[str, MapText], prefix: str | None = None, enabled: Collection[str] = ()
) -> list[MapFile]:
    """Parse the files with these texts, by name. `prefix` is the publisher's, for {prefix}.
    `enabled` names files that are not in use otherwise. Raises Misconfigured for a wrong
    setting."""
    named = {_get_stem(name) for name in enabled}
    names = sorted({_get_stem(name) for name in texts})
    if unknown := sorted(named - {*names}):
        raise Misconfigured(
            f"there is no map {', '.join(unknown)} to enable; there are {', '.join(names)}"
        )
    return [
        replace(parse_map_file(name, fill_prefix(given.text, prefix), named), origin=given.origin)
        for name, given in texts.items()
    ]


def fill_prefix(text: str, prefix: str | None) -> str:
    """Return the text of a file with the publisher's prefix; None: there is none to fill in."""
    return text.replace("{prefix}", prefix) if prefix else text


def _find_origin(path: Path, own_folder: Path | None) -> str | None:
    return None if path.parent == own_folder else path.parent.name


def list_tables(map_files: Iterable[MapFile]) -> dict[str, MappedTable]:
    """Return the tables of the maps in use by resource type; of a broken map, what can be read."""
    tables: dict[str, MappedTable] = {}
    for file in map_files:
        row = file.data.get("row")
        if file.in_use and not file.adds_to_map:
            row = row if isinstance(row, dict) else {}
            given = row.get("routes")
            routes = tuple(map(str, given)) if isinstance(given, list) and given else ("dataverse",)
            table, entity_set = str(row.get("table", "")), str(row.get("entity_set", ""))
            tables[file.resource] = MappedTable(file.resource, table, entity_set, routes)
    return tables


def list_map_names(set_: str, own_folder: Path | None = None) -> list[str]:
    """Return the names by which the files of a set and of an organisation can be enabled."""
    return [_get_stem(name) for name in _find_paths(set_, own_folder)]


def parse_map_file(name: str, text: str, enabled: Collection[str] = ()) -> MapFile:
    """Parse the text of a file. One that is no TOML counts as in use, so that somebody sees it."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return MapFile(name=name, text=text, problem=f"{name}: not valid TOML: {error}")
    in_use = bool(data.get("enabled", True)) or _get_stem(name) in enabled
    lines = enumerate(text.splitlines(), 1)
    unset = [n for n, line in lines if "{prefix}" in line and not line.lstrip().startswith("#")]
    problem = f"{name}:{unset[0]}: {{prefix}} is not set: set MAP_PREFIX" if unset else None
    return MapFile(name=name, text=text, data=data, problem=problem, in_use=in_use)


def _get_stem(name: str) -> str:
    return name.removesuffix(".toml")


def _find_paths(set_: str, own_folder: Path | None) -> dict[str, Path]:
    """Return the paths of files by their names."""
    paths = {path.name: path for path in sorted((MAPS_FOLDER / set_).glob("*.toml"))}
    if not paths:
        raise Misconfigured(f"there is no set of maps called {set_}")
    paths |= {path.name: path for path in sorted((MAPS_FOLDER / CLINICAL_SET).glob("*.toml"))}
    if own_folder is not None:
        if not own_folder.is_dir():
            raise Misconfigured(f"{own_folder}: the folder of your own maps does not exist")
        paths |= {path.name: path for path in sorted(own_folder.glob("*.toml"))}
    return paths
