"""Change definitions: virtual tables, columns, alternate keys, relationships.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-update-entity-definitions-using-web-api
https://learn.microsoft.com/power-apps/developer/data-platform/virtual-entities/api-considerations-ve
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from local.dataverse import addresses, definitions, metadata, refusals
from local.dataverse.columns import find_label, parse_column
from local.dataverse.rows import Slice, Values
from local.dataverse.tables import FOLDER, Catalog, Table
from local.dataverse.wire import Call, Refusal, Reply
from local.dataverse.world import World

NAME = re.compile(r"([a-z][a-z0-9]{1,7})_[A-Za-z][A-Za-z0-9_]*")

# Features that need rows in the database and are on unless switched off.
ON_BY_DEFAULT = ("CanChangeTrackingBeEnabled", "CanCreateCharts")
NEVER = ("ChangeTrackingEnabled", "IsActivity", "HasActivities", "HasNotes", "IsAvailableOffline")

# The provider of a table for which none is chosen yet.
NO_PROVIDER = "7015a531-cc0d-4537-b5f2-c882a1eb65ad"

KEY_TYPES = frozenset(("Decimal", "Integer", "String", "DateTime", "Lookup", "Picklist"))
VERBS = ("Create", "Read", "Write", "Delete", "Append", "AppendTo")

Body = Mapping[str, Any]


def change_definition(world: World, call: Call, body: Body) -> Reply:
    """Change a definition; it is published at once."""
    segment = addresses.parse_segment(call.resource)
    if segment.name == "RelationshipDefinitions":
        return _define(world, call, *_build_relationship(world, call, body))
    if segment.key is None:
        return _define(world, call, *_build_table(world, call, body))
    table = definitions.find_table(world.catalog, segment.key)
    below = addresses.parse_segment(segment.rest)
    match call.method, below.name, below.key:
        case ["POST", "Attributes", None]:
            return _define(world, call, *_build_column(world, call, table, body))
        case ["POST", "Keys", None]:
            return _define(world, call, *_build_key(world, call, table, body))
        case ["PUT", "Attributes", str(key)]:
            return _define(world, call, *_change_external_name(world, table, key, body))
        case ["PUT", "", None]:
            return _define(world, call, *_track_changes(world, table, body))
    raise refusals.not_offered(f"{call.method} of {segment.rest or 'a table'}")


def _track_changes(world: World, table: Table, body: Body) -> tuple[dict[str, Any], str]:
    """Have the changes of a table tracked, from now on for ever: nothing else can be changed here,
    and an update takes the whole definition."""
    described = metadata.describe_table(table)
    if body.get("@odata.type", "").removeprefix("#") != "Microsoft.Dynamics.CRM.EntityMetadata":
        raise refusals.bad_argument("The definition must be an EntityMetadata.")
    for name, value in described.items():
        if name != "ChangeTrackingEnabled" and body.get(name) != value:
            raise refusals.not_offered(f"changing {name} of a table")
    if table.external is not None:
        raise refusals.bad_argument(f"Change tracking can not be enabled for {table.name}.")
    if table.change_tracking and body.get("ChangeTrackingEnabled") is not True:
        raise refusals.bad_argument("Change tracking cannot be disabled.")
    data = deepcopy(world.catalog.data[table.name])
    data["changeTracking"] = body.get("ChangeTrackingEnabled") is True
    return data, f"EntityDefinitions({metadata.make_id(table.name)})"


def _define(world: World, call: Call, data: dict[str, Any], address: str) -> Reply:
    table = world.catalog.define(data)
    world.store.define(table.name, data)
    world.store.seed(world.catalog.by_name["privilege"], list_privileges(table))
    return Reply(204, headers={"OData-EntityId": f"{call.root}/{address}"})


def list_privileges(table: Table) -> dict[str, Values]:
    """Return the table's privileges, named by its schema name."""
    schema = metadata.describe_table(table)["SchemaName"]
    return {
        metadata.make_id(table.name, "privilege", verb): {"name": f"prv{verb}{schema}"}
        for verb in VERBS
    }


def _check_schema_name(world: World, call: Call, schema: Any) -> str:
    """Check that the schema name has a publisher's prefix: the solution's, if one is named."""
    match = NAME.fullmatch(schema) if isinstance(schema, str) else None
    if match is None:
        raise refusals.bad_argument("The SchemaName must be a customization prefix, _ and a name.")
    prefixes = _find_prefixes(world, call.headers.get("mscrm.solutionuniquename"))
    if match[1] not in prefixes:
        raise refusals.bad_prefix(schema)
    return str(schema)


def _find_prefixes(world: World, solution: str | None) -> set[str]:
    publishers = world.store.find(world.catalog.by_name["publisher"], _select_all("1"))
    by_id = {row.id: row.values.get("customizationprefix") for row in publishers}
    if solution is None:
        return {prefix for prefix in by_id.values() if prefix}
    condition = "fold(json_extract(body, '$.uniquename')) = ?"
    found = world.store.find(
        world.catalog.by_name["solution"], _select_all(condition, solution.casefold())
    )
    if not found:
        raise refusals.bad_argument(f"The solution '{solution}' does not exist.")
    return {prefix} if (prefix := by_id.get(found[0].values["_publisherid_value"])) else set()


