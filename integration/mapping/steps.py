"""The steps of FHIRPath that maps use most, as functions: from nodes to nodes. Pure.

Each does what fhirpathpy does, with its values and mostly with its functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from fhirpathpy.engine.invocations import invocation_registry
from fhirpathpy.engine.nodes import ResourceNode, TypeInfo
from fhirpathpy.engine.util import uniq
from fhirpathpy.models import models

Nodes = list[Any]
Variables = Mapping[str, Any]
# From what the step is applied to, and from what the whole expression is.
Step = Callable[[Nodes, Nodes, Variables], Nodes]

_R4: Mapping[str, Any] = models["r4"]
_REGISTRY: Mapping[str, Any] = invocation_registry
_LIBRARY: Mapping[str, Callable[..., Any]] = {
    name: entry["fn"] for name, entry in _REGISTRY.items()
}

_uniq: Any = uniq

# fhirpathpy knows of types only after the first `is`; then, for ever.
TypeInfo.model = _R4  # type: ignore[assignment]


class Element(ResourceNode):
    """A ResourceNode that is quick to make: a row needs hundreds."""

    def __init__(self, data: Any, path: str | None) -> None:
        self.path: Any = data["resourceType"] if _is_resource(data) else path
        self.data: Any = data
        self._data: Any = None
        self.propName = None
        self.index = None


def _is_resource(data: Any) -> bool:
    return type(data) is dict and "resourceType" in data


class Unusual(Exception):
    """Here only fhirpathpy knows what happens."""


def constant(value: Nodes) -> Step:
    return lambda nodes, root, variables: value


def variable(name: str) -> Step:
    def step(nodes: Nodes, root: Nodes, variables: Variables) -> Nodes:
        value = variables.get(name)
        if not isinstance(value, list):
            raise Unusual
        return value

    return step


# -- elements ------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)  # a hostile resource may claim any type
def _children_of(path: str | None, name: str) -> str | tuple[tuple[str, str], ...]:
    """The type of a child element; of a choice, the name and type of each form it may take."""
    child = f"{path or '_'}.{name}"
    child = _R4["pathsDefinedElsewhere"].get(child, child)
    types: Mapping[str, str] = _R4["path2Type"]
    if forms := _R4["choiceTypePaths"].get(child):
        return tuple((f"{name}{form}", types.get(child + form, child + form)) for form in forms)
    return "Extension" if name == "extension" else types.get(child, child)


def member(name: str) -> Step | None:
    if not name[:1].islower() or name == "length":
        return None
    extended = f"_{name}"

    def step(nodes: Nodes, root: Nodes, variables: Variables) -> Nodes:
        found: Nodes = []
        for node in nodes:
            if isinstance(node, ResourceNode):
                data, path = node.data, node.path
            else:
                data, path = _untyped(node)
            if type(data) is not dict:
                continue
            if extended in data:
                raise Unusual
            types = _children_of(path, name)
            if isinstance(types, str):
                value, type_ = data.get(name), types
            else:
                value, type_ = _chosen(data, types)
            if type(value) is list:
                found += [Element(one, type_) for one in value]
            elif value is not None:
                found.append(Element(value, type_))
        return found

    return step


def _untyped(node: Any) -> tuple[Any, str | None]:
    return node, node.get("resourceType") if isinstance(node, dict) else None


def _chosen(data: Mapping[str, Any], forms: tuple[tuple[str, str], ...]) -> tuple[Any, str]:
    for name, type_ in forms:
        if f"_{name}" in data:
            raise Unusual
        if data.get(name) is not None:
            return data[name], type_
    return None, ""


# -- operators -----------------------------------------------------------------------------------


def chained(*links: Step | None) -> Step | None:
    steps = [step for step in links if step is not None]
    if len(steps) < len(links):
        return None

    def step(nodes: Nodes, root: Nodes, variables: Variables) -> Nodes:
        for each in steps:
            nodes = each(nodes, root, variables)
        return nodes

    return step


def item(of: Step | None, index: int) -> Step | None:
    if of is None:
        return None
    return lambda nodes, root, variables: of(nodes, root, variables)[index : index + 1]


def union(*operands: Step | None) -> Step | None:
    steps = [step for step in operands if step is not None]
    if len(steps) < len(operands):
        return None
    distinct = _LIBRARY["distinct"]

    def step(nodes: Nodes, root: Nodes, variables: Variables) -> Nodes:
        found = [node for each in steps for node in each(nodes, root, variables)]
        if not all(isinstance(node, ResourceNode) for node in found):
            kept: Nodes = distinct(None, found)
            return kept
        # Comparing values costs most; an element that was found twice need not be compared.
        values = list({id(node.data): node.data for node in found}.values())
        return [Element(value, None) for value in (_uniq(values) if len(values) > 1 else values)]

    return step


def equality(one: Step | None, other: Step | None, *, same: bool) -> Step | None:
    if one is None or other is None:
        return None
    compare = _LIBRARY["=" if same else "!="]

    def step(nodes: Nodes, root: Nodes, variables: Variables) -> Nodes:
        left, right = one(nodes, root, variables), other(nodes, root, variables)
        if not left or not right:
            return []
        if len(left) == len(right) == 1 and type(right[0]) is str:
            said = left[0].data if isinstance(left[0], ResourceNode) else left[0]
            if type(said) is str:
                return [(said == right[0]) is same]
        result: Nodes = compare(None, left, right)
        return result

    return step


def operator(name: str, *operands: Step | None, read: Callable[[Nodes], Any] = list) -> Step | None:
    one, other = operands
    if one is None or other is None:
        return None
    apply = _LIBRARY[name]

    def step(nodes: Nodes, root: Nodes, variables: Variables) -> Nodes:
        left, right = one(nodes, root, variables), other(nodes, root, variables)
        result = apply(None, read(left), read(right))
        return result if isinstance(result, list) else [result]

    return step


def truth(nodes: Nodes) -> Any:
    """A boolean, or the empty list."""
    if not nodes:
        return []
    value = nodes[0].data if isinstance(nodes[0], ResourceNode) else nodes[0]
    if len(nodes) > 1 or type(value) is not bool:
        raise Unusual
    return value


# -- functions -----------------------------------------------------------------------------------


def of_type(type_: Any) -> Step:
    def step(nodes: Nodes, root: Nodes, variables: Variables) -> Nodes:
        kept: Nodes = _LIBRARY["ofType"](None, nodes, type_)
        return kept

    return step


def _where(condition: Step) -> Step:
    return lambda nodes, root, variables: [
        node for node in nodes if _holds(condition([node], [node], variables))
    ]


def _holds(result: Nodes) -> bool:
    """fhirpathpy takes any element for true, even one that says false."""
    if not result:
        return False
    value = result[0]
    return value.data is not False if isinstance(value, ResourceNode) else bool(value)


def _select(projection: Step) -> Step:
    return lambda nodes, root, variables: [
        found for node in nodes for found in projection([node], [node], variables)
    ]


def _iif(condition: Step, then: Step, otherwise: Step | None = None) -> Step:
    def step(nodes: Nodes, root: Nodes, variables: Variables) -> Nodes:
        if truth(condition(nodes, nodes, variables)) is True:
            return then(nodes, nodes, variables)
        return otherwise(nodes, nodes, variables) if otherwise else []

    return step


def _combine(others: Step) -> Step:
    return lambda nodes, root, variables: nodes + others(root, root, variables)


def _exclude(others: Step) -> Step:
    def step(nodes: Nodes, root: Nodes, variables: Variables) -> Nodes:
        if not nodes:
            return []
        kept: Nodes = _LIBRARY["exclude"](None, nodes, others(root, root, variables))
        return kept

    return step


def _part(first: int, last: int | None) -> Step:
    return lambda nodes, root, variables: nodes[first:last]


def _joined(separator: str) -> Step:
    return lambda nodes, root, variables: (
        [_LIBRARY["join"](None, nodes, separator)] if nodes else []
    )


def _extension(url: str) -> Step:
    return lambda nodes, root, variables: _LIBRARY["extension"](None, nodes, url)


def _of_text(apply: Callable[..., Any]) -> Callable[..., Step]:
    """A function of one text."""

    def made(*constants: str) -> Step:
        def step(nodes: Nodes, root: Nodes, variables: Variables) -> Nodes:
            if not nodes:
                return []
            value = nodes[0].data if isinstance(nodes[0], ResourceNode) else nodes[0]
            if len(nodes) > 1 or type(value) is not str or not value:
                raise Unusual
            return [apply(value, *constants)]

        return step

    return made


OF_EXPRESSIONS: Mapping[tuple[str, int], Callable[..., Step]] = {
    ("where", 1): _where,
    ("select", 1): _select,
    ("combine", 1): _combine,
    ("exclude", 1): _exclude,
    ("iif", 2): _iif,
    ("iif", 3): _iif,
    ("exists", 0): lambda: lambda nodes, root, variables: [bool(nodes)],
    ("exists", 1): lambda condition: (
        lambda nodes, root, variables: [bool(_where(condition)(nodes, root, variables))]
    ),
    ("empty", 0): lambda: lambda nodes, root, variables: [not nodes],
    ("first", 0): lambda: _part(0, 1),
    ("last", 0): lambda: _part(-1, None),
    ("tail", 0): lambda: _part(1, None),
}
OF_CONSTANTS: Mapping[tuple[str, int], Callable[..., Step]] = {
    ("take", 1): lambda count: _part(0, count),
    ("skip", 1): lambda count: _part(count, None),
    ("join", 0): lambda: _joined(""),
    ("join", 1): _joined,
    ("extension", 1): _extension,
    ("contains", 1): _of_text(str.__contains__),
    ("startsWith", 1): _of_text(str.startswith),
    ("endsWith", 1): _of_text(str.endswith),
    ("upper", 0): _of_text(str.upper),
    ("lower", 0): _of_text(str.lower),
}
