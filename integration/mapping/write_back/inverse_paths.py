"""Which paths of a map lead to one element, so that it can be written, and how. Pure.

A chain of elements, of which `where(x = 'literal' and …)`, `[n]` and `first()` may choose one;
`ofType(T)` for an element with several types; `extension('url')`; variables that are such chains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from fhirpathpy.engine.evaluators import string_literal

from integration.mapping import r4_elements
from integration.mapping.fhirpath.compile import _parsed

Tree = Mapping[str, Any]

# The server's, or a modifier, which changes what all of the resource means:
# https://hl7.org/fhir/R4/extensibility.html#modifierExtension
_NOT_OURS = frozenset({"id", "meta", "implicitRules", "text", "contained"})

_TESTS = frozenset({"startsWith", "contains"})

_INTEGERS = frozenset({"integer", "positiveInt", "unsignedInt"})


@dataclass(frozen=True, slots=True)
class Step:
    """One element down. `name` is what JSON calls it."""

    parent: str
    name: str
    type: str
    other_names: tuple[str, ...] = ()  # the forms that cannot be there beside it
    predicates: tuple[PathPredicate, ...] = ()
    index: int | None = None  # of all that are found by then


Steps = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class PathPredicate:
    """`test` is `=`, or a function of text that takes the literal."""

    steps: Steps
    test: str
    literal: str | int | bool


class _NotOne(Exception):
    """The path leads to no element, or to none alone."""


@dataclass(frozen=True, slots=True)
class _Chain:
    """As far as a path has been read. `choice`: an element that waits for its type."""

    type: str
    steps: Steps = ()
    choice: str | None = None

    def then(self, step: Step) -> _Chain:
        return _Chain(step.type, (*self.steps, step))

    def chosen(self, *where: PathPredicate, item: int | None = None) -> _Chain:
        """Of what the last step finds, what fulfils the conditions, or one item."""
        if not self.steps or self.choice:
            raise _NotOne
        last = self.steps[-1]
        if last.index is not None:
            if where or item:
                raise _NotOne
            return self  # the first of one
        last = replace(last, predicates=last.predicates + where, index=item)
        return replace(self, steps=(*self.steps[:-1], last))


def invert_path(
    path: str, resource: str, variables: Mapping[str, str] | None = None
) -> Steps | None:
    """The steps from a resource to the element that `path` shows; None where there is not one."""
    return _inverse(path, resource, tuple((variables or {}).items()))


@cache
def _inverse(path: str, resource: str, variables: tuple[tuple[str, str], ...]) -> Steps | None:
    try:
        chain = _read(path, resource, dict(variables))
    except (_NotOne, ValueError):
        return None
    names = {step.name for step in chain.steps}
    if chain.choice or not chain.steps or "modifierExtension" in names:
        return None
    return None if chain.steps[0].name in _NOT_OURS else chain.steps


def _read(path: str, resource: str, variables: Mapping[str, str]) -> _Chain:
    return _chain(_parsed(path)["children"][0], _Chain(resource), variables)


def _chain(tree: Tree, start: _Chain, variables: Mapping[str, str]) -> _Chain:
    """`start` with what `tree` adds to it."""
    children = tree.get("children", ())
    match tree["type"]:
        case "TermExpression" | "InvocationTerm" | "ParenthesizedTerm":
            return _chain(children[0], start, variables)
        case "ExternalConstantTerm":
            name = _name(children[0])
            if start.steps or name not in variables:
                raise _NotOne
            others = {each: path for each, path in variables.items() if each != name}
            return _read(variables[name], start.type, others)
        case "InvocationExpression":
            return _chain(children[1], _chain(children[0], start, variables), variables)
        case "MemberInvocation":
            return _member(start, _name(tree))
        case "FunctionInvocation":
            return _function(children[0], start)
        case "IndexerExpression" if children[1].get("text", "").isdecimal():
            return _chain(children[0], start, variables).chosen(item=int(children[1]["text"]))
    raise _NotOne


def _member(chain: _Chain, name: str) -> _Chain:
    if chain.choice:
        raise _NotOne
    if name == chain.type and not chain.steps:
        return chain  # Observation.status
    if r4_elements.forms(chain.type, name):
        return replace(chain, choice=name)
    type_ = r4_elements.type_of(chain.type, name)
    if type_ is None:
        raise _NotOne
    return chain.then(Step(chain.type, name, type_))


def _function(tree: Tree, chain: _Chain) -> _Chain:
    children = tree["children"]
    arguments = children[1]["children"] if len(children) > 1 else []
    match _name(tree), arguments:
        case "first", []:
            return chain.chosen(item=0)
        case "where", [condition]:
            return chain.chosen(*_conditions(condition, chain.type))
        case "extension", [url]:
            extension = _member(chain, "extension")
            is_it = PathPredicate(_member(_Chain("Extension"), "url").steps, "=", _literal(url))
            return extension.chosen(is_it)
        case "ofType", [type_]:
            return _of_type(chain, type_.get("text", "").removeprefix("FHIR."))
    raise _NotOne


def _of_type(chain: _Chain, type_: str) -> _Chain:
    forms = r4_elements.forms(chain.type, chain.choice) if chain.choice else {}
    if type_ not in forms:
        raise _NotOne
    others = tuple(name for other, name in forms.items() if other != type_)
    return chain.then(Step(chain.type, forms[type_], type_, others))


# -- conditions ----------------------------------------------------------------------------------


def _conditions(tree: Tree, type_: str) -> tuple[PathPredicate, ...]:
    children = tree.get("children", ())
    match tree["type"]:
        case "ParenthesizedTerm":
            return _conditions(children[0], type_)
        case "TermExpression" if children[0]["type"] == "ParenthesizedTerm":
            return _conditions(children[0], type_)
        case "AndExpression":
            return _conditions(children[0], type_) + _conditions(children[1], type_)
        case "EqualityExpression" if tree["terminalNodeText"][0] == "=":
            return (_condition(children[0], type_, "=", children[1]),)
        case "InvocationExpression" if children[1]["type"] == "FunctionInvocation":
            function = children[1]["children"][0]
            if _name(function) in _TESTS:
                (argument,) = function["children"][1]["children"]
                return (_condition(children[0], type_, _name(function), argument),)
    raise _NotOne


def _condition(tree: Tree, type_: str, test: str, literal: Tree) -> PathPredicate:
    chain = _chain(tree, _Chain(type_), {})
    found = PathPredicate(chain.steps, test, _literal(literal))
    if (
        chain.choice
        or not chain.steps
        or any(step.predicates or step.index for step in chain.steps)
    ):
        raise _NotOne
    fits: type = str
    if chain.type == "boolean" or chain.type in _INTEGERS:
        fits = bool if chain.type == "boolean" else int
    if not _is_value(chain.type) or type(found.literal) is not fits:
        raise _NotOne
    return found


def _is_value(type_: str) -> bool:
    """Primitives, and `url` of an Extension, which FHIR gives a type of FHIRPath's."""
    return r4_elements.is_primitive(type_) or type_.startswith("System.")


def _literal(tree: Tree) -> str | int | bool:
    if tree["type"] != "TermExpression" or tree["children"][0]["type"] != "LiteralTerm":
        raise _NotOne
    literal = tree["children"][0]["children"][0]
    match literal["type"]:
        case "StringLiteral":
            (text,) = string_literal(None, None, literal)  # type: ignore[no-untyped-call]
            return str(text)
        case "BooleanLiteral":
            return bool(literal["text"] == "true")
        case "NumberLiteral" if literal["text"].isdecimal():
            return int(literal["text"])
    raise _NotOne


def _name(tree: Tree) -> str:
    text: str = tree["children"][0]["text"]
    return text.strip("`'\"")
