"""Duplicate detection by the organization's published rules, only if the request asks for it.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/manage-duplicate-detection-create-update
"""

from __future__ import annotations

from local.dataverse import refusals
from local.dataverse.conditions import build_path
from local.dataverse.rows import Slice, Values, fold
from local.dataverse.tables import Table
from local.dataverse.world import World


def check_duplicates(world: World, table: Table, row_id: str, values: Values) -> None:
    """Raise Refusal if another row is equal in all columns of a rule. Null matches nothing."""
    if not world.parameters.detect_duplicates:
        return
    for rule in world.organization.duplicates.get(table.name, ()):
        rule_values = [values.get(name) for name in rule]
        if any(value is None for value in rule_values):
            continue
        where = " AND ".join(f"{build_path(table.columns[name])} = ?" for name in rule)
        parameters = [*(fold(value) for value in rule_values), row_id]
        if world.store.find(
            table,
            Slice(
                where=f"{where} AND id <> ?", parameters=parameters, order="id", limit=1, offset=0
            ),
        ):
            raise refusals.duplicate()
