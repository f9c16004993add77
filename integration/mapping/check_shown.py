"""What is wrong in what a map says of its virtual table. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from integration.mapping.model import Kind, Route, SearchType

ROW = {"routes", "name_column", "create"}
ATTRIBUTE = {"route", "type", "max_length", "label", "search", "search_type", "exact", "sort"}
ATTRIBUTE |= {"write", "target"}

# What virtual tables can hold: https://learn.microsoft.com/power-apps/maker/data-platform/virtual-entity-odata-provider-requirements
TYPES = ("string", "memo", "integer", "decimal", "boolean")
LONGEST = 4000

# Of `write`: only when a resource is created. What belongs to one patient is never another's.
CREATE = "create"

# How the values of a kind are searched for, where a map does not say.
SEARCHED: Mapping[Kind, SearchType] = {
    Kind.COPY: SearchType.STRING,
    Kind.DATE: SearchType.DATE,
    Kind.DATETIME: SearchType.DATE,
    Kind.CHOICE: SearchType.TOKEN,
    Kind.LOOKUP: SearchType.REFERENCE,
}

Block = Mapping[str, Any]


def row_problems(row: Block, columns: set[Any], where: str) -> Iterator[str]:
    routes = row.get("routes", [Route.DATAVERSE])
    if not isinstance(routes, list) or not routes or not set(map(str, routes)) <= {*Route}:
        yield f"{where}: row.routes must list {', '.join(Route)}, or one of them"
        return
    if Route.VIRTUAL in routes and row.get("name_column") not in columns:
        yield f"{where}: row.name_column must name a column"
    if not isinstance(row.get("create", {}), dict):
        yield f'{where}: row.create must be elements of a resource, {{ status = "final" }}'


def attribute_problems(item: Block, kind: Kind, where: str) -> Iterator[str]:
    if "route" in item and item["route"] not in list(Route):
        yield f"{where}: route must be one of {', '.join(Route)}"
    if item.get("type", "string") not in TYPES:
        yield f"{where}: type must be one of {', '.join(TYPES)}"
    if "type" in item and kind is not Kind.COPY:
        yield f"{where}: type is not for {kind}"
    if "target" in item and kind is not Kind.LOOKUP:
        yield f"{where}: target is not for {kind}"
    longest = item.get("max_length", 1)
    if type(longest) is not int or not 0 < longest <= LONGEST:
        yield f"{where}: max_length must be a whole number up to {LONGEST}"
    for key in ("label", "search", "target"):
        if not isinstance(item.get(key, ""), str):
            yield f"{where}: {key} must be text"
    if item.get("write", False) not in (True, False, CREATE):
        yield f'{where}: write must be true, false or "{CREATE}"'
    for key in ("exact", "sort"):
        if type(item.get(key, False)) is not bool:
            yield f"{where}: {key} must be true or false"
    if "search" not in item and item.keys() & {"search_type", "exact", "sort"}:
        yield f"{where}: search is missing"
    if "search" in item and kind not in SEARCHED:
        yield f"{where}: search is not for {kind}"
    if item.get("search_type", SearchType.STRING) not in list(SearchType):
        yield f"{where}: search_type must be one of {', '.join(SearchType)}"
    if item.get("write") and kind in (Kind.DEFAULT, Kind.CONCEPT):
        yield f"{where}: write is not for {kind}"
