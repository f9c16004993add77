"""The fast path finds what fhirpathpy finds, in every path of the shipped maps and in others."""

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
from integration.mapping.fhirpath.compile import compile_path
from integration.mapping.fhirpath.evaluate import Evaluation
from integration.mapping.fhirpath.fast_path import TypeNames, build_fast_path
from integration.mapping.fhirpath.library import unwrap_node
from integration.mapping.files import list_map_names
from integration.mapping.load import load_maps
from integration.mapping.model import AttributeMap
from tests.builders import TODAY
from tests.mapping.tenant import PREFIX
from tests.randomness import limit_examples


@dataclass(frozen=True, slots=True)
class Paths:
    """Those of a map: its variables, paths from the resource, and from the items of a path."""

    resource: str
    variables: Mapping[str, str]
    paths: tuple[str, ...]
    of_items: Mapping[str, tuple[str, ...]]


def list_shipped_paths() -> Iterator[Paths]:
    for set_ in ("healthcare", "plain"):
        for entity in load_maps(set_, PREFIX, None, list_map_names(set_)).entities.values():
            yield Paths(
                entity.resource,
                entity.variables,
                (*list_paths(entity.attributes), *(rest.path for rest in entity.unmapped_elements)),
                {expand.path: list_paths(expand.attributes) for expand in entity.expands},
            )


def list_paths(attributes: Iterable[AttributeMap]) -> tuple[str, ...]:
    return tuple(attribute.path for attribute in attributes if attribute.path)


SHIPPED: list[Paths] = []
for map_ in list_shipped_paths():
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
        "name.given.join()",
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


# What has no fast path; no map of people needs it.
UNSUPPORTED = re.compile(r"toString\(\)|\blength\.")


@pytest.mark.parametrize("map_", SHIPPED, ids=lambda map_: map_.resource)
def test_every_path_of_the_shipped_maps_has_a_fast_path(map_: Paths) -> None:
    types: dict[str, TypeNames] = {"resource": frozenset({map_.resource})}

    def check_path(path: str, type_: str | None) -> TypeNames:
        found = build_fast_path(compile_path(path).tree, type_, types)
        is_unsupported = UNSUPPORTED.search(path) is not None and map_.resource not in PEOPLE
        assert (found is None) is is_unsupported, path
        return found.types if found else frozenset()

    for name, path in map_.variables.items():
        types[name] = check_path(path, map_.resource)
        assert len(types[name]) == 1, name
    for path in map_.paths:
        check_path(path, map_.resource)
    for items, paths in map_.of_items.items():
        (type_,) = check_path(items, map_.resource)
        for path in paths:
            check_path(path, type_)


Found = list[tuple[Any, Any]] | str


def describe_found(find: Callable[[], list[Any]]) -> Found:
    """Values and types; of what fails, how."""
    try:
        return [(unwrap_node(node), getattr(node, "path", None)) for node in find()]
    except Unmappable as problem:
        return problem.why
    except Exception as error:
        return f"the path could not be evaluated ({type(error).__name__})"


def list_values(found: Found) -> Any:
    return found if isinstance(found, str) else [value for value, _ in found]


def assert_agree(map_: Paths, resource: Any) -> None:
    """What we find is what the library finds, given nothing but the values."""
    ours = Evaluation(map_.variables, resource, [], today=TODAY)
    (root,) = ours.find_values("%resource")
    variables = {"resource": [root], "rootResource": [root]}

    def theirs(path: str, focus: Any = root) -> Callable[[], list[Any]]:
        return lambda: compile_path(path).find_nodes(focus, variables)

    for name, path in map_.variables.items():
        try:
            variables[name] = theirs(path)()
        except Exception:
            variables[name] = []
    for path in (*map_.variables.values(), *map_.paths, *map_.of_items):
        found = describe_found(theirs(path))
        assert describe_found(partial(ours.find_nodes, path)) == found, path
        assert list_values(describe_found(partial(ours.find_values, path))) == list_values(found), (
            path
        )
    for items, paths in map_.of_items.items():
        if isinstance(describe_found(theirs(items)), str):
            continue
        for item, same in zip(ours.find_nodes(items), theirs(items)(), strict=True):
            for path in paths:
                found = list_values(describe_found(theirs(path, same)))
                assert (
                    list_values(describe_found(partial(ours.find_values, path, item))) == found
                ), (items, path)


