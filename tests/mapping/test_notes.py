"""Notes of many rows are told apart by element and reason, not by place and number."""

from __future__ import annotations

import pytest

from integration.core.flow import UnmappedElement
from integration.mapping.notes import Note, name_unmapped, parse_note

PATH = "name.where(use = 'official').family"


@pytest.mark.parametrize(
    ("note", "path", "text"),
    [
        (f"lastname: too long @ {PATH} (patient.toml:57)", PATH, "lastname: too long"),
        (f"lastname: too long @ {PATH}", PATH, "lastname: too long"),
        ("v: too long @ meta.versionId (patient.toml)", "meta.versionId", "v: too long"),
        (
            "telecom: 3 more than the map has columns for @ telecom.skip(2) (patient.toml:9)",
            "telecom.skip(2)",
            "telecom: more than the map has columns for",
        ),
        ("answered 400 0x80040265", "", "answered 400 0x80040265"),
        ("managingorg: the Organization is not in Dataverse yet", "", None),
    ],
)
def test_a_note_is_an_element_and_what_is_said_of_it(
    note: str, path: str, text: str | None
) -> None:
    assert name_unmapped("Patient", note) == UnmappedElement("Patient", path, text or note)


@pytest.mark.parametrize(
    ("note", "subject", "why", "path", "place"),
    [
        (f"lastname: too: long @ {PATH} (a.toml:57)", "lastname", "too: long", PATH, "a.toml:57"),
        ("v: too long @ meta.versionId (a.toml)", "v", "too long", "meta.versionId", "a.toml"),
        ("telecom: 3 more than the map has @ x", "telecom", "3 more than the map has", "x", ""),
        ("managingorg: not there yet", "managingorg", "not there yet", "", ""),
        ("answered 400 0x80040265", "", "answered 400 0x80040265", "", ""),
    ],
)
def test_a_note_is_taken_apart_and_nothing_of_it_is_lost(
    note: str, subject: str, why: str, path: str, place: str
) -> None:
    assert parse_note(note) == Note(subject=subject, why=why, path=path, place=place)
