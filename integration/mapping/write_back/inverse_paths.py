"""Finds the one element that a path of a map leads to, so that it can be written. Pure.

Such a path is a chain of elements. `where(x = 'literal' and …)`, `[n]` and `first()` may choose an
item, `ofType(T)` a type, `extension('url')` an extension; variables may be such chains, too. Of
`(a | b).first()`, which shows the first of several elements, the first is written: it is shown
whatever the others hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from integration.mapping import r4_elements
from integration.mapping.fhirpath.parser import (
    Tree,
    get_arguments,
    get_literal,
    get_name,
    parse_literal,
    parse_path,
)

# Elements of the server, and modifiers, which change what all of the resource means:
# https://hl7.org/fhir/R4/extensibility.html#modifierExtension
_READ_ONLY_ELEMENTS = frozenset({"id", "meta", "implicitRules", "text", "contained"})

_TEXT_TESTS = frozenset({"startsWith", "contains"})

_INTEGERS = frozenset({"integer", "positiveInt", "unsignedInt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One element down."""

    parent: str  # its type
    name: str  # in JSON
    type: str
    other_names: tuple[str, ...] = ()  # of a choice[x] in JSON; none may stand beside `name`
    predicates: tuple[PathPredicate, ...] = ()  # that an item fulfils
    index: int | None = None  # of all items that the steps so far find


Steps = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class PathPredicate:
    """What an item must have to be found."""

    steps: Steps  # from the item to the value
    test: str  # =, startsWith or contains
    literal: str | int | bool


_WRAPPERS = ("TermExpression", "InvocationTerm", "ParenthesizedTerm")


class _NotInvertible(Exception):
    """The path leads to no element, or to more than one."""


@dataclass(frozen=True, slots=True)
class _Chain:
    """The part of a path that has been read."""

    type: str
    steps: Steps = ()
    choice: str | None = None  # the last element, while its type is not chosen

    def add_step(self, step: Step) -> _Chain:
        return _Chain(step.type, (*self.steps, step))

    def select(self, *predicates: PathPredicate, index: int | None = None) -> _Chain:
        """Select from what the last step finds the items that fulfil the predicates, or one."""
        if not self.steps or self.choice:
            raise _NotInvertible
        last = self.steps[-1]
        if last.index is not None:
            if predicates or index:
                raise _NotInvertible
            return self  # the first of one item
        last = replace(last, predicates=last.predicates + predicates, index=index)
        return replace(self, steps=(*self.steps[:-1], last))


def invert_path(
    path: str, resource: str, variables: Mapping[str, str] | None = None
) -> Steps | None:
    """Return the steps from a resource of this type to the element that `path` finds. None where it
    does not find exactly one element that may be written."""
    return _invert(path, resource, tuple((variables or {}).items()))


@cache
def _invert(path: str, resource: str, variables: tuple[tuple[str, str], ...]) -> Steps | None:
    try:
        chain = _read_path(path, resource, dict(variables))
    except (_NotInvertible, ValueError):
        return None
    names = {step.name for step in chain.steps}
    if chain.choice or not chain.steps or "modifierExtension" in names:
        return None
    return None if chain.steps[0].name in _READ_ONLY_ELEMENTS else chain.steps


def _read_path(path: str, resource: str, variables: Mapping[str, str]) -> _Chain:
    return _extend_chain(parse_path(path), _Chain(resource), variables)


def _extend_chain(tree: Tree, start: _Chain, variables: Mapping[str, str]) -> _Chain:
    """Return `start` with what `tree` adds to it."""
    children = tree.get("children", ())
    match tree["type"]:
        case "TermExpression" | "InvocationTerm" | "ParenthesizedTerm":
            return _extend_chain(children[0], start, variables)
        case "ExternalConstantTerm":
            name = get_name(children[0])
            if start.steps or name not in variables:
                raise _NotInvertible
            others = {other: path for other, path in variables.items() if other != name}
            return _read_path(variables[name], start.type, others)
        case "InvocationExpression" if (first := _find_first_of_union(tree)) is not None:
            return _extend_chain(first, start, variables)
        case "InvocationExpression":
            return _extend_chain(
                children[1], _extend_chain(children[0], start, variables), variables
            )
        case "MemberInvocation":
            return _add_member(start, get_name(tree))
        case "FunctionInvocation":
            return _add_function(start, children[0])
        case "IndexerExpression" if children[1].get("text", "").isdecimal():
            chain = _extend_chain(children[0], start, variables)
            return chain.select(index=int(children[1]["text"]))
    raise _NotInvertible


