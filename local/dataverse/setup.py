"""The initial rows of a new organisation, and the rules for its set-up tables.

These are the tables of tables/setup/: publishers, solutions, data providers, roles, users.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from local.dataverse import addresses, metadata, refusals, shaping
from local.dataverse.addresses import Address
from local.dataverse.organization import (
    ACT_FOR,
    BUSINESS_UNIT,
    BYPASS,
    BYPASS_PLUGINS,
    ORGANIZATION,
    USER,
)
from local.dataverse.rows import Slice, Values
from local.dataverse.tables import SETUP, Table
from local.dataverse.wire import Call, Reply
from local.dataverse.world import World

# The stock OData v4 provider. Its id differs between organisations.
PROVIDER = "5f1c2f0e-7a4b-4c0e-9d55-0a1b2c3d4e21"
SOURCE = "msdyn_odatav4ds"

PREFIX = re.compile(r"(?!mscrm)[a-z][a-z0-9]{1,7}")
UNIQUE = {"publisher": "uniquename", "solution": "uniquename", "systemuser": "applicationid"}
REQUIRED = {
    "publisher": ("uniquename", "friendlyname", "customizationprefix"),
    "solution": ("uniquename", "friendlyname", "version", "_publisherid_value"),
    SOURCE: ("msdyn_name", "msdyn_uri", "msdyn_paginationtype"),
    "virtualentitymetadata": ("name", "_extensionofrecordid_value"),
    "role": ("name", "_businessunitid_value"),
    "systemuser": ("applicationid", "_businessunitid_value"),
}
PLATFORM = (
    *("prvReadEntity", "prvReadAttribute", "prvReadRelationship", "prvReadOptionSet"),
    *("prvBypassCustomBusinessLogic", "prvActOnBehalfOfAnotherUser"),
)
DEPTHS = {"0": "Basic", "1": "Local", "2": "Deep", "3": "Global"}

ROLE_PRIVILEGES = "RetrieveRolePrivilegesRole"
ADD_PRIVILEGES = "Microsoft.Dynamics.CRM.AddPrivilegesRole"
USER_PRIVILEGES = "Microsoft.Dynamics.CRM.RetrieveUserPrivileges()"
USERS_ROLES = "systemuserroles_association"
PUBLISH = ("PublishXml", "PublishAllXml")


@cache
def read_files() -> tuple[dict[str, Any], ...]:
    """Return the definitions of the set-up tables."""
    return tuple(json.loads(path.read_text("utf-8")) for path in sorted(SETUP.glob("*.json")))


def list_table_names() -> frozenset[str]:
    return frozenset(data["logicalName"] for data in read_files())


def initialize(world: World) -> None:
    """Create the initial tables and rows, unless the store has them already."""
    for data in read_files():
        world.catalog.define(data)
    for data in world.store.read_definitions():
        world.catalog.define(data)
    provider = {"name": "OData v4 Data Provider", "datasourcelogicalname": SOURCE}
    privileges = {metadata.make_id("privilege", name): {"name": name} for name in PLATFORM}
    for table in world.catalog.by_name.values():
        privileges |= shaping.list_privileges(table)
    tables = world.catalog.by_name
    world.store.seed(tables["businessunit"], {BUSINESS_UNIT: {"name": "stand-in"}})
    world.store.seed(tables["entitydataprovider"], {PROVIDER: provider})
    world.store.seed(tables["privilege"], privileges)


def reset(world: World, definitions: dict[str, dict[str, Any]]) -> None:
    """Restore the initial definitions, by table, and the initial rows."""
    for name in world.catalog.data.keys() - definitions.keys():
        world.catalog.remove(name)
    for data in definitions.values():
        world.catalog.define(data)
    initialize(world)


def check_row(world: World, table: Table, values: Values) -> None:
    """Check a new row of a set-up table. Raises Refusal."""
    for name in REQUIRED.get(table.name, ()):
        if values.get(name) is None:
            raise refusals.bad_argument(f"Required field '{name}' is missing.")
    unique = UNIQUE.get(table.name)
    if unique and _find_rows(world, table.name, **{unique: values[unique]}):
        raise refusals.bad_argument(f"A {table.name} with the same {unique} exists already.")
    if table.name == "publisher" and not PREFIX.fullmatch(values["customizationprefix"]):
        raise refusals.bad_argument("The customization prefix is not valid.")
    if table.name == "virtualentitymetadata":
        extended_id = values["_extensionofrecordid_value"]
        tables = world.catalog.by_name.values()
        virtual = {
            metadata.make_id(candidate.name)
            for candidate in tables
            if candidate.external is not None
        }
        if extended_id not in virtual or _find_rows(
            world, table.name, _extensionofrecordid_value=extended_id
        ):
            raise refusals.bad_argument("The virtual entity is not one, or has its metadata.")


def is_event_enabled(world: World, table: Table, flag: str) -> bool:
    """Return whether the virtual table's metadata has enabled this event."""
    settings = _find_rows(
        world, "virtualentitymetadata", _extensionofrecordid_value=metadata.make_id(table.name)
    )
    return any(values.get(flag) for values in settings)