def _select_all(where: str, *parameters: Any) -> Slice:
    return Slice(where=where, parameters=list(parameters), order="id", limit=5000, offset=0)


_OWNERSHIP = {"UserOwned": "UserOwned", "OrganizationOwned": "OrgOwned"}


def _build_table(world: World, call: Call, body: Body) -> tuple[dict[str, Any], str]:
    is_virtual = body.get("TableType") == "Virtual" or body.get("DataProviderId") is not None
    schema = _check_schema_name(world, call, body.get("SchemaName"))
    name = schema.lower()
    if name in world.catalog.by_name:
        raise refusals.table_exists()
    if is_virtual:
        _check_virtual(world, name, body)
    elif body.get("OwnershipType") not in _OWNERSHIP:
        raise refusals.bad_argument("OwnershipType must be UserOwned or OrganizationOwned.")
    attributes = [
        attribute for attribute in body.get("Attributes", []) if attribute.get("IsPrimaryName")
    ]
    if len(attributes) != 1 or len(body["Attributes"]) != 1:
        raise refusals.bad_argument("Attributes must be the primary name column, and no other.")
    primary_name, column = parse_column(
        attributes[0], virtual=is_virtual, language=world.settings.language
    )
    _check_schema_name(world, call, attributes[0].get("SchemaName"))
    if column["type"] != "String":
        raise refusals.bad_argument("The primary name column must be of type String.")
    key = f"{name}id"
    text = find_label(body, schema, world.settings.language)
    data: dict[str, Any] = {
        "logicalName": name,
        "entitySet": str(body.get("EntitySetName") or f"{name}s"),
        "label": text,
        "primaryId": key,
        "primaryName": primary_name,
        "ownership": "OrgOwned" if is_virtual else _OWNERSHIP[body["OwnershipType"]],
        "changeTracking": False,
        "keys": [],
        "columns": {
            key: {
                "type": "Uniqueidentifier",
                "schemaName": f"{schema}Id",
                "label": text,
                "required": "systemrequired",
            },
            primary_name: column,
        },
    }
    if not is_virtual:
        data["columns"] |= _build_system_columns(body["OwnershipType"])
        return data, f"EntityDefinitions({metadata.make_id(name)})"
    data["external"] = {
        "provider": str(body["DataProviderId"]).lower(),
        "source": body.get("DataSourceId"),
        "name": body["ExternalName"],
        "collection": body["ExternalCollectionName"],
    }
    return data, f"EntityDefinitions({metadata.make_id(name)})"


def _build_system_columns(ownership: str) -> dict[str, Any]:
    """Return the columns that Dataverse adds to every table with rows: those of another table that
    it has made so. https://learn.microsoft.com/power-apps/developer/data-platform/reference/about-entity-reference
    """
    known = json.loads((FOLDER / "msemr_contactlink.json").read_text("utf-8"))["columns"]
    owned = {"ownerid", "owningbusinessunit", "owningteam", "owninguser"}
    return {
        name: column
        for name, column in known.items()
        if not name.startswith("msemr_") and (ownership == "UserOwned" or name not in owned)
    }


def _check_virtual(world: World, name: str, body: Body) -> None:
    if body.get("OwnershipType") != "OrganizationOwned":
        raise refusals.bad_argument("A virtual Entity must be OrganizationOwned.")
    for feature in ON_BY_DEFAULT:
        if (body.get(feature) or {}).get("Value") is not False:
            raise refusals.bad_argument(f"{feature} can not be active for {name} virtual Entity.")
    for feature in NEVER:
        if body.get(feature):
            raise refusals.bad_argument(f"{feature} can not be active for {name} virtual Entity.")
    for required, words in (
        ("ExternalName", "External Name"),
        ("ExternalCollectionName", "External Collection Name"),
    ):
        if not body.get(required):
            raise refusals.bad_argument(f"{words} property required for {name} virtual Entity.")
    provider, source = str(body.get("DataProviderId", "")).lower(), body.get("DataSourceId")
    found = None
    if addresses.is_guid(provider):
        found = world.store.get(world.catalog.by_name["entitydataprovider"], provider)
    if found is None and not (provider == NO_PROVIDER and source is None):
        raise refusals.no_row("entitydataprovider", provider)
    if found is not None and source is not None:
        table = world.catalog.by_name[found.values["datasourcelogicalname"]]
        if world.store.get(table, str(source)) is None:
            raise refusals.no_row("entitydatasource", str(source))


def _build_column(world: World, call: Call, table: Table, body: Body) -> tuple[dict[str, Any], str]:
    _check_schema_name(world, call, body.get("SchemaName"))
    name, column = parse_column(
        body, virtual=table.external is not None, language=world.settings.language
    )
    return _add_column(world, table, name, column)


