"""Entity maps from TOML files: read once, checked whole, all problems reported together."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from integration.errors import Misconfigured
from integration.mapping.fhir_path import compiled
from integration.mapping.model import AttributeMap, EntityMap, Kind, TooLong
from integration.model import Column

FOLDER = Path(__file__).parent / "maps"

_ROW = ("table", "entity_set", "key", "id_column", "version_column", "updated_column")

# What FHIRPath itself gives: https://hl7.org/fhirpath/#environment-variables
_GIVEN = ("context", "resource", "ucum")
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
    row, variables, items = data.get("row"), data.get("variables", {}), data.get("attribute")
    row = row if isinstance(row, dict) else {}
    yield from (f"row.{field} is missing" for field in _ROW if not isinstance(row.get(field), str))
    known: list[str] = []
    if not isinstance(variables, dict):
        yield "variables must be a table, [variables]"
        variables = {}
    for name, path in variables.items():
        yield from _path_problems(path, f"variables.{name}", known)
        known.append(name)
    if not isinstance(items, list) or not items or not all(isinstance(one, dict) for one in items):
        yield "no [[attribute]] is given"
        return
    seen: set[str] = set()
    for number, item in enumerate(items, 1):
        column = item.get("column")
        where = f"attribute {number} ({column})"
        if not isinstance(column, str):
            yield f"attribute {number}: column is missing"
        elif column in seen:
            yield f"{where}: the column is mapped twice"
        elif column in (row.get(field) for field in _ROW[2:]):
            yield f"{where}: the column says which resource the row shows"
        seen.add(str(column))
        if item.get("kind", "copy") not in list(Kind):
            yield f"{where}: kind must be one of {', '.join(Kind)}"
        if item.get("too_long", "cut") not in list(TooLong):
            yield f"{where}: too_long must be one of {', '.join(TooLong)}"
        yield from (f"{where}: {key} is unknown" for key in sorted(item.keys() - _ATTRIBUTE))
        if item.get("kind") == "default":
            if "default" not in item or "path" in item:
                yield f"{where}: a default has a default and no path"
        else:
            yield from _path_problems(item.get("path"), where, known)
        if item.get("kind") == "choice" and not item.get("choices"):
            yield f"{where}: choices are missing"
        elif not _are_choices(item.get("choices", {})):
            yield f"{where}: choices must be options, or lists of options, by code"


def _are_choices(choices: object) -> bool:
    if not isinstance(choices, dict):
        return False
    options = [one for given in choices.values() for one in _listed(given)]
    return all(type(option) is int for option in options)


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _path_problems(path: object, where: str, known: Sequence[str]) -> Iterator[str]:
    if not isinstance(path, str):
        yield f"{where}: path is missing"
        return
    try:
        compiled(path)
        yield from (
            f"{where}: %{name} is no variable above"
            for name in re.findall(r"%([A-Za-z_]\w*)", path)
            if name not in (*known, *_GIVEN)
        )
    except ValueError as error:
        yield f"{where}: {error}"


def _attribute(item: Mapping[str, Any]) -> AttributeMap:
    return AttributeMap(
        column=item["column"],
        kind=Kind(item.get("kind", "copy")),
        path=item.get("path"),
        choices={code: tuple(_listed(value)) for code, value in item.get("choices", {}).items()},
        default=item.get("default"),
        too_long=TooLong(item.get("too_long", "cut")),
    )
