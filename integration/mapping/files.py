"""The files of maps, and which of them are in use, without a look at what they map.

So a worker whose mirror has nothing to do yet knows what is mirrored: to understand the paths of a
map takes a hundred times as long as to read it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from integration.core.errors import Misconfigured

MAPS_FOLDER = Path(__file__).parent / "maps"

# What every set has, for the resources around a patient.
CLINICAL_SET = "clinical"

TomlTable = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MapFile:
    """A file of a map, or of additions to one; `problem` where nothing can be read from it."""

    name: str
    text: str
    data: TomlTable = field(default_factory=dict)
    problem: str | None = None
    in_use: bool = True

    @property
    def resource(self) -> str:
        """What it maps, even where it is no TOML: by its text, else by its name."""
        said = re.search(r'^\s*(?:resource|adds_to)\s*=\s*["\'](\w+)["\']', self.text, re.M)
        return said[1] if said else _stem(self.name).title().replace("_", "")


@dataclass(frozen=True, slots=True)
class MappedTable:
    """What a resource type may become in Dataverse; the first of the routes is the default."""

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
    """Every file of the set and of the organisation. `prefix` is the publisher's, for {prefix};
    files in `own_folder` replace those of the same name; `enabled` names files that are used only
    where they are named. Raises Misconfigured for a setting."""
    paths = _paths(set_, own_folder)
    named = {_stem(name) for name in enabled}
    strangers = sorted(named - {_stem(name) for name in paths})
    if strangers:
        raise Misconfigured(f"there is no map {', '.join(strangers)} to enable")
    texts = {name: path.read_text("utf-8") for name, path in paths.items()}
    return [
        parse_map_file(name, text.replace("{prefix}", prefix) if prefix else text, named)
        for name, text in texts.items()
    ]


def list_tables(files: Iterable[MapFile]) -> dict[str, MappedTable]:
    """By resource type, of the maps in use; of a broken one, what can be read."""
    found: dict[str, MappedTable] = {}
    for file in files:
        row = file.data.get("row")
        if file.in_use and "adds_to" not in file.data:
            row = row if isinstance(row, dict) else {}
            said = row.get("routes")
            routes = tuple(map(str, said)) if isinstance(said, list) and said else ("dataverse",)
            table, entity_set = str(row.get("table", "")), str(row.get("entity_set", ""))
            found[file.resource] = MappedTable(file.resource, table, entity_set, routes)
    return found


def list_map_names(set_: str, own_folder: Path | None = None) -> list[str]:
    """Every file of the set and of the organisation, by the names that enable them."""
    return [_stem(name) for name in _paths(set_, own_folder)]


def parse_map_file(name: str, text: str, enabled: Collection[str] = ()) -> MapFile:
    """A file by its text. One that cannot be read may be in use."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return MapFile(name, text, problem=f"{name}: {error}")
    in_use = bool(data.get("enabled", True)) or _stem(name) in enabled
    lines = enumerate(text.splitlines(), 1)
    wants = [n for n, line in lines if "{prefix}" in line and not line.lstrip().startswith("#")]
    problem = f"{name}:{wants[0]}: {{prefix}} is not set: set MAP_PREFIX" if wants else None
    return MapFile(name, text, data, problem, in_use)


def _stem(name: str) -> str:
    return name.removesuffix(".toml")


def _paths(set_: str, own_folder: Path | None) -> dict[str, Path]:
    paths = {path.name: path for path in sorted((MAPS_FOLDER / set_).glob("*.toml"))}
    if not paths:
        raise Misconfigured(f"there is no set of maps called {set_}")
    paths |= {path.name: path for path in sorted((MAPS_FOLDER / CLINICAL_SET).glob("*.toml"))}
    if own_folder is not None:
        if not own_folder.is_dir():
            raise Misconfigured("the folder of the organisation's own maps is not there")
        paths |= {path.name: path for path in sorted(own_folder.glob("*.toml"))}
    return paths
