"""docs/security.md: each threat has what holds it, and tests that are there."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.house import PROJECT

PAGE = (PROJECT / "docs/security.md").read_text("utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| threat")
]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@cache
def list_tests(file: str) -> frozenset[str]:
    path = PROJECT / file
    if not path.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return frozenset(
        node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_the_page_has_threats() -> None:
    assert len(ROWS) > 20
    assert all(len(row) == 3 and all(row) for row in ROWS), [
        row[0] for row in ROWS if len(row) != 3
    ]


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:60] for row in ROWS])
def test_every_test_that_a_threat_names_is_there(row: list[str]) -> None:
    named = TEST.findall(row[2])
    assert named, "a threat without a test"
    assert TEST.sub("", row[2]).strip() == ""
    assert [f"{file}::{name}" for file, name in named if name not in list_tests(file)] == []