def _add_column(
    world: World, table: Table, name: str, column: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    if name in table.columns:
        raise refusals.column_exists(table.name, name)
    data = deepcopy(world.catalog.data[table.name])
    data["columns"][name] = column
    table_address = f"EntityDefinitions({metadata.make_id(table.name)})"
    return data, f"{table_address}/Attributes({metadata.make_id(table.name, name)})"


def _change_external_name(
    world: World, table: Table, key: str, body: Body
) -> tuple[dict[str, Any], str]:
    """Change the external name of a column: nothing else can be changed here."""
    (column,) = definitions.find_columns(table, key)
    if table.external is None:
        raise refusals.not_offered("updating the columns of tables that have rows")
    if body.get("@odata.type", "").removeprefix("#") != metadata.find_attribute_type(column):
        raise refusals.bad_argument(f"The type of column '{column.name}' cannot be changed.")
    if not body.get("ExternalName"):
        raise refusals.bad_argument(f"External Name property required for '{column.name}'.")
    data = deepcopy(world.catalog.data[table.name])
    data["columns"][column.name]["external"] = body["ExternalName"]
    table_address = f"EntityDefinitions({metadata.make_id(table.name)})"
    return data, f"{table_address}/Attributes({metadata.make_id(table.name, column.name)})"


def _build_key(world: World, call: Call, table: Table, body: Body) -> tuple[dict[str, Any], str]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity"""
    name, names = (
        _check_schema_name(world, call, body.get("SchemaName")),
        body.get("KeyAttributes") or [],
    )
    if table.external is not None:
        raise refusals.bad_argument("Alternate keys are not supported for a virtual Entity.")
    if len(table.keys) == 10 or not 0 < len(names) <= 16:
        raise refusals.bad_argument("A table has up to 10 keys, a key 1 to 16 columns.")
    for column in names:
        if column not in table.columns:
            raise refusals.no_attribute(table.name, column)
        if table.columns[column].type not in KEY_TYPES:
            raise refusals.bad_argument(f"Column '{column}' cannot be part of a key.")
    existing = {frozenset(key.columns) for key in table.keys}
    if frozenset(names) in existing or name.lower() in {key.name.lower() for key in table.keys}:
        raise refusals.bad_argument(f"The key '{name}' exists already.")
    data = add_key(world, table, name.lower(), list(names))
    table_address = f"EntityDefinitions({metadata.make_id(table.name)})"
    return data, f"{table_address}/Keys({metadata.make_id(table.name, 'key', name.lower())})"


def add_key(world: World, table: Table, name: str, columns: list[str]) -> dict[str, Any]:
    """Return the table's definition with one more key. The key has failed if rows that exist have
    equal values. The platform builds the index in a job of its own; here it is built at once."""
    data = deepcopy(world.catalog.data[table.name])
    key = {"name": name, "columns": columns}
    data["keys"].append(key)
    previous = deepcopy(world.catalog.data[table.name])
    try:
        world.store.build_index(world.catalog.define(data))
    except Refusal:
        key["status"] = "Failed"
    finally:
        world.catalog.define(previous)
    return data


def remove_key(world: World, table: Table, name: str) -> dict[str, Any]:
    """Return the table's definition without this key, which is enforced no longer."""
    data = deepcopy(world.catalog.data[table.name])
    data["keys"] = [key for key in data["keys"] if key["name"] != name]
    world.store.drop_index(table, name)
    return data


def _build_relationship(world: World, call: Call, body: Body) -> tuple[dict[str, Any], str]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-update-entity-relationships-using-web-api"""
    if call.method != "POST":
        raise refusals.not_offered("reading relationships other than below a table")
    if not str(body.get("@odata.type")).endswith("OneToManyRelationshipMetadata"):
        raise refusals.not_offered("relationships other than one to many")
    schema = _check_schema_name(world, call, body.get("SchemaName"))
    target = _find_table(world.catalog, body.get("ReferencedEntity"))
    table = _find_table(world.catalog, body.get("ReferencingEntity"))
    are_virtual = target.external is not None and table.external is not None
    if are_virtual and world.settings.virtual_relationships == "refused":
        raise refusals.bad_argument("Two virtual tables cannot be related.")
    lookup = body.get("Lookup") or {}
    name, column = parse_column(
        {**lookup, "target": target.name},
        virtual=table.external is not None,
        language=world.settings.language,
    )
    _check_schema_name(world, call, lookup.get("SchemaName"))
    cascade = (body.get("CascadeConfiguration") or {}).get("Delete", "RemoveLink")
    data, _ = _add_column(world, table, name, {**column, "cascadeDelete": cascade})
    return data, f"RelationshipDefinitions({metadata.make_id('relationship', schema.lower())})"


def _find_table(catalog: Catalog, name: Any) -> Table:
    table = catalog.by_name.get(name) if isinstance(name, str) else None
    if table is None:
        raise refusals.no_table(str(name))
    return table
