"""Finds everything that is wrong in the file of a map, each problem with its line. Pure.

A problem reads `file:line: where: what is wrong; what to write instead`: it is for the admin who
edits the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from integration.mapping.fhirpath.compile import compile_path
from integration.mapping.fhirpath.evaluate import ENVIRONMENT_VARIABLES
from integration.mapping.model import (
    COLUMN_TYPES,
    Absent,
    ChildRemoval,
    Conflict,
    Kind,
    LongId,
    LongText,
    PartialDate,
    Route,
    SearchType,
)

ROW_KEYS = ("table", "entity_set", "key", "id_column", "version_column", "updated_column")
EXPAND_KEYS = ("path", "table", "entity_set", "key", "parent")

# Of the virtual table.
_VIRTUAL_ROW_KEYS = {"routes", "name_column", "newest_by", "patient_lookup", "create"}
_VIRTUAL_COLUMN_KEYS = {
    *("route", "type", "max_length", "label", "target", "write"),
    *("search", "search_type", "exact", "sort"),
}

_BLOCK_KEYS = {"enabled", "variables", "make", "attribute", "expand", "rest", "expected"}
_ENTITY_KEYS = {"resource", "row", *_BLOCK_KEYS}
_ADDITION_KEYS = {"adds_to", *_BLOCK_KEYS}
_ATTRIBUTE_KEYS = {
    *("column", "kind", "default", "absent", "writeback", "conflict"),
    *_VIRTUAL_COLUMN_KEYS,
}
# Keys that only some kinds have.
_KEYS_OF_KIND = {
    Kind.COPY: {"path", "too_long"},
    Kind.DATE: {"path", "partial"},
    Kind.DATETIME: {"path", "partial"},
    Kind.CHOICE: {"path", "choices"},
    Kind.DEFAULT: set[str](),
    Kind.LOOKUP: {"path"},
    Kind.CONCEPT: {"path", "concept"},
    Kind.MAP: set[str](),
}

# What virtual tables can hold: https://learn.microsoft.com/power-apps/maker/data-platform/virtual-entity-odata-provider-requirements
MAX_LENGTH = 4000

# `write = "create"`: only when a resource is created. What belongs to one patient must not be moved
# to another.
WRITE_ON_CREATE = "create"

# The type of search parameter that suits a kind, where a map names none.
DEFAULT_SEARCH_TYPES: Mapping[Kind, SearchType] = {
    Kind.COPY: SearchType.STRING,
    Kind.DATE: SearchType.DATE,
    Kind.DATETIME: SearchType.DATE,
    Kind.CHOICE: SearchType.TOKEN,
    Kind.LOOKUP: SearchType.REFERENCE,
}

_ELEMENT = re.compile(r"[a-z][A-Za-z]*(\.[a-z][A-Za-z]*)*")
_HEADER = re.compile(r"\s*\[\[?\s*([\w.]+)\s*\]\]?\s*(?:#.*)?")

Block = Mapping[str, Any]


class BlockLines:
    """Knows at which line each block and key of a TOML file starts; tomllib does not tell."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self._headers: dict[tuple[str, ...], int] = {}
        counts = {"attribute": 0, "expand": 0}
        inner, table = 0, ""
        for number, line in enumerate(text.splitlines(), 1):
            header = _HEADER.fullmatch(line)
            if header is None:
                name = re.match(r"\s*[\"']?([\w.-]+)[\"']?\s*=", line)
                if name:
                    self._headers.setdefault((table, name[1]), number)
                continue
            table = header[1]
            if table == "expand.attribute":
                inner += 1
                self._headers[("expand", str(counts["expand"]), str(inner))] = number
            elif table in counts:
                counts[table] += 1
                inner = 0
                self._headers[(table, str(counts[table]))] = number
            else:
                self._headers[(table,)] = number

    def locate(self, *block: object) -> str:
        """Return `file:line` of a block by its name and number ("expand", 1), or of a key by its
        table and name ("rest", "photo"; "" for no table). Only the file where it is not found."""
        place = tuple(map(str, block))
        number = self._headers.get(place) or self._headers.get(place[1:])
        return f"{self.file}:{number}" if number else self.file


