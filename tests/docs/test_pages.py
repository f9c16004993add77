"""Every page says whom it is for, keeps its lines short, and speaks the glossary's words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house import BANNED, PROJECT

PAGES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    PROJECT / "infra/README.md",
    *sorted((PROJECT / "docs").glob("*.md")),
]
DECISIONS = sorted((PROJECT / "docs/decisions").glob("*.md"))

WIDTH = 100


def prose(page: Path) -> list[tuple[int, str]]:
    """The lines of a page that are neither code nor a table, with their numbers."""
    found, is_code = [], False
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code and not line.startswith(("|", "    ", "[")):
            found.append((number, line))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_begins_with_its_readers_and_what_they_can_do_after_it(page: Path) -> None:
    text = page.read_text("utf-8")
    opening = " ".join(text.partition("\n")[2].strip().split("\n\n")[0].split())
    assert opening.startswith("For "), opening[:80]
    assert "After this page you" in opening, opening


@pytest.mark.parametrize("page", [*PAGES, *DECISIONS], ids=lambda page: page.name)
def test_lines_are_short_outside_tables_and_code(page: Path) -> None:
    assert [number for number, line in prose(page) if len(line) > WIDTH] == []


@pytest.mark.parametrize("page", [*PAGES, *DECISIONS], ids=lambda page: page.name)
def test_no_page_speaks_the_earlier_vocabulary(page: Path) -> None:
    """But where the changelog says what a name was before."""
    words = sorted(
        word.replace("_", "[ _-]")
        for word in BANNED.keys() - {"backwards", "carry", "claim_check", "first_use"}
    )
    pattern = re.compile(rf"(?<![-\w])(?:{'|'.join(words)})s?(?![-\w])", re.IGNORECASE)
    lines = page.read_text("utf-8").splitlines()
    if page.name == "CHANGELOG.md":
        lines = [line for line in lines if not line.startswith("|")]
    found = [
        f"{number}: {match[0]}"
        for number, line in enumerate(lines, 1)
        for match in pattern.finditer(line)
    ]
    assert found == []
