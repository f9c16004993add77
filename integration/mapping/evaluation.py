"""The paths and variables of a map on one resource, evaluated when they are asked for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from integration.errors import Unmappable
from integration.mapping.fhir_path import FhirPath, Node, compiled, plain

# Stands for a value that is not there; Unicode has no such character.
_NO_VALUE = "\ufdd0"

# The resource, for paths of which it is not known what they need.
_ANYTHING = ("%resource",)

# What FHIRPath itself gives: https://hl7.org/fhirpath/#environment-variables
GIVEN = frozenset({"context", "resource", "rootResource", "ucum"})


class Evaluation:
    """Finds values; a path that fails raises Unmappable, a variable that fails is noted, empty."""

    def __init__(
        self, variables: Mapping[str, str], resource: Mapping[str, Any], notes: list[str]
    ) -> None:
        self._paths = variables
        self._resource = resource
        self._notes = notes
        self._missing: set[str] = set()
        self._root = _values(resource, self._missing, mark=False)
        self._known: dict[str, Any] = _given(self._root)
        self._there: dict[str, bool] = {}
        self._marked: Evaluation | None = None

    def is_empty(self, path: str) -> bool:
        """Whether it is plain, without evaluating it, that `path` finds nothing in the resource,
        not even a reason: most columns of a row stay empty, and evaluating costs more."""
        if self._missing:
            return False
        for name in compiled(path).needs or _ANYTHING:
            there = self._there.get(name)
            if there is None:
                there = self._there[name] = self._is_there(name, self._root)
            if there:
                return False
        return True

    def values(self, path: str, focus: Node = None) -> list[Any]:
        """The values that `path` finds, from the resource or from an item of it."""
        return [plain(node) for node in self.nodes(path, focus)]

    def nodes(self, path: str, focus: Node = None) -> list[Node]:
        """As values that know their type, for paths from them."""
        expression = compiled(path)
        for name in expression.variables:
            if name not in self._known and name in self._paths:
                self._learn(name)
        root = self._root if focus is None else focus
        if not expression.is_short and not self._may_find(expression, plain(root)):
            return []
        try:
            return expression.nodes(root, self._known)
        except Exception as error:
            # The evaluator raises what Python raises, and its text may quote a value.
            raise Unmappable(f"the path failed ({type(error).__name__})") from None

    def says_only_why(self, path: str) -> bool:
        """Whether there is an element with extensions in place of the value, such as a reason for
        its absence: https://hl7.org/fhir/R4/extension-data-absent-reason.html"""
        if not self._missing:
            return False
        expression = compiled(path)
        named = set(expression.elements)
        for name in expression.variables & self._paths.keys():
            named |= compiled(self._paths[name]).elements
        if not any(missing.startswith(name) for missing in self._missing for name in named):
            return False
        if self._marked is None:
            self._marked = Evaluation(self._paths, self._resource, [])
            self._marked._root = _values(self._resource, set(), mark=True)
            self._marked._known = _given(self._marked._root)
        try:
            return any(_NO_VALUE in str(value) for value in self._marked.values(path))
        except Unmappable:
            return False

    def _learn(self, name: str) -> None:
        path = self._paths[name]
        self._known[name] = []
        try:
            self._known[name] = self.nodes(path)
        except Unmappable as problem:
            self._notes.append(f"%{name}: {problem.why} @ {path}")

    def _may_find(self, expression: FhirPath, focus: Any) -> bool:
        """False where the path starts at elements that are not there: evaluating costs more."""
        if expression.needs is None or not isinstance(focus, dict):
            return True
        return any(self._is_there(name, focus) for name in expression.needs)

    def _is_there(self, name: str, focus: Mapping[str, Any]) -> bool:
        if name.startswith("%"):
            name = name[1:]
            if name in self._paths and name not in self._known:
                self._learn(name)
            return self._known.get(name) != []
        # `deceased` is deceasedBoolean or deceasedDateTime
        return name in focus or any(each.startswith(name) for each in focus)


def _given(root: Mapping[str, Any]) -> dict[str, Any]:
    return {"resource": [root], "rootResource": [root]}


def _values(node: Any, missing: set[str], *, mark: bool) -> Any:
    """The values alone: the evaluator would take `_line` for further lines, and null for text.

    `missing` gets the names of elements that have extensions and no value; `mark` puts a mark in
    the place of each such value.
    """
    if isinstance(node, dict):
        kept = {
            name: _values(value, missing, mark=mark)
            for name, value in node.items()
            if not name.startswith("_")
        }
        for name in node:
            if name.startswith("_") and _lacks(node.get(name[1:])):
                missing.add(name[1:])
                if mark and name[1:] not in kept:
                    kept[name[1:]] = _NO_VALUE
        return kept
    if isinstance(node, list):
        marked = (_NO_VALUE if value is None and mark else value for value in node)
        return [_values(value, missing, mark=mark) for value in marked if value is not None]
    return node


def _lacks(value: Any) -> bool:
    return value is None or (isinstance(value, list) and None in value)
