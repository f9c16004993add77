"""OnExternalCreated, OnExternalUpdated, OnExternalDeleted: report changes of virtual rows.

https://learn.microsoft.com/power-apps/developer/data-platform/virtual-entities/enable-virtual-table-event-support
"""

from __future__ import annotations

from typing import Any

from local.dataverse import refusals, setup, writes
from local.dataverse.addresses import is_guid, normalize_guid
from local.dataverse.checks import parse_values
from local.dataverse.rows import Values
from local.dataverse.tables import Table
from local.dataverse.wire import Call, Reply
from local.dataverse.world import World

NAMESPACE = "Microsoft.Dynamics.CRM."
ACTIONS = {
    f"{NAMESPACE}OnExternalCreated": "isonexternalcreatedenabled",
    f"{NAMESPACE}OnExternalUpdated": "isonexternalupdatedenabled",
    f"{NAMESPACE}OnExternalDeleted": "isonexternaldeletedenabled",
}


def record_event(world: World, call: Call, table: Table, action: str, body: Values) -> Reply:
    """Record the event. Raises Refusal 404 if the table has not enabled it."""
    if call.method != "POST" or not setup.is_event_enabled(world, table, ACTIONS[action]):
        raise refusals.no_resource(action)
    target: Any = body.get("Target")
    if not isinstance(target, dict):
        raise refusals.bad_payload(table.entity_set, "The parameter 'Target' is missing.")
    type_name = str(target.get("@odata.type", "")).removeprefix("#")
    if type_name != f"{NAMESPACE}{table.name}":
        raise refusals.bad_payload(
            table.entity_set, "The '@odata.type' of 'Target' must be that of the table."
        )
    values = parse_values(table, target, writes.make_resolver(world))
    key = values.get(table.primary_id)
    if not (isinstance(key, str) and is_guid(key)):
        raise refusals.bad_payload(table.entity_set, f"'Target' has no '{table.primary_id}'.")
    event = {
        "action": action.removeprefix(NAMESPACE),
        "table": table.name,
        "id": normalize_guid(key),
    }
    world.external_events.append({**event, "columns": sorted(values.keys() - {table.primary_id})})
    return Reply(204)
