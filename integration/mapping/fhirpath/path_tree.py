"""Evaluates many paths on a resource at once. Pure.

Paths that begin alike share their beginning: of `code.coding.code` and `code.coding.display`, each
coding is visited once. Where an element is absent, nothing behind it is visited: most columns of a
row stay empty, and cost nothing.

    root --- code --- coding --- code     -> a column
          |        |          '- display  -> a column
          |        '- text                -> a column
          '- status                       -> a column

A tree consists of visitors: functions of values, which call those of their branches with what they
find. An element mostly has one value, so each visitor comes twice: for a value, and for several.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from integration.mapping.fhirpath.compile import compile_path
from integration.mapping.fhirpath.fast_path import FastPath, Link, join_links
from integration.mapping.fhirpath.fast_path_plan import FastPathPlan, get_plan
from integration.mapping.fhirpath.fast_steps import Values, drop_extensions_alone
from integration.mapping.r4_elements import find_choice_names

# Through these, a path may lead to any element.
_RESOURCE_VARIABLES = frozenset({"resource", "rootResource", "context"})


@dataclass(slots=True)
class Walk:
    """One walk through a tree: where paths start, the variables, and what becomes of the values.
    `base`: the address of the FHIR server; `notes` by the number of their column; `found`: what is
    kept, by a number."""

    root: Values
    variables: dict[str, Values]
    row: dict[str, Any]
    base: str | None
    notes: list[tuple[int, str]] = field(default_factory=list)
    found: dict[int, Values] = field(default_factory=dict)


def begin_walk(start: Values, row: dict[str, Any], base: str | None, today: date) -> Walk:
    """Begin a walk through a resource, with the variables that every map has."""
    variables = {"resource": start, "rootResource": start, "today": [today.isoformat()]}
    return Walk(start, variables, row, base)


VisitValue = Callable[[Any, Walk], None]
VisitValues = Callable[[Values, Walk], None]


@dataclass(frozen=True, slots=True)
class Visitor:
    """What is done with what a path finds: with a single value, and with several."""

    visit_value: VisitValue
    visit_values: VisitValues


@dataclass(frozen=True, slots=True)
class Leaf:
    """A path, and what is done with the values that it finds; nothing where it finds none."""

    path: str
    visitor: Visitor


class UnsupportedTree(Exception):
    """A path has no fast path."""


@dataclass(slots=True)
class _Node:
    leaves: list[Visitor] = field(default_factory=list)
    branches: dict[Hashable, tuple[Link, _Node]] = field(default_factory=dict)

    def add(self, links: Sequence[Link], visitor: Visitor) -> None:
        """Add what is done with the values that these links find."""
        node = self
        for link in links:
            key = id(link) if link.key is None else link.key
            node = node.branches.setdefault(key, (link, _Node()))[1]
        node.leaves.append(visitor)


@dataclass(slots=True)
class _Branching:
    """Paths with the same beginning, which must be evaluated though its first part finds nothing.
    `needs`: the elements of the resource and the variables of which it needs one; None: unknown."""

    links: Sequence[Link]
    needs: set[str] | None = field(default_factory=set)
    node: _Node = field(default_factory=_Node)


@dataclass(frozen=True, slots=True)
class PathTree:
    """The paths of a map. `elements`: those of the resource that its paths may read; None: all."""

    elements: frozenset[str] | None
    walk: Callable[[Walk], None]


def build_path_tree(
    type_: str, variables: Mapping[str, str], leaves: Iterable[Leaf], *, only_used: bool
) -> PathTree:
    """Build the tree of a map's paths from a resource. `only_used`: without the variables that none
    of these paths needs. Raises UnsupportedTree."""
    leaves = list(leaves)
    plan = get_plan(type_, tuple(variables.items()))
    if not variables.keys() <= plan.types.keys():
        raise UnsupportedTree
    used = _find_used(variables, leaves) if only_used else [*variables]
    paths = [*(variables[name] for name in used), *(leaf.path for leaf in leaves)]
    steps = [_build_variable(type_, plan, name, variables[name]) for name in used]
    visit_all = _build_walk(type_, plan, type_, leaves)

    def walk(walk: Walk) -> None:
        for step in steps:
            step(walk)
        visit_all(walk)

    expressions = [compile_path(path) for path in paths]
    if any(expression.variables & _RESOURCE_VARIABLES for expression in expressions):
        return PathTree(None, walk)
    # extension('url') names the element without naming it.
    names = {"extension"}.union(*(expression.elements for expression in expressions))
    return PathTree(frozenset(_list_json_names(type_, names)), walk)


def build_item_visitor(
    type_: str, variables: Mapping[str, str], item_type: str | None, leaves: Iterable[Leaf]
) -> Callable[[Walk], None]:
    """Build the walk of paths from an item of a resource: `root` is the item. Raises
    UnsupportedTree."""
    return _build_walk(type_, get_plan(type_, tuple(variables.items())), item_type, leaves)


def _find_used(variables: Mapping[str, str], leaves: Iterable[Leaf]) -> list[str]:
    """Return the variables that these paths need, and those that they need in turn."""
    used: set[str] = set()
    pending = [leaf.path for leaf in leaves]
    while pending:
        new = (compile_path(pending.pop()).variables & variables.keys()) - used
        used |= new
        pending += [variables[name] for name in new]
    return [name for name in variables if name in used]


def _build_walk(
    type_: str, plan: FastPathPlan, focus: str | None, leaves: Iterable[Leaf]
) -> Callable[[Walk], None]:
    """Return what visits all that these paths find, where the variables are evaluated."""
    root = _Node()
    by_variable: dict[str, _Node] = {}
    branchings: dict[Hashable, _Branching] = {}
    for leaf in leaves:
        found = plan[focus][leaf.path]
        if found is None:
            raise UnsupportedTree
        _add_leaf(leaf, found, root, by_variable, branchings)
    root_visitor = _build_branches(root)
    variable_visitors = [(name, _build_branches(node)) for name, node in by_variable.items()]
    tests = [
        _build_branching(type_ if focus == type_ else None, branching)
        for branching in branchings.values()
    ]

    def walk(walk: Walk) -> None:
        root_visitor.visit_value(walk.root[0], walk)
        for name, visitor in variable_visitors:
            values = walk.variables[name]
            if values:
                _visit(visitor, values, walk)
        for test in tests:
            test(walk)

    return walk


def _add_leaf(
    leaf: Leaf,
    found: FastPath,
    root: _Node,
    by_variable: dict[str, _Node],
    branchings: dict[Hashable, _Branching],
) -> None:
    links = found.links
    variable = links[0].variable if links else None
    start = 1 if variable else 0
    last = max((n for n, link in enumerate(links) if n >= start and not link.is_strict), default=-1)
    if last >= 0:
        first = links[: last + 1]
        key = tuple(id(link) if link.key is None else link.key for link in first)
        branching = branchings.setdefault(key, _Branching(first))
        needs = compile_path(leaf.path).needs
        if branching.needs is not None and needs is not None:
            branching.needs |= needs
        else:
            branching.needs = None
        branching.node.add(links[last + 1 :], leaf.visitor)
    elif variable is not None:
        by_variable.setdefault(variable, _Node()).add(links[1:], leaf.visitor)
    else:
        root.add(links, leaf.visitor)


def _build_variable(type_: str, plan: FastPathPlan, name: str, path: str) -> Callable[[Walk], None]:
    """Return what evaluates a variable."""
    found = plan[type_][path]
    assert found is not None  # the plan knows its type
    is_needed = _build_test(type_, compile_path(path).needs)
    evaluate = join_links(found.links)

    def step(walk: Walk) -> None:
        values = evaluate(walk.root, walk.root, walk.variables) if is_needed(walk) else []
        walk.variables[name] = drop_extensions_alone(values)

    return step


def _build_branching(type_: str | None, branching: _Branching) -> Callable[[Walk], None]:
    # From an item, what a path needs is in the item.
    is_needed = _build_test(type_, branching.needs if type_ else None)
    evaluate, visitor = join_links(branching.links), _build_branches(branching.node)

    def step(walk: Walk) -> None:
        if is_needed(walk):
            _visit(visitor, evaluate(walk.root, walk.root, walk.variables), walk)

    return step


def _build_test(type_: str | None, needs: Iterable[str] | None) -> Callable[[Walk], bool]:
    """Return whether one of the elements and %variables is present."""
    if needs is None:
        return lambda walk: True
    variables = [name[1:] for name in needs if name.startswith("%")]
    named = [name for name in needs if not name.startswith("%")]
    elements = frozenset(_list_json_names(type_ or "", named))
    match variables, [*elements]:
        case [variable], []:
            return lambda walk: bool(walk.variables[variable])
        case [], [element]:
            return lambda walk: element in walk.root[0]

    def is_needed(walk: Walk) -> bool:
        if not elements.isdisjoint(walk.root[0]):
            return True
        found = walk.variables
        return any(found[name] for name in variables)

    return is_needed


def _list_json_names(type_: str, names: Iterable[str]) -> Iterable[str]:
    """Return the names in JSON of elements of a resource."""
    for name in names:
        yield name
        yield from find_choice_names(type_, name).values()


# -- visitors --------------------------------------------------------------------------------------


def _visit(visitor: Visitor, values: Values, walk: Walk) -> None:
    if len(values) == 1:
        visitor.visit_value(values[0], walk)
    elif values:
        visitor.visit_values(values, walk)


def _build_branches(node: _Node) -> Visitor:
    """Return what visits everything that is done with a value, and every branch."""
    visitors = [
        *node.leaves,
        *(_build_link(link, _build_branches(inner)) for link, inner in node.branches.values()),
    ]
    if len(visitors) == 1:
        return visitors[0]
    of_value = [visitor.visit_value for visitor in visitors]
    of_values = [visitor.visit_values for visitor in visitors]

    def visit_value(value: Any, walk: Walk) -> None:
        for visit in of_value:
            visit(value, walk)

    def visit_values(values: Values, walk: Walk) -> None:
        for visit in of_values:
            visit(values, walk)

    return Visitor(visit_value, visit_values)


def _build_link(link: Link, behind: Visitor) -> Visitor:
    """Return what visits what a link finds in a value."""
    if link.part is not None:
        return _build_slice(link.part, behind)
    if len(link.names) == 1:
        return _build_member(link, behind)
    step = link.step

    def visit_value(value: Any, walk: Walk) -> None:
        _visit(behind, step([value], walk.root, walk.variables), walk)

    def visit_values(values: Values, walk: Walk) -> None:
        _visit(behind, step(values, walk.root, walk.variables), walk)

    if link.names:
        return Visitor(_build_choice_visit(link.names, behind), visit_values)
    return Visitor(visit_value, visit_values)


def _build_member(link: Link, behind: Visitor) -> Visitor:
    ((name, _),) = link.names
    step, visit_found, visit_all_found = link.step, behind.visit_value, behind.visit_values

    def visit_value(value: Any, walk: Walk) -> None:
        if type(value) is not dict:
            return
        found = value.get(name)
        if found is None:
            return
        if type(found) is not list:
            visit_found(found, walk)
        elif len(found) == 1:
            visit_found(found[0], walk)
        elif found:
            visit_all_found(found, walk)

    def visit_values(values: Values, walk: Walk) -> None:
        _visit(behind, step(values, walk.root, walk.variables), walk)

    return Visitor(visit_value, visit_values)


def _build_choice_visit(names: Sequence[tuple[str, bool]], behind: Visitor) -> VisitValue:
    """Return what visits an element that has one of several names in JSON: the first that is there,
    where it is accepted."""
    accepted = [name for name, is_accepted in names if is_accepted]

    def visit_value(value: Any, walk: Walk) -> None:
        if type(value) is not dict:
            return
        for name, is_accepted in names:
            found = value.get(name)
            if found is not None:
                if is_accepted:
                    _visit(behind, found if type(found) is list else [found], walk)
                return

    if len(accepted) != 1:
        return visit_value
    (only,) = accepted

    def visit_only(value: Any, walk: Walk) -> None:
        # Where it is absent, no other name matters; where it is there, another may go before it.
        if type(value) is dict and value.get(only) is not None:
            visit_value(value, walk)

    return visit_only


def _build_slice(part: tuple[int, int | None], behind: Visitor) -> Visitor:
    first, last = part

    def visit_values(values: Values, walk: Walk) -> None:
        _visit(behind, values[first:last], walk)

    def visit_nothing(value: Any, walk: Walk) -> None:
        return None

    return Visitor(behind.visit_value if [None][first:last] else visit_nothing, visit_values)
