"""Tells of which type the elements are that a path finds, from the path alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from integration.mapping import r4_elements
from integration.mapping.fhirpath.parser import Tree, get_arguments, get_name, parse_path

# Functions that find some of what they are given, in whatever order.
_SELECTING = frozenset(
    "where first last tail skip take exclude distinct current currentFirst".split()
)
_JOINING = frozenset({"combine", "union"})


def find_element_type(path: str, resource: str, variables: Mapping[str, str]) -> str | None:
    """Return the type of all elements that `path` finds in a resource of this type; None: they may
    have several, or it is not known. Raises ValueError for what is no path."""
    return _find_type(parse_path(path), resource, resource, variables)


def _find_type(
    tree: Tree, focus: str | None, resource: str, variables: Mapping[str, str]
) -> str | None:
    children = tree.get("children", ())
    match tree["type"]:
        case "TermExpression" | "InvocationTerm" | "ParenthesizedTerm" | "IndexerExpression":
            return _find_type(children[0], focus, resource, variables)
        case "ExternalConstantTerm":
            name = get_name(children[0])
            if name not in variables:
                return None
            # A variable may use those above it alone, so this ends.
            others = {other: path for other, path in variables.items() if other != name}
            return find_element_type(variables[name], resource, others)
        case "UnionExpression":
            types = {_find_type(child, focus, resource, variables) for child in children}
            return types.pop() if len(types) == 1 else None
        case "InvocationExpression":
            first = _find_type(children[0], focus, resource, variables)
            return _find_type(children[1], first, resource, variables) if first else None
        case "MemberInvocation" if focus is not None:
            name = get_name(tree)
            return focus if name == focus else r4_elements.find_type(focus, name)
        case "FunctionInvocation" if focus is not None:
            return _find_function_type(children[0], focus, resource, variables)
    return None


def _find_function_type(
    function: Tree, focus: str, resource: str, variables: Mapping[str, str]
) -> str | None:
    name, arguments = get_name(function), get_arguments(function)
    if name in _SELECTING:
        return focus
    if name == "extension":
        return "Extension"
    if name in _JOINING and len(arguments) == 1:
        return focus if _find_type(arguments[0], resource, resource, variables) == focus else None
    return None
