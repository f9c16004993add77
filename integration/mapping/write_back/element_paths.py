"""Finds, makes and clears the elements that steps lead to. Pure, but for the draft.

A draft is a copy of a resource that is changed in place. What is not as FHIR defines it raises
Unmappable and is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import FhirResource
from integration.mapping import r4_elements
from integration.mapping.write_back.inverse_paths import PathPredicate, Step, Steps

Draft = FhirResource

# The names and indexes from a resource, or from an object in it, to an element.
Place = tuple[str | int, ...]

_NOT_AS_DEFINED = "the element is not as FHIR defines it"

# Stands where a value is about to be put.
_PLACEHOLDER = ""


@dataclass(slots=True)
class WrittenElements:
    """Which elements of a draft have been written, by the objects that hold them."""

    _elements: list[tuple[Draft, str]] = field(default_factory=list)

    def add(self, holder: Draft, name: str) -> None:
        self._elements.append((holder, name))

    def __contains__(self, element: tuple[Any, str]) -> bool:
        return any(holder is element[0] and name == element[1] for holder, name in self._elements)

    def has_any_in(self, holder: Any) -> bool:
        """Whether an element of this very object has been written."""
        return any(written is holder for written, _ in self._elements)


def copy_tree(node: Any) -> Any:
    """Copy objects and arrays; the values in them are immutable."""
    if isinstance(node, dict):
        return {name: copy_tree(value) for name, value in node.items()}
    return [copy_tree(value) for value in node] if isinstance(node, list) else node


def get_at(node: Any, place: Place) -> Any:
    """Return what is at a place."""
    for part in place:
        node = node[part]
    return node


def get_holder(root: Any, place: Place) -> tuple[Draft, str]:
    """Return the object that holds the element, and the element's name in it."""
    outer = place[:-2] if isinstance(place[-1], int) else place[:-1]
    return get_at(root, outer), str(place[len(outer)])


def format_path(steps: Steps) -> str:
    """Return the element's path for an error: Observation.code.coding.code"""
    return ".".join([steps[0].parent, *(step.name for step in steps)])


def get_rule(step: Step) -> r4_elements.ElementRule:
    """Return the rule of the step's element. Raises Unmappable where there is none."""
    rule = r4_elements.find_rule(step.parent, step.name)
    if rule is None:
        raise Unmappable("the element is not known in FHIR R4B, so it cannot be written")
    return rule


# -- finding -------------------------------------------------------------------------------------


def find_places(root: Any, steps: Steps) -> list[Place]:
    """Return every place that the steps lead to, in the order in which FHIRPath finds them."""
    places: list[Place] = [()]
    for step in steps:
        places = [inner for place in places for inner in _find_inner(root, place, step)]
        if step.index is not None:
            places = places[step.index : step.index + 1]
    return places


def _find_inner(root: Any, place: Place, step: Step) -> Iterator[Place]:
    holder = get_at(root, place)
    value = holder.get(step.name)
    if get_rule(step).repeats:
        if not isinstance(value, list | None):
            raise Unmappable(_NOT_AS_DEFINED)
        for index, item in enumerate(value or ()):
            if item is not None and _is_selected(item, step):
                yield (*place, step.name, index)
    elif value is not None and _is_selected(value, step):
        yield (*place, step.name)


def _is_selected(value: Any, step: Step) -> bool:
    is_scalar = not isinstance(value, dict | list)
    if not (is_scalar if r4_elements.is_value(step.type) else isinstance(value, dict)):
        raise Unmappable(_NOT_AS_DEFINED)
    return all(_is_fulfilled(predicate, value) for predicate in step.predicates)


def _is_fulfilled(predicate: PathPredicate, item: Any) -> bool:
    values = [get_at(item, place) for place in find_places(item, predicate.steps)]
    if len(values) != 1 or type(values[0]) is not type(predicate.literal):
        return False
    if predicate.test == "=":
        return bool(values[0] == predicate.literal)
    text, literal = str(values[0]), str(predicate.literal)
    return text.startswith(literal) if predicate.test == "startsWith" else literal in text


# -- making --------------------------------------------------------------------------------------


def make_place(root: Draft, steps: Steps) -> tuple[Place, int]:
    """Return a place for what the steps lead to, made where it does not exist, and how many of the
    steps led to an element before."""
    for existing in range(len(steps), -1, -1):
        places = find_places(root, steps[:existing])
        if places and not _has_other_meaning(get_at(root, places[0]), steps, existing):
            break
    place = places[0]
    for step in steps[existing:]:
        place = _add_element(root, place, step)
    return place, existing


def _has_other_meaning(value: Any, steps: Steps, existing: int) -> bool:
    """Whether a further coding would contradict the concept. The codings of one concept mean the
    same; where concepts repeat, another code is another concept."""
    if not 0 < existing < len(steps) or steps[existing].type != "Coding":
        return False
    last = steps[existing - 1]
    if last.type != "CodeableConcept" or last.predicates or last.index is not None:
        return False
    return get_rule(last).repeats and bool(value)