def answer(world: World, call: Call, body: Any) -> Reply | None:
    """Answer the unbound actions and functions of set-up; None for other calls."""
    segment = addresses.parse_segment(call.resource)
    if segment.name in PUBLISH and call.method == "POST":
        if segment.name == "PublishXml" and "<importexportxml>" not in str(
            body.get("ParameterXml")
        ):
            raise refusals.bad_argument("ParameterXml is not valid.")
        return Reply(204)
    if segment.name == "organizations" and call.method == "GET":
        row = {"organizationid": ORGANIZATION, "languagecode": world.settings.language}
        return Reply(
            200, {"@odata.context": f"{call.root}/$metadata#organizations", "value": [row]}
        )
    if segment.name == ROLE_PRIVILEGES and call.method == "GET":
        role = (segment.key or "").removeprefix("RoleId=")
        _require_row(world, "role", role)
        rows = _find_rows(world, "roleprivileges", roleid=role)
        privileges = [{"PrivilegeId": row["privilegeid"], "Depth": row["depth"]} for row in rows]
        context = f"{call.root}/$metadata#Microsoft.Dynamics.CRM.{ROLE_PRIVILEGES}Response"
        return Reply(200, {"@odata.context": context, "RolePrivileges": privileges})
    return None


def answer_bound(world: World, call: Call, address: Address, rest: str, body: Any) -> Reply | None:
    """Answer calls bound to a role or a user; None for other calls."""
    row_id = address.find(world.store)
    if address.table.name == "role" and rest == ADD_PRIVILEGES and call.method == "POST":
        if row_id is None:
            raise address.build_not_found()
        for row in body.get("Privileges") or []:
            privilege = str(row.get("PrivilegeId", "")).lower()
            _require_row(world, "privilege", privilege)
            depth = DEPTHS.get(str(row.get("Depth")), row.get("Depth"))
            if depth not in DEPTHS.values():
                raise refusals.bad_argument("The Depth of a privilege is not valid.")
            values = {"roleid": row_id, "privilegeid": privilege, "depth": depth}
            _create_if_missing(
                world, "roleprivileges", metadata.make_id(row_id, privilege), **values
            )
        return Reply(204)
    if address.table.name == "systemuser" and rest == USER_PRIVILEGES and call.method == "GET":
        privileges = list(_list_user_privileges(world, address.id or ""))
        context = f"{call.root}/$metadata#Microsoft.Dynamics.CRM.RetrieveUserPrivilegesResponse"
        return Reply(200, {"@odata.context": context, "RolePrivileges": privileges})
    if address.table.name != "systemuser" or rest.removesuffix("/$ref") != USERS_ROLES:
        return None
    if row_id is None:
        raise address.build_not_found()
    if call.method == "GET":
        roles = [{"roleid": row["roleid"]} for row in _find_roles(world, row_id)]
        return Reply(200, {"@odata.context": f"{call.root}/$metadata#roles", "value": roles})
    role = addresses.parse_segment(str(body.get("@odata.id", "")).rpartition("/")[2]).key or ""
    _require_row(world, "role", role)
    values = {"systemuserid": row_id, "roleid": role.lower()}
    _create_if_missing(world, "systemuserroles", metadata.make_id(row_id, role.lower()), **values)
    return Reply(204)


def _find_roles(world: World, user: str) -> list[Values]:
    return _find_rows(world, "systemuserroles", systemuserid=user)


def _list_user_privileges(world: World, user: str) -> Iterator[Values]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/retrieveuserprivileges
    The caller has all privileges, except those that the organisation grants by name."""
    window = Slice(where="1", parameters=[], order="id", limit=5000, offset=0)
    found = world.store.find(world.catalog.by_name["privilege"], window)
    names = {row.id: str(row.values["name"]) for row in found}
    if user == USER:
        refused = {BYPASS, BYPASS_PLUGINS, ACT_FOR} - world.organization.privileges
        held = {row_id: "Global" for row_id, name in names.items() if name not in refused}
    else:
        roles = [row["roleid"] for row in _find_roles(world, user)]
        granted = (
            row for role in roles for row in _find_rows(world, "roleprivileges", roleid=role)
        )
        held = {row["privilegeid"]: row["depth"] for row in granted}
    for row_id, depth in held.items():
        yield {"Depth": depth, "PrivilegeId": row_id, "BusinessUnitId": BUSINESS_UNIT,
               "PrivilegeName": names[row_id]}  # fmt: skip


def _require_row(world: World, name: str, row_id: str) -> None:
    if world.store.get(world.catalog.by_name[name], row_id.lower()) is None:
        raise refusals.no_row(name, row_id)


def _find_rows(world: World, name: str, **equal: Any) -> list[Values]:
    where = " AND ".join(f"fold(json_extract(body, '$.{name}')) = fold(?)" for name in equal)
    window = Slice(where=where, parameters=list(equal.values()), order="id", limit=5000, offset=0)
    return [row.values for row in world.store.find(world.catalog.by_name[name], window)]


def _create_if_missing(world: World, table_name: str, row_id: str, /, **values: Any) -> None:
    table = world.catalog.by_name[table_name]
    if world.store.get(table, row_id) is None:
        world.store.put(table, row_id, {table.primary_id: row_id, **values}, "create")
