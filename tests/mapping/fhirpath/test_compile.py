"""FHIRPath: what is compiled, what is told of it, and that the shortcut finds what the library finds."""

from __future__ import annotations

import copy
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Unmappable
from integration.mapping.fhirpath.compile import compile_path, plain
from integration.mapping.fhirpath.evaluate import Evaluation
from integration.mapping.fhirpath.fast_path import shortcut
from integration.mapping.fhirpath.short import Types
from integration.mapping.files import list_map_names
from integration.mapping.load import load_maps
from integration.mapping.model import AttributeMap
from tests.mapping.tenant import PREFIX
from tests.randomness import limit_examples


@pytest.mark.parametrize(
    ("path", "needs"),
    [
        ("name.given.first()", {"name"}),
        ("(name.where(use = 'usual') | contact.name).first()", {"name", "contact"}),
        ("%home.line.skip(1)", {"%home"}),
        ("iif(%a.exists(), name, contact.name)", {"name", "contact"}),
        ("iif(%a.exists(), name)", {"name"}),
        ("name.where(use.exists()).family", {"name"}),
        ("name[0].family", {"name"}),
        ("gender = 'male'", {"gender"}),
        ("{}", set()),
        ("name.exists()", None),
        ("name.empty()", None),
        ("name.count()", None),
        ("gender & 'x'", None),
        ("'constant'", None),
        ("active or true", None),
        ("Patient.name", None),
        ("iif(active, 'yes', gender)", None),
    ],
)
def test_it_is_told_without_what_a_path_finds_nothing(path: str, needs: set[str] | None) -> None:
    assert compile_path(path).needs == needs


def test_variables_and_elements_of_a_path_are_told() -> None:
    path = compile_path("%a.where(use = '%b').given | name.family")
    assert path.variables == {"a"}
    assert path.elements == {"use", "given", "name", "family"}


def test_what_a_condition_finds_false_does_not_hold() -> None:
    patient = {"communication": [{"preferred": False}, {"preferred": True}, {}]}
    found = Evaluation({}, patient, []).values("communication.where(preferred)")
    assert found == [{"preferred": True}]


def test_types_reach_through_variables() -> None:
    extension = [{"url": "u", "valueCode": "F"}]
    patient = {"resourceType": "Patient", "id": "1", "extension": extension}
    found = Evaluation({"mine": "extension.where(url = 'u')"}, patient, [])
    assert found.values("%mine.value.ofType(code)") == ["F"]
    assert found.values("%mine.value.ofType(boolean)") == []


def test_types_reach_through_variables_where_the_library_is_needed() -> None:
    extension = [{"url": "u", "valueCode": "F"}]
    patient = {"resourceType": "Patient", "id": "1", "extension": extension}
    variables = {"mine": "extension.where(url = 'u')", "said": "%mine.value", "up": "%said.upper()"}
    found = Evaluation(variables, patient, [])
    assert found.values("%mine.value.ofType(code).count()") == [1]
    assert found.values("%said.ofType(code)") == ["F"]
    assert found.values("%said.ofType(boolean)") == []
    assert found.values("%up.length()") == [1]


def test_what_claims_to_be_a_resource_has_the_elements_of_that_resource() -> None:
    name = {"resourceType": "Observation", "family": "a", "valueString": "b"}
    found = Evaluation({"mine": "name"}, {"resourceType": "Patient", "name": [name]}, [])
    assert found.values("name.value") == found.values("%mine.value") == ["b"]
    assert found.values("name.family") == found.values("%mine.family") == ["a"]


def test_of_a_contained_resource_types_are_known() -> None:
    contained = [{"resourceType": "Observation", "id": "1", "valueString": "b"}]
    patient = {"resourceType": "Patient", "contained": contained, "deceasedBoolean": True}
    found = Evaluation({}, patient, [])
    assert found.values("contained.value") == ["b"]
    assert found.values("deceased") == [True]


# -- the shortcut --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Paths:
    """Those of a map: its variables, paths from the resource, and from the items of a path."""

    resource: str
    variables: Mapping[str, str]
    paths: tuple[str, ...]
    of_items: Mapping[str, tuple[str, ...]]


def shipped() -> Iterator[Paths]:
    for set_ in ("healthcare", "plain"):
        for entity in load_maps(set_, PREFIX, None, list_map_names(set_)).entities.values():
            yield Paths(
                entity.resource,
                entity.variables,
                (*paths_of(entity.attributes), *(rest.path for rest in entity.unmapped_elements)),
                {expand.path: paths_of(expand.attributes) for expand in entity.expands},
            )


def paths_of(attributes: Iterable[AttributeMap]) -> tuple[str, ...]:
    return tuple(attribute.path for attribute in attributes if attribute.path)


SHIPPED: list[Paths] = []
for map_ in shipped():
    if map_ not in SHIPPED:  # the clinical maps are in every set
        SHIPPED.append(map_)
