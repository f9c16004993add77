"""FHIRPath: what is compiled, what is told of it, and that the shortcut finds what the library finds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration.mapping.evaluation import Evaluation
from integration.mapping.fhir_path import FhirPath, compiled, plain
from integration.mapping.files import names
from integration.mapping.load import maps
from tests.mapping.tenant import PREFIX


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
    assert compiled(path).needs == needs


def test_variables_and_elements_of_a_path_are_told() -> None:
    path = compiled("%a.where(use = '%b').given | name.family")
    assert path.variables == {"a"}
    assert path.elements == {"use", "given", "name", "family"}


def test_what_a_condition_finds_false_does_not_hold() -> None:
    patient = {"communication": [{"preferred": False}, {"preferred": True}, {}]}
    assert compiled("communication.where(preferred)")(patient, {}) == [{"preferred": True}]


def test_types_reach_through_variables() -> None:
    extension = [{"url": "u", "valueCode": "F"}]
    patient = {"resourceType": "Patient", "id": "1", "extension": extension}
    found = Evaluation({"mine": "extension.where(url = 'u')"}, patient, [])
    assert found.values("%mine.value.ofType(code)") == ["F"]
    assert found.values("%mine.value.ofType(boolean)") == []


# -- the shortcut --------------------------------------------------------------------------------


def shipped_paths() -> Iterator[str]:
    for set_ in ("healthcare", "plain"):
        for entity in maps(set_, PREFIX, None, names(set_)).entities.values():
            attributes = [*entity.attributes, *(a for e in entity.expands for a in e.attributes)]
            yield from (attribute.path for attribute in attributes if attribute.path)
            yield from (expand.path for expand in entity.expands)
            yield from entity.variables.values()
            yield from (rest.path for rest in entity.rest)


PATHS = sorted(set(shipped_paths()))
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


def test_every_path_of_the_shipped_maps_is_short() -> None:
    assert [path for path in PATHS if not compiled(path).is_short] == []


def found(path: FhirPath, resource: Any, variables: dict[str, Any]) -> Any:
    try:
        return [(plain(one), getattr(one, "path", None)) for one in path.nodes(resource, variables)]
    except Exception as error:
        return type(error)


def agree(text: str, resource: Any) -> None:
    path = compiled(text)
    slow = replace(path, _shortcut=None)
    variables = {name: resource.get("name", []) for name in path.variables}
    assert found(path, resource, variables) == found(slow, resource, variables), text


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


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(PATIENTS)
def test_the_shortcut_finds_what_the_library_finds(patient: dict[str, Any]) -> None:
    for text in (*PATHS, *MORE):
        agree(text, patient)


def resources() -> Iterator[dict[str, Any]]:
    for path in sorted(Path(os.environ["BUNDLES_DIR"]).rglob("*.json")):
        try:
            bundle = json.loads(path.read_text("utf-8"))
        except ValueError:
            continue
        for entry in bundle.get("entry", []) if isinstance(bundle, dict) else []:
            resource = entry.get("resource") if isinstance(entry, dict) else None
            kinds = ("Patient", "Practitioner", "RelatedPerson", "Organization")
            if isinstance(resource, dict) and resource.get("resourceType") in kinds:
                yield resource


@pytest.mark.skipif("BUNDLES_DIR" not in os.environ, reason="BUNDLES_DIR names no real bundles")
def test_the_shortcut_finds_what_the_library_finds_in_real_resources() -> None:
    for resource in list(resources())[:60]:
        for text in (*PATHS, *MORE):
            agree(text, resource)
