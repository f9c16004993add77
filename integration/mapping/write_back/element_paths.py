"""Where in a resource a chain of steps leads: found, made and cleared. Pure but for the draft.

A draft is a copy of a resource that is changed in place. What does not have the shape that FHIR
gives it raises Unmappable, and is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from integration.core.errors import Unmappable
from integration.mapping import r4_elements
from integration.mapping.write_back.inverse_paths import PathPredicate, Step, Steps

Draft = dict[str, Any]
Place = tuple[str | int, ...]

_SHAPE = "not as FHIR defines the element"

# In the place of a value that is about to be put there.
_ROOM = ""


@dataclass(slots=True)
class Written:
    """Which elements have been written to a draft, by the objects that hold them."""

    _elements: list[tuple[Draft, str]] = field(default_factory=list)

    def add(self, holder: Draft, name: str) -> None:
        self._elements.append((holder, name))

    def __contains__(self, element: tuple[Any, str]) -> bool:
        return any(holder is element[0] and name == element[1] for holder, name in self._elements)

    def inside(self, holder: Any) -> bool:
        """Whether anything of this very object was."""
        return any(each is holder for each, _ in self._elements)


def copied(node: Any) -> Any:
    """Objects and arrays anew; what they hold is immutable."""
    if isinstance(node, dict):
        return {name: copied(value) for name, value in node.items()}
    return [copied(value) for value in node] if isinstance(node, list) else node


def at(node: Any, place: Place) -> Any:
    for part in place:
        node = node[part]
    return node


def held(root: Any, place: Place) -> tuple[Draft, str]:
    """The object that holds the element, and the element's name there."""
    outer = place[:-2] if isinstance(place[-1], int) else place[:-1]
    return at(root, outer), str(place[len(outer)])


def named(steps: Steps) -> str:
    """For an error: Observation.code.coding.code"""
    return ".".join([steps[0].parent, *(step.name for step in steps)])


def rule(step: Step) -> r4_elements.Rule:
    found = r4_elements.rule(step.parent, step.name)
    if found is None:
        raise Unmappable("not known whether the element repeats")
    return found


# -- finding -------------------------------------------------------------------------------------


def found(root: Any, steps: Steps) -> list[Place]:
    """Every place that the steps lead to, in the order in which FHIRPath finds them."""
    places: list[Place] = [()]
    for step in steps:
        places = [inner for place in places for inner in _inside(root, place, step)]
        if step.index is not None:
            places = places[step.index : step.index + 1]
    return places


def _inside(root: Any, place: Place, step: Step) -> Iterator[Place]:
    holder = at(root, place)
    value = holder.get(step.name)
    if rule(step).repeats:
        if not isinstance(value, list | None):
            raise Unmappable(_SHAPE)
        for index, item in enumerate(value or ()):
            if item is not None and _is_kept(item, step):
                yield (*place, step.name, index)
    elif value is not None and _is_kept(value, step):
        yield (*place, step.name)


def _is_kept(value: Any, step: Step) -> bool:
    is_right = not isinstance(value, dict | list) if _is_value(step) else isinstance(value, dict)
    if not is_right:
        raise Unmappable(_SHAPE)
    return all(_holds(value, condition) for condition in step.predicates)


def _holds(value: Any, condition: PathPredicate) -> bool:
    values = [at(value, place) for place in found(value, condition.steps)]
    if len(values) != 1 or type(values[0]) is not type(condition.literal):
        return False
    if condition.test == "=":
        return bool(values[0] == condition.literal)
    there, literal = str(values[0]), str(condition.literal)
    return there.startswith(literal) if condition.test == "startsWith" else literal in there


def _is_value(step: Step) -> bool:
    return r4_elements.is_primitive(step.type) or step.type.startswith("System.")


# -- making --------------------------------------------------------------------------------------


def made(root: Draft, steps: Steps) -> tuple[Place, int]:
    """A place for what the steps lead to, and how many of them had led to something before."""
    for there in range(len(steps), -1, -1):
        places = found(root, steps[:there])
        if places and not _says_something_else(at(root, places[0]), steps, there):
            break
    place = places[0]
    for step in steps[there:]:
        place = _added(root, place, step)
    return place, there


def _says_something_else(value: Any, steps: Steps, there: int) -> bool:
    """Further codings of a concept say the same in other words. Where concepts repeat, another
    code is another concept."""
    if not 0 < there < len(steps) or steps[there].type != "Coding":
        return False
    last = steps[there - 1]
    if last.type != "CodeableConcept" or last.predicates or last.index is not None:
        return False
    return rule(last).repeats and bool(value)


