"""What an entry states about its resource."""

from __future__ import annotations

import pytest

from integration.fhir.entries import Entry, keep


@pytest.mark.parametrize(
    ("entry", "conditional"),
    [
        (Entry(position=0, where="", method="POST", type="Patient"), False),
        (
            Entry(position=0, where="", method="PUT", type="Patient", id="1", if_match='W/"1"'),
            False,
        ),
        (
            Entry(
                position=0, where="", method="POST", type="Patient", if_none_exist="identifier=1"
            ),
            True,
        ),
        (Entry(position=0, where="", method="PUT", type="Patient", query="identifier=1"), True),
    ],
)
def test_an_entry_is_conditional_when_only_the_server_knows_its_resource(
    entry: Entry, conditional: bool
) -> None:
    assert entry.is_conditional is conditional


@pytest.mark.parametrize(
    ("entry", "identity"),
    [
        (Entry(position=0, where="", method="PUT", type="Patient", id="1"), "Patient/1"),
        (
            Entry(
                position=0, where="", method="POST", type="Patient", content=keep({"id": "theirs"})
            ),
            "Patient/theirs",
        ),
        (Entry(position=0, where="", method="POST", type="Patient", content=keep({})), None),
        (Entry(position=0, where="", method="DELETE", type="Patient", id="1"), "Patient/1"),
    ],
)
def test_an_entry_is_known_by_the_id_that_its_sender_gave(
    entry: Entry, identity: str | None
) -> None:
    assert entry.identity == identity
