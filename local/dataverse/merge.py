"""The action Merge: one row takes over what belongs to another, which becomes inactive.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/merge-entity-using-web-api
"""

from __future__ import annotations

from typing import Any

from local.dataverse import refusals, writes
from local.dataverse.addresses import Address, is_guid, normalize_guid
from local.dataverse.checks import TARGET
from local.dataverse.rows import Row, Values
from local.dataverse.tables import Column, Table
from local.dataverse.world import World

NAME = "Merge"
NAMESPACE = "Microsoft.Dynamics.CRM."

# Of the tables here. Leads and cases can be merged where those apps are installed.
# https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/merge
MERGEABLE = frozenset({"account", "contact"})

# Whom a row belongs to, how it stands, and what tells of its own merge: a merge moves none of it.
_KEPT = frozenset({"statecode", "statuscode", "ownerid", "masterid", "merged"})


def merge(world: World, payload: Values) -> tuple[Table, Row, Row]:
    """Merge `Subordinate` into `Target`. Return their table and both rows as they are now.

    The target keeps its values; columns that are empty there take those of the subordinate, and
    `UpdateContent` is written over both. Lookups of other rows to the subordinate point at the
    target afterwards. The subordinate keeps its id and values, and is inactive.
    """
    table, target = _find_row(world, payload, "Target")
    other, subordinate = _find_row(world, payload, "Subordinate")
    if other.name != table.name or target.id == subordinate.id:
        raise refusals.bad_argument("A row is merged with another row of its own table.")
    if not isinstance(payload.get("PerformParentingChecks"), bool):
        raise refusals.bad_payload(NAME, "The parameter 'PerformParentingChecks' is missing.")
    if subordinate.values.get("merged"):
        # The page names no code for this, so the general one is used.
        raise refusals.bad_argument("The subordinate row was merged before.")
    content = {
        name: value
        for name, value in (payload.get("UpdateContent") or {}).items()
        if name != table.primary_id
    }
    with world.store.transaction():
        moved = _list_moved(table, target, subordinate)
        world.store.put(table, target.id, {**target.values, **moved}, "update")
        address = Address(table, target.id, None, {})
        merged = writes.upsert(world, address, content, writes.Condition(match="*")).row
        _redirect_lookups(world, table.name, subordinate.id, target.id)
        state = {
            "statecode": 1,
            "statuscode": _find_inactive_status(table),
            "merged": True,
            "_masterid_value": target.id,
            f"_masterid_value{TARGET}": table.name,
        }
        inactive = world.store.put(table, subordinate.id, {**subordinate.values, **state}, "update")
    return table, merged, inactive


def _find_row(world: World, payload: Values, name: str) -> tuple[Table, Row]:
    given: Any = payload.get(name)
    type_ = str(given.get("@odata.type", "")) if isinstance(given, dict) else ""
    table = world.catalog.by_name.get(type_.removeprefix("#").removeprefix(NAMESPACE))
    if table is None:
        raise refusals.bad_payload(NAME, f"The parameter '{name}' needs its '@odata.type'.")
    if table.name not in MERGEABLE:
        raise refusals.not_offered(f"merging rows of {table.name}")
    key = given.get(table.primary_id)
    if not (isinstance(key, str) and is_guid(key)):
        raise refusals.bad_payload(NAME, f"The parameter '{name}' has no '{table.primary_id}'.")
    row = world.store.get(table, normalize_guid(key))
    if row is None:
        raise refusals.no_row(table.name, key)
    return table, row


def _list_moved(table: Table, target: Row, subordinate: Row) -> Values:
    """Return the values of the subordinate for columns that are empty in the target. The columns
    of a key stay as they are, since the subordinate keeps its values."""
    keys = {name for key in table.active_keys for name in key.columns}
    return {
        name: value
        for column in table.columns.values()
        if _is_moved(column)
        and column.name not in keys
        and target.values.get(column.property_name) is None
        for name in (column.property_name, column.property_name + TARGET)
        if (value := subordinate.values.get(name)) is not None
    }


def _is_moved(column: Column) -> bool:
    return not (column.read_only or column.composed_of or column.name in _KEPT)


def _find_inactive_status(table: Table) -> int:
    options = table.columns["statuscode"].options
    return next(option.value for option in options if option.state == 1)


def _redirect_lookups(world: World, name: str, old: str, new: str) -> None:
    """Point every lookup to the old row at the new one, but what tells of earlier merges."""
    for table in world.catalog.by_name.values():
        lookups = [
            column.property_name
            for column in table.columns.values()
            if name in column.targets and column.name not in _KEPT
        ]
        for row in world.store.find_referring(table, old) if lookups else []:
            redirected = {lookup: new for lookup in lookups if row.values.get(lookup) == old}
            if redirected:
                world.store.put(table, row.id, {**row.values, **redirected}, "update")
