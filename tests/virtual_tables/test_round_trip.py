"""What is written to any column is in FHIR and is read again, and nothing else has changed.

Columns come from the maps, so that a new one is covered by itself; resources have every element
that R4 knows.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest

from integration.core import decimal_json
from integration.core.errors import Rejected
from integration.fhir import validation
from integration.mapping.model import AttributeMap, Kind, Lookup
from integration.mapping.write_back.inverse_paths import Steps, invert_path
from integration.odata.model import Value
from integration.virtual_tables.entity_type import MappedEntityType, format_property_name
from integration.virtual_tables.feed_rows import interpret_row
from tests.builders import TODAY
from tests.mapping.least_rows import LEAST
from tests.randomness import FACTOR
from tests.virtual_tables import rich
from tests.virtual_tables.conftest import SHAPES, Feed, Json
from tests.virtual_tables.scripted import scripted

Path = tuple[str, ...]

NIGHTLY = FACTOR > 1

_RESOLVED = {
    "coding": [
        {
            "system": "http://terminology.hl7.org/CodeSystem/condition-clinical",
            "code": "resolved",
        }
    ]
}
# What FHIR's invariants want beside a value; None: not there, in none of its forms.
BESIDE: dict[str, Json] = {
    "Appointment.msemr_cancelationreasontext": {"status": "cancelled"},
    "Condition.msemr_abatementdate": {"clinicalStatus": _RESOLVED},
    "Condition.msemr_abatementperiodstartdate": {"clinicalStatus": _RESOLVED},
    "Condition.msemr_abatementperiodenddate": {"clinicalStatus": _RESOLVED},
    "Condition.msemr_abatementstring": {"clinicalStatus": _RESOLVED},
    "Observation.msemr_dataabsentreasontext": {"value": None},
    "Task.msemr_authoredon": {"lastModified": None},
    "Task.msemr_lastmodified": {"authoredOn": None},
}

SMALL = ("Condition", "Observation")  # each kind of column is among theirs

CONCEPTS = ("CodeableConcept", "Coding", "Quantity", "Age", "Duration")


@dataclass(frozen=True)
class Case:
    """A value for a column of a resource of its own. `fhir` is how FHIR writes it."""

    shape: MappedEntityType
    candidate: AttributeMap
    key: UUID
    value: Value
    fhir: Any

    @property
    def name(self) -> str:
        return format_property_name(self.candidate)

    @property
    def steps(self) -> Steps:
        entity = self.shape.entity
        return invert_path(self.candidate.path or "", entity.resource, entity.variables) or ()

    @property
    def told(self) -> str:
        return f"{self.shape.resource}.{self.candidate.column} = {self.value!r}"


# -- values ----------------------------------------------------------------------------------------

_TEXTS: dict[str, list[str]] = {
    "code": ["a", "A.1"],
    "uri": ["urn:oid:1.2.3", "https://sample.example/a?b=c&d=%20"],
    "url": ["https://sample.example/a?b=c&d=%20"],
    "canonical": ["http://sample.example/c|1.0"],
}
_NUMBERS = {"decimal": [Decimal("7.50"), Decimal("-0.001"), Decimal(12)]}
_MOMENTS = [datetime.fromisoformat("1948-02-29T23:59:58+00:00"), datetime(2031, 1, 1, tzinfo=UTC)]
_KEY = UUID(int=1 << 96)


def _values(candidate: AttributeMap, type_: str) -> Iterator[tuple[Value, Any]]:
    """Values of a column, each as FHIR writes it."""
    match candidate.kind:
        case Kind.DATE:
            days = (at.replace(hour=0, minute=0, second=0) for at in _MOMENTS)
            yield from ((day, day.date().isoformat()) for day in days)
        case Kind.DATETIME:
            yield from ((at, at.strftime("%Y-%m-%dT%H:%M:%SZ")) for at in _MOMENTS)
        case Kind.CHOICE:
            first: dict[int, str] = {}
            for code, options in candidate.choices.items():
                first.setdefault(options[0], code)
            literal = {"boolean": lambda code: code == "true"}.get(type_, str)
            yield from ((option, literal(code)) for option, code in [*first.items()][:2])
        case Kind.LOOKUP:
            yield _KEY, f"{candidate.virtual_column.target}/{_KEY}"
        case _:
            yield from ((value, value) for value in _copied(candidate, type_))


def _copied(candidate: AttributeMap, type_: str) -> list[Any]:
    longest = candidate.virtual_column.max_length
    texts = ["it's\ta\n\u00fc\u4e2d", "x" * (longest % 2) + "\U0001f600" * (longest // 2)]
    match candidate.virtual_column.type:
        case "boolean":
            return [True, False]
        case "integer":
            return [1, 2**31 - 1]
        case "decimal":
            return _NUMBERS.get(type_, [1, 12])
    return _TEXTS.get(type_, texts)


def _cases(entity_type: MappedEntityType) -> Iterator[Case]:
    """One value of each column in turn, and null; with `make nightly` all values."""
    number = 0
    for candidate in entity_type.entity.attributes:
        if not candidate.virtual_column.writable:
            continue
        bare = Case(entity_type, candidate, UUID(int=0), None, None)
        values = list(_values(candidate, bare.steps[-1].type))
        some = values if NIGHTLY else [values[number // 2 % len(values)]]
        for value, fhir in [*some, (None, None)]:
            number += 1
            yield Case(entity_type, candidate, UUID(int=number), value, fhir)


def _resource(case: Case) -> Json:
    """With the form of an element that the column shows."""
    beside = BESIDE.get(f"{case.shape.resource}.{case.candidate.column}", {})
    forms = {
        step.name.removesuffix(_form(step.name, other)): step.name
        for step in case.steps
        for other in step.other_names
    }
    made = rich.resource(case.shape.resource, str(case.key), forms)
    gone = [name for name in made if any(name.strip("_").startswith(n) for n in beside)]
    kept = {name: value for name, value in made.items() if name not in gone}
    return kept | {name: value for name, value in beside.items() if value is not None}


def _targets(entity_type: MappedEntityType) -> list[Json]:
    """What the lookups of these cases refer to."""
    types = {attribute.virtual_column.target for attribute in entity_type.entity.attributes}
    # An organisation has rules for how its addresses are used, which a rich one breaks.
    plain = {"resourceType": "Organization", "id": str(_KEY), "name": "Ward"}
    return [
        plain if type_ == "Organization" else rich.resource(type_, str(_KEY), {})
        for type_ in sorted(filter(None, types))
    ]


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
        yield path, decimal_json.encode(node)


def touched(steps: Steps) -> Iterator[Path]:
    """Where a write may change anything: the element, what cannot stand beside it, what says the
    same in other words, and what tells the item from others."""
    names = tuple(step.name for step in steps)
    yield names
    for number, step in enumerate(steps, 1):
        yield from ((*names[: number - 1], other) for other in step.other_names)
        yield from (
            (*names[:number], *(entry.name for entry in candidate.steps))
            for candidate in step.predicates
        )
        if step.type in CONCEPTS and number < len(steps):
            yield names[:number]


def _check_rest(case: Case, before: Json, after: Json) -> None:
    """Everything that the column is not about is as it was, byte for byte and in its order."""
    places = list(touched(case.steps))
    roots = {place[0] for place in places}
    kept = [
        {n: v for n, v in candidate.items() if n.removeprefix("_") not in {*roots, "meta"}}
        for candidate in (before, after)
    ]
    assert decimal_json.encode(kept[0]) == decimal_json.encode(kept[1]), case.told
    old, new = (
        Counter(leaves({n: v for n, v in r.items() if n != "meta"})) for r in (before, after)
    )
    for path, _ in (old - new) + (new - old):
        assert any(path[: len(place)] == place for place in places), (case.told, path)


def _found(node: Any, names: Iterable[str]) -> list[Any]:
    """What FHIR has where a path leads."""
    found = [node]
    for name in names:
        values = (entry[name] for entry in found if isinstance(entry, dict) and name in entry)
        found = [
            candidate
            for entry in values
            for candidate in (entry if isinstance(entry, list) else [entry])
        ]
    return found


# -- round trips -----------------------------------------------------------------------------------


def _list_entity_types() -> Iterator[Any]:
    """Every one; those that have between them all the kinds of columns are tried at each change."""
    for name, entity_type in SHAPES.items():
        marks = () if name in SMALL else pytest.mark.slow
        yield pytest.param(entity_type, id=name, marks=marks)


@pytest.mark.parametrize("entity_type", list(_list_entity_types()))
async def test_every_column_goes_round_and_nothing_else_moves(
    entity_type: MappedEntityType, feed: Feed
) -> None:
    cases = list(_cases(entity_type))
    await feed.put(*map(_resource, cases), *_targets(entity_type))
    places = asyncio.Semaphore(4)  # more would wait for one another, as long as an answer may take

    async def go(case: Case) -> None:
        async with places:
            await _go_round(case, feed)

    await asyncio.gather(*map(go, cases))


async def _go_round(case: Case, feed: Feed) -> None:
    path, name = f"{case.shape.type.set}({case.key})", f"{case.shape.resource}/{case.key}"
    before = await feed.stored(name)
    refused = None
    try:
        answer = await feed.ask("PATCH", path, body={case.name: _json(case.value)})
    except Rejected as error:
        refused = error
    if refused:
        # Whose it is does not change, what FHIR requires is not cleared, nor one of several.
        assert case.candidate.virtual_column.create_only or case.value is None, (case.told, refused)
        assert refused.status == 422, case.told
        assert await feed.stored(name) == before, case.told
        return
    assert case.value is None or not case.candidate.virtual_column.create_only, case.told
    assert answer.status == 204, case.told
    after = await feed.stored(name)
    _check_rest(case, before, after)
    shown = (await feed.get(path, f"$select={case.name}"))[case.name]
    if case.value is None:
        assert shown in (None, case.candidate.default), case.told
        return
    assert _read(shown, case.value) == case.value, case.told
    names = [step.name for step in case.steps]
    names += ["reference"] if case.steps[-1].type == "Reference" else []
    found = _found(after, names)
    if case.steps[-1].type == "instant":  # the server writes it again, as Azure does
        moments = [datetime.fromisoformat(text) for text in found]
        assert datetime.fromisoformat(case.fhir) in moments, case.told
        return
    assert case.fhir in found, case.told


def _json(value: Value) -> Value:
    match value:
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
    return value


def _read(shown: Any, value: Value) -> Any:
    match value:
        case datetime():
            return datetime.fromisoformat(shown)
        case UUID():
            return UUID(shown)
    return shown


@pytest.mark.parametrize("entity_type", SHAPES.values(), ids=list(SHAPES))
async def test_every_digit_that_is_not_written_is_kept(entity_type: MappedEntityType) -> None:
    """By a server that keeps the digits of decimals, as FHIR has it: the laptop's does not."""
    kept: dict[str, bytes] = {}
    resource = rich.resource(entity_type.resource, str(UUID(int=1)))
    resource["meta"] = {"versionId": "1"}
    kept[f"/{entity_type.resource}/{UUID(int=1)}"] = decimal_json.encode(resource)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            kept[request.url.path] = request.content
        return httpx.Response(200, content=kept[request.url.path])

    column = next(
        candidate
        for candidate in entity_type.entity.attributes
        if candidate.virtual_column.writable and not candidate.virtual_column.create_only
    )
    value, _ = next(
        _values(column, Case(entity_type, column, UUID(int=1), None, None).steps[-1].type)
    )
    async with scripted(answer) as feed:
        path = f"{entity_type.type.set}({UUID(int=1)})"
        done = await feed.ask("PATCH", path, body={format_property_name(column): _json(value)})
    assert done.status == 204
    (after,) = map(decimal_json.decode, kept.values())
    assert decimal_json.encode(after["extension"]).count(b'"valueDecimal":1.00') == 2
    _check_rest(Case(entity_type, column, UUID(int=1), value, None), resource, after)