def check_map_file(data: Block, lines: BlockLines, given: Iterable[str] = ()) -> Iterator[str]:
    """Yield what is wrong in a map, or in a file that adds to one. `given` names the variables of
    the map that the file adds to."""
    adds = "adds_to" in data
    kind = "adds_to" if adds else "resource"
    if not isinstance(data.get(kind), str):
        yield f"{lines.locate('', kind)}: {kind} is missing; name a resource type in quotes"
    allowed = _ADDITION_KEYS if adds else _ENTITY_KEYS
    for key in sorted(data.keys() - allowed):
        yield f"{lines.locate('', key)}: {key} is no key of a map; the keys are {_join(allowed)}"
    if type(data.get("enabled", True)) is not bool:
        yield f"{lines.locate('', 'enabled')}: enabled must be true or false"
    row: Block = {}
    if not adds:
        yield from _check_row(data.get("row"), lines.locate("row"))
        row = data["row"] if isinstance(data.get("row"), dict) else {}
    variables = list(given)
    yield from _check_variables(data.get("variables", {}), lines, variables)
    yield from _check_made(data.get("make", {}), lines, variables)
    for name in ("rest", "expected"):
        yield from _check_noted(name, data.get(name, {}), lines, variables)
    items, expands = data.get("attribute", []), data.get("expand", [])
    if not _is_block_list(items) or not _is_block_list(expands):
        yield f"{lines.file}: write attributes as [[attribute]] and children as [[expand]]"
        return
    if not items and not (adds and (expands or data.get("rest") or data.get("expected"))):
        yield f"{lines.file}: the map has no [[attribute]]; add at least one"
    constants = {item.get("column") for item in items if item.get("kind") == Kind.DEFAULT}
    if "kind_column" in row and row["kind_column"] not in constants:
        yield f"{lines.locate('row')}: row.kind_column must name a column of kind default"
    columns = {item.get("column") for item in items}
    yield from _check_virtual_row(row, columns, lines.locate("row"))
    yield from _check_patient_lookup(row, items, lines.locate("row"))
    reserved = {row.get(name) for name in ROW_KEYS[2:]}
    yield from _check_attributes(items, lambda n: lines.locate("attribute", n), variables, reserved)
    for number, expand in enumerate(expands, 1):
        yield from _check_expand(expand, number, lines, variables)


def as_list(given: Any) -> list[Any]:
    """Return a value that may stand alone or in a list as a list."""
    return given if isinstance(given, list) else [given]


