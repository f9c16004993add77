"""What is there before an organisation is set up, and what its set-up rows have to fit.

The tables of tables/setup/: publishers, solutions, data providers and sources, roles, users.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from local.dataverse import addresses, metadata, refusals, shaping
from local.dataverse.addresses import Address
from local.dataverse.organization import ACT_FOR, BUSINESS_UNIT, BYPASS, BYPASS_PLUGINS, USER
from local.dataverse.rows import Slice, Values
from local.dataverse.tables import SETUP, Table
from local.dataverse.wire import Call, Reply
from local.dataverse.world import World

# The stock OData v4 provider. Which id it has is for an organisation to say.
PROVIDER = "5f1c2f0e-7a4b-4c0e-9d55-0a1b2c3d4e21"
SOURCE = "msdyn_odatav4ds"

PREFIX = re.compile(r"(?!mscrm)[a-z][a-z0-9]{1,7}")
UNIQUE = {"publisher": "uniquename", "solution": "uniquename", "systemuser": "applicationid"}
NEEDED = {
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
def files() -> tuple[dict[str, Any], ...]:
    """The tables that this is about."""
    return tuple(json.loads(path.read_text("utf-8")) for path in sorted(SETUP.glob("*.json")))


def names() -> frozenset[str]:
    return frozenset(data["logicalName"] for data in files())


def begin(world: World) -> None:
    """An organisation as it is when it is new, but for what the store has kept of it."""
    for data in files():
        world.catalog.define(data)
    for data in world.store.definitions():
        world.catalog.define(data)
    provider = {"name": "OData v4 Data Provider", "datasourcelogicalname": SOURCE}
    privileges = {metadata.id_of("privilege", name): {"name": name} for name in PLATFORM}
    for table in world.catalog.by_name.values():
        privileges |= shaping.privileges(table)
    tables = world.catalog.by_name
    world.store.seed(tables["businessunit"], {BUSINESS_UNIT: {"name": "stand-in"}})
    world.store.seed(tables["entitydataprovider"], {PROVIDER: provider})
    world.store.seed(tables["privilege"], privileges)


def again(world: World, definitions: dict[str, dict[str, Any]]) -> None:
    """As new: `definitions` are those of the beginning, by table."""
    for name in world.catalog.data.keys() - definitions.keys():
        world.catalog.forget(name)
    for data in definitions.values():
        world.catalog.define(data)
    begin(world)


def check(world: World, table: Table, values: Values) -> None:
    """A new row of a set-up table."""
    for name in NEEDED.get(table.name, ()):
        if values.get(name) is None:
            raise refusals.bad_argument(f"Required field '{name}' is missing.")
    unique = UNIQUE.get(table.name)
    if unique and _rows(world, table.name, **{unique: values[unique]}):
        raise refusals.bad_argument(f"A {table.name} with the same {unique} exists already.")
    if table.name == "publisher" and not PREFIX.fullmatch(values["customizationprefix"]):
        raise refusals.bad_argument("The customization prefix is not valid.")
    if table.name == "virtualentitymetadata":
        of = values["_extensionofrecordid_value"]
        tables = world.catalog.by_name.values()
        virtual = {metadata.id_of(each.name) for each in tables if each.external is not None}
        if of not in virtual or _rows(world, table.name, _extensionofrecordid_value=of):
            raise refusals.bad_argument("The virtual entity is not one, or has its metadata.")


def allows(world: World, table: Table, flag: str) -> bool:
    """Whether a virtual table's metadata has switched an event on."""
    found = _rows(
        world, "virtualentitymetadata", _extensionofrecordid_value=metadata.id_of(table.name)
    )
    return any(values.get(flag) for values in found)


def answer(world: World, call: Call, body: Any) -> Reply | None:
    """Actions and functions without a table of their own; None for what is none of them."""
    segment = addresses.split(call.resource)
    if segment.name in PUBLISH and call.method == "POST":
        if segment.name == "PublishXml" and "<importexportxml>" not in str(
            body.get("ParameterXml")
        ):
            raise refusals.bad_argument("ParameterXml is not valid.")
        return Reply(204)
    if segment.name == ROLE_PRIVILEGES and call.method == "GET":
        role = (segment.key or "").removeprefix("RoleId=")
        _existing(world, "role", role)
        found = _rows(world, "roleprivileges", roleid=role)
        told = [{"PrivilegeId": each["privilegeid"], "Depth": each["depth"]} for each in found]
        context = f"{call.root}/$metadata#Microsoft.Dynamics.CRM.{ROLE_PRIVILEGES}Response"
        return Reply(200, {"@odata.context": context, "RolePrivileges": told})
    return None


