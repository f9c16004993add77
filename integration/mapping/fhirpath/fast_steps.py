"""The steps of FHIRPath that maps use most, as functions of plain values. Pure.

Each does what fhirpathpy does, but for the types of elements: they are known before there is a
resource, so that at run time nothing has to say them. No step changes a list that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from fhirpathpy.engine.invocations import invocation_registry
from fhirpathpy.engine.util import uniq

Values = list[Any]
Variables = Mapping[str, Values]
# From what the step is applied to, and from what the whole expression is.
Step = Callable[[Values, Values, Variables], Values]
# Whether a condition is true of one item; never fails.
Test = Callable[[Any], bool]

_REGISTRY: Mapping[str, Any] = invocation_registry
_uniq: Any = uniq

# So few values are compared in pairs; to have each as text costs more.
_FEW = 8


class Unusual(Exception):
    """Here only fhirpathpy knows what happens."""


def constant(value: Values) -> Step:
    return lambda values, root, variables: value


def variable(name: str) -> Step:
    return lambda values, root, variables: variables[name]


def chained(steps: Sequence[Step]) -> Step:
    def step(values: Values, root: Values, variables: Variables) -> Values:
        for each in steps:
            values = each(values, root, variables)
        return values

    return step


# -- elements ------------------------------------------------------------------------------------


def member(name: str) -> Step:
    def step(values: Values, root: Values, variables: Variables) -> Values:
        found: Values = []
        for each in values:
            value = each.get(name) if type(each) is dict else None
            if value is not None:
                found += value if type(value) is list else [value]
        return found

    return step


def choice(forms: Sequence[tuple[str, bool]]) -> Step:
    """An element with one of several names; of the first that is there, the value if wanted."""

    def step(values: Values, root: Values, variables: Variables) -> Values:
        found: Values = []
        for each in values:
            if type(each) is not dict:
                continue
            for name, is_wanted in forms:
                value = each.get(name)
                if value is not None:
                    if is_wanted:
                        found += value if type(value) is list else [value]
                    break
        return found

    return step


def extension(url: str) -> Step:
    """The first with this url of each element."""

    def step(values: Values, root: Values, variables: Variables) -> Values:
        found: Values = []
        for each in values:
            if type(each) is dict:
                try:
                    found += [one for one in each.get("extension", ()) if one["url"] == url][:1]
                except (KeyError, TypeError):
                    raise Unusual from None
        return found

    return step


def part(first: int, last: int | None) -> Step:
    return lambda values, root, variables: values[first:last]


# -- tests of one item ---------------------------------------------------------------------------


def is_there(name: str) -> Test:
    return lambda item: type(item) is dict and item.get(name) not in (None, [])


def is_missing(name: str) -> Test:
    return lambda item: type(item) is not dict or item.get(name) in (None, [])


def is_equal(name: str, value: Any) -> Test:
    alike = (value, [value])
    return lambda item: type(item) is dict and item.get(name) in alike


def is_other(name: str, value: Any) -> Test:
    """Nothing is neither equal nor other."""
    alike: tuple[Any, ...] = (None, [], value, [value])
    return lambda item: type(item) is dict and item.get(name) not in alike


def both(one: Test, other: Test) -> Test:
    return lambda item: one(item) and other(item)


def either(one: Test, other: Test) -> Test:
    return lambda item: one(item) or other(item)


# -- operators -----------------------------------------------------------------------------------


def union(steps: Sequence[Step]) -> Step:
    def step(values: Values, root: Values, variables: Variables) -> Values:
        found = [value for each in steps for value in each(values, root, variables)]
        if len(found) < 2:
            return found
        # Comparing values costs most; an element that was found twice need not be compared.
        once = list({id(value): value for value in found}.values())
        if len(once) < _FEW and all(one != other for one, other in combinations(once, 2)):
            return once
        kept: Values = _uniq(once)
        return kept

    return step


def equality(one: Step, other: Step, *, same: bool) -> Step:
    """fhirpathpy compares the first of each."""

    def step(values: Values, root: Values, variables: Variables) -> Values:
        left, right = one(values, root, variables), other(values, root, variables)
        if not left or not right:
            return []
        return [(len(left) == len(right) and left[0] == right[0]) is same]

    return step


def contained(one: Step, others: Step) -> Step:
    def step(values: Values, root: Values, variables: Variables) -> Values:
        left, right = one(values, root, variables), others(values, root, variables)
        if not left:
            return []
        if right and len(left) > 1:
            raise Unusual
        return [left[0] in right]

    return step


def logic(name: str, one: Step, other: Step) -> Step:
    apply = _REGISTRY[name]["fn"]

    def step(values: Values, root: Values, variables: Variables) -> Values:
        left, right = truth(one(values, root, variables)), truth(other(values, root, variables))
        result = apply(None, left, right)
        return result if isinstance(result, list) else [result]

    return step


def truth(values: Values) -> Any:
    """A boolean, or the empty list."""
    if values and (len(values) > 1 or type(values[0]) is not bool):
        raise Unusual
    return values[0] if values else values


# -- functions -----------------------------------------------------------------------------------


def where_it_is_true(test: Test) -> Step:
    return lambda values, root, variables: [value for value in values if test(value)]


def where(condition: Step, *, is_element: bool) -> Step:
    """fhirpathpy takes any element for true, even one that says false."""

    def step(values: Values, root: Values, variables: Variables) -> Values:
        kept: Values = []
        for value in values:
            found = condition([value], [value], variables)
            if found and (found[0] is not False if is_element else found[0]):
                kept.append(value)
        return kept

    return step


def select(projection: Step) -> Step:
    return lambda values, root, variables: [
        found for value in values for found in projection([value], [value], variables)
    ]


def iif(condition: Step, then: Step, otherwise: Step) -> Step:
    def step(values: Values, root: Values, variables: Variables) -> Values:
        is_true = truth(condition(values, values, variables)) is True
        return (then if is_true else otherwise)(values, values, variables)

    return step


def combine(others: Step) -> Step:
    return lambda values, root, variables: values + others(root, root, variables)


def exclude(others: Step) -> Step:
    def step(values: Values, root: Values, variables: Variables) -> Values:
        if not values:
            return []
        excluded = others(root, root, variables)
        return [value for value in values if value not in excluded]

    return step


def exists(values: Values, root: Values, variables: Variables) -> Values:
    return [bool(values)]


def empty(values: Values, root: Values, variables: Variables) -> Values:
    return [not values]


def joined(separator: str) -> Step:
    def step(values: Values, root: Values, variables: Variables) -> Values:
        try:
            return [separator.join(values)] if values else []
        except TypeError:
            raise Unusual from None

    return step


def of_text(apply: Callable[..., Any], *constants: str) -> Step:
    """A function of one text."""

    def step(values: Values, root: Values, variables: Variables) -> Values:
        if not values:
            return []
        if len(values) > 1 or type(values[0]) is not str or not values[0]:
            raise Unusual
        return [apply(values[0], *constants)]

    return step