def _join(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def _is_block_list(items: object) -> bool:
    return isinstance(items, list) and all(isinstance(item, dict) for item in items)


def _check_text(block: Block, key: str, label: str, where: str) -> Iterator[str]:
    if key not in block:
        yield f"{where}: {label} is missing"
    elif not isinstance(block[key], str):
        yield f"{where}: {label} must be text in quotes"


def _check_word(block: Block, key: str, words: type[StrEnum], where: str) -> Iterator[str]:
    if key in block and block[key] not in list(words):
        yield f"{where}: {key} must be one of {', '.join(words)}"


# -- [row], [variables], [rest], [expected] ------------------------------------------------------


def _check_row(row: object, where: str) -> Iterator[str]:
    row = row if isinstance(row, dict) else {}
    for key in ROW_KEYS:
        yield from _check_text(row, key, f"row.{key}", where)
    yield from _check_word(row, "long_id", LongId, where)
    allowed = {*ROW_KEYS, "kind_column", "long_id", *_VIRTUAL_ROW_KEYS}
    for key in sorted(row.keys() - allowed):
        yield f"{where}: row.{key} is no key of [row]; the keys are {_join(allowed)}"


def _check_virtual_row(row: Block, columns: set[Any], where: str) -> Iterator[str]:
    routes = row.get("routes", [Route.DATAVERSE])
    if not isinstance(routes, list) or not routes or not set(map(str, routes)) <= {*Route}:
        yield f"{where}: row.routes must be a list of {', '.join(Route)}, or of one of them"
        return
    if Route.VIRTUAL in routes and row.get("name_column") not in columns:
        yield f"{where}: row.name_column must name a column that an [[attribute]] maps"
    if not isinstance(row.get("newest_by", ""), str):
        yield f"{where}: row.newest_by must name a search parameter in quotes"
    if not isinstance(row.get("create", {}), dict):
        yield f'{where}: row.create must be a table of elements, {{ status = "final" }}'


def _check_patient_lookup(row: Block, items: Sequence[Block], where: str) -> Iterator[str]:
    name = row.get("patient_lookup")
    is_known = any(
        item.get("column") == name and item.get("target") == "Patient" and "search" in item
        for item in items
    )
    if name is not None and not is_known:
        yield f"{where}: row.patient_lookup must name a lookup of a Patient that has a search"


def _check_variables(variables: object, lines: BlockLines, declared: list[str]) -> Iterator[str]:
    """Adds each to `declared`, so that a variable may use those above it."""
    if not isinstance(variables, dict):
        yield f"{lines.file}: variables must be a table, [variables]"
        return
    for name, path in variables.items():
        where = f"{lines.locate('variables', name)}: variables.{name}"
        if name in declared or name in ENVIRONMENT_VARIABLES:
            yield f"{where}: there is a variable %{name} already; choose another name"
        yield from _check_path(path, where, declared)
        declared.append(name)


def _check_made(paths: object, lines: BlockLines, variables: Sequence[str]) -> Iterator[str]:
    if not isinstance(paths, dict):
        yield f"{lines.file}: make must be a table, [make]"
        return
    for name, path in paths.items():
        where = f"{lines.locate('make', name)}: make.{name}"
        if name not in variables:
            yield f"{where}: there is no variable %{name}; name one that [variables] defines"
        yield from _check_path(path, where, ())


def _check_noted(
    table: str, elements: object, lines: BlockLines, variables: Sequence[str]
) -> Iterator[str]:
    if not isinstance(elements, dict):
        yield f"{lines.file}: {table} must be a table, [{table}]"
        return
    for element, path in elements.items():
        where = f"{lines.locate(table, element)}: {table}.{element}"
        if isinstance(path, dict):
            yield f'{where}: put a name with dots in quotes: "{element}.{next(iter(path), "")}"'
            continue
        if not _ELEMENT.fullmatch(element):
            yield f"{where}: this is not the name of an element"
        yield from _check_path(path, where, variables)


def _check_path(path: object, where: str, declared: Sequence[str]) -> Iterator[str]:
    if not isinstance(path, str):
        yield f"{where}: path is missing; write a FHIRPath in quotes"
        return
    try:
        used = compile_path(path).variables
    except ValueError as error:
        yield f"{where}: {error}"
        return
    for name in sorted(used - {*declared, *ENVIRONMENT_VARIABLES}):
        yield f"{where}: the variable %{name} is not defined above; define it in [variables]"


# -- [[expand]], [[attribute]] -------------------------------------------------------------------


def _check_expand(
    expand: Block, number: int, lines: BlockLines, variables: Sequence[str]
) -> Iterator[str]:
    where = f"{lines.locate('expand', number)}: {expand.get('table', 'expand')}"
    for key in EXPAND_KEYS:
        yield from _check_text(expand, key, key, where)
    if isinstance(expand.get("path"), str):
        yield from _check_path(expand["path"], where, variables)
    allowed = {*EXPAND_KEYS, "match", "remove", "attribute"}
    for key in sorted(expand.keys() - allowed):
        yield f"{where}: {key} is no key of [[expand]]; the keys are {_join(allowed)}"
    yield from _check_word(expand, "remove", ChildRemoval, where)
    items = expand.get("attribute")
    if not items or not _is_block_list(items):
        yield f"{where}: it has no [[expand.attribute]]; add at least one below it"
        return
    if any(item.get("kind") == Kind.MAP for item in items):
        yield f"{where}: kind map is for the row itself, which its children belong to"
    match = expand.get("match")
    columns = {item.get("column") for item in items if isinstance(item.get("column"), str)}
    if not isinstance(match, list) or not match or not all(isinstance(item, str) for item in match):
        yield f"{where}: match must list the columns that tell one row from another"
    else:
        unmapped = (column for column in match if column not in columns)
        yield from (f"{where}: match names {name}, which no attribute maps" for name in unmapped)
    reserved = {expand.get("key"), expand.get("parent")}
    yield from _check_attributes(
        items, lambda n: lines.locate("expand", number, n), variables, reserved
    )


def _check_attributes(
    items: Sequence[Block],
    locate: Callable[[int], str],
    variables: Sequence[str],
    reserved: set[Any],
) -> Iterator[str]:
    """`reserved` has the columns that the mirror itself fills."""
    seen: set[str] = set()
    for number, item in enumerate(items, 1):
        column = item.get("column")
        where = f"{locate(number)}: {column if isinstance(column, str) else 'attribute'}"
        if not isinstance(column, str):
            yield f"{where}: column is missing; write its logical name in quotes"
        elif column in seen:
            yield f"{where}: the column is mapped already; remove one of the attributes"
        elif column in reserved:
            yield f"{where}: the mirror fills this column itself; remove the attribute"
        seen.add(str(column))
        yield from _check_attribute(item, where, variables)


def _check_attribute(item: Block, where: str, variables: Sequence[str]) -> Iterator[str]:
    if item.get("kind", Kind.COPY) not in list(Kind):
        yield f"{where}: kind must be one of {', '.join(Kind)}"
        return
    kind = Kind(item.get("kind", Kind.COPY))
    allowed = _ATTRIBUTE_KEYS | _KEYS_OF_KIND[kind]
    of_any_kind = set().union(*_KEYS_OF_KIND.values())
    for key in sorted(item.keys() - allowed):
        if key in of_any_kind:
            yield f"{where}: {key} is not for kind {kind}; remove it, or change the kind"
        else:
            yield f"{where}: {key} is no key of an attribute; the keys are {_join(allowed)}"
    yield from _check_word(item, "too_long", LongText, where)
    yield from _check_word(item, "partial", PartialDate, where)
    yield from _check_word(item, "absent", Absent, where)
    if "absent" in item and "default" in item:
        yield f"{where}: absent is not for a column with a default; remove one of them"
    yield from _check_written_back(item, kind, where)
    yield from _check_virtual_column(item, kind, where)
    if kind is Kind.DEFAULT:
        if "default" not in item:
            yield f"{where}: default is missing; write the value that every row gets"
    elif kind is not Kind.MAP:
        yield from _check_path(item.get("path"), where, variables)
    if isinstance(item.get("default"), dict | list):
        yield f"{where}: default must be one value, not a list or a table"
    if kind in (Kind.LOOKUP, Kind.CONCEPT, Kind.MAP) and "default" in item:
        yield f"{where}: default is not for kind {kind}; remove it"
    yield from _check_options(item, kind, where)


def _check_written_back(item: Block, kind: Kind, where: str) -> Iterator[str]:
    yield from _check_word(item, "conflict", Conflict, where)
    if type(item.get("writeback", False)) is not bool:
        yield f"{where}: writeback must be true or false"
    elif "conflict" in item and not item.get("writeback"):
        yield f"{where}: conflict is for a column that is written back; add writeback = true"
    if item.get("writeback") and item.get("absent") == Absent.KEEP:
        # What the row has may be what FHIR had once: nobody can tell it from an edit.
        yield f"{where}: writeback is not for a column that is kept; remove one of them"
    if item.get("writeback") and kind in (Kind.DEFAULT, Kind.CONCEPT, Kind.LOOKUP, Kind.MAP):
        yield f"{where}: writeback is not for kind {kind}; remove it"


def _check_options(item: Block, kind: Kind, where: str) -> Iterator[str]:
    if kind is Kind.CHOICE and not item.get("choices"):
        yield f"{where}: choices are missing; write choices = {{ male = 1, female = 2 }}"
    elif not _is_choice_table(item.get("choices", {})):
        yield f"{where}: choices must give each code a whole number, or a list of them"
    if kind is Kind.CONCEPT and type(item.get("concept")) is not int:
        yield f"{where}: concept must be a whole number, the msemr_type of the concepts"


def _check_virtual_column(item: Block, kind: Kind, where: str) -> Iterator[str]:
    yield from _check_word(item, "route", Route, where)
    if item.get("type", "string") not in COLUMN_TYPES:
        yield f"{where}: type must be one of {', '.join(COLUMN_TYPES)}"
    if "type" in item and kind is not Kind.COPY:
        yield f"{where}: type is not for kind {kind}; remove it"
    if "target" in item and kind is not Kind.LOOKUP:
        yield f"{where}: target is not for kind {kind}; remove it"
    max_length = item.get("max_length", 1)
    if type(max_length) is not int or not 0 < max_length <= MAX_LENGTH:
        yield f"{where}: max_length must be a whole number from 1 to {MAX_LENGTH}"
    for key in ("label", "search", "target"):
        if not isinstance(item.get(key, ""), str):
            yield f"{where}: {key} must be text in quotes"
    if item.get("write", False) not in (True, False, WRITE_ON_CREATE):
        yield f'{where}: write must be true, false or "{WRITE_ON_CREATE}"'
    if item.get("write") and kind in (Kind.DEFAULT, Kind.CONCEPT):
        yield f"{where}: write is not for kind {kind}; remove it"
    yield from _check_search(item, kind, where)


def _check_search(item: Block, kind: Kind, where: str) -> Iterator[str]:
    for key in ("exact", "sort"):
        if type(item.get(key, False)) is not bool:
            yield f"{where}: {key} must be true or false"
    if "search" not in item and item.keys() & {"search_type", "exact", "sort"}:
        yield f"{where}: search is missing; name the search parameter"
    if item.get("sort") is True and kind not in (Kind.DATE, Kind.DATETIME):
        # Servers order texts and codes by rules of their own.
        yield f"{where}: sort is for kind date and datetime alone; remove it"
    if item.get("sort") is True and item.get("partial") == PartialDate.LAST:
        yield f'{where}: sort is not for partial = "last": FHIR sorts by the first day; remove one'
    if "search" in item and kind not in DEFAULT_SEARCH_TYPES:
        yield f"{where}: search is not for kind {kind}; remove it"
    yield from _check_word(item, "search_type", SearchType, where)
    if item.get("search_type") == SearchType.TEXT:
        if kind is not Kind.COPY or item.get("type", "string") not in ("string", "memo"):
            yield f"{where}: search_type text is for a copied text alone; remove it"
        if item.get("exact") is True:
            yield f"{where}: exact is not for search_type text, which finds more; remove it"


def _is_choice_table(choices: object) -> bool:
    if not isinstance(choices, dict):
        return False
    options = [option for given in choices.values() for option in as_list(given)]
    return all(type(option) is int for option in options)
