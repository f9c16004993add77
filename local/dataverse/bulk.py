"""CreateMultiple, UpdateMultiple, UpsertMultiple: write many rows of one table, all or none.

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


def run_action(world: World, table: Table, action: str, targets: Any) -> list[Written]:
    if not isinstance(targets, list) or not all(isinstance(target, dict) for target in targets):
        raise refusals.bad_payload(table.entity_set, "The parameter 'Targets' must be a list.")
    row_addresses = [_parse_target_address(table, target) for target in targets]
    identities = [
        (address.id, tuple(sorted(address.key_values.items())))
        for address in row_addresses
        if address
    ]
    if len(set(identities)) != len(identities):
        raise refusals.bad_payload(
            table.entity_set, "An item with the same key has already been added."
        )
    with world.store.transaction():
        return [
            ACTIONS[action](world, table, address, target)
            for address, target in zip(row_addresses, targets, strict=True)
        ]


def _create(world: World, table: Table, _address: Address | None, target: Values) -> Written:
    return writes.create(world, table, target)


def _update(world: World, table: Table, address: Address | None, target: Values) -> Written:
    if address is None:
        raise refusals.bad_payload(table.entity_set, "Each item of 'Targets' must name its row.")
    return writes.upsert(world, address, target, Condition(match="*"))


def _upsert(world: World, table: Table, address: Address | None, target: Values) -> Written:
    if address is None:
        return writes.create(world, table, target)
    return writes.upsert(world, address, target, Condition())


ACTIONS: dict[str, Callable[[World, Table, Address | None, Values], Written]] = {
    f"{NAMESPACE}CreateMultiple": _create,
    f"{NAMESPACE}UpdateMultiple": _update,
    f"{NAMESPACE}UpsertMultiple": _upsert,
}


def _parse_target_address(table: Table, target: Values) -> Address | None:
    """Return the row's address: by key from `@odata.id`, or by the primary id in the body."""
    if str(target.get("@odata.type")).lstrip("#") != f"{NAMESPACE}{table.name}":
        raise refusals.bad_payload(
            table.entity_set, "Each item of 'Targets' must state its type in '@odata.type'."
        )
    if "@odata.id" in target:
        segment = addresses.parse_segment(str(target["@odata.id"]).lstrip("/"))
        if segment.name != table.entity_set or segment.key is None:
            raise refusals.bad_key(table.name)
        return addresses.parse_address(table, segment.key)
    row_id = target.get(table.primary_id)
    return addresses.parse_address(table, str(row_id)) if row_id is not None else None
