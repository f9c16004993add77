"""Evaluates the paths and variables of a map on one resource. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from integration.core.errors import Unmappable
from integration.mapping.fhirpath.compile import FhirPath, compile_path
from integration.mapping.fhirpath.fast_path import COMPUTED, FastPath, TypeNames
from integration.mapping.fhirpath.fast_path_plan import get_plan
from integration.mapping.fhirpath.fast_steps import UnsupportedValue, drop_extensions_alone
from integration.mapping.fhirpath.library import Node, TypedNode, unwrap_node, wrap_values
from integration.mapping.fhirpath.plain_values import NO_VALUE, PlainValues

# Names and indexes from a resource to an element; of an array, those without a value do not count.
Location = tuple[str | int, ...]

# The needs of paths of which they are not known.
_WHOLE_RESOURCE = frozenset({"%resource"})

# Variables that FHIRPath defines: https://hl7.org/fhirpath/#environment-variables
# And %today, the day of the mapping.
ENVIRONMENT_VARIABLES = frozenset({"context", "resource", "rootResource", "ucum", "today"})


class Evaluation:
    """Evaluates paths on one resource, as it is on a day.

    A path that fails raises Unmappable. A variable that fails is empty, and a note says so.
    `changes_on`: the next day on which something of the resource begins or ceases to be in use.
    """

    def __init__(
        self,
        variables: Mapping[str, str],
        resource: Mapping[str, Any],
        notes: list[str],
        *,
        today: date,
        mark_missing: bool = False,
    ) -> None:
        self._variable_paths = variables
        self._resource = resource
        self._notes = notes
        self._today = today
        plain = PlainValues(today, mark_missing)
        self._root = plain.copy(resource, is_resource=True)
        self._missing = plain.missing
        self.changes_on = plain.changes_on
        # Where an element says that it is a resource, types do not follow from names.
        self._has_inner_resources = plain.has_inner_resources
        type_ = resource.get("resourceType")
        self._type = type_ if isinstance(type_, str) else None
        self._plan = get_plan(self._type, tuple(variables.items()))
        self._fast_paths = self._plan[self._type]
        self._start = [self._root]
        self._variables = {
            "resource": self._start,
            "rootResource": self._start,
            "today": [today.isoformat()],
        }
        self._presence: dict[str, bool] = {}
        self._marked: Evaluation | None = None
        for name, path in variables.items():
            self._variables[name] = self._evaluate_variable(name, path)

    def is_empty(self, path: str) -> bool:
        """Whether `path` certainly finds nothing in the resource, not even a reason for an absent
        value. Needs no evaluation, which costs more: most columns of a row stay empty."""
        if self._missing:
            return False
        for name in compile_path(path).needs or _WHOLE_RESOURCE:
            is_present = self._presence.get(name)
            if is_present is None:
                is_present = self._presence[name] = self._is_present(name, self._root)
            if is_present:
                return False
        return True

    def find_values(self, path: str, focus: Node = None) -> list[Any]:
        """Return the values that `path` finds, starting at the resource or at a node of it."""
        fast_path = self._get_fast_path(path, focus)
        if fast_path is not None:
            root = values = self._start if focus is None else [focus.data]
            try:
                for link in fast_path.links:
                    values = link.step(values, root, self._variables)
                return drop_extensions_alone(values)
            except UnsupportedValue:
                pass  # fhirpathpy evaluates it
        return [unwrap_node(node) for node in self._evaluate_nodes(path, focus)]

    def find_nodes(self, path: str) -> list[Node]:
        """Return what `path` finds in the resource as nodes, from which other paths can start."""
        fast_path = self._get_fast_path(path, None)
        if fast_path is None or len(fast_path.types) > 1:
            return self._evaluate_nodes(path, None)
        return _wrap_typed(self.find_values(path), fast_path.types)

    def locate(self, path: str) -> list[Location]:
        """Return where in the resource the elements stand that `path` finds. Raises Unmappable
        where it finds something that does not stand there."""
        return [_locate(self._root, value) for value in self.find_values(path)]

    def has_only_extensions(self, path: str) -> bool:
        """Whether `path` leads to an element that has extensions in place of its value, such as a
        reason for its absence: https://hl7.org/fhir/R4/extension-data-absent-reason.html"""
        if not self._missing:
            return False
        expression = compile_path(path)
        named = set(expression.elements)
        for name in expression.variables & self._variable_paths.keys():
            named |= compile_path(self._variable_paths[name]).elements
        if not any(missing.startswith(name) for missing in self._missing for name in named):
            return False
        if self._marked is None:
            self._marked = Evaluation(
                self._variable_paths, self._resource, [], today=self._today, mark_missing=True
            )
        try:
            return any(NO_VALUE in str(value) for value in self._marked.find_values(path))
        except Unmappable:
            return False

    def _evaluate_variable(self, name: str, path: str) -> list[Any]:
        """Return the values of a variable: plain where the plan knows their type, else nodes."""
        try:
            is_plain = name in self._plan.types and not self._has_inner_resources
            return self.find_values(path) if is_plain else self._evaluate_nodes(path, None)
        except Unmappable as problem:
            self._notes.append(f"%{name}: {problem.why} @ {path}")
            return []

    def _get_fast_path(self, path: str, focus: Node) -> FastPath | None:
        if self._has_inner_resources:
            return None
        if focus is None:
            return self._fast_paths[path]
        return self._plan[focus.path][path] if isinstance(focus, TypedNode) else None

    def _evaluate_nodes(self, path: str, focus: Node) -> list[Node]:
        """Evaluate a path with fhirpathpy."""
        expression = compile_path(path)
        root = self._root if focus is None else focus
        if not self._can_find(expression, unwrap_node(root)):
            return []
        types = {} if self._has_inner_resources else self._plan.types
        variables = {
            name: _wrap_typed(self._variables[name], types[name])
            if name in types
            else self._variables[name]
            for name in expression.variables & self._variables.keys()
        }
        try:
            return expression.find_nodes(root, variables)
        except Exception as error:
            # fhirpathpy raises what Python raises, and the text may quote a value.
            raise Unmappable(f"the path could not be evaluated ({type(error).__name__})") from None

    def _can_find(self, expression: FhirPath, focus: Any) -> bool:
        """Whether an element is present that the path needs: evaluating costs more than looking."""
        if expression.needs is None or not isinstance(focus, dict):
            return True
        return any(self._is_present(name, focus) for name in expression.needs)

    def _is_present(self, name: str, focus: Mapping[str, Any]) -> bool:
        if name.startswith("%"):
            return self._variables.get(name[1:]) != []
        # `deceased` is deceasedBoolean or deceasedDateTime in JSON.
        return name in focus or any(element.startswith(name) for element in focus)


def _locate(node: Any, value: Any, place: Location = ()) -> Location:
    """Return where this very object stands. Raises Unmappable."""
    if isinstance(value, dict):
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for name, inner in pairs:
            if inner is value:
                return (*place, name)
            if isinstance(inner, dict | list):
                try:
                    return _locate(inner, value, (*place, name))
                except Unmappable:
                    continue
    raise Unmappable("the path finds no element of the resource")


def _wrap_typed(values: list[Any], types: TypeNames) -> list[Node]:
    """Return values of at most one type as fhirpathpy has them."""
    if COMPUTED in types:
        return values
    return [node for type_ in types for node in wrap_values(values, type_)]
