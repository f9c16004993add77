"""Route a call to its part of the Web API and return the reply."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

from local.dataverse import (
    addresses,
    bulk,
    definitions,
    merge,
    outside,
    queries,
    refusals,
    setup,
    shaping,
    tracking,
    upsert_bundle,
    writes,
)
from local.dataverse.organization import BUSINESS_UNIT, ORGANIZATION, parse_parameters
from local.dataverse.rows import Row, Values
from local.dataverse.tables import Table
from local.dataverse.wire import Call, Refusal, Reply
from local.dataverse.world import World
from local.dataverse.writes import Condition, Written

# Actions and functions that clients call and the stand-in does not offer.
UNBOUND = frozenset(("BulkDelete", "msind_RetrieveBundle", "RetrieveMetadataChanges"))
DEFINITIONS = ("EntityDefinitions", "RelationshipDefinitions")
CREATE_MULTIPLE = f"{bulk.NAMESPACE}CreateMultiple"


def answer(world: World, call: Call) -> Reply:
    try:
        parameters = parse_parameters(world.organization, call.headers)
        return _answer(replace(world, parameters=parameters), call)
    except Refusal as refusal:
        return refusal.build_reply()


def read_body(call: Call, entity_set: str) -> Values:
    try:
        payload = json.loads(call.body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise refusals.bad_payload(entity_set, "The payload is not valid JSON.") from error
    if not isinstance(payload, dict):
        raise refusals.bad_payload(entity_set, "The payload must be a JSON object.")
    return payload


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _answer(world: World, call: Call) -> Reply:
    segment = addresses.parse_segment(call.resource)
    if segment.name == "WhoAmI":
        return _answer_who_am_i(world, call)
    if segment.name == upsert_bundle.NAME:
        return _run_upsert_bundle(world, call)
    if segment.name == merge.NAME:
        return _run_merge(world, call)
    if segment.name in UNBOUND:
        raise refusals.not_offered(segment.name)
    if segment.name in DEFINITIONS and call.method != "GET":
        return shaping.change_definition(world, call, read_body(call, segment.name))
    if segment.name == "EntityDefinitions":
        return definitions.read_definitions(world.catalog, call)
    if segment.name == "RelationshipDefinitions":
        raise refusals.not_offered("reading relationships other than below a table")
    body = read_body(call, segment.name) if call.method == "POST" and call.body else {}
    done = setup.answer(world, call, body)
    if done is not None:
        return done
    table = addresses.find_table(world.catalog, segment.name)
    if table.external is not None:
        if segment.key is None and segment.rest in outside.ACTIONS:
            return outside.record_event(world, call, table, segment.rest, body)
        raise refusals.not_offered("rows of virtual tables in a batch")
    if segment.key is None:
        return _answer_rows(world, call, table, segment.rest)
    address = addresses.parse_address(table, segment.key)
    bound = setup.answer_bound(world, call, address, segment.rest, body)
    if bound is not None:
        return bound
    if segment.rest.endswith("/$ref") and call.method == "DELETE":
        written = writes.disassociate(world, address, segment.rest.removesuffix("/$ref"))
        _log_write(world, call, table, written.row, created=False)
        return Reply(204)
    if segment.rest:
        raise refusals.no_resource(segment.rest)
    return _answer_row(world, call, address)


def _answer_rows(world: World, call: Call, table: Table, rest: str) -> Reply:
    match call.method, rest:
        case "GET", "" if tracking.is_tracked(call):
            return tracking.read_changes(world, call, table)
        case "GET", "":
            return queries.read_rows(world, call, table)
        case "GET", "$count":
            return queries.count_rows(world, call, table)
        case "POST", "":
            chosen = queries.parse_select_only(call, table)
            checked = partial(setup.check_row, world)
            written = writes.create(world, table, read_body(call, table.entity_set), checked)
            return _reply_written(world, call, table, written, chosen)
        case "POST", action if action in bulk.ACTIONS:
            return _run_bulk_action(world, call, table, action)
        case _, action if action in (*bulk.ACTIONS, "$count"):
            raise refusals.no_http_resource(f"{call.root}/{call.path}")
        case _, "":
            raise refusals.no_method(call.method)
    raise refusals.no_resource(rest)


def _run_bulk_action(world: World, call: Call, table: Table, action: str) -> Reply:
    payload = read_body(call, table.entity_set)
    done = bulk.run_action(world, table, action, payload.get("Targets"))
    for written in done:
        _log_write(world, call, table, written.row, created=written.created)
    if action != CREATE_MULTIPLE:
        return Reply(204)
    context = f"{call.root}/$metadata#{CREATE_MULTIPLE}Response"
    return Reply(200, {"@odata.context": context, "Ids": [written.row.id for written in done]})


def _run_upsert_bundle(world: World, call: Call) -> Reply:
    if call.method != "POST":
        raise refusals.no_http_resource(f"{call.root}/{call.path}")
    document, done = upsert_bundle.upsert_bundle(world, read_body(call, call.resource))
    for table, written in done:
        _log_write(world, call, table, written.row, created=written.created)
    context = f"{call.root}/$metadata#Microsoft.Dynamics.CRM.{upsert_bundle.NAME}Response"
    return Reply(200, {"@odata.context": context, **document})


def _run_merge(world: World, call: Call) -> Reply:
    if call.method != "POST":
        raise refusals.no_http_resource(f"{call.root}/{call.path}")
    table, *rows = merge.merge(world, read_body(call, call.resource))
    for row in rows:
        _log_write(world, call, table, row, created=False)
    return Reply(204)


def _answer_row(world: World, call: Call, address: addresses.Address) -> Reply:
    match call.method:
        case "GET":
            return queries.read_row(world, call, address)
        case "PATCH":
            chosen = queries.parse_select_only(call, address.table)
            payload = read_body(call, address.table.entity_set)
            written = writes.upsert(world, address, payload, Condition.from_headers(call.headers))
            return _reply_written(world, call, address.table, written, chosen)
        case "DELETE":
            row = writes.delete(world, address, Condition.from_headers(call.headers))
            _log_write(world, call, address.table, row, created=False)
            return Reply(204)
    raise refusals.no_method(call.method)


def _reply_written(
    world: World, call: Call, table: Table, written: Written, chosen: list[str] | None
) -> Reply:
    """Reply 204 with the row's address, or the row if `return=representation` is preferred."""
    _log_write(world, call, table, written.row, created=written.created)
    headers = {"OData-EntityId": f"{call.root}/{table.entity_set}({written.row.id})"}
    if written.created:
        headers["Location"] = headers["OData-EntityId"]
    if call.preferences.get("return") != "representation":
        return Reply(204, headers=headers)
    headers |= {"Preference-Applied": "return=representation", "ETag": written.row.etag}
    document = queries.build_entity(call, table, written.row, chosen)
    return Reply(201 if written.created else 200, document, headers)


def _log_write(world: World, call: Call, table: Table, row: Row, *, created: bool) -> None:
    entry: dict[str, Any] = {
        "method": call.method,
        "path": call.path,
        "table": table.name,
        "id": row.id,
        "created": created,
        "at": world.now().isoformat(),
        **world.parameters.as_log_entry(),
    }
    world.log.append(entry)


def _answer_who_am_i(world: World, call: Call) -> Reply:
    if call.method != "GET":
        raise refusals.no_http_resource(f"{call.root}/{call.path}")
    document = {
        "@odata.context": f"{call.root}/$metadata#Microsoft.Dynamics.CRM.WhoAmIResponse",
        "BusinessUnitId": BUSINESS_UNIT,
        "UserId": world.parameters.user,
        "OrganizationId": ORGANIZATION,
    }
    return Reply(200, document)
