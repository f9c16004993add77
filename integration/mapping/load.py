"""Entity maps from TOML files: read once, checked whole, all problems reported together."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from integration.errors import Misconfigured
from integration.mapping.fhir_path import compiled
from integration.mapping.model import AttributeMap, EntityMap, Kind, TooLong
from integration.model import Column

FOLDER = Path(__file__).parent / "maps"

_ROW = ("table", "entity_set", "key", "id_column", "version_column", "updated_column")
_ATTRIBUTE = {"column", "kind", "path", "choices", "default", "too_long"}


@cache
def shipped() -> Mapping[str, EntityMap]:
    """The maps of this folder by resource type. Raises Misconfigured."""
    maps = (parse(path.read_text("utf-8"), path.name) for path in sorted(FOLDER.glob("*.toml")))
    return {entity.resource: entity for entity in maps}


def parse(text: str, name: str) -> EntityMap:
    """One entity map. Raises Misconfigured with everything that is wrong in the file."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"{name}: {error}") from None
    problems = list(_problems(data))
    if problems:
        raise Misconfigured(f"{name}: {'; '.join(problems)}")
    return EntityMap(
        resource=data["resource"],
        **{field: data["row"][field] for field in _ROW},
        variables=data.get("variables", {}),
        attributes=tuple(_attribute(item) for item in data["attribute"]),
    )


def misfits(entity: EntityMap, columns: Mapping[str, Column]) -> list[str]:
    """What the tenant's table lacks for this map."""
    return [
        f"{entity.table} has no column {column}"
        for column in entity.columns
        if column not in columns
    ]


def _problems(data: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(data.get("resource"), str):
        yield "resource is missing"
    row = data.get("row", {})
    yield from (f"row.{field} is missing" for field in _ROW if not isinstance(row.get(field), str))
    for name, path in data.get("variables", {}).items():
        yield from _path_problems(path, f"variables.{name}")
    seen: set[str] = set()
    for number, item in enumerate(data.get("attribute", []), 1):
        column = item.get("column")
        where = f"attribute {number} ({column})"
        if not isinstance(column, str):
            yield f"attribute {number}: column is missing"
        elif column in seen:
            yield f"{where}: the column is mapped twice"
        seen.add(str(column))
        if item.get("kind", "copy") not in set(Kind):
            yield f"{where}: kind must be one of {', '.join(Kind)}"
        if item.get("too_long", "cut") not in set(TooLong):
            yield f"{where}: too_long must be one of {', '.join(TooLong)}"
        yield from (f"{where}: {key} is unknown" for key in sorted(item.keys() - _ATTRIBUTE))
        if item.get("kind") == "default":
            if "default" not in item or "path" in item:
                yield f"{where}: a default has a default and no path"
        else:
            yield from _path_problems(item.get("path"), where)
        if item.get("kind") == "choice" and not item.get("choices"):
            yield f"{where}: choices are missing"
    if not data.get("attribute"):
        yield "no [[attribute]] is given"


def _path_problems(path: object, where: str) -> Iterator[str]:
    if not isinstance(path, str):
        yield f"{where}: path is missing"
        return
    try:
        compiled(path)
    except ValueError as error:
        yield f"{where}: {error}"


def _attribute(item: Mapping[str, Any]) -> AttributeMap:
    return AttributeMap(
        column=item["column"],
        kind=Kind(item.get("kind", "copy")),
        path=item.get("path"),
        choices={
            code: tuple(value) if isinstance(value, list) else (value,)
            for code, value in item.get("choices", {}).items()
        },
        default=item.get("default"),
        too_long=TooLong(item.get("too_long", "cut")),
    )
