"""Names of virtual tables and their columns, from those of the tables that they stand for. Pure.

`msemr_observation` becomes `{prefix}_ve_observation`, as Microsoft's own are `msemr_ve_…`: a name
with somebody else's prefix can be made by nobody else.
"""

from __future__ import annotations

_MICROSOFT = "msemr_"


def build_table_name(table: str, prefix: str) -> str:
    """Of the virtual table."""
    return f"{prefix}_ve_{_strip_prefix(table, prefix)}"


def build_entity_set(table: str) -> str:
    """Of a virtual table, by its name: said when it is made, so that nobody has to ask for it."""
    return f"{table}s"


def build_column_name(column: str, prefix: str) -> str:
    """Of a column of it, or of a lookup."""
    return f"{prefix}_{_strip_prefix(column, prefix)}"


def _strip_prefix(name: str, prefix: str) -> str:
    return name.removeprefix(_MICROSOFT).removeprefix(f"{prefix}_")