@pytest.mark.parametrize("entity_type", SHAPES.values(), ids=list(SHAPES))
async def test_what_is_created_is_what_the_map_and_the_client_say(
    entity_type: MappedEntityType, feed: Feed
) -> None:
    """The least that the map's cases know to be valid, and the server finds so, too."""
    least, named = (
        LEAST[entity_type.resource],
        {candidate.column: candidate for candidate in entity_type.entity.attributes},
    )
    await feed.put(*_targets(entity_type))
    body = {format_property_name(named[column]): _posted(value) for column, value in least.items()}
    answer = await feed.ask("POST", entity_type.type.set, body=body)
    row = decimal_json.decode(answer.body)
    stored = await feed.stored(f"{entity_type.resource}/{row[entity_type.type.key]}")
    assert answer.status == 201
    assert {
        name: stored[name]
        for name in entity_type.entity.create
        if name not in _roots(entity_type, least)
    } == {
        name: value
        for name, value in entity_type.entity.create.items()
        if name not in _roots(entity_type, least)
    }
    known = {"resourceType", "id", "meta", *entity_type.entity.create, *_roots(entity_type, least)}
    assert stored.keys() <= known
    for column, value in least.items():
        if isinstance(value, Lookup):
            candidate = named[column]
            names = [
                step.name for step in Case(entity_type, candidate, UUID(int=0), None, None).steps
            ]
            assert f"{candidate.virtual_column.target}/{_KEY}" in _found(
                stored, [*names, "reference"]
            )
    shown = await feed.get(f"{entity_type.type.set}({row[entity_type.type.key]})")
    assert {name: shown[name] for name in body} == body


def _roots(entity_type: MappedEntityType, columns: Iterable[str]) -> set[str]:
    """The elements of the resource that columns lead into."""
    named = {candidate.column: candidate for candidate in entity_type.entity.attributes}
    return {
        Case(entity_type, named[name], UUID(int=0), None, None).steps[0].name for name in columns
    }


def _posted(value: Any) -> Value:
    match value:
        case Lookup():
            return str(_KEY)
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
    return value  # type: ignore[no-any-return]


def test_the_resources_of_these_tests_are_valid_and_fill_what_the_maps_show() -> None:
    for entity_type in SHAPES.values():
        made = decimal_json.decode(decimal_json.encode(rich.resource(entity_type.resource, "1")))
        assert list(validation.find_issues(made, entity_type.resource)) == []
        found = interpret_row(entity_type, made, "http://fhir", today=TODAY)
        filled = [name for name, value in found.items() if value is not None]
        assert len(filled) > 0.5 * len(found), entity_type.resource
