"""What is written to any column is in FHIR and is read again, and nothing else has changed.

Columns come from the maps, so that a new one is covered by itself; resources have every element
that R4 knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from integration import exact_json
from integration.fhir import validation
from integration.mapping import elements
from integration.mapping.inverse import Steps, invertible
from integration.mapping.model import AttributeMap, Kind
from integration.odata.model import Value
from integration.virtual_tables.shape import Shape, property_name
from tests.virtual_tables import rich
from tests.virtual_tables.conftest import SHAPES, Feed, Json

Path = tuple[str, ...]

CONCEPTS = ("CodeableConcept", "Coding", "Quantity", "Age", "Duration")


@dataclass(frozen=True)
class Case:
    """A value for a column of a resource of its own. `fhir` is how FHIR writes it."""

    shape: Shape
    one: AttributeMap
    key: UUID
    value: Value
    fhir: Any

    @property
    def name(self) -> str:
        return property_name(self.one)

    @property
    def steps(self) -> Steps:
        entity = self.shape.entity
        return invertible(self.one.path or "", entity.resource, entity.variables) or ()

    @property
    def told(self) -> str:
        return f"{self.shape.resource}.{self.one.column} = {self.value!r}"


# -- values ----------------------------------------------------------------------------------------

_TEXTS: dict[str, list[str]] = {
    "code": ["a", "A.1"],
    "uri": ["urn:oid:1.2.3", "https://sample.example/a?b=c&d=%20"],
    "url": ["https://sample.example/a?b=c&d=%20"],
    "canonical": ["http://sample.example/c|1.0"],
}
_NUMBERS = {"decimal": [Decimal("7.50"), Decimal("-0.001"), Decimal(12)]}
_MOMENTS = [datetime(1948, 2, 29, 23, 59, 58, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)]
_KEY = UUID(int=1 << 96)


def _values(one: AttributeMap, type_: str) -> Iterator[tuple[Value, Any]]:
    """Values of a column, each as FHIR writes it."""
    match one.kind:
        case Kind.DATE:
            days = (at.replace(hour=0, minute=0, second=0) for at in _MOMENTS)
            yield from ((day, day.date().isoformat()) for day in days)
        case Kind.MOMENT:
            yield from ((at, at.strftime("%Y-%m-%dT%H:%M:%SZ")) for at in _MOMENTS)
        case Kind.CHOICE:
            first = {options[0]: code for code, options in reversed(one.choices.items())}
            literal = {"boolean": lambda code: code == "true"}.get(type_, str)
            some = [*first.items()][:2] + [*first.items()][2:][-1:]
            yield from ((option, literal(code)) for option, code in some)
        case Kind.LOOKUP:
            yield _KEY, f"{one.shown.target}/{_KEY}"
        case _:
            yield from ((value, value) for value in _copied(one, type_))


def _copied(one: AttributeMap, type_: str) -> list[Any]:
    longest = one.shown.max_length
    texts = ["it's\ta\n\u00fc\u4e2d", "x" * (longest % 2) + "\U0001f600" * (longest // 2)]
    match one.shown.type:
        case "boolean":
            return [True, False]
        case "integer":
            return [1, 2**31 - 1]
        case "decimal":
            return _NUMBERS.get(type_, [1, 12])
    return _TEXTS.get(type_, texts)


def _cases(it: Shape) -> Iterator[Case]:
    number = 0
    for one in it.entity.attributes:
        if not one.shown.write:
            continue
        bare = Case(it, one, UUID(int=0), None, None)
        for value, fhir in [*_values(one, bare.steps[-1].type), (None, None)]:
            number += 1
            yield Case(it, one, UUID(int=number), value, fhir)


def _resource(case: Case) -> Json:
    """With the form of an element that the column shows."""
    first = case.steps[0]
    forms = {first.name.removesuffix(_form(first.name, each)): first.name for each in first.others}
    return rich.resource(case.shape.resource, str(case.key), forms)


def _form(name: str, other: str) -> str:
    """Where the names of two forms of an element differ: Quantity of valueQuantity."""
    same = next(n for n, (a, b) in enumerate(zip(name, other, strict=False)) if a != b)
    while not name[same].isupper():
        same -= 1
    return name[same:]


# -- what has changed ------------------------------------------------------------------------------


def leaves(node: Any, path: Path = ()) -> Iterator[tuple[Path, bytes]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from leaves(value, (*path, name.removeprefix("_")))
    elif isinstance(node, list):
        for item in node:
            yield from leaves(item, path)
    else:
        yield path, exact_json.encode(node)


def touched(steps: Steps) -> Iterator[Path]:
    """Where a write may change anything: the element, what cannot stand beside it, what says the
    same in other words, and what tells the item from others."""
    names = tuple(step.name for step in steps)
    yield names
    for number, step in enumerate(steps, 1):
        yield from ((*names[: number - 1], other) for other in step.others)
        yield from ((*names[:number], *(each.name for each in one.steps)) for one in step.where)
        if step.type in CONCEPTS and number < len(steps):
            yield names[:number]


def _check_rest(case: Case, before: Json, after: Json) -> None:
    """Everything that the column is not about is as it was, byte for byte and in its order."""
    places = list(touched(case.steps))
    roots = {place[0] for place in places}
    kept = [
        {n: v for n, v in one.items() if n.removeprefix("_") not in {*roots, "meta"}}
        for one in (before, after)
    ]
    assert exact_json.encode(kept[0]) == exact_json.encode(kept[1]), case.told
    old, new = (Counter(leaves({n: v for n, v in r.items() if n != "meta"})) for r in (before, after))
    for path, _ in (old - new) + (new - old):
        assert any(path[: len(place)] == place for place in places), (case.told, path)


def _found(node: Any, names: Iterable[str]) -> list[Any]:
    """What FHIR has where a path leads."""
    found = [node]
    for name in names:
        values = (each[name] for each in found if isinstance(each, dict) and name in each)
        found = [one for each in values for one in (each if isinstance(each, list) else [each])]
    return found


# -- round trips -----------------------------------------------------------------------------------


@pytest.mark.parametrize("it", SHAPES.values(), ids=list(SHAPES))
async def test_every_column_goes_round(it: Shape, feed: Feed) -> None:
    cases = list(_cases(it))
    given = {case.key: _resource(case) for case in cases}
    await feed.put(*given.values())
    refused = []
    async def one(case):
        path = f"{it.type.set}({case.key})"
        before = await feed.stored(f"{it.resource}/{case.key}")
        try:
            answer = await feed.ask("PATCH", path, body={case.name: _json(case.value)})
        except Exception as e:
            refused.append((case.told, type(e), getattr(e, "issues", e)))
            return
        assert answer.status == 204, case.told
        after = await feed.stored(f"{it.resource}/{case.key}")
        _check_rest(case, before, after)
        shown = (await feed.get(path))[case.name]
        if case.value is None:
            assert shown in (None, case.one.default), case.told
            return
        assert _read(shown, case.value) == case.value, case.told
        assert str(shown) == str(shown)
        names = [step.name for step in case.steps]
        names += ["reference"] if case.steps[-1].type == "Reference" else []
        assert case.fhir in _found(after, names), case.told
    import asyncio
    await asyncio.gather(*map(one, cases))
    for each in refused:
        if "processing" in str(each[2]) or "= None" not in each[0]: print(str(each)[:100], str(each)[-300:])
    print(len(cases), len(refused))
    assert 0


def _json(value: Value) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value) if isinstance(value, UUID) else value


def _read(shown: Any, value: Value) -> Any:
    match value:
        case datetime():
            return datetime.fromisoformat(shown)
        case UUID():
            return UUID(shown)
    return shown
