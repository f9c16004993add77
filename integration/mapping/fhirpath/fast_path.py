"""The FHIRPath that maps use most, without an interpreter between its steps. Pure.

What is not here is left to fhirpathpy, where an expression costs a tenth of a millisecond or more;
and a row has a hundred of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from typing import Any

from fhirpathpy.engine import type_specifier
from fhirpathpy.engine.evaluators import string_literal

from integration.mapping.fhirpath import fast_steps
from integration.mapping.fhirpath.fast_steps import Step, Test
from integration.mapping.fhirpath.short import COMPUTED, Long, Short, Types, member, of_type

Tree = Mapping[str, Any]

_OF_TEXT: Mapping[str, Callable[..., Any]] = {
    "contains": str.__contains__,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "upper": str.upper,
    "lower": str.lower,
}


@dataclass(frozen=True, slots=True)
class _Scope:
    """The types of the focus, and of variables."""

    focus: Types
    variables: Mapping[str, Types]


def shortcut(tree: Tree, type_: str | None, variables: Mapping[str, Types]) -> Short | None:
    """The expression, for a focus of this type; None where a part of it is not here."""
    try:
        return _expression(tree, _Scope(frozenset({type_}), variables))
    except Long:
        return None


def _expression(tree: Tree, scope: _Scope) -> Short:
    children = tree.get("children", ())
    match tree["type"]:
        case "TermExpression" | "InvocationTerm" | "ParenthesizedTerm":
            return _expression(children[0], scope)
        case "LiteralTerm":
            values = _literal(children[0])
            types = frozenset({COMPUTED} if values else ())
            return Short((fast_steps.constant(values),), types, values=values)
        case "ExternalConstantTerm" if (name := _name(children[0])) in scope.variables:
            return Short((fast_steps.variable(name),), scope.variables[name])
        case "MemberInvocation" | "FunctionInvocation":
            return _link(tree, Short((), scope.focus), scope)
        case "InvocationExpression":
            first, *links = _links(tree)
            return reduce(lambda of, link: _link(link, of, scope), links, _expression(first, scope))
        case "IndexerExpression" if children[1].get("text", "").isdecimal():
            index = int(children[1]["text"])
            return _expression(children[0], scope).then(fast_steps.part(index, index + 1))
        case "UnionExpression":
            return _union([_expression(each, scope) for each in _united(tree)])
        case "EqualityExpression" | "MembershipExpression" | "AndExpression" | "OrExpression":
            operands = (_expression(child, scope) for child in children)
            return _operation(tree["terminalNodeText"][0], *operands)
    raise Long


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


def _literal(tree: Tree) -> list[Any]:
    match tree["type"]:
        case "NullLiteral":
            return []
        case "BooleanLiteral":
            return [tree["text"] == "true"]
        case "StringLiteral":
            text: list[Any] = string_literal(None, None, tree)  # type: ignore[no-untyped-call]
            return text
        case "NumberLiteral":
            number = Decimal(tree["text"])
            return [int(number) if number == int(number) else number]
    raise Long


# -- operators -----------------------------------------------------------------------------------


def _union(operands: list[Short]) -> Short:
    types = frozenset().union(*(one.types for one in operands))
    if COMPUTED in types and len(types) > 1:
        raise Long
    step = fast_steps.union([one.step for one in operands])
    return Short((step,), types if COMPUTED in types else frozenset({None}))


def _operation(name: str, one: Short, other: Short) -> Short:
    test: Test | None = None
    match name:
        case "=" | "!=" if "Quantity" not in one.types | other.types:
            step = fast_steps.equality(one.step, other.step, same=name == "=")
            if one.name and other.values:
                made = fast_steps.is_equal if name == "=" else fast_steps.is_other
                test = made(one.name, other.values[0])
        case "in":
            step = fast_steps.contained(one.step, other.step)
        case "contains":
            step = fast_steps.contained(other.step, one.step)
        case "and" | "or":
            step = fast_steps.logic(name, one.step, other.step)
            if one.test and other.test:
                test = (fast_steps.both if name == "and" else fast_steps.either)(
                    one.test, other.test
                )
        case _:
            raise Long
    return Short((step,), frozenset({COMPUTED}), test=test)


# -- links of a chain ----------------------------------------------------------------------------


def _link(tree: Tree, of: Short, scope: _Scope) -> Short:
    if tree["type"] == "MemberInvocation":
        return member(_name(tree), of)
    if tree["type"] != "FunctionInvocation":
        raise Long
    children = tree["children"][0]["children"]
    arguments = children[1]["children"] if len(children) > 1 else []
    return _function(_name(tree["children"][0]), arguments, of, scope)


def _function(name: str, arguments: list[Tree], of: Short, scope: _Scope) -> Short:
    if name in ("where", "exists", "select", "iif"):
        inside = _Scope(of.types, scope.variables)
        return _of_expressions(name, of, *(_expression(each, inside) for each in arguments))
    match name, arguments:
        case "ofType", [type_]:
            return of_type(of, type_specifier(None, None, type_))  # type: ignore[no-untyped-call]
        case "combine", [argument]:
            others = _expression(argument, scope)
            return of.then(fast_steps.combine(others.step), *of.types, *others.types)
        case "exclude", [argument]:
            return of.then(fast_steps.exclude(_expression(argument, scope).step))
        case "empty", []:
            test = fast_steps.is_missing(of.name) if of.name else None
            return of.then(fast_steps.empty, COMPUTED, test=test)
        case "first", []:
            return of.then(fast_steps.part(0, 1))
        case "last", []:
            return of.then(fast_steps.part(-1, None))
        case "tail", []:
            return of.then(fast_steps.part(1, None))
    constants = [_constant(argument) for argument in arguments]
    match name, constants:
        case "take", [int(count)]:
            return of.then(fast_steps.part(0, count))
        case "skip", [int(count)]:
            return of.then(fast_steps.part(count, None))
        case "extension", [str(url)]:
            return of.then(fast_steps.extension(url), "Extension")
        case "join", [] | [str()]:
            return of.then(fast_steps.joined(*constants), COMPUTED)
        case ("contains" | "startsWith" | "endsWith", [str()]) | ("upper" | "lower", []):
            return of.then(fast_steps.of_text(_OF_TEXT[name], *constants), COMPUTED)
    raise Long


def _of_expressions(name: str, of: Short, *arguments: Short) -> Short:
    match name, arguments:
        case "where", (condition,):
            return of.then(_where(condition))
        case "exists", (condition,):
            return of.then(_where(condition)).then(fast_steps.exists, COMPUTED)
        case "exists", ():
            test = fast_steps.is_there(of.name) if of.name else None
            return of.then(fast_steps.exists, COMPUTED, test=test)
        case "select", (projection,):
            return Short((*of.steps, fast_steps.select(projection.step)), projection.types)
        case "iif", (condition, then, *rest) if len(rest) < 2:
            otherwise = rest[0] if rest else Short((fast_steps.constant([]),), frozenset())
            step = fast_steps.iif(condition.step, then.step, otherwise.step)
            return Short((*of.steps, step), then.types | otherwise.types)
    raise Long


def _where(condition: Short) -> Step:
    if condition.test:
        return fast_steps.where_it_is_true(condition.test)
    if COMPUTED in condition.types and len(condition.types) > 1:
        raise Long
    return fast_steps.where(condition.step, is_element=COMPUTED not in condition.types)


def _constant(tree: Tree) -> Any:
    """A whole number or a text that is written there."""
    if tree["type"] != "TermExpression" or tree["children"][0]["type"] != "LiteralTerm":
        raise Long
    values = _literal(tree["children"][0]["children"][0])
    if not values or type(values[0]) not in (int, str):
        raise Long
    return values[0]
