"""CreateMultiple, UpdateMultiple, UpsertMultiple: many rows of one table, all or none.

https://learn.microsoft.com/power-apps/developer/data-platform/bulk-operations
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from local.dataverse import addresses, refusals, writes
from local.dataverse.addresses import Address
from local.dataverse.rows import Values
from local.dataverse.tables import Table
from local.dataverse.world import World
from local.dataverse.writes import Condition, Written

NAMESPACE = "Microsoft.Dynamics.CRM."


def run(world: World, table: Table, action: str, targets: Any) -> list[Written]:
    if not isinstance(targets, list) or not all(isinstance(target, dict) for target in targets):
        raise refusals.bad_payload(table.entity_set, "The parameter 'Targets' must be a list.")
    places = [_place(table, target) for target in targets]
    marks = [(at.id, tuple(sorted(at.key_values.items()))) for at in places if at]
    if len(set(marks)) != len(marks):
        raise refusals.bad_payload(
            table.entity_set, "An item with the same key has already been added."
        )
    with world.store.transaction():
        return [
            ACTIONS[action](world, table, at, target)
            for at, target in zip(places, targets, strict=True)
        ]


def _create(world: World, table: Table, _at: Address | None, target: Values) -> Written:
    return writes.create(world, table, target)


def _update(world: World, table: Table, at: Address | None, target: Values) -> Written:
    if at is None:
        raise refusals.bad_payload(table.entity_set, "Each item of 'Targets' must name its row.")
    return writes.upsert(world, at, target, Condition(match="*"))


def _upsert(world: World, table: Table, at: Address | None, target: Values) -> Written:
    if at is None:
        return writes.create(world, table, target)
    return writes.upsert(world, at, target, Condition())


ACTIONS: dict[str, Callable[[World, Table, Address | None, Values], Written]] = {
    f"{NAMESPACE}CreateMultiple": _create,
    f"{NAMESPACE}UpdateMultiple": _update,
    f"{NAMESPACE}UpsertMultiple": _upsert,
}


def _place(table: Table, target: Values) -> Address | None:
    """`@odata.id` names the row by key, the primary id in the body names it by id."""
    if str(target.get("@odata.type")).lstrip("#") != f"{NAMESPACE}{table.name}":
        raise refusals.bad_payload(
            table.entity_set, "Each item of 'Targets' must state its type in '@odata.type'."
        )
    if "@odata.id" in target:
        segment = addresses.split(str(target["@odata.id"]).lstrip("/"))
        if segment.name != table.entity_set or segment.key is None:
            raise refusals.bad_key(table.name)
        return addresses.address(table, segment.key)
    row_id = target.get(table.primary_id)
    return addresses.address(table, str(row_id)) if row_id is not None else None
