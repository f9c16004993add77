"""The paths and variables of a map on one resource, evaluated when they are asked for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fhirpathpy.engine.nodes import ResourceNode

from integration.core.errors import Unmappable
from integration.mapping.fhirpath.compile import FhirPath, Node, compile_path, plain
from integration.mapping.fhirpath.fast_path import shortcut
from integration.mapping.fhirpath.fast_steps import Unusual
from integration.mapping.fhirpath.short import COMPUTED, Short, Types

# Stands for a value that is not there; Unicode has no such character.
_NO_VALUE = "\ufdd0"

# The resource, for paths of which it is not known what they need.
_ANYTHING = frozenset({"%resource"})

# What FHIRPath itself gives: https://hl7.org/fhirpath/#environment-variables
GIVEN = frozenset({"context", "resource", "rootResource", "ucum"})


class _Shorts(dict[str, Short | None]):
    """The shortcuts of paths by a focus of one type, each made when it is first asked for."""

    def __init__(self, type_: str | None, variables: Mapping[str, Types]) -> None:
        self._type, self._variables = type_, variables

    def __missing__(self, path: str) -> Short | None:
        return self.setdefault(path, shortcut(compile_path(path).tree, self._type, self._variables))


class _Plan(dict[str | None, _Shorts]):
    """The shortcuts of a map's paths by the type of their focus.

    `types`: of the variables that have one of their own.
    """

    def __init__(self, type_: str | None, variables: Mapping[str, str]) -> None:
        self.types: dict[str, Types] = dict.fromkeys(
            ("resource", "rootResource"), frozenset({type_})
        )
        for name, path in variables.items():
            short = self[type_][path]
            if short is not None and len(short.types) < 2:
                self.types[name] = short.types

    def __missing__(self, type_: str | None) -> _Shorts:
        return self.setdefault(type_, _Shorts(type_, self.types))


@lru_cache(maxsize=64)
def _plan(type_: str | None, variables: tuple[tuple[str, str], ...]) -> _Plan:
    return _Plan(type_, dict(variables))


class Evaluation:
    """Finds values; a path that fails raises Unmappable, a variable that fails is noted, empty."""

    def __init__(
        self,
        variables: Mapping[str, str],
        resource: Mapping[str, Any],
        notes: list[str],
        *,
        mark: bool = False,
    ) -> None:
        self._paths = variables
        self._resource = resource
        self._notes = notes
        values = _Values(mark)
        self._root = values.of(resource, is_resource=True)
        self._missing = values.missing
        self._claims = values.claims
        type_ = resource.get("resourceType")
        self._type = type_ if isinstance(type_, str) else None
        self._plan = _plan(self._type, tuple(variables.items()))
        self._shorts = self._plan[self._type]
        self._start = [self._root]
        self._known = {"resource": self._start, "rootResource": self._start}
        self._there: dict[str, bool] = {}
        self._marked: Evaluation | None = None
        for name, path in variables.items():
            self._known[name] = self._learned(name, path)

    def is_empty(self, path: str) -> bool:
        """Whether it is plain, without evaluating it, that `path` finds nothing in the resource,
        not even a reason: most columns of a row stay empty, and evaluating costs more."""
        if self._missing:
            return False
        for name in compile_path(path).needs or _ANYTHING:
            there = self._there.get(name)
            if there is None:
                there = self._there[name] = self._is_there(name, self._root)
            if there:
                return False
        return True

    def values(self, path: str, focus: Node = None) -> list[Any]:
        """The values that `path` finds, from the resource or from an item of it."""
        short = self._short(path, focus)
        if short is not None:
            root = found = self._start if focus is None else [focus.data]
            try:
                for step in short.steps:
                    found = step(found, root, self._known)
                return _with_values(found)
            except Unusual:
                pass  # then as everything else
        return [plain(node) for node in self._nodes(path, focus)]

    def nodes(self, path: str) -> list[Node]:
        """As values that know their type, for paths from them."""
        short = self._short(path, None)
        if short is None or len(short.types) > 1:
            return self._nodes(path, None)
        return _typed(self.values(path), short.types)

    def says_only_why(self, path: str) -> bool:
        """Whether there is an element with extensions in place of the value, such as a reason for
        its absence: https://hl7.org/fhir/R4/extension-data-absent-reason.html"""
        if not self._missing:
            return False
        expression = compile_path(path)
        named = set(expression.elements)
        for name in expression.variables & self._paths.keys():
            named |= compile_path(self._paths[name]).elements
        if not any(missing.startswith(name) for missing in self._missing for name in named):
            return False
        if self._marked is None:
            self._marked = Evaluation(self._paths, self._resource, [], mark=True)
        try:
            return any(_NO_VALUE in str(value) for value in self._marked.values(path))
        except Unmappable:
            return False

    def _learned(self, name: str, path: str) -> list[Any]:
        """The values of a variable: plain where the plan knows their type, else nodes."""
        try:
            is_plain = name in self._plan.types and not self._claims
            return self.values(path) if is_plain else self._nodes(path, None)
        except Unmappable as problem:
            self._notes.append(f"%{name}: {problem.why} @ {path}")
            return []

    def _short(self, path: str, focus: Node) -> Short | None:
        if self._claims:
            return None
        if focus is None:
            return self._shorts[path]
        return self._plan[focus.path][path] if isinstance(focus, ResourceNode) else None

    def _nodes(self, path: str, focus: Node) -> list[Node]:
        """By fhirpathpy."""
        expression = compile_path(path)
        root = self._root if focus is None else focus
        if not self._may_find(expression, plain(root)):
            return []
        types = {} if self._claims else self._plan.types
        variables = {
            name: _typed(self._known[name], types[name]) if name in types else self._known[name]
            for name in expression.variables & self._known.keys()
        }
        try:
            return expression.nodes(root, variables)
        except Exception as error:
            # The evaluator raises what Python raises, and its text may quote a value.
            raise Unmappable(f"the path failed ({type(error).__name__})") from None

    def _may_find(self, expression: FhirPath, focus: Any) -> bool:
        """False where the path starts at elements that are not there: evaluating costs more."""
        if expression.needs is None or not isinstance(focus, dict):
            return True
        return any(self._is_there(name, focus) for name in expression.needs)

    def _is_there(self, name: str, focus: Mapping[str, Any]) -> bool:
        if name.startswith("%"):
            return self._known.get(name[1:]) != []
        # `deceased` is deceasedBoolean or deceasedDateTime
        return name in focus or any(each.startswith(name) for each in focus)


