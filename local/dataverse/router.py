"""Which part of the Web API a call means, and the reply it gets."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

from local.dataverse import (
    addresses,
    bulk,
    definitions,
    outside,
    queries,
    refusals,
    setup,
    shaping,
    upsert_bundle,
    writes,
)
from local.dataverse.organization import BUSINESS_UNIT, ORGANIZATION, wishes_of
from local.dataverse.rows import Row, Values
from local.dataverse.tables import Table
from local.dataverse.wire import Call, Refusal, Reply
from local.dataverse.world import World
from local.dataverse.writes import Condition, Written

# Actions and collections of the service itself that clients ask for.
UNBOUND = frozenset(("BulkDelete", "msind_RetrieveBundle", "RetrieveMetadataChanges"))
DEFINITIONS = ("EntityDefinitions", "RelationshipDefinitions")
CREATE_MULTIPLE = f"{bulk.NAMESPACE}CreateMultiple"


def answer(world: World, call: Call) -> Reply:
    try:
        wishes = wishes_of(world.organization, call.headers)
        return _answer(replace(world, wishes=wishes), call)
    except Refusal as refusal:
        return refusal.reply()


def body_of(call: Call, entity_set: str) -> Values:
    try:
        payload = json.loads(call.body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise refusals.bad_payload(entity_set, "The payload is not valid JSON.") from error
    if not isinstance(payload, dict):
        raise refusals.bad_payload(entity_set, "The payload must be a JSON object.")
    return payload


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _answer(world: World, call: Call) -> Reply:
    segment = addresses.split(call.resource)
    if segment.name == "WhoAmI":
        return _who_am_i(world, call)
    if segment.name == upsert_bundle.NAME:
        return _upsert_bundle(world, call)
    if segment.name in UNBOUND:
        raise refusals.not_offered(segment.name)
    if segment.name in DEFINITIONS and call.method != "GET":
        return shaping.change(world, call, body_of(call, segment.name))
    if segment.name == "EntityDefinitions":
        return definitions.read(world.catalog, call)
    if segment.name == "RelationshipDefinitions":
        raise refusals.not_offered("reading relationships other than below a table")
    body = body_of(call, segment.name) if call.method == "POST" and call.body else {}
    done = setup.answer(world, call, body)
    if done is not None:
        return done
    table = addresses.table_of(world.catalog, segment.name)
    if table.external is not None:
        if segment.key is None and segment.rest in outside.ACTIONS:
            return outside.tell(world, call, table, segment.rest, body)
        raise refusals.not_offered("rows of virtual tables in a batch")
    if segment.key is None:
        return _rows(world, call, table, segment.rest)
    at = addresses.address(table, segment.key)
    bound = setup.below(world, call, at, segment.rest, body)
    if bound is not None:
        return bound
    if segment.rest.endswith("/$ref") and call.method == "DELETE":
        written = writes.disassociate(world, at, segment.rest.removesuffix("/$ref"))
        _log(world, call, table, written.row, created=False)
        return Reply(204)
    if segment.rest:
        raise refusals.no_resource(segment.rest)
    return _row(world, call, at)


def _rows(world: World, call: Call, table: Table, rest: str) -> Reply:
    match call.method, rest:
        case "GET", "":
            return queries.read_rows(world.store, call, table)
        case "GET", "$count":
            return queries.count_rows(world.store, call, table)
        case "POST", "":
            chosen = queries.selection_of(call, table)
            checked = partial(setup.check, world)
            written = writes.create(world, table, body_of(call, table.entity_set), checked)
            return _written(world, call, table, written, chosen)
        case "POST", action if action in bulk.ACTIONS:
            return _many(world, call, table, action)
        case _, action if action in (*bulk.ACTIONS, "$count"):
            raise refusals.no_http_resource(f"{call.root}/{call.path}")
        case _, "":
            raise refusals.no_method(call.method)
    raise refusals.no_resource(rest)


def _many(world: World, call: Call, table: Table, action: str) -> Reply:
    payload = body_of(call, table.entity_set)
    done = bulk.run(world, table, action, payload.get("Targets"))
    for written in done:
        _log(world, call, table, written.row, created=written.created)
    if action != CREATE_MULTIPLE:
        return Reply(204)
    context = f"{call.root}/$metadata#{CREATE_MULTIPLE}Response"
    return Reply(200, {"@odata.context": context, "Ids": [written.row.id for written in done]})


def _upsert_bundle(world: World, call: Call) -> Reply:
    if call.method != "POST":
        raise refusals.no_http_resource(f"{call.root}/{call.path}")
    document, done = upsert_bundle.run(world, body_of(call, call.resource))
    for table, written in done:
        _log(world, call, table, written.row, created=written.created)
    context = f"{call.root}/$metadata#Microsoft.Dynamics.CRM.{upsert_bundle.NAME}Response"
    return Reply(200, {"@odata.context": context, **document})


def _row(world: World, call: Call, at: addresses.Address) -> Reply:
    match call.method:
        case "GET":
            return queries.read_row(world.store, call, at)
        case "PATCH":
            chosen = queries.selection_of(call, at.table)
            payload = body_of(call, at.table.entity_set)
            written = writes.upsert(world, at, payload, Condition.of(call.headers))
            return _written(world, call, at.table, written, chosen)
        case "DELETE":
            row = writes.delete(world, at, Condition.of(call.headers))
            _log(world, call, at.table, row, created=False)
            return Reply(204)
    raise refusals.no_method(call.method)


def _written(
    world: World, call: Call, table: Table, written: Written, chosen: list[str] | None
) -> Reply:
    """204 with the row's address, or the row itself when `return=representation` is preferred."""
    _log(world, call, table, written.row, created=written.created)
    headers = {"OData-EntityId": f"{call.root}/{table.entity_set}({written.row.id})"}
    if written.created:
        headers["Location"] = headers["OData-EntityId"]
    if call.preferences.get("return") != "representation":
        return Reply(204, headers=headers)
    headers |= {"Preference-Applied": "return=representation", "ETag": written.row.etag}
    document = queries.entity(call, table, written.row, chosen)
    return Reply(201 if written.created else 200, document, headers)


def _log(world: World, call: Call, table: Table, row: Row, *, created: bool) -> None:
    entry: dict[str, Any] = {
        "method": call.method,
        "path": call.path,
        "table": table.name,
        "id": row.id,
        "created": created,
        **world.wishes.told(),
    }
    world.log.append(entry)


def _who_am_i(world: World, call: Call) -> Reply:
    if call.method != "GET":
        raise refusals.no_http_resource(f"{call.root}/{call.path}")
    document = {
        "@odata.context": f"{call.root}/$metadata#Microsoft.Dynamics.CRM.WhoAmIResponse",
        "BusinessUnitId": BUSINESS_UNIT,
        "UserId": world.wishes.user,
        "OrganizationId": ORGANIZATION,
    }
    return Reply(200, document)
