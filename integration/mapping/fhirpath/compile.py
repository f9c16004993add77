"""FHIRPath, compiled once for each path. Pure.

https://hl7.org/fhirpath/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from integration.mapping.fhirpath import library
from integration.mapping.fhirpath.library import Node, unwrap_node
from integration.mapping.fhirpath.parser import (
    Tree,
    get_name,
    list_functions,
    parse_path,
    walk_tree,
)

# With a clock the same resource would map differently each time; %today is the day that the mapping
# is given. A trace prints what it sees.
_REFUSED_FUNCTIONS = frozenset({"now", "today", "timeOfDay", "trace"})

# Functions that find nothing where their input is empty: https://hl7.org/fhirpath/#functions
_STRICT_FUNCTIONS = frozenset(
    "where select first last tail skip take exclude currentFirst current ofType as distinct "
    "extension lower upper trim substring replace replaceMatches split join toString toInteger "
    "toDecimal matches".split()
)
_STRICT_OPERATORS = frozenset({"EqualityExpression", "InequalityExpression"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FhirPath:
    """A compiled path, and what follows from its text alone."""

    text: str
    variables: frozenset[str]  # without %
    elements: frozenset[str]  # every element that it names
    # The path finds nothing in a resource without any of these elements and %variables. None: it
    # may find something in any resource.
    needs: frozenset[str] | None
    tree: Tree = field(compare=False, repr=False)
    _evaluate: Callable[[Node, Mapping[str, Any]], Any] = field(compare=False, repr=False)

    def find_nodes(self, focus: Node, variables: Mapping[str, Any]) -> list[Node]:
        """Return what the path finds as nodes, which can be variables or the focus of another path.
        Raises whatever Python raises, with messages that may quote a value."""
        nodes = self._evaluate(focus, variables)
        return nodes if isinstance(nodes, list) else [nodes]

    def __call__(self, focus: Node, variables: Mapping[str, Any]) -> list[Any]:
        return [unwrap_node(node) for node in self.find_nodes(focus, variables)]


@cache
def compile_path(path: str) -> FhirPath:
    """Compile a path. Raises ValueError, which says what is wrong with the path."""
    tree = parse_path(path)
    for name in list_functions(tree):
        if name in _REFUSED_FUNCTIONS:
            raise ValueError(f"a map may not use the function {name}()")
        if not library.is_function(name):
            raise ValueError(f"FHIRPath has no function {name}()")
    members = [node for node in walk_tree(tree) if node["type"] == "MemberInvocation"]
    constants = [node for node in walk_tree(tree) if node["type"] == "ExternalConstant"]
    return FhirPath(
        text=path,
        variables=frozenset(map(get_name, constants)),
        elements=frozenset(map(get_name, members)),
        needs=_find_needs(tree),
        tree=tree,
        _evaluate=library.build_evaluator(tree),
    )


def _find_needs(tree: Tree) -> frozenset[str] | None:
    """Return the elements and %variables without which the result is empty; None if unknown."""
    children: list[Tree] = tree.get("children", [])
    match tree["type"]:
        case "TermExpression" | "InvocationTerm" | "ParenthesizedTerm":
            return _find_needs(children[0])
        case "MemberInvocation":
            name = get_name(tree)
            return frozenset({name}) if name[:1].islower() else None
        case "ExternalConstantTerm":
            return frozenset({f"%{get_name(children[0])}"})
        case "LiteralTerm" if children[0]["type"] == "NullLiteral":
            return frozenset()
        case "IndexerExpression":
            return _find_needs(children[0])
        case "InvocationExpression":
            first, last = children
            is_strict = (
                last["type"] == "MemberInvocation"
                or next(list_functions(last), "") in _STRICT_FUNCTIONS
            )
            return _find_needs(first) if is_strict else None
        case "UnionExpression":
            return _combine_needs(children)
        case "FunctionInvocation" if get_name(children[0]) == "iif":
            return _combine_needs(children[0]["children"][1]["children"][1:])
        case kind if kind in _STRICT_OPERATORS and tree["terminalNodeText"][0] not in ("~", "!~"):
            return _find_needs(children[0])
    return None


def _combine_needs(trees: list[Tree]) -> frozenset[str] | None:
    """Return the needs of an expression that finds what any of these finds."""
    needs = [_find_needs(tree) for tree in trees]
    certain = [need for need in needs if need is not None]
    return frozenset().union(*certain) if len(certain) == len(needs) else None
