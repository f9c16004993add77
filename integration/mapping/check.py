"""What is wrong in the file of a map, all of it together, each with its line. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from integration.mapping import check_shown
from integration.mapping.fhirpath.compile import compile_path
from integration.mapping.fhirpath.evaluate import GIVEN
from integration.mapping.model import ChildRemoval, Kind, LongId, LongText, PartialDate

ROW = ("table", "entity_set", "key", "id_column", "version_column", "updated_column")
EXPAND = ("path", "table", "entity_set", "key", "parent")

_ELEMENT = re.compile(r"[a-z][A-Za-z]*(\.[a-z][A-Za-z]*)*")
_HEADER = re.compile(r"\s*\[\[?\s*([\w.]+)\s*\]\]?\s*(?:#.*)?")

_BLOCKS = {"enabled", "variables", "attribute", "expand", "rest"}
_ENTITY = {"resource", "row", *_BLOCKS}
_ADDITION = {"adds_to", *_BLOCKS}
# What only one kind has, beside what every attribute may say.
_OF_KIND = {
    Kind.COPY: {"path", "too_long"},
    Kind.DATE: {"path", "partial"},
    Kind.DATETIME: {"path", "partial"},
    Kind.CHOICE: {"path", "choices"},
    Kind.DEFAULT: set[str](),
    Kind.LOOKUP: {"path"},
    Kind.CONCEPT: {"path", "concept"},
}

Block = Mapping[str, Any]


class Lines:
    """Where the blocks of a TOML file start; tomllib does not say."""

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

    def of(self, *block: object) -> str:
        """`file:line` of a block by its name and number, or of a name in a table ('': none)."""
        place = tuple(map(str, block))
        number = self._headers.get(place) or self._headers.get(place[1:])
        return f"{self.file}:{number}" if number else self.file


def problems(data: Block, lines: Lines, given: Iterable[str] = ()) -> Iterator[str]:
    """`given`: the variables that a map has already to which this file adds."""
    adds = "adds_to" in data
    kind = "adds_to" if adds else "resource"
    if not isinstance(data.get(kind), str):
        yield f"{lines.of('', kind)}: {kind} is missing"
    allowed = _ADDITION if adds else _ENTITY
    yield from (f"{lines.of('', key)}: {key} is unknown" for key in sorted(data.keys() - allowed))
    if type(data.get("enabled", True)) is not bool:
        yield f"{lines.of('', 'enabled')}: enabled must be true or false"
    row: Block = {}
    if not adds:
        yield from _row_problems(data.get("row"), lines.of("row"))
        row = data["row"] if isinstance(data.get("row"), dict) else {}
    known = list(given)
    yield from _variable_problems(data.get("variables", {}), lines, known)
    yield from _rest_problems(data.get("rest", {}), lines, known)
    items, expands = data.get("attribute", []), data.get("expand", [])
    if not _are_blocks(items) or not _are_blocks(expands):
        yield f"{lines.file}: attributes are [[attribute]], children [[expand]]"
        return
    if not items and not (adds and (expands or data.get("rest"))):
        yield f"{lines.file}: no [[attribute]] is given"
    constants = {item.get("column") for item in items if item.get("kind") == Kind.DEFAULT}
    if "kind_column" in row and row["kind_column"] not in constants:
        yield f"{lines.of('row')}: row.kind_column must name a column of kind default"
    yield from check_shown.row_problems(row, {one.get("column") for one in items}, lines.of("row"))
    books = {row.get(name) for name in ROW[2:]}
    yield from _attributes_problems(items, lambda n: lines.of("attribute", n), known, books)
    for number, expand in enumerate(expands, 1):
        yield from _expand_problems(expand, number, lines, known)


def listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _are_blocks(items: object) -> bool:
    return isinstance(items, list) and all(isinstance(one, dict) for one in items)


def _row_problems(row: object, where: str) -> Iterator[str]:
    row = row if isinstance(row, dict) else {}
    for field in ROW:
        if not isinstance(row.get(field), str):
            yield f"{where}: row.{field} is missing"
    yield from _word_problems(row, "long_id", LongId, where)
    unknown = sorted(row.keys() - {*ROW, "kind_column", "long_id", *check_shown.ROW})
    yield from (f"{where}: row.{key} is unknown" for key in unknown)


def _variable_problems(variables: object, lines: Lines, known: list[str]) -> Iterator[str]:
    """Adds to `known`, so that a variable may use an earlier one."""
    if not isinstance(variables, dict):
        yield f"{lines.file}: variables must be a table, [variables]"
        return
    for name, path in variables.items():
        where = f"{lines.of('variables', name)}: variables.{name}"
        if name in known or name in GIVEN:
            yield f"{where}: there is a %{name} already"
        yield from path_problems(path, where, known)
        known.append(name)


def _rest_problems(rest: object, lines: Lines, known: Sequence[str]) -> Iterator[str]:
    if not isinstance(rest, dict):
        yield f"{lines.file}: rest must be a table, [rest]"
        return
    for element, path in rest.items():
        where = f"{lines.of('rest', element)}: rest.{element}"
        if isinstance(path, dict):
            yield f'{where}: a name with dots stands in quotes: "{element}.{next(iter(path), "")}"'
            continue
        if not _ELEMENT.fullmatch(element):
            yield f"{where}: not the name of an element"
        yield from path_problems(path, where, known)


def _expand_problems(
    expand: Block, number: int, lines: Lines, known: Sequence[str]
) -> Iterator[str]:
    where = f"{lines.of('expand', number)}: {expand.get('table', 'expand')}"
    yield from (
        f"{where}: {field} is missing" for field in EXPAND if not isinstance(expand.get(field), str)
    )
    if isinstance(expand.get("path"), str):
        yield from path_problems(expand["path"], where, known)
    unknown = sorted(expand.keys() - {*EXPAND, "match", "remove", "attribute"})
    yield from (f"{where}: {key} is unknown" for key in unknown)
    yield from _word_problems(expand, "remove", ChildRemoval, where)
    items = expand.get("attribute")
    if not items or not _are_blocks(items):
        yield f"{where}: no [[expand.attribute]] is given"
        return
    match = expand.get("match")
    columns = {item.get("column") for item in items if isinstance(item.get("column"), str)}
    if not isinstance(match, list) or not match or not all(isinstance(one, str) for one in match):
        yield f"{where}: match must list the columns that tell one row from another"
    else:
        strangers = (column for column in match if column not in columns)
        yield from (f"{where}: match names {one}, which no attribute fills" for one in strangers)
    books = {expand.get("key"), expand.get("parent")}
    yield from _attributes_problems(items, lambda n: lines.of("expand", number, n), known, books)


def _attributes_problems(
    items: Sequence[Block],
    place: Callable[[int], str],
    known: Sequence[str],
    books: set[Any],
) -> Iterator[str]:
    seen: set[str] = set()
    for number, item in enumerate(items, 1):
        column = item.get("column")
        where = f"{place(number)}: {column if isinstance(column, str) else 'attribute'}"
        if not isinstance(column, str):
            yield f"{where}: column is missing"
        elif column in seen:
            yield f"{where}: the column is mapped twice"
        elif column in books:
            yield f"{where}: the column says which resource the row shows"
        seen.add(str(column))
        yield from _attribute_problems(item, where, known)


def _attribute_problems(item: Block, where: str, known: Sequence[str]) -> Iterator[str]:
    if item.get("kind", Kind.COPY) not in list(Kind):
        yield f"{where}: kind must be one of {', '.join(Kind)}"
        return
    kind = Kind(item.get("kind", Kind.COPY))
    allowed = {"column", "kind", "default"} | _OF_KIND[kind] | check_shown.ATTRIBUTE
    everywhere = set().union(*_OF_KIND.values())
    for key in sorted(item.keys() - allowed):
        yield f"{where}: {key} is {'not for ' + kind if key in everywhere else 'unknown'}"
    yield from _word_problems(item, "too_long", LongText, where)
    yield from _word_problems(item, "partial", PartialDate, where)
    yield from check_shown.attribute_problems(item, kind, where)
    if kind is Kind.DEFAULT:
        if "default" not in item:
            yield f"{where}: default is missing"
    else:
        yield from path_problems(item.get("path"), where, known)
    if isinstance(item.get("default"), dict | list):
        yield f"{where}: default must be one value"
    if kind in (Kind.LOOKUP, Kind.CONCEPT) and "default" in item:
        yield f"{where}: default is not for {kind}"
    if kind is Kind.CHOICE and not item.get("choices"):
        yield f"{where}: choices are missing"
    elif not _are_choices(item.get("choices", {})):
        yield f"{where}: choices must be options, or lists of options, by code"
    if kind is Kind.CONCEPT and type(item.get("concept")) is not int:
        yield f"{where}: concept must be the number of a type of concepts"


def _word_problems(block: Block, key: str, words: type[StrEnum], where: str) -> Iterator[str]:
    if key in block and block[key] not in list(words):
        yield f"{where}: {key} must be one of {', '.join(words)}"


def _are_choices(choices: object) -> bool:
    if not isinstance(choices, dict):
        return False
    options = [one for given in choices.values() for one in listed(given)]
    return all(type(option) is int for option in options)


def path_problems(path: object, where: str, known: Sequence[str]) -> Iterator[str]:
    if not isinstance(path, str):
        yield f"{where}: path is missing"
        return
    try:
        variables = compile_path(path).variables
    except ValueError as error:
        yield f"{where}: {error}"
        return
    unknown = sorted(variables - {*known, *GIVEN})
    yield from (f"{where}: %{name} is no variable above" for name in unknown)