def _typed(values: list[Any], types: Types) -> list[Node]:
    """Values of one type, as fhirpathpy has them."""
    if COMPUTED in types:
        return values
    return [ResourceNode(value, type_) for type_ in types for value in values]  # type: ignore[no-untyped-call]


def _with_values(found: list[Any]) -> list[Any]:
    """fhirpathpy leaves out, at the end, elements that have only extensions."""
    for value in found:
        if type(value) is dict and len(value) == 1 and "extension" in value:
            return [one for one in found if type(one) is not dict or one.keys() != {"extension"}]
    return found


class _Values:
    """The values alone: the evaluator would take `_line` for further lines, and null for text.

    `missing` gets the names of elements that have extensions and no value; `mark` puts a mark in
    the place of each such value. `claims`: an element claims to be a resource, so that types do
    not follow from names.
    """

    def __init__(self, mark: bool) -> None:
        self.missing: set[str] = set()
        self.claims = False
        self._mark = mark

    def of(self, node: Any, *, is_resource: bool = False) -> Any:
        if type(node) is list:
            marked = (_NO_VALUE if each is None and self._mark else each for each in node)
            return [self.of(each, is_resource=is_resource) for each in marked if each is not None]
        if type(node) is not dict:
            return node
        if "resourceType" in node and not is_resource:
            self.claims = True
        kept: dict[str, Any] = {}
        for name, value in node.items():
            if type(value) is str and name[:1] != "_":
                kept[name] = value
            elif name[:1] != "_":
                kept[name] = self.of(value, is_resource=name == "contained")
            elif _lacks(node.get(name[1:])):
                self.missing.add(name[1:])
                if self._mark and name[1:] not in node:
                    kept[name[1:]] = _NO_VALUE
        return kept


def _lacks(value: Any) -> bool:
    return value is None or (isinstance(value, list) and None in value)