def below(world: World, call: Call, at: Address, rest: str, body: Any) -> Reply | None:
    """What is bound to a role or a user; None for what is not."""
    row_id = at.find(world.store)
    if at.table.name == "role" and rest == ADD_PRIVILEGES and call.method == "POST":
        if row_id is None:
            raise at.absent()
        for each in body.get("Privileges") or []:
            privilege = str(each.get("PrivilegeId", "")).lower()
            _existing(world, "privilege", privilege)
            depth = DEPTHS.get(str(each.get("Depth")), each.get("Depth"))
            if depth not in DEPTHS.values():
                raise refusals.bad_argument("The Depth of a privilege is not valid.")
            values = {"roleid": row_id, "privilegeid": privilege, "depth": depth}
            _seed(world, "roleprivileges", metadata.id_of(row_id, privilege), **values)
        return Reply(204)
    if at.table.name == "systemuser" and rest == USER_PRIVILEGES and call.method == "GET":
        told = list(_may(world, at.id or ""))
        context = f"{call.root}/$metadata#Microsoft.Dynamics.CRM.RetrieveUserPrivilegesResponse"
        return Reply(200, {"@odata.context": context, "RolePrivileges": told})
    if at.table.name != "systemuser" or rest.removesuffix("/$ref") != USERS_ROLES:
        return None
    if row_id is None:
        raise at.absent()
    if call.method == "GET":
        held = [{"roleid": each["roleid"]} for each in _held(world, row_id)]
        return Reply(200, {"@odata.context": f"{call.root}/$metadata#roles", "value": held})
    role = addresses.split(str(body.get("@odata.id", "")).rpartition("/")[2]).key or ""
    _existing(world, "role", role)
    values = {"systemuserid": row_id, "roleid": role.lower()}
    _seed(world, "systemuserroles", metadata.id_of(row_id, role.lower()), **values)
    return Reply(204)


def _held(world: World, user: str) -> list[Values]:
    return _rows(world, "systemuserroles", systemuserid=user)


def _may(world: World, user: str) -> Iterator[Values]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/retrieveuserprivileges
    The caller may do everything, but for what the organisation grants by name."""
    every = Slice("1", [], "id", 5000, 0)
    found = world.store.find(world.catalog.by_name["privilege"], every)
    named = {row.id: str(row.values["name"]) for row in found}
    if user == USER:
        refused = {BYPASS, BYPASS_PLUGINS, ACT_FOR} - world.organization.privileges
        held = {row_id: "Global" for row_id, name in named.items() if name not in refused}
    else:
        roles = [each["roleid"] for each in _held(world, user)]
        granted = (each for role in roles for each in _rows(world, "roleprivileges", roleid=role))
        held = {each["privilegeid"]: each["depth"] for each in granted}
    for row_id, depth in held.items():
        yield {"Depth": depth, "PrivilegeId": row_id, "BusinessUnitId": BUSINESS_UNIT,
               "PrivilegeName": named[row_id]}  # fmt: skip


def _existing(world: World, name: str, row_id: str) -> None:
    if world.store.get(world.catalog.by_name[name], row_id.lower()) is None:
        raise refusals.no_row(name, row_id)


def _rows(world: World, name: str, **equal: Any) -> list[Values]:
    where = " AND ".join(f"fold(json_extract(body, '$.{each}')) = fold(?)" for each in equal)
    wanted = Slice(where, list(equal.values()), "id", 5000, 0)
    return [row.values for row in world.store.find(world.catalog.by_name[name], wanted)]


def _seed(world: World, of: str, row_id: str, /, **values: Any) -> None:
    table = world.catalog.by_name[of]
    if world.store.get(table, row_id) is None:
        world.store.put(table, row_id, {table.primary_id: row_id, **values}, "create")