def _add_element(root: Draft, place: Place, step: Step) -> Place:
    """Make room for one more element, with what the predicates of its step require."""
    holder = get_at(root, place)
    if get_rule(step).repeats:
        index = _add_item(holder, step)
        holder[step.name][index] = _PLACEHOLDER if r4_elements.is_value(step.type) else {}
        place = (*place, step.name, index)
    else:
        value = holder.get(step.name)
        if value is None or not _can_fulfil(value, step):
            # An element that contradicts the predicates may only be replaced as a whole.
            if value is not None and step.type not in ("Coding", "Reference"):
                raise Unmappable("FHIR has another value here than the one that the column shows")
            holder[step.name] = _PLACEHOLDER if r4_elements.is_value(step.type) else {}
        place = (*place, step.name)
    apply_predicates(get_at(root, place), step)
    return place


def _can_fulfil(value: Any, step: Step) -> bool:
    """Whether adding to the value could make it fulfil the predicates."""
    return all(
        _is_fulfilled(predicate, value) or not find_places(value, predicate.steps)
        for predicate in step.predicates
    )


def _add_item(holder: Draft, step: Step) -> int:
    """Add an item to an array and return its index. Where the array has only reasons for absent
    values, that is the index of the first."""
    items, extras = holder.get(step.name), holder.get(f"_{step.name}")
    if items is None:
        items = [None] * len(extras) if isinstance(extras, list) else []
        holder[step.name] = items
    if items and all(item is None for item in items) and r4_elements.is_value(step.type):
        return 0
    items.append(None)
    if isinstance(extras, list):
        extras += [None] * (len(items) - len(extras))
    return len(items) - 1


def apply_predicates(item: Any, step: Step) -> None:
    """Change an item so that it fulfils the predicates of its step, as far as they say how."""
    for predicate in step.predicates:
        if predicate.test == "=":
            place, _ = make_place(item, predicate.steps)
            put_value(item, predicate.steps, place, predicate.literal)


def put_value(
    root: Draft,
    steps: Steps,
    place: Place,
    value: Any,
    replaceable: frozenset[tuple[str, str]] = frozenset(),
) -> None:
    """Put `value` at a place from `make_place`.

    Where a choice[x] has a value of another type, that is removed if it is `replaceable`, (type,
    element): the same change clears it. Raises Unmappable if it is not, or if the steps do not lead
    to the place first.
    """
    for holder, step, _ in _walk_steps(root, steps, place):
        for other in step.other_names:
            if holder.get(other) is not None and (step.parent, other) not in replaceable:
                raise Unmappable(f"there is {other}, which this would replace: clear it as well")
            holder.pop(other, None)
            holder.pop(f"_{other}", None)
    get_at(root, place[:-1])[place[-1]] = value
    if isinstance(value, dict):
        apply_predicates(value, steps[-1])
    holder, name = get_holder(root, place)
    _drop_extras(holder, name, place[-1])
    if place not in find_places(root, steps)[:1]:
        raise Unmappable(
            "the element that it belongs to is absent, or the column would show another one first"
        )


def _drop_extras(holder: Draft, name: str, last: str | int) -> None:
    """Drop id and extensions of the old value: https://hl7.org/fhir/R4/json.html#primitive"""
    extras = holder.get(f"_{name}")
    if isinstance(last, int) and isinstance(extras, list):
        extras[last : last + 1] = [None]
        if any(extra is not None for extra in extras):
            return
    holder.pop(f"_{name}", None)


def _walk_steps(root: Draft, steps: Steps, place: Place) -> list[tuple[Draft, Step, Place]]:
    """Return for each step the object that holds its element, the step, and the element's place."""
    walked, node, length = [], root, 0
    for step in steps:
        holder = node
        length += 2 if isinstance(holder[step.name], list) else 1
        walked.append((holder, step, place[:length]))
        node = get_at(root, place[:length])
    return walked


# -- clearing ------------------------------------------------------------------------------------


def clear_places(root: Draft, places: Sequence[tuple[Steps, Place]]) -> None:
    """Remove elements, and the objects and arrays that become empty by it. An item that has no more
    than the predicates of its step require is empty. Raises Unmappable where FHIR requires an
    element."""
    removed: list[Place] = []
    # The last first, so that the other places stay valid.
    for steps, place in sorted(places, key=lambda entry: entry[1], reverse=True):
        if any(place[: len(other)] == other for other in removed):
            continue
        walked = _walk_steps(root, steps, place)
        for number in range(len(steps), 0, -1):
            holder, step, here = walked[number - 1]
            if number < len(steps) and not _is_empty(get_at(root, here), step):
                break
            _remove_element(holder, step.name, here[-1])
            removed.append(here)
            if step.name in holder:
                break
            if get_rule(step).required and (
                number == 1 or not _is_empty(holder, steps[number - 2])
            ):
                raise Unmappable("FHIR requires the element", format_path(steps[:number]))


def _remove_element(holder: Draft, name: str, last: str | int) -> None:
    extras = holder.get(f"_{name}")
    if isinstance(last, str):
        holder.pop(f"_{name}", None)
        del holder[name]
        return
    items = holder[name]
    del items[last]
    if isinstance(extras, list):
        del extras[last : last + 1]
        if all(extra is None for extra in extras):
            del holder[f"_{name}"]
    if all(item is None for item in items) and f"_{name}" not in holder:
        del holder[name]


def _is_empty(value: Draft, step: Step) -> bool:
    if not value:
        return True
    required: Draft = {}
    if step.predicates:
        apply_predicates(required, step)
    return value == required