def is_union(path: str) -> bool:
    """Whether a path shows the first of several elements that has a value."""
    tree = parse_path(path)
    while tree["type"] in _WRAPPERS:
        tree = tree["children"][0]
    return _find_first_of_union(tree) is not None


def _find_first_of_union(tree: Tree) -> Tree | None:
    """Return `a` of `(a | b | c).first()`; None for every other expression."""
    children = tree.get("children", ())
    if tree["type"] != "InvocationExpression" or children[1]["type"] != "FunctionInvocation":
        return None
    function = children[1]["children"][0]
    if get_name(function) != "first" or get_arguments(function):
        return None
    inner = children[0]
    while inner["type"] in _WRAPPERS:
        inner = inner["children"][0]
    if inner["type"] != "UnionExpression":
        return None
    while inner["type"] == "UnionExpression":
        inner = inner["children"][0]
    found: Tree = inner
    return found


def _add_member(chain: _Chain, name: str) -> _Chain:
    if chain.choice:
        raise _NotInvertible
    if name == chain.type and not chain.steps:
        return chain  # Observation.status
    if r4_elements.find_choice_names(chain.type, name):
        return replace(chain, choice=name)
    type_ = r4_elements.find_type(chain.type, name)
    if type_ is None:
        raise _NotInvertible
    return chain.add_step(Step(parent=chain.type, name=name, type=type_))


def _add_function(chain: _Chain, function: Tree) -> _Chain:
    match get_name(function), get_arguments(function):
        case "first", []:
            return chain.select(index=0)
        case "where", [condition]:
            return chain.select(*_read_predicates(condition, chain.type))
        case "extension", [url]:
            url_steps = _add_member(_Chain("Extension"), "url").steps
            predicate = PathPredicate(url_steps, "=", _read_literal(url))
            return _add_member(chain, "extension").select(predicate)
        case "ofType", [type_]:
            return _add_type(chain, type_.get("text", "").removeprefix("FHIR."))
    raise _NotInvertible


def _add_type(chain: _Chain, type_: str) -> _Chain:
    names = r4_elements.find_choice_names(chain.type, chain.choice) if chain.choice else {}
    if type_ not in names:
        raise _NotInvertible
    others = tuple(name for other, name in names.items() if other != type_)
    return chain.add_step(
        Step(parent=chain.type, name=names[type_], type=type_, other_names=others)
    )


# -- predicates ----------------------------------------------------------------------------------


def _read_predicates(tree: Tree, type_: str) -> tuple[PathPredicate, ...]:
    """Return the predicates that are joined by `and`."""
    children = tree.get("children", ())
    match tree["type"]:
        case "ParenthesizedTerm":
            return _read_predicates(children[0], type_)
        case "TermExpression" if children[0]["type"] == "ParenthesizedTerm":
            return _read_predicates(children[0], type_)
        case "AndExpression":
            return _read_predicates(children[0], type_) + _read_predicates(children[1], type_)
        case "EqualityExpression" if tree["terminalNodeText"][0] == "=":
            return (_read_predicate(children[0], type_, "=", children[1]),)
        case "InvocationExpression" if children[1]["type"] == "FunctionInvocation":
            function = children[1]["children"][0]
            if get_name(function) in _TEXT_TESTS:
                (argument,) = get_arguments(function)
                return (_read_predicate(children[0], type_, get_name(function), argument),)
    raise _NotInvertible


def _read_predicate(tree: Tree, type_: str, test: str, literal: Tree) -> PathPredicate:
    chain = _extend_chain(tree, _Chain(type_), {})
    predicate = PathPredicate(chain.steps, test, _read_literal(literal))
    if chain.choice or not chain.steps:
        raise _NotInvertible
    if any(step.predicates or step.index for step in chain.steps):
        raise _NotInvertible
    python_type: type = str
    if chain.type == "boolean" or chain.type in _INTEGERS:
        python_type = bool if chain.type == "boolean" else int
    if not r4_elements.is_value(chain.type) or type(predicate.literal) is not python_type:
        raise _NotInvertible
    return predicate


def _read_literal(tree: Tree) -> str | int | bool:
    literal = get_literal(tree)
    if literal is None or literal["type"] not in (
        "StringLiteral",
        "BooleanLiteral",
        "NumberLiteral",
    ):
        raise _NotInvertible
    if literal["type"] == "NumberLiteral" and not literal["text"].isdecimal():
        raise _NotInvertible
    value: str | int | bool = parse_literal(literal)[0]
    return value
