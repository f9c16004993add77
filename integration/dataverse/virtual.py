"""Names of virtual tables and their columns, from those of the tables that they stand for. Pure.

`msemr_observation` becomes `{prefix}_ve_observation`, as Microsoft's own are `msemr_ve_…`: a name
with somebody else's prefix can be made by nobody else.
"""

from __future__ import annotations

_MICROSOFT = "msemr_"


def table_name(table: str, prefix: str) -> str:
    """Of the virtual table."""
    return f"{prefix}_ve_{_stem(table, prefix)}"


def entity_set(table: str) -> str:
    """Of a virtual table, by its name: said when it is made, so that nobody has to ask for it."""
    return f"{table}s"


def column_name(column: str, prefix: str) -> str:
    """Of a column of it, or of a lookup."""
    return f"{prefix}_{_stem(column, prefix)}"


def _stem(name: str, prefix: str) -> str:
    return name.removeprefix(_MICROSOFT).removeprefix(f"{prefix}_")