# Their maps ask for what a patient has, too: names, telecom, addresses, identifiers.
PEOPLE = ("Patient", "Practitioner", "RelatedPerson", "Organization")
MORE = [
    "name.given[1]",
    "name.last().given.tail().take(1)",
    "name.select(given.first() | family)",
    "name.where(use != 'old' and family = 'b').exists()",
    "name.exists(use = 'usual' or given.empty())",
    "name.where('a' in given)",
    "name.given.where($this = 'a')",
    "deceased.ofType(boolean)",
    "deceased",
    "extension('u').value",
    "extension.where(url = 'u').value.ofType(Coding).code",
    "name.family.first().upper().startsWith('A')",
    "name.period.start = '2024'",
    "birthDate = '2024-01-01'",
    "telecom.where(rank = 1).value",
    "iif(active = true, name.family, gender).first()",
    "identifier.type.coding.where(code = 'MR').exists()",
    "name.given.join('-')",
    "(name.family | name.given).first()",
    "contact.name.given.skip(1)",
    "name.exclude(%resource.name.first()).family",
    "name.given.exclude(name.given.first() | name.family)",
]


OF_EXTENSIONS = [
    "url",
    "value",
    "value.ofType(string)",
    "value.ofType(Coding).code",
    "value.code",
    "iif(value.exists(), value, url)",
]
OURS = Paths(
    "Patient",
    {
        "name": "name",
        "either": "name | contact.name",
        "mine": "extension.where(url = 'u')",
        "said": "%mine.value",
        "text": "name.given.join(' ')",
        "fails": "name.given.upper()",
    },
    (
        *MORE,
        "%name.given",
        "%either.given",
        "%either.period.start",
        "%mine.value.ofType(string)",
        "%mine.value.ofType(Coding).code",
        "%said.code",
        "%said.ofType(string)",
        "%text",
        "%text | name.family",
        "%text.upper()",
        "%fails",
        "%name.where(given.exists() and use = 'old' or family.empty()).family",
        "name.where(use != 'old' and text.empty()).given",
        "name.where(given = 'a').family",
        "name.where(given != 'a').family",
        "name.where(use = {}).family",
        "name.given = name.given.first()",
        "name.given != name.family",
        "name.given.first() = contact.name.given",
        "name.value",
        "name.where(family.contains('a') and use = 'old').family",
        "telecom.where(rank != 1 or rank.empty()).value",
        "communication.where(preferred = true).language.coding.code",
        "name.given.count()",
        "%name.given.count()",
        "deceased.ofType(dateTime)",
        "deceased.first().ofType(boolean)",
        "name.ofType(HumanName).family",
        "name.ofType(Address)",
        "extension.value | name.family",
        "contact.relationship.coding.where(code in ('a' | 'MR')).code",
    ),
    {
        "extension": tuple(OF_EXTENSIONS),
        "extension.value": ("code", "$this"),
        "name | contact.name": ("family", "period.start", "given.first()"),
        "name.given.join(' ')": ("$this",),
    },
)


# What has no shortcut; no map of people needs it.
LONG = re.compile(r"toString\(\)|\blength\.")


@pytest.mark.parametrize("map_", SHIPPED, ids=lambda map_: map_.resource)
def test_every_path_of_the_shipped_maps_is_short(map_: Paths) -> None:
    types: dict[str, Types] = {"resource": frozenset({map_.resource})}

    def short(path: str, type_: str | None) -> Types:
        found = shortcut(compile_path(path).tree, type_, types)
        is_long = LONG.search(path) is not None and map_.resource not in PEOPLE
        assert (found is None) is is_long, path
        return found.types if found else frozenset()

    for name, path in map_.variables.items():
        types[name] = short(path, map_.resource)
        assert len(types[name]) == 1, name
    for path in map_.paths:
        short(path, map_.resource)
    for items, paths in map_.of_items.items():
        (type_,) = short(items, map_.resource)
        for path in paths:
            short(path, type_)


Found = list[tuple[Any, Any]] | str


def told(find: Callable[[], list[Any]]) -> Found:
    """Values and types; of what fails, how."""
    try:
        return [(plain(node), getattr(node, "path", None)) for node in find()]
    except Unmappable as problem:
        return problem.why
    except Exception as error:
        return f"the path failed ({type(error).__name__})"


def values(found: Found) -> Any:
    return found if isinstance(found, str) else [value for value, _ in found]


