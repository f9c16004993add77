"""fhirpathpy's evaluator, its values that know their type, and its model of FHIR R4. Pure.

https://github.com/beda-software/fhirpath-py
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from fhirpathpy import apply_parsed_path
from fhirpathpy.engine import type_specifier
from fhirpathpy.engine.invocations import invocation_registry
from fhirpathpy.engine.nodes import FP_Type, ResourceNode, TypeInfo
from fhirpathpy.engine.util import set_paths, uniq
from fhirpathpy.models import models

from integration.mapping.fhirpath.parser import Tree
from integration.mapping.fhirpath.periods import is_marked

# Of R4's elements: path2Type (type by path), choiceTypePaths (types by the path of a choice) and
# pathsDefinedElsewhere (the path that defines an element, by the path that reuses it).
R4_MODEL: Mapping[str, Any] = models["r4"]

# fhirpathpy sets this global when it first evaluates `is`; without it, types have no parents.
TypeInfo.model = R4_MODEL  # type: ignore[assignment]

Node = Any  # a JSON value, or a TypedNode

# A value with the type of its element: `data` and `path`.
TypedNode = ResourceNode

_REGISTRY: dict[str, Any] = invocation_registry

# Functions for maps: see periods. They stand beside fhirpathpy's own, since a user's function is
# given values without their types there: process_user_invocation_table in engine/util.py.
_REGISTRY["currentFirst"] = {
    "fn": lambda _, nodes: sorted(nodes, key=lambda node: is_marked(unwrap_node(node)))
}
_REGISTRY["current"] = {
    "fn": lambda _, nodes: [node for node in nodes if not is_marked(unwrap_node(node))]
}
_uniq: Any = uniq


def is_function(name: str) -> bool:
    """Whether there is a function of this name: fhirpathpy's, or one for maps."""
    return name in _REGISTRY


def build_evaluator(tree: Tree) -> Callable[[Node, Mapping[str, Any]], Any]:
    """Return a function of a focus and variables. It raises whatever Python raises, with messages
    that may quote a value."""
    evaluate: Callable[[Node, Mapping[str, Any]], Any] = set_paths(  # type: ignore[no-untyped-call]
        apply_parsed_path,
        {"children": [tree]},
        R4_MODEL,
        {"returnRawData": True},
    )
    return evaluate


def unwrap_node(node: Node) -> Any:
    """Return the value of a node as JSON has it."""
    value = node.data if isinstance(node, ResourceNode) else node
    return str(value) if isinstance(value, FP_Type) else value


def wrap_values(values: list[Any], type_: str | None) -> list[Node]:
    """Return values of one type as nodes that know it."""
    return [ResourceNode(value, type_) for value in values]  # type: ignore[no-untyped-call]


def filter_types(types: Collection[str | None], specifier: Tree) -> frozenset[str | None]:
    """Return those of the types that are the specified one, or derived from it."""
    base_type = type_specifier(None, None, specifier)  # type: ignore[no-untyped-call]
    infos = {type_: ResourceNode(None, type_).get_type_info() for type_ in types}  # type: ignore[no-untyped-call]
    return frozenset(type_ for type_, info in infos.items() if info.is_(base_type))


def drop_duplicates(values: list[Any]) -> list[Any]:
    """Return the values without repetitions, in their order."""
    distinct: list[Any] = _uniq(values)
    return distinct


def get_operator(name: str) -> Callable[[Any, Any], Any]:
    """Return a boolean operator (and, or) of two operands, each a boolean or an empty list."""
    operator = _REGISTRY[name]["fn"]
    return lambda left, right: operator(None, left, right)
