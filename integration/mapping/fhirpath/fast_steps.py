"""The steps of FHIRPath that maps use most, as functions of plain values. Pure.

Each does what fhirpathpy does, but for the types of elements: fast_path resolves them before there
is a resource. No step changes a list that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from integration.mapping.fhirpath import library, periods

Values = list[Any]
Variables = Mapping[str, Values]
# Called with the values that the step is applied to, the focus of the whole expression, and the
# variables.
Step = Callable[[Values, Values, Variables], Values]
# Whether one item fulfils a condition; never fails.
Test = Callable[[Any], bool]

# Up to here comparing values in pairs is faster than writing each as text.
_MAX_PAIRWISE = 8


class UnsupportedValue(Exception):
    """Only fhirpathpy knows what the step finds in these values."""


def make_constant(value: Values) -> Step:
    return lambda values, root, variables: value


def make_variable(name: str) -> Step:
    return lambda values, root, variables: variables[name]


def chain_steps(steps: Sequence[Step]) -> Step:
    """Return one step that applies all of these."""

    def step(values: Values, root: Values, variables: Variables) -> Values:
        for inner in steps:
            values = inner(values, root, variables)
        return values

    return step


def drop_extensions_alone(values: Values) -> Values:
    """Leave out elements that have nothing but extensions, as fhirpathpy does at the end."""
    for value in values:
        if type(value) is dict and len(value) == 1 and "extension" in value:
            return [
                item for item in values if type(item) is not dict or item.keys() != {"extension"}
            ]
    return values


# -- elements ------------------------------------------------------------------------------------


def make_member(name: str) -> Step:
    def step(values: Values, root: Values, variables: Variables) -> Values:
        found: Values = []
        for item in values:
            value = item.get(name) if type(item) is dict else None
            if value is not None:
                found += value if type(value) is list else [value]
        return found

    return step


def make_members(names: Sequence[str]) -> Step:
    """Return a step to an element by the names of those that lead to it. Mostly each has one
    value."""
    steps = [make_member(name) for name in names]

    def step(values: Values, root: Values, variables: Variables) -> Values:
        if len(values) != 1:
            return find_all(values, 0)
        (value,) = values
        for number, name in enumerate(names, 1):
            if type(value) is not dict:
                return []
            value = value.get(name)
            if value is None:
                return []
            if type(value) is list:
                if len(value) != 1:
                    return find_all(value, number)
                (value,) = value
        return [value]

    def find_all(values: Values, number: int) -> Values:
        for inner in steps[number:]:
            values = inner(values, values, {})
        return values

    return step


def make_choice(names: Sequence[tuple[str, bool]]) -> Step:
    """Return a step to an element that has one of several names in JSON. It takes the first that is
    there, and finds its value where the name is accepted."""

    def step(values: Values, root: Values, variables: Variables) -> Values:
        found: Values = []
        for item in values:
            if type(item) is not dict:
                continue
            for name, is_accepted in names:
                value = item.get(name)
                if value is not None:
                    if is_accepted:
                        found += value if type(value) is list else [value]
                    break
        return found

    return step


def make_extension(url: str) -> Step:
    """Return a step to the first extension with this url of each element."""

    def step(values: Values, root: Values, variables: Variables) -> Values:
        found: Values = []
        for item in values:
            if type(item) is dict:
                extensions = item.get("extension", ())
                try:
                    found += [nested for nested in extensions if nested["url"] == url][:1]
                except (KeyError, TypeError):
                    raise UnsupportedValue from None
        return found

    return step


def make_slice(first: int, last: int | None) -> Step:
    return lambda values, root, variables: values[first:last]


# -- tests of one item ---------------------------------------------------------------------------


def make_exists_test(name: str) -> Test:
    return lambda item: type(item) is dict and item.get(name) not in (None, [])


def make_empty_test(name: str) -> Test:
    return lambda item: type(item) is not dict or item.get(name) in (None, [])


def make_equal_test(name: str, value: Any) -> Test:
    equal = (value, [value])
    return lambda item: type(item) is dict and item.get(name) in equal


def make_unequal_test(name: str, value: Any) -> Test:
    """An absent element is neither equal nor unequal."""
    not_unequal: tuple[Any, ...] = (None, [], value, [value])
    return lambda item: type(item) is dict and item.get(name) not in not_unequal


def make_and_test(left: Test, right: Test) -> Test:
    return lambda item: left(item) and right(item)


def make_or_test(left: Test, right: Test) -> Test:
    return lambda item: left(item) or right(item)


# -- operators -----------------------------------------------------------------------------------


def make_union(steps: Sequence[Step]) -> Step:
    def step(values: Values, root: Values, variables: Variables) -> Values:
        found = [value for operand in steps for value in operand(values, root, variables)]
        if len(found) < 2:
            return found
        # Comparing values costs most; an element that was found twice need not be compared.
        distinct = list({id(value): value for value in found}.values())
        if len(distinct) < _MAX_PAIRWISE and all(
            first != second for first, second in combinations(distinct, 2)
        ):
            return distinct
        return library.drop_duplicates(distinct)

    return step


def make_first_of(steps: Sequence[Step]) -> Step:
    """Return a step to the first value of a union: none behind it need be looked for."""

    def step(values: Values, root: Values, variables: Variables) -> Values:
        for operand in steps:
            found = operand(values, root, variables)
            if found:
                return found[:1]
        return []

    return step


def make_equality(left: Step, right: Step, *, same: bool) -> Step:
    """fhirpathpy compares the first of each."""

    def step(values: Values, root: Values, variables: Variables) -> Values:
        first, second = left(values, root, variables), right(values, root, variables)
        if not first or not second:
            return []
        return [(len(first) == len(second) and first[0] == second[0]) is same]

    return step


def make_membership(item: Step, collection: Step) -> Step:
    def step(values: Values, root: Values, variables: Variables) -> Values:
        items = item(values, root, variables)
        collected = collection(values, root, variables)
        if not items:
            return []
        if collected and len(items) > 1:
            raise UnsupportedValue
        return [items[0] in collected]

    return step


def make_logic(name: str, left: Step, right: Step) -> Step:
    operator = library.get_operator(name)

    def step(values: Values, root: Values, variables: Variables) -> Values:
        first = _to_boolean(left(values, root, variables))
        second = _to_boolean(right(values, root, variables))
        result = operator(first, second)
        return result if isinstance(result, list) else [result]

    return step


def _to_boolean(values: Values) -> Any:
    """Return a boolean, or the empty list."""
    if values and (len(values) > 1 or type(values[0]) is not bool):
        raise UnsupportedValue
    return values[0] if values else values


# -- functions -----------------------------------------------------------------------------------


def make_where_test(test: Test) -> Step:
    return lambda values, root, variables: [value for value in values if test(value)]


def make_where(condition: Step, *, is_element: bool) -> Step:
    """fhirpathpy takes any element for true, even one that is false."""

    def step(values: Values, root: Values, variables: Variables) -> Values:
        kept: Values = []
        for value in values:
            found = condition([value], [value], variables)
            if found and (found[0] is not False if is_element else found[0]):
                kept.append(value)
        return kept

    return step


def make_select(projection: Step) -> Step:
    return lambda values, root, variables: [
        found for value in values for found in projection([value], [value], variables)
    ]


def make_iif(condition: Step, then: Step, otherwise: Step) -> Step:
    def step(values: Values, root: Values, variables: Variables) -> Values:
        is_true = _to_boolean(condition(values, values, variables)) is True
        return (then if is_true else otherwise)(values, values, variables)

    return step


def make_combine(others: Step) -> Step:
    return lambda values, root, variables: values + others(root, root, variables)


def make_exclude(others: Step) -> Step:
    def step(values: Values, root: Values, variables: Variables) -> Values:
        if not values:
            return []
        excluded = others(root, root, variables)
        return [value for value in values if value not in excluded]

    return step


def put_current_first(values: Values, root: Values, variables: Variables) -> Values:
    return periods.put_current_first(values)


def keep_current(values: Values, root: Values, variables: Variables) -> Values:
    return periods.keep_current(values)


def check_exists(values: Values, root: Values, variables: Variables) -> Values:
    return [bool(values)]


def check_empty(values: Values, root: Values, variables: Variables) -> Values:
    return [not values]


def make_join(separator: str = "") -> Step:
    def step(values: Values, root: Values, variables: Variables) -> Values:
        try:
            return [separator.join(values)] if values else []
        except TypeError:
            raise UnsupportedValue from None

    return step


def make_text_function(apply: Callable[..., Any], *constants: str) -> Step:
    """Return a step that applies a function to one text."""

    def step(values: Values, root: Values, variables: Variables) -> Values:
        if not values:
            return []
        if len(values) > 1 or type(values[0]) is not str or not values[0]:
            raise UnsupportedValue
        return [apply(values[0], *constants)]

    return step
