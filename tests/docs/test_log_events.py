"""Each log event, with its level and every field of it, is explained in docs/operations.md."""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.processes import PROJECT

LEVELS = ("debug", "info", "warning", "error", "exception", "critical", "log")
MODULES = sorted((PROJECT / "integration").rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Source:
    """A module whose log calls are looked at."""

    def __init__(self, path: Path) -> None:
        self.name = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        self.tree = ast.parse(path.read_text("utf-8"))

    def calls(self) -> Iterator[tuple[Function, ast.Call]]:
        """Each with the innermost function around it."""
        functions = [node for node in ast.walk(self.tree) if isinstance(node, Function)]
        found = {call: function for function in functions for call in ast.walk(function)
                 if _is_log(call)}  # fmt: skip
        yield from ((function, call) for call, function in found.items())  # type: ignore[misc]

    def events(self, call: ast.Call) -> list[str]:
        said = call.args[1 if _level(call) == "log" else 0]
        if isinstance(said, ast.Subscript):  # a word for each, in a table of the module
            assert isinstance(said.value, ast.Name)
            return list(getattr(self.module, said.value.id).values())
        return [ast.literal_eval(said)]

    def fields(self, function: Function, call: ast.Call) -> set[str]:
        extra = [word.value for word in call.keywords if word.arg == "extra"]
        return {name for one in extra for name in self._keys(one, function, call.lineno)}

    def _keys(self, node: ast.expr, function: Function, line: int) -> Iterator[str]:
        """The keys of a dictionary, however it was put together before that line."""
        match node:
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if key is None:
                        yield from self._keys(value, function, line)
                    else:
                        yield ast.literal_eval(key)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                yield from self._keys(left, function, line)
                yield from self._keys(right, function, line)
            case ast.Name(id=name):
                for value in _assigned(function, name, line):
                    yield from self._keys(value, function, value.lineno)
            case ast.DictComp(generators=[ast.comprehension(iter=ast.Name(id=name))]):
                yield from (member.value for member in getattr(self.module, name))
            case _:
                raise AssertionError(f"{self.name}:{line}: fields that this test cannot tell")

    @property
    def module(self) -> object:
        return importlib.import_module(self.name)


def _is_log(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=attr)):
            return attr in LEVELS
    return False


def _level(call: ast.Call) -> str:
    assert isinstance(call.func, ast.Attribute)
    return call.func.attr


def _assigned(function: Function, name: str, before: int) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value):
                pass
            case ast.AugAssign(target=ast.Name(id=found), value=value):
                pass
            case _:
                continue
        if found == name and node.lineno < before:
            yield value


def told() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Fields and levels of each event, as the code has them."""
    fields: dict[str, set[str]] = defaultdict(set)
    levels: dict[str, set[str]] = defaultdict(set)
    for source in map(Source, MODULES):
        for function, call in source.calls():
            for event in source.events(call):
                fields[event] |= source.fields(function, call)
                levels[event].add(_level(call))
    return fields, levels


def explained() -> dict[str, tuple[str, set[str]]]:
    """Level and fields of each event, as the page has them."""
    page = (PROJECT / "docs/operations.md").read_text("utf-8")
    table = page.partition("## Events\n")[2].partition("\n## ")[0]
    found = {}
    for row in re.findall(r"^\| (`.*) \|$", table, re.M):
        events, level, fields, _ = (cell.strip() for cell in row.split(" | ", 3))
        for event in re.findall(r"`([^`]+)`", events):
            found[event] = level, set(re.findall(r"`(\w+)`", fields))
    return found


FIELDS, LEVELS_TOLD = told()
EXPLAINED = explained()


def test_the_page_and_the_code_have_the_same_events() -> None:
    assert len(FIELDS) > 15
    assert set(EXPLAINED) == set(FIELDS)


@pytest.mark.parametrize("event", sorted(FIELDS))
def test_every_field_of_an_event_is_on_the_page_and_no_other(event: str) -> None:
    assert EXPLAINED[event][1] == FIELDS[event]


@pytest.mark.parametrize("event", sorted(FIELDS))
def test_the_level_is_the_one_of_the_page(event: str) -> None:
    """Where the code decides by the case, the page names both."""
    for level in LEVELS_TOLD[event]:
        assert level in (EXPLAINED[event][0] if level != "log" else f"log {EXPLAINED[event][0]}")


def test_the_names_of_events_are_two_words_and_a_dot() -> None:
    assert [event for event in FIELDS if not re.fullmatch(r"[a-z]+\.[a-z_]+", event)] == []


def test_every_log_call_of_the_app_is_such_a_call() -> None:
    """Another way to log would escape this page."""
    for path in MODULES:
        text = path.read_text("utf-8")
        others = re.findall(r"\b(?:logging|logger)\.(?:debug|info|warning|error|exception)\(", text)
        assert others == [], path.name
