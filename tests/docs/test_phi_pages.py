"""What is said of pages that show patient data is what the pages need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from integration.pages.answer import PAGES
from integration.pages.people import Role

DOCS = Path(__file__).parents[2] / "docs"

# By what the docs name the pages of a module.
WORDS = {
    "content": "Content",
    "correction": "Correction",
    "patient": "Patients",
    "patients": "Patients",
    "maps": "Maps",
}


@pytest.mark.parametrize(
    ("page", "begins"),
    [
        ("pages.md", "No page has patient data but"),
        ("security.md", "| a page shows a patient to whoever runs the app"),
        ("security.md", "| a page or an address names a patient"),
    ],
)
def test_the_docs_name_every_page_that_shows_patient_data(page: str, begins: str) -> None:
    found = {shown.show.__module__.rpartition(".")[2] for shown in PAGES if Role.PHI in shown.roles}
    assert found == {*WORDS}, "name the new page in the docs, and here"
    text = (DOCS / page).read_text("utf-8")
    paragraph = re.split(r"\n\n|\n\|", text.partition(begins)[2])[0]
    assert {word for word in WORDS.values() if word not in paragraph} == set()