def _added(root: Draft, place: Place, step: Step) -> Place:
    """Room for one element more; with what the conditions of its step say."""
    holder = at(root, place)
    if rule(step).repeats:
        index = _room(holder, step)
        holder[step.name][index] = _ROOM if _is_value(step) else {}
        place = (*place, step.name, index)
    else:
        value = holder.get(step.name)
        if value is None or not _agrees(value, step):
            # What says something else makes room only where it is replaced whole.
            if value is not None and step.type not in ("Coding", "Reference"):
                raise Unmappable("what is there is not what the column shows")
            holder[step.name] = _ROOM if _is_value(step) else {}
        place = (*place, step.name)
    fill(at(root, place), step)
    return place


def _agrees(value: Any, step: Step) -> bool:
    """Whether it may become what the conditions of its step say, by adding to it."""
    return all(_holds(value, each) or not found(value, each.steps) for each in step.predicates)


def _room(holder: Draft, step: Step) -> int:
    """A place among the items: that of the first, where there are only reasons for its absence."""
    items, more = holder.get(step.name), holder.get(f"_{step.name}")
    if items is None:
        items = [None] * len(more) if isinstance(more, list) else []
        holder[step.name] = items
    if items and all(item is None for item in items) and _is_value(step):
        return 0
    items.append(None)
    if isinstance(more, list):
        more += [None] * (len(items) - len(more))
    return len(items) - 1


def fill(value: Any, step: Step) -> None:
    """Make it what the conditions of its step say."""
    for condition in step.predicates:
        if condition.test == "=":
            place, _ = made(value, condition.steps)
            put(value, condition.steps, place, condition.literal)


def put(
    root: Draft,
    steps: Steps,
    place: Place,
    value: Any,
    given_up: frozenset[tuple[str, str]] = frozenset(),
) -> None:
    """`value` at a place that is `made`. An element that may have one of several types has another
    already: that is replaced only if it is `given_up`, (type, element), by the same change."""
    for holder, step, _ in _walked(root, steps, place):
        for other in step.other_names:
            if holder.get(other) is not None and (step.parent, other) not in given_up:
                raise Unmappable(f"there is {other}, which this would replace: clear it as well")
            holder.pop(other, None)
            holder.pop(f"_{other}", None)
    at(root, place[:-1])[place[-1]] = value
    if isinstance(value, dict):
        fill(value, steps[-1])
    holder, name = held(root, place)
    _forget(holder, name, place[-1])
    if place not in found(root, steps)[:1]:
        raise Unmappable("what it belongs to is not there, or something else comes before it")


def _forget(holder: Draft, name: str, last: str | int) -> None:
    """What was said of a value beside it: https://hl7.org/fhir/R4/json.html#primitive"""
    more = holder.get(f"_{name}")
    if isinstance(last, int) and isinstance(more, list):
        more[last : last + 1] = [None]
        if any(each is not None for each in more):
            return
    holder.pop(f"_{name}", None)


def _walked(root: Draft, steps: Steps, place: Place) -> list[tuple[Draft, Step, Place]]:
    """What holds the element of each step, the step, and the element's place."""
    walked, node, length = [], root, 0
    for step in steps:
        holder = node
        length += 2 if isinstance(holder[step.name], list) else 1
        walked.append((holder, step, place[:length]))
        node = at(root, place[:length])
    return walked


# -- clearing ------------------------------------------------------------------------------------


def clear(root: Draft, places: Sequence[tuple[Steps, Place]]) -> None:
    """Take out these elements, and then objects and arrays that became empty by it. An item that
    would say no more than the condition by which it is found is empty."""
    gone: list[Place] = []
    # The last first, so that places stay what they are.
    for steps, place in sorted(places, key=lambda each: each[1], reverse=True):
        if any(place[: len(other)] == other for other in gone):
            continue
        walked = _walked(root, steps, place)
        for number in range(len(steps), 0, -1):
            holder, step, here = walked[number - 1]
            if number < len(steps) and not _is_empty(at(root, here), step):
                break
            _take(holder, step.name, here[-1])
            gone.append(here)
            if step.name in holder:
                break
            if rule(step).required and (number == 1 or not _is_empty(holder, steps[number - 2])):
                raise Unmappable("FHIR requires the element", named(steps[:number]))


def _take(holder: Draft, name: str, last: str | int) -> None:
    more = holder.get(f"_{name}")
    if isinstance(last, str):
        holder.pop(f"_{name}", None)
        del holder[name]
        return
    items = holder[name]
    del items[last]
    if isinstance(more, list):
        del more[last : last + 1]
        if all(each is None for each in more):
            del holder[f"_{name}"]
    if all(item is None for item in items) and f"_{name}" not in holder:
        del holder[name]


def _is_empty(value: Draft, step: Step) -> bool:
    if not value:
        return True
    said: Draft = {}
    if step.predicates:
        fill(said, step)
    return value == said
