"""Translates a syntax tree into functions of plain values, as far as that is possible. Pure.

The FHIRPath that maps use most needs no interpreter. What is not translated is left to fhirpathpy,
where a path costs a tenth of a millisecond or more, and a row has a hundred of them.

An entity map names its resource type, and with that the types of its elements follow from their
names: https://hl7.org/fhir/R4/fhirpath.html#types. So types are resolved here, before there is a
resource; the functions themselves (fast_steps) know values only.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby
from typing import Any

from integration.mapping import r4_elements
from integration.mapping.fhirpath import fast_steps, library, parser
from integration.mapping.fhirpath.fast_steps import Step, Test, Values
from integration.mapping.fhirpath.parser import (
    Tree,
    format_tree,
    get_arguments,
    get_literal,
    get_name,
)

# The types that values may have; None: an element of which fhirpathpy forgets the type.
TypeNames = frozenset[str | None]

# The type of a value that is no element: a literal, or the result of a comparison or a function.
COMPUTED = "System"

_TEXT_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "contains": str.__contains__,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "upper": str.upper,
    "lower": str.lower,
}


# Functions that may find something where they are given nothing.
_LENIENT_FUNCTIONS = frozenset({"exists", "empty", "iif", "combine"})


class UnsupportedPath(Exception):
    """Only fhirpathpy can evaluate the path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One step of a chain, and what can be said of it. Two links with the same key do the same."""

    step: Step
    key: Hashable = None  # None: it is like no other
    is_strict: bool = False  # it finds nothing where it is given nothing
    names: tuple[tuple[str, bool], ...] = ()  # of an element: in JSON, and which are accepted
    part: tuple[int, int | None] | None = None  # of a slice: from where, to where
    variable: str | None = None


def join_links(links: Sequence[Link]) -> Step:
    """Return the steps of a chain as one."""
    steps: list[Step] = []
    for is_member, group in groupby(links, key=lambda link: len(link.names) == 1):
        joined = list(group)
        if is_member and len(joined) > 1:
            steps.append(fast_steps.make_members([link.names[0][0] for link in joined]))
        else:
            steps += [link.step for link in joined]
    return steps[0] if len(steps) == 1 else fast_steps.chain_steps(steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class FastPath:
    """A path as functions, applied one after the other, and the types of what they find."""

    links: tuple[Link, ...] = ()
    types: TypeNames
    member: str | None = None  # where the path is one element of the focus, the element's name
    choice: Mapping[str, str] | None = None  # where it ends at a choice[x], JSON names by type
    literal: Values | None = None  # where the path is a literal, its value
    test: Test | None = None  # where the path is a condition, whether one item fulfils it
    united: tuple[FastPath, ...] = ()  # where the path is a union, its operands

    @property
    def step(self) -> Step:
        """All steps as one."""
        return join_links(self.links)

    @property
    def is_plain(self) -> bool:
        """Whether it only names elements. Such a path never fails."""
        return all(link.names or link.part or link.variable for link in self.links)

    def add_step(self, step: Step, *types: str | None, test: Test | None = None) -> FastPath:
        """Return the path with one step more, which finds values of these types or, where none are
        given, of the same."""
        links = (*self.links, Link(step=step))
        return FastPath(links=links, types=frozenset(types) or self.types, test=test)

    def add_slice(self, first: int, last: int | None) -> FastPath:
        """Return the path to a part of what it finds."""
        part = (first, last)
        link = Link(step=fast_steps.make_slice(*part), key=part, is_strict=True, part=part)
        return FastPath(links=(*self.links, link), types=self.types)

    def describe_last(self, key: Hashable, *, is_strict: bool) -> FastPath:
        """Return the path with this said of its last step, unless that is known already."""
        *links, last = self.links
        if last.key is not None:
            return self
        return replace(self, links=(*links, replace(last, key=key, is_strict=is_strict)))


_NOTHING = Link(step=fast_steps.make_constant([]))


@dataclass(frozen=True, slots=True)
class _Scope:
    """The types of the focus, and of variables."""

    focus: TypeNames
    variables: Mapping[str, TypeNames]


def build_fast_path(
    tree: Tree, type_: str | None, variables: Mapping[str, TypeNames]
) -> FastPath | None:
    """Translate an expression for a focus of this type; None where it is not supported."""
    try:
        return _build_expression(tree, _Scope(frozenset({type_}), variables))
    except UnsupportedPath:
        return None


def _build_expression(tree: Tree, scope: _Scope) -> FastPath:
    children = tree.get("children", ())
    match tree["type"]:
        case "TermExpression" | "InvocationTerm" | "ParenthesizedTerm":
            return _build_expression(children[0], scope)
        case "LiteralTerm":
            values = _parse_literal(children[0])
            types = frozenset({COMPUTED} if values else ())
            constant = fast_steps.make_constant(values)
            return FastPath(links=(Link(step=constant),), types=types, literal=values)
        case "ExternalConstantTerm" if (name := get_name(children[0])) in scope.variables:
            variable = Link(step=fast_steps.make_variable(name), key=f"%{name}", variable=name)
            return FastPath(links=(variable,), types=scope.variables[name])
        case "MemberInvocation" | "FunctionInvocation":
            return _add_invocation(FastPath(types=scope.focus), tree, scope)
        case "InvocationExpression":
            first, *links = _split_chain(tree)
            start = _build_expression(first, scope)
            return reduce(lambda path, link: _add_invocation(path, link, scope), links, start)
        case "IndexerExpression" if children[1].get("text", "").isdecimal():
            index = int(children[1]["text"])
            return _build_expression(children[0], scope).add_slice(index, index + 1)
        case "UnionExpression":
            operands = [_build_expression(part, scope) for part in _split_union(tree)]
            return _build_union(operands).describe_last(format_tree(tree), is_strict=False)
        case "EqualityExpression" | "MembershipExpression" | "AndExpression" | "OrExpression":
            left, right = (_build_expression(child, scope) for child in children)
            return _build_operation(tree["terminalNodeText"][0], left, right)
    raise UnsupportedPath


def _split_chain(tree: Tree) -> list[Tree]:
    """Return the links of a.b.c, three of them: the tree has pairs of pairs."""
    first, last = tree["children"]
    return [*(_split_chain(first) if first["type"] == "InvocationExpression" else [first]), last]


def _split_union(tree: Tree) -> list[Tree]:
    """Return the operands of a | b | c, three of them: the tree has pairs of pairs."""
    if tree["type"] != "UnionExpression":
        return [tree]
    return [operand for child in tree["children"] for operand in _split_union(child)]


def _parse_literal(literal: Tree) -> list[Any]:
    try:
        return parser.parse_literal(literal)
    except ValueError:
        raise UnsupportedPath from None


# -- operators -----------------------------------------------------------------------------------


def _build_union(operands: list[FastPath]) -> FastPath:
    types = frozenset().union(*(operand.types for operand in operands))
    if COMPUTED in types and len(types) > 1:
        raise UnsupportedPath
    step = fast_steps.make_union([operand.step for operand in operands])
    types = types if COMPUTED in types else frozenset({None})
    return FastPath(links=(Link(step=step),), types=types, united=tuple(operands))


def _build_operation(name: str, left: FastPath, right: FastPath) -> FastPath:
    test: Test | None = None
    match name:
        case "=" | "!=" if "Quantity" not in left.types | right.types:
            step = fast_steps.make_equality(left.step, right.step, same=name == "=")
            if left.member and right.literal:
                make_test = (
                    fast_steps.make_equal_test if name == "=" else fast_steps.make_unequal_test
                )
                test = make_test(left.member, right.literal[0])
        case "in":
            step = fast_steps.make_membership(left.step, right.step)
        case "contains":
            step = fast_steps.make_membership(right.step, left.step)
        case "and" | "or":
            step = fast_steps.make_logic(name, left.step, right.step)
            if left.test and right.test:
                combine = fast_steps.make_and_test if name == "and" else fast_steps.make_or_test
                test = combine(left.test, right.test)
        case _:
            raise UnsupportedPath
    return FastPath(links=(Link(step=step),), types=frozenset({COMPUTED}), test=test)


# -- links of a chain ----------------------------------------------------------------------------


def _add_invocation(path: FastPath, link: Tree, scope: _Scope) -> FastPath:
    if link["type"] == "MemberInvocation":
        return _add_member(path, get_name(link))
    if link["type"] != "FunctionInvocation":
        raise UnsupportedPath
    function = link["children"][0]
    name = get_name(function)
    added = _add_function(path, name, get_arguments(function), scope)
    if len(added.links) <= len(path.links):
        return added  # a type that the values have anyway, or that chooses among names
    return added.describe_last(format_tree(function), is_strict=name not in _LENIENT_FUNCTIONS)


def _add_member(path: FastPath, name: str) -> FastPath:
    if not name[:1].islower() or name == "length" or COMPUTED in path.types:
        raise UnsupportedPath
    types: set[str | None] = set()
    choices: set[tuple[tuple[str, str], ...]] = set()
    for type_ in path.types:
        if names := r4_elements.find_choice_names(type_ or "_", name):
            choices.add(tuple(names.items()))
        else:
            types.add(r4_elements.find_json_type(type_ or "_", name))
    # A Resource says itself of which type it is. A choice among other types is not supported.
    if "Resource" in types or (choices and len(types) + len(choices) > 1):
        raise UnsupportedPath
    if choices:
        return _add_choice(path.links, dict(choices.pop()))
    named = ((name, True),)
    link = Link(step=fast_steps.make_member(name), key=named, is_strict=True, names=named)
    member = None if path.links else name
    return FastPath(links=(*path.links, link), types=frozenset(types), member=member)


def _add_choice(
    links: tuple[Link, ...], choice: Mapping[str, str], accepted: TypeNames | None = None
) -> FastPath:
    types: TypeNames = frozenset(choice) if accepted is None else accepted
    names = tuple((name, type_ in types) for type_, name in choice.items())
    link = Link(step=fast_steps.make_choice(names), key=names, is_strict=True, names=names)
    return FastPath(links=(*links, link), types=types, choice=choice)


def _add_type_filter(path: FastPath, specifier: Tree) -> FastPath:
    if None in path.types or COMPUTED in path.types:
        raise UnsupportedPath
    accepted = library.filter_types(path.types, specifier)
    if path.choice:
        return _add_choice(path.links[:-1], path.choice, accepted)
    if accepted and accepted != path.types:
        raise UnsupportedPath
    if accepted:
        return path
    return FastPath(links=(_NOTHING,), types=accepted)


def _add_function(path: FastPath, name: str, arguments: list[Tree], scope: _Scope) -> FastPath:
    if name in ("where", "exists", "select", "iif"):
        inner = _Scope(path.types, scope.variables)
        expressions = [_build_expression(argument, inner) for argument in arguments]
        return _add_expression_function(path, name, expressions)
    match name, arguments:
        case "ofType", [specifier]:
            return _add_type_filter(path, specifier)
        case "combine", [argument]:
            others = _build_expression(argument, scope)
            step = fast_steps.make_combine(others.step)
            return path.add_step(step, *path.types, *others.types)
        case "exclude", [argument]:
            others = _build_expression(argument, scope)
            return path.add_step(fast_steps.make_exclude(others.step))
        case "currentFirst", []:
            return path.add_step(fast_steps.put_current_first)
        case "current", []:
            return path.add_step(fast_steps.keep_current)
        case "empty", []:
            test = fast_steps.make_empty_test(path.member) if path.member else None
            return path.add_step(fast_steps.check_empty, COMPUTED, test=test)
        case "first", [] if path.united and all(operand.is_plain for operand in path.united):
            first = fast_steps.make_first_of([operand.step for operand in path.united])
            return FastPath(links=(Link(step=first, key=(path.links[0].key, 1)),), types=path.types)
        case "first", []:
            return path.add_slice(0, 1)
        case "last", []:
            return path.add_slice(-1, None)
        case "tail", []:
            return path.add_slice(1, None)
    return _add_constant_function(path, name, [_parse_constant(argument) for argument in arguments])


def _add_expression_function(path: FastPath, name: str, arguments: list[FastPath]) -> FastPath:
    """Add a function whose arguments are evaluated for each item."""
    match name, arguments:
        case "where", [condition]:
            return path.add_step(_build_where(condition))
        case "exists", [condition]:
            filtered = path.add_step(_build_where(condition))
            return filtered.add_step(fast_steps.check_exists, COMPUTED)
        case "exists", []:
            test = fast_steps.make_exists_test(path.member) if path.member else None
            return path.add_step(fast_steps.check_exists, COMPUTED, test=test)
        case "select", [projection]:
            select = Link(step=fast_steps.make_select(projection.step))
            return FastPath(links=(*path.links, select), types=projection.types)
        case "iif", [condition, then, *rest] if len(rest) < 2:
            nothing = FastPath(links=(_NOTHING,), types=frozenset())
            otherwise = rest[0] if rest else nothing
            choice = Link(step=fast_steps.make_iif(condition.step, then.step, otherwise.step))
            return FastPath(links=(*path.links, choice), types=then.types | otherwise.types)
    raise UnsupportedPath


def _add_constant_function(path: FastPath, name: str, constants: list[Any]) -> FastPath:
    """Add a function whose arguments are literals."""
    match name, constants:
        case "take", [int(count)]:
            return path.add_slice(0, count)
        case "skip", [int(count)]:
            return path.add_slice(count, None)
        case "extension", [str(url)]:
            return path.add_step(fast_steps.make_extension(url), "Extension")
        case "join", [] | [str()]:
            return path.add_step(fast_steps.make_join(*constants), COMPUTED)
        case ("contains" | "startsWith" | "endsWith", [str()]) | ("upper" | "lower", []):
            step = fast_steps.make_text_function(_TEXT_FUNCTIONS[name], *constants)
            return path.add_step(step, COMPUTED)
    raise UnsupportedPath


def _build_where(condition: FastPath) -> Step:
    if condition.test:
        return fast_steps.make_where_test(condition.test)
    if COMPUTED in condition.types and len(condition.types) > 1:
        raise UnsupportedPath
    return fast_steps.make_where(condition.step, is_element=COMPUTED not in condition.types)


def _parse_constant(tree: Tree) -> int | str:
    """Return a literal whole number or text."""
    literal = get_literal(tree)
    values = _parse_literal(literal) if literal else []
    if not values or type(values[0]) not in (int, str):
        raise UnsupportedPath
    constant: int | str = values[0]
    return constant
