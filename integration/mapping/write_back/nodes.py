"""Finds the element that a column shows by looking into the resource: a path that chooses among
repeats (the home address that is in use, the first mobile number) leads to another one in each
resource. Pure.

The path of a column is split in two: what finds one element in the resource, which any FHIRPath may
do, and the chain of elements below it, which can be written. `%home.city` is written where `%home`
finds one address. Where it finds none, the map may say what is made: `[make]`.

Three forms are read as what they show first: `iif(a.exists(), a, b)` as a, `skip(2).first()` as
the third item, and `join(' ')` as all items, of which a written text makes one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from itertools import pairwise
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import FhirResource
from integration.mapping import r4_elements
from integration.mapping.fhirpath.evaluate import Evaluation, Location
from integration.mapping.fhirpath.periods import is_in_use
from integration.mapping.model import EntityMap
from integration.mapping.write_back import element_paths
from integration.mapping.write_back.element_paths import Draft
from integration.mapping.write_back.element_types import find_element_type
from integration.mapping.write_back.inverse_paths import Step, Steps, invert_path

# `%home`, or the first of what it finds.
_VARIABLE = re.compile(r"%(\w+)(?:\.first\(\))?")

_JOINED = re.compile(r"(.+?)(?:\.skip\((\d+)\))?\.join\('[^']*'\)")
_SKIPPED = re.compile(r"\.skip\((\d+)\)\.first\(\)$")

_WHOLE_TEXTS = frozenset({("HumanName", "text"), ("Address", "text")})

_OPENING, _CLOSING = "([{", ")]}"


@dataclass(frozen=True, slots=True)
class NodePath:
    """The path of a column, split. `prefix`: finds one element; `steps`: from there, at least one.
    `joined_from`: the column shows all items from this one on as one text."""

    prefix: str
    steps: Steps
    joined_from: int | None = None


def split_path(
    path: str, resource: str, variables: Mapping[str, str] | None = None
) -> NodePath | None:
    """Return the path split behind the longest prefix that finds elements of one type, so that the
    rest can be written; None: there is no such place."""
    return _split(path, resource, tuple((variables or {}).items()))


@cache
def _split(path: str, resource: str, variables: tuple[tuple[str, str], ...]) -> NodePath | None:
    path, joined_from = _read_first_form(path), None
    if match := _JOINED.fullmatch(path):
        path, joined_from = f"{match[1]}.first()", int(match[2] or 0)
    path = _SKIPPED.sub(r"[\1]", path)
    known = dict(variables)
    for place in reversed(_list_places(path, ".")):
        prefix, rest = path[:place], path[place + 1 :]
        type_ = _find_type(prefix, resource, known)
        if type_ is None or r4_elements.is_value(type_) or r4_elements.is_resource(type_):
            continue
        steps = invert_path(rest, type_)
        # A text that FHIR has in parts as well would contradict them.
        if steps is not None and (steps[-1].parent, steps[-1].name) not in _WHOLE_TEXTS:
            return NodePath(prefix, steps, joined_from)
    return None


def _find_type(path: str, resource: str, variables: Mapping[str, str]) -> str | None:
    try:
        return find_element_type(path, resource, variables)
    except ValueError:
        return None


def _read_first_form(path: str) -> str:
    """Return what a path shows where it shows what it prefers."""
    if path.startswith("iif(") and path.endswith(")"):
        condition, *others = _split_at(path[4:-1], ",")
        first = others[0].strip() if others else ""
        # Only what is shown where it is there can be written: else it would never be seen.
        known = condition.removesuffix(".exists()").strip()
        if condition.endswith(".exists()") and first.startswith(known):
            return _read_first_form(first)
        return path
    for place in reversed(_list_places(path, ".")):
        rest = path[place + 1 :]
        if rest.startswith("select(") and rest.endswith(")"):
            return f"{path[:place]}.{_read_first_form(rest[7:-1])}"
        break
    return path


def _split_at(text: str, separator: str) -> list[str]:
    places = [-1, *_list_places(text, separator), len(text)]
    return [text[begin + 1 : end] for begin, end in pairwise(places)]


def _list_places(text: str, separator: str) -> list[int]:
    """Return where a character stands outside of brackets and quotes. A path that is one of several
    has no such place."""
    depth, quoted, places = 0, False, []
    for place, char in enumerate(text):
        if char == "'" and text[place - 1 : place] != "\\":
            quoted = not quoted
        if quoted:
            continue
        depth += (char in _OPENING) - (char in _CLOSING)
        if depth == 0 and char == "|":
            return []
        if depth == 0 and char == separator:
            places.append(place)
    return places


def find_node_steps(
    entity: EntityMap, node_path: NodePath, resource: FhirResource, *, today: date
) -> Steps | None:
    """Return the steps to the element of this resource that a column shows; None: it has none, or
    none that is in use: what has ended stays what it was, and another one can be made. Raises
    Unmappable where the path finds several, or no element of the resource."""
    evaluation = Evaluation(entity.variables, resource, [], today=today)
    found = evaluation.locate(node_path.prefix)
    if len(found) > 1:
        raise Unmappable("the path finds more than one element", node_path.prefix)
    if not found or not _is_in_use(resource, found[0], today):
        return None
    steps = (*_build_steps(entity.resource, found[0]), *node_path.steps)
    return _select_joined(steps, node_path)


def _is_in_use(resource: FhirResource, location: Location, today: date) -> bool:
    node: Any = resource
    for part in location:
        # What has no value does not count in a location.
        node = [item for item in node if item is not None] if isinstance(node, list) else node
        node = node[part]
        if isinstance(node, dict) and not is_in_use(node, today):
            return False
    return True


def make_node_steps(entity: EntityMap, node_path: NodePath, resource: FhirResource) -> Steps:
    """Return steps to an element that is not there yet, as the map says what is made. Raises
    Unmappable where it does not say so."""
    match = _VARIABLE.fullmatch(node_path.prefix)
    path = entity.make.get(match[1]) if match else None
    steps = invert_path(path, entity.resource) if path is not None else None
    if steps is None:
        raise Unmappable(
            "FHIR has no such element, and the map does not say how to make one ([make])",
            node_path.prefix,
        )
    *outer, last = steps
    if element_paths.get_rule(last).repeats:
        # Another one, never one that is there: an address that has ended stays what it was.
        last = replace(last, index=len(element_paths.find_places(resource, steps)))
    return _select_joined((*outer, last, *node_path.steps), node_path)


def join_items(draft: Draft, steps: Steps) -> None:
    """Leave of a repeating element no item behind the one that the steps lead to: what they said
    together is written into that one."""
    for place in element_paths.find_places(draft, steps)[:1]:
        holder, name = element_paths.get_holder(draft, place)
        index = place[-1]
        if isinstance(index, int):
            del holder[name][index + 1 :]
            if isinstance(extras := holder.get(f"_{name}"), list):
                del extras[index + 1 :]


def _select_joined(steps: Steps, node_path: NodePath) -> Steps:
    if node_path.joined_from is None:
        return steps
    return (*steps[:-1], replace(steps[-1], index=node_path.joined_from))


def _build_steps(resource: str, location: Location) -> Steps:
    steps: list[Step] = []
    type_ = resource
    for part in location:
        if isinstance(part, int):
            steps[-1] = replace(steps[-1], index=part)
            continue
        inner = r4_elements.find_type(type_, part)
        if inner is None:
            raise Unmappable("this element cannot be written by what it is called", part)
        steps.append(Step(parent=type_, name=part, type=inner))
        type_ = inner
    return tuple(steps)
