"""What docs/virtual-tables.md says of the tables is what their maps say."""

from __future__ import annotations

from collections.abc import Iterator

from integration.mapping.model import Route
from integration.virtual_tables.entity_type import MappedEntityType
from local.processes import PROJECT
from tests.virtual_tables.conftest import SHAPES

DOC = PROJECT / "docs/virtual-tables.md"

# Nothing else stands before a name of these maps' columns.
PREFIX = "msemr_"


def table() -> Iterator[str]:
    """The rows as they should be."""
    for name, item in sorted(SHAPES.items()):
        cells = (
            name,
            f"`{item.type.set}`",
            "yes" if Route.DATAVERSE in item.entity.routes else "",
            ", ".join(f"`{column}`" for column in _contacts(item)),
            ", ".join(_searched(item)),
        )
        yield f"| {' | '.join(cells)} |"


def _contacts(of: MappedEntityType) -> list[str]:
    return [
        entry.column for entry in of.attributes.values() if entry.virtual_column.target == "Patient"
    ]


def _searched(of: MappedEntityType) -> list[str]:
    return [
        entry.column.removeprefix(PREFIX)
        for entry in of.attributes.values()
        if entry.virtual_column.search is not None and entry.virtual_column.target != "Patient"
    ]


def test_the_tables_of_the_doc_are_those_of_the_maps() -> None:
    lines = DOC.read_text("utf-8").splitlines()
    found = [
        line for line in lines if line.split("|")[1:2] and line.split("|")[1].strip() in SHAPES
    ]
    assert found == list(table())
