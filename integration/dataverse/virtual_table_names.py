"""Names of virtual tables and their columns, derived from those of the tables they stand for. Pure.

`msemr_observation` becomes `{prefix}_ve_observation`, as Microsoft's own are `msemr_ve_…`. The
prefix has to be that of the own publisher: Dataverse lets nobody create a name with another one.
"""

from __future__ import annotations

_MICROSOFT = "msemr_"


def build_table_name(table: str, prefix: str) -> str:
    """Return the name of the virtual table."""
    return f"{prefix}_ve_{_strip_prefix(table, prefix)}"


def build_own_table_name(table: str, prefix: str) -> str:
    """Return the name of the table with rows that stands for one of Microsoft's."""
    return f"{prefix}_{_strip_prefix(table, prefix)}"


def build_entity_set(table: str) -> str:
    """Return the entity set of a table that provisioning makes. It sets it, so it need not be
    read."""
    return f"{table}s"


def build_column_name(column: str, prefix: str) -> str:
    """Return the name of a column of the virtual table, or of a lookup."""
    return f"{prefix}_{_strip_prefix(column, prefix)}"


def _strip_prefix(name: str, prefix: str) -> str:
    return name.removeprefix(_MICROSOFT).removeprefix(f"{prefix}_")
