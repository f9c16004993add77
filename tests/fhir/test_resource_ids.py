"""Which id a created resource gets."""

from __future__ import annotations

from uuid import UUID

import pytest

from integration.fhir.entries import Entry, keep
from integration.fhir.resource_ids import Naming, derive_id, derive_placeholder
from tests.fhir.bundles import make_urn

NAMING = Naming("clinic", "key-1")
ENTRY = Entry(position=0, where="", method="POST", type="Patient", full_url=make_urn(1))


@pytest.mark.parametrize(
    "made", [derive_id, lambda n, e: derive_placeholder(n, e).removeprefix("urn:uuid:")]
)
def test_ids_and_placeholders_are_uuids_of_version_5(made: object) -> None:
    assert callable(made)
    text = made(NAMING, ENTRY)
    assert UUID(text).version == 5
    assert str(UUID(text)) == text


def test_the_same_entry_of_the_same_delivery_gets_the_same_id() -> None:
    again = Entry(
        position=0,
        where="elsewhere",
        method="POST",
        type="Patient",
        full_url=make_urn(1),
        content=keep({"a": 1}),
    )
    assert derive_id(NAMING, again) == derive_id(NAMING, ENTRY)


def test_an_id_is_the_same_for_ever() -> None:
    assert derive_id(NAMING, ENTRY) == "500b0107-7272-5e86-b749-b0860b37214c"


@pytest.mark.parametrize(
    ("naming", "entry"),
    [
        (Naming("clinic", "key-2"), ENTRY),
        (Naming("other", "key-1"), ENTRY),
        (NAMING, Entry(position=0, where="", method="POST", type="Patient", full_url=make_urn(2))),
        (NAMING, Entry(position=0, where="", method="POST", type="Patient")),
    ],
)
def test_another_delivery_sender_or_entry_gets_another_id(naming: Naming, entry: Entry) -> None:
    assert derive_id(naming, entry) != derive_id(NAMING, ENTRY)


def test_an_entry_without_a_full_url_is_known_by_its_position() -> None:
    ids = {
        derive_id(NAMING, Entry(position=n, where="", method="POST", type="Patient"))
        for n in range(5)
    }
    assert len(ids) == 5


def test_a_full_url_goes_before_the_position() -> None:
    moved = Entry(position=7, where="", method="POST", type="Patient", full_url=make_urn(1))
    assert derive_id(NAMING, moved) == derive_id(NAMING, ENTRY)


def test_a_full_url_that_looks_like_a_position_is_none() -> None:
    tricky = Entry(position=7, where="", method="POST", type="Patient", full_url="position 3")
    assert derive_id(NAMING, tricky) != derive_id(
        NAMING, Entry(position=3, where="", method="POST", type="Patient")
    )


def test_a_placeholder_is_no_id_and_none_of_the_senders() -> None:
    assert derive_placeholder(NAMING, ENTRY) != f"urn:uuid:{derive_id(NAMING, ENTRY)}"
    assert derive_placeholder(NAMING, ENTRY) != ENTRY.full_url


def test_an_id_is_not_the_uuid_of_the_senders_placeholder() -> None:
    assert derive_id(NAMING, ENTRY) not in make_urn(1)
