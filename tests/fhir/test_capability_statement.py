"""The relay promises what it takes of this sender, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from integration.core.model import ALL_RIGHTS, Rights
from integration.fhir.capability_statement import build_capability_statement
from integration.fhir.grammar import RESOURCE_TYPES

SINCE = datetime(2026, 3, 2, tzinfo=UTC)


def promised(rights: Rights) -> dict[str, Any]:
    statement = build_capability_statement("https://relay.example/api/fhir", rights, SINCE)
    return {item["type"]: item for item in statement["rest"][0]["resource"]}


def test_types_that_change_the_server_are_promised_where_they_are_named() -> None:
    assert promised(ALL_RIGHTS).keys() == RESOURCE_TYPES
    assert RESOURCE_TYPES - promised(Rights()).keys() == {"Subscription", "SearchParameter"}
    assert promised(Rights(types=("Subscription",))).keys() == {"Subscription"}


@pytest.mark.parametrize(
    ("rights", "type_", "are_taken"),
    [
        (Rights(), "Patient", True),
        (Rights(id_prefixes=("a-",)), "Patient", False),
        (Rights(id_prefixes=("a-",), identifier_systems=("s",)), "Patient", True),
        (Rights(identifier_systems=("s",)), "Patient", True),
        (Rights(identifier_systems=("s",)), "Provenance", False),
    ],
)
def test_conditions_are_promised_where_they_are_taken(
    rights: Rights, type_: str, are_taken: bool
) -> None:
    found = promised(rights)[type_]
    assert (found["conditionalCreate"], found["conditionalUpdate"]) == (are_taken, are_taken)