def assert_all_agree(resource: Any, *types: str) -> None:
    """In the maps of these types."""
    for map_ in (*SHIPPED, OURS):
        if map_ is OURS or map_.resource in types:
            assert_agree(map_, resource)


WORDS = st.sampled_from(["usual", "official", "old", "home", "a", "b", "MR", "u", "2024"])
TEXTS = st.one_of(WORDS, st.text(max_size=2))


def optional_list(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(st.fixed_dictionaries({}, optional=fields), max_size=3)


PERIOD = st.fixed_dictionaries({}, optional={"start": TEXTS, "end": TEXTS})
CODED = st.fixed_dictionaries(
    {}, optional={"coding": optional_list(system=TEXTS, code=TEXTS, display=TEXTS), "text": TEXTS}
)
NAMES = optional_list(
    use=WORDS,
    family=TEXTS,
    given=st.lists(TEXTS, max_size=3),
    prefix=st.lists(TEXTS, max_size=2),
    text=TEXTS,
    period=PERIOD,
)
EXTENSIONS = optional_list(
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
        "telecom": optional_list(
            system=WORDS, use=WORDS, value=TEXTS, rank=st.integers(1, 3), period=PERIOD
        ),
        "address": optional_list(
            use=WORDS, line=st.lists(TEXTS, max_size=3), city=TEXTS, period=PERIOD
        ),
        "identifier": optional_list(
            use=WORDS, system=TEXTS, value=TEXTS, type=CODED, period=PERIOD
        ),
        "contact": optional_list(relationship=st.lists(CODED, max_size=2), period=PERIOD),
        "communication": optional_list(language=CODED, preferred=st.booleans()),
        "extension": EXTENSIONS,
        "maritalStatus": CODED,
        "multipleBirthInteger": st.integers(),
        "generalPractitioner": optional_list(reference=WORDS),
    },
)


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, 0, 5, 1.5, True, False, "", "x", [], {}, [[]], [["a"]], [{}], {"value": "a"}),
        {"resourceType": "Observation", "valueString": "a"},
        {"extension": [{"url": "u"}]},
    ]
)


def list_places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Everything in a resource but its type, as a container and a key."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        if key != "resourceType":
            yield node, key
        if isinstance(value, dict | list):
            yield from list_places(value)


@limit_examples(30)
@given(PATIENTS)
def test_the_fast_path_finds_what_fhirpathpy_finds(patient: dict[str, Any]) -> None:
    assert_all_agree(patient, *PEOPLE)


@limit_examples(80)
@given(PATIENTS, st.data())
def test_the_fast_path_finds_what_fhirpathpy_finds_in_resources_of_a_wrong_shape(
    patient: Any, data: st.DataObject
) -> None:
    patient = copy.deepcopy(patient)
    for _ in range(data.draw(st.integers(1, 3))):
        if found := list(list_places(patient)):
            container, key = data.draw(st.sampled_from(found))
            container[key] = copy.deepcopy(data.draw(ODD))
    assert_all_agree(patient, "Patient")


def load_resources() -> Iterator[dict[str, Any]]:
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
def test_the_fast_path_finds_what_fhirpathpy_finds_in_real_resources() -> None:
    limits = Counter(dict.fromkeys((map_.resource for map_ in SHIPPED), 6)) + Counter(Patient=40)
    for resource in load_resources():
        type_ = resource["resourceType"]
        if limits[type_]:
            limits[type_] -= 1
            assert_all_agree(resource, type_)
