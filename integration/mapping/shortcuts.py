"""The FHIRPath that maps use most, without an interpreter between its steps. Pure.

What is not here is left to fhirpathpy, where an expression costs a tenth of a millisecond or more;
and a row has a hundred of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from fhirpathpy.engine import type_specifier
from fhirpathpy.engine.evaluators import string_literal

from integration.mapping.steps import (
    OF_CONSTANTS,
    OF_EXPRESSIONS,
    Step,
    chained,
    constant,
    equality,
    item,
    member,
    of_type,
    operator,
    truth,
    union,
    variable,
)

Tree = Mapping[str, Any]


def shortcut(tree: Tree) -> Step | None:
    """The expression as a function; None where a part of it is not here."""
    children = tree.get("children", ())
    match tree["type"]:
        case "TermExpression" | "InvocationTerm" | "ParenthesizedTerm":
            return shortcut(children[0])
        case "LiteralTerm":
            return _literal(children[0])
        case "ExternalConstantTerm":
            return variable(_name(children[0]))
        case "MemberInvocation":
            return member(_name(tree))
        case "FunctionInvocation":
            return _function(children[0])
        case "InvocationExpression":
            return chained(*map(shortcut, _links(tree)))
        case "IndexerExpression" if children[1].get("text", "").isdecimal():
            return item(shortcut(children[0]), int(children[1]["text"]))
        case "UnionExpression":
            return union(*map(shortcut, _united(tree)))
        case "EqualityExpression" if tree["terminalNodeText"][0] in ("=", "!="):
            return equality(*map(shortcut, children), same=tree["terminalNodeText"][0] == "=")
        case "MembershipExpression":
            name = f"{tree['terminalNodeText'][0]}Op"
            return operator(name, *map(shortcut, children))
        case "AndExpression" | "OrExpression":
            name = tree["terminalNodeText"][0]
            return operator(name, *map(shortcut, children), read=truth)
    return None


def _name(tree: Tree) -> str:
    text: str = tree["children"][0]["text"]
    return text.strip("`'\"")


def _links(tree: Tree) -> list[Tree]:
    """a.b.c is one chain of three, not two of two."""
    first, last = tree["children"]
    return [*(_links(first) if first["type"] == "InvocationExpression" else [first]), last]


def _united(tree: Tree) -> list[Tree]:
    """a | b | c is one union, not two."""
    if tree["type"] != "UnionExpression":
        return [tree]
    return [each for child in tree["children"] for each in _united(child)]


def _literal(tree: Tree) -> Step | None:
    match tree["type"]:
        case "NullLiteral":
            return constant([])
        case "BooleanLiteral":
            return constant([tree["text"] == "true"])
        case "StringLiteral":
            return constant(string_literal(None, None, tree))  # type: ignore[no-untyped-call]
        case "NumberLiteral":
            number = Decimal(tree["text"])
            return constant([int(number) if number == int(number) else number])
    return None


def _function(tree: Tree) -> Step | None:
    children = tree["children"]
    arguments = children[1]["children"] if len(children) > 1 else []
    name = _name(tree)
    if name == "ofType" and len(arguments) == 1:
        return of_type(type_specifier(None, None, arguments[0]))  # type: ignore[no-untyped-call]
    if made := OF_EXPRESSIONS.get((name, len(arguments))):
        steps = [shortcut(argument) for argument in arguments]
        return None if None in steps else made(*steps)
    if made := OF_CONSTANTS.get((name, len(arguments))):
        constants = [_constant(argument) for argument in arguments]
        return None if None in constants else made(*constants)
    return None


def _constant(tree: Tree) -> Any:
    """A whole number or a text that is written there."""
    is_literal = tree["type"] == "TermExpression" and tree["children"][0]["type"] == "LiteralTerm"
    step = shortcut(tree) if is_literal else None
    found = step([], [], {}) if step else []
    return found[0] if found and type(found[0]) in (int, str) else None
