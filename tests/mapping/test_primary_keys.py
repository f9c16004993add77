"""Which key the row of a resource has."""

from __future__ import annotations

from uuid import UUID

import pytest

from integration.mapping.primary_keys import derive_primary_key

GUID = "0b6d3d3e-9c4b-4a53-8f1f-6f0f8a2f4c11"


def test_an_id_that_is_a_guid_is_the_primary_key() -> None:
    assert derive_primary_key("Patient", GUID) == GUID


def test_ids_that_differ_only_in_letter_case_have_keys_of_their_own() -> None:
    """FHIR ids are case-sensitive, GUIDs are not."""
    ids = [GUID, GUID.upper(), GUID.replace("b", "B", 1), GUID[:20] + GUID[20:].upper()]
    assert len({derive_primary_key("Patient", id_).lower() for id_ in ids}) == 4


@pytest.mark.parametrize(
    "id_", ["1", GUID.replace("-", ""), f"{GUID}0", f"x{GUID}", "a" * 64, GUID.upper()]
)
def test_any_other_id_gets_a_guid_that_is_always_the_same(id_: str) -> None:
    key = derive_primary_key("Patient", id_)
    assert UUID(key).version == 5
    assert key == derive_primary_key("Patient", id_)
    assert key != derive_primary_key("Practitioner", id_)


def test_a_primary_key_is_the_same_for_ever() -> None:
    assert derive_primary_key("Patient", "1") == "af6999f6-06dd-5d21-9244-07ff5fbf5043"


def test_the_guid_of_zeros_is_no_key() -> None:
    zero = "00000000-0000-0000-0000-000000000000"
    assert derive_primary_key("Patient", zero) not in (zero, derive_primary_key("Goal", zero))