def agree(map_: Paths, resource: Any) -> None:
    """What we find is what the library finds, given nothing but the values."""
    ours = Evaluation(map_.variables, resource, [])
    (root,) = ours.values("%resource")
    known = {"resource": [root], "rootResource": [root]}

    def theirs(path: str, focus: Any = root) -> Callable[[], list[Any]]:
        return lambda: compile_path(path).nodes(focus, known)

    for name, path in map_.variables.items():
        try:
            known[name] = theirs(path)()
        except Exception:
            known[name] = []
    for path in (*map_.variables.values(), *map_.paths, *map_.of_items):
        found = told(theirs(path))
        assert told(partial(ours.nodes, path)) == found, path
        assert values(told(partial(ours.values, path))) == values(found), path
    for items, paths in map_.of_items.items():
        if isinstance(told(theirs(items)), str):
            continue
        for item, same in zip(ours.nodes(items), theirs(items)(), strict=True):
            for path in paths:
                found = values(told(theirs(path, same)))
                assert values(told(partial(ours.values, path, item))) == found, (items, path)


def agree_all(resource: Any, *types: str) -> None:
    """In the maps of these types."""
    for map_ in (*SHIPPED, OURS):
        if map_ is OURS or map_.resource in types:
            agree(map_, resource)


WORDS = st.sampled_from(["usual", "official", "old", "home", "a", "b", "MR", "u", "2024"])
TEXTS = st.one_of(WORDS, st.text(max_size=2))


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(st.fixed_dictionaries({}, optional=fields), max_size=3)


PERIOD = st.fixed_dictionaries({}, optional={"start": TEXTS, "end": TEXTS})
CODED = st.fixed_dictionaries(
    {}, optional={"coding": some(system=TEXTS, code=TEXTS, display=TEXTS), "text": TEXTS}
)
NAMES = some(
    use=WORDS,
    family=TEXTS,
    given=st.lists(TEXTS, max_size=3),
    prefix=st.lists(TEXTS, max_size=2),
    text=TEXTS,
    period=PERIOD,
)
EXTENSIONS = some(
    url=st.just("u"), valueString=TEXTS, valueCoding=st.fixed_dictionaries({"code": TEXTS})
).filter(lambda items: all("url" in item for item in items))
PATIENTS = st.fixed_dictionaries(
    {"resourceType": st.just("Patient")},
    optional={
        "active": st.booleans(),
        "gender": TEXTS,
        "birthDate": st.sampled_from(["2024-01-01", "2024", "x"]),
        "deceasedBoolean": st.booleans(),
        "deceasedDateTime": st.sampled_from(["2024-01-01", "2024"]),
        "name": NAMES,
        "telecom": some(
            system=WORDS, use=WORDS, value=TEXTS, rank=st.integers(1, 3), period=PERIOD
        ),
        "address": some(use=WORDS, line=st.lists(TEXTS, max_size=3), city=TEXTS, period=PERIOD),
        "identifier": some(use=WORDS, system=TEXTS, value=TEXTS, type=CODED, period=PERIOD),
        "contact": some(relationship=st.lists(CODED, max_size=2), period=PERIOD),
        "communication": some(language=CODED, preferred=st.booleans()),
        "extension": EXTENSIONS,
        "maritalStatus": CODED,
        "multipleBirthInteger": st.integers(),
        "generalPractitioner": some(reference=WORDS),
    },
)


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, 0, 5, 1.5, True, False, "", "x", [], {}, [[]], [["a"]], [{}], {"value": "a"}),
        {"resourceType": "Observation", "valueString": "a"},
        {"extension": [{"url": "u"}]},
    ]
)


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Everything in a resource but its type, as a container and a key."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        if key != "resourceType":
            yield node, key
        if isinstance(value, dict | list):
            yield from places(value)


@limit_examples(30)
@given(PATIENTS)
def test_the_shortcut_finds_what_the_library_finds(patient: dict[str, Any]) -> None:
    agree_all(patient, *PEOPLE)


@limit_examples(80)
@given(PATIENTS, st.data())
def test_so_it_does_in_a_resource_of_a_wrong_shape(patient: Any, data: st.DataObject) -> None:
    patient = copy.deepcopy(patient)
    for _ in range(data.draw(st.integers(1, 3))):
        if found := list(places(patient)):
            container, key = data.draw(st.sampled_from(found))
            container[key] = copy.deepcopy(data.draw(ODD))
    agree_all(patient, "Patient")


def resources() -> Iterator[dict[str, Any]]:
    for path in sorted(Path(os.environ["BUNDLES_DIR"]).rglob("*.json")):
        try:
            bundle = json.loads(path.read_text("utf-8"))
        except ValueError:
            continue
        for entry in bundle.get("entry", []) if isinstance(bundle, dict) else []:
            resource = entry.get("resource") if isinstance(entry, dict) else None
            if isinstance(resource, dict) and "resourceType" in resource:
                yield resource


@pytest.mark.skipif("BUNDLES_DIR" not in os.environ, reason="BUNDLES_DIR names no real bundles")
def test_the_shortcut_finds_what_the_library_finds_in_real_resources() -> None:
    most = Counter(dict.fromkeys((map_.resource for map_ in SHIPPED), 6)) + Counter(Patient=40)
    for resource in resources():
        type_ = resource["resourceType"]
        if most[type_]:
            most[type_] -= 1
            agree_all(resource, type_)
