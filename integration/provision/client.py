"""What an organisation has, asked for stage by stage; and the steps, sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from integration.core import decimal_json
from integration.core.errors import Misconfigured
from integration.core.model import Request, Response
from integration.dataverse.requests import API, quote_literal
from integration.provision import records, tables
from integration.provision.model import SECRET, Item, Step, Wanted
from integration.provision.tables import Known

_HEADERS = {
    "accept": "application/json",
    "odata-version": "4.0",
    "odata-maxversion": "4.0",
    # What was made a moment ago may not be in every server's memory yet:
    # https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors#other-headers
    "consistency": "Strong",
}

# A filter that names more privileges makes an address too long.
_PRIVILEGES = 25

_LONGEST = 500

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tenant:
    """The organisation. `key` is the feed's; without one a data source is not looked into."""

    ask: Callable[[Request], Awaitable[Response]]
    base: str  # of the Web API
    key: str | None = None

    async def get(self, path: str) -> Row | None:
        """None where there is no such thing."""
        response = await self.ask(Request("GET", f"{API}/{path}", headers=_HEADERS))
        if response.status == 404:
            return None
        if response.status != 200:
            raise Misconfigured(f"{path.partition('?')[0]}: {self._answered(response)}")
        answer = decimal_json.decode_object(response.body)
        if answer is None:
            raise Misconfigured("Dataverse answered what is no answer of its Web API")
        return answer

    async def rows(self, entity_set: str, columns: Iterable[str], condition: str = "") -> list[Row]:
        """There are few of what is asked for here: never a page that is full."""
        asked = f"{entity_set}?$select={','.join(columns)}"
        answer = await self.get(asked + (f"&$filter={quote(condition)}" if condition else ""))
        if answer is None:
            raise Misconfigured(f"the organisation has no {entity_set}")
        found: list[Row] = answer["value"]
        return found

    async def send(self, step: Step) -> None:
        """Raises Misconfigured with what Dataverse said against it."""
        if "<the id of" in step.path + decimal_json.encode(step.body).decode():
            raise Misconfigured(
                f"{step.what}: Dataverse does not show yet what it needs: run again"
            )
        if SECRET in step.body.values() and self.key is None:
            raise Misconfigured("set FEED_KEY to a function key of the app")
        body = {name: self.key if value == SECRET else value for name, value in step.body.items()}
        headers = {**_HEADERS, "content-type": "application/json; charset=utf-8"}
        if step.solution is not None:
            headers["mscrm.solutionuniquename"] = step.solution
        if step.method == "PUT":
            headers["mscrm.mergelabels"] = "true"
        request = Request(step.method, f"{API}/{step.path}", decimal_json.encode(body), headers)
        response = await self.ask(request)
        if response.status >= 400:
            raise Misconfigured(f"{step.what}: {self._answered(response)}")

    def _answered(self, response: Response) -> str:
        """Definitions are no patient data, so what Dataverse says of them may be told; it may
        quote what it refuses, the key with it."""
        try:
            error = decimal_json.decode(response.body)["error"]
            said = f": {error['code']} {error['message']}"
        except (decimal_json.Malformed, KeyError, TypeError):
            said = ""
        said = said.replace(self.key, SECRET) if self.key else said
        return f"Dataverse answered {response.status}{said[:_LONGEST]}"


async def stages(tenant: Tenant, wanted: Wanted) -> AsyncIterator[Iterable[Item]]:
    """What each stage has and lacks. The next one is asked for when the steps of the one before
    are sent, or told in a dry run."""
    yield records.publisher(wanted, await _publishers(tenant, wanted))
    owner = _id(records.the_publisher(await _publishers(tenant, wanted)), "publisherid")
    columns = ("solutionid", "uniquename", "ismanaged", "_publisherid_value")
    condition = f"uniquename eq {quote_literal(wanted.solution)}"
    yield records.solution(wanted, await tenant.rows("solutions", columns, condition), owner)
    yield tables.custom(wanted, await _tables(tenant, (one.table for one in wanted.custom)))
    if wanted.feed is not None:
        async for items in _virtual(tenant, wanted):
            yield items
    async for items in _identity(tenant, wanted):
        yield items


async def _virtual(tenant: Tenant, wanted: Wanted) -> AsyncIterator[Iterable[Item]]:
    assert wanted.feed is not None
    provider = await _provider(tenant)
    yield records.source(wanted.feed, await _sources(tenant))
    source = _id(records.the_source(await _sources(tenant)), records.SOURCE_KEY)
    names = [table.name for table in wanted.virtual]
    yield tables.virtual_tables(wanted, await _tables(tenant, names), provider, source)
    known = await _tables(tenant, names)
    yield tables.virtual_columns(wanted, known)
    ids = {name: one.id if one is not None else None for name, one in known.items()}
    columns = ("virtualentitymetadataid", "_extensionofrecordid_value", *records.EVENTS)
    yield records.events(wanted, ids, await tenant.rows("virtualentitymetadatas", columns))


async def _identity(tenant: Tenant, wanted: Wanted) -> AsyncIterator[Iterable[Item]]:
    unit = await _business_unit(tenant, wanted.business_unit)

    async def role() -> list[Row]:
        named = f"name eq {quote_literal(wanted.role.name)} and _businessunitid_value eq {unit}"
        return await tenant.rows("roles", ("roleid", "name"), named)

    async def user() -> list[Row]:
        if wanted.identity is None:
            return []
        columns, condition = ("systemuserid", "isdisabled"), f"applicationid eq {wanted.identity}"
        return await tenant.rows("systemusers", columns, condition)

    yield records.role(wanted, unit, await role())
    yield records.user(wanted, unit, await user())
    role_id = _id(next(iter(await role()), None), "roleid")
    user_id = _id(next(iter(await user()), None), "systemuserid")
    schemas = await _schemas(tenant, wanted.role.tables)
    named = records.privilege_names(wanted.role, schemas)
    known = await _privileges(tenant, list(named.values()))
    granted = await _granted(tenant, role_id)
    yield records.privileges(wanted, schemas, known, role_id, granted)
    held = await _held(tenant, user_id)
    yield records.assignment(wanted, f"{tenant.base}/{API}", user_id, role_id, held)


async def _publishers(tenant: Tenant, wanted: Wanted) -> list[Row]:
    columns = ("publisherid", "uniquename", "isreadonly")
    condition = f"customizationprefix eq {quote_literal(wanted.prefix)}"
    return await tenant.rows("publishers", columns, condition)


async def _provider(tenant: Tenant) -> str:
    """The stock OData v4 provider, by the table of its data sources; and that table as we know it.

    Raises Misconfigured where the organisation has another one.
    """
    path = f"EntityDefinitions(LogicalName='{records.SOURCE}')/Attributes?$select=LogicalName"
    answer = await tenant.get(path)
    condition = f"datasourcelogicalname eq {quote_literal(records.SOURCE)}"
    columns = ("entitydataproviderid", "name")
    found = await tenant.rows("entitydataproviders", columns, condition)
    if answer is None or not found:
        raise Misconfigured(
            f"the organisation has no OData v4 data provider (table {records.SOURCE}): it is part "
            "of every Dataverse database, so ask Microsoft for it"
        )
    there = {one["LogicalName"] for one in answer["value"]}
    lacking = [name for name in records.SOURCE_COLUMNS if name not in there]
    if lacking:
        raise Misconfigured(
            f"{records.SOURCE} has no {', '.join(lacking)}; expected were "
            f"{', '.join(records.SOURCE_COLUMNS)}"
        )
    return str(found[0]["entitydataproviderid"])


async def _sources(tenant: Tenant) -> list[Row]:
    """All: whether a table that is virtual itself can be filtered is not said. The key is never
    handed on; one that is not known cannot be compared."""
    found = await tenant.rows(records.SOURCE, (records.SOURCE_KEY, *records.SOURCE_COLUMNS))
    column = records.SECRET_COLUMN
    return [
        {**row, column: SECRET if tenant.key in (None, row.get(column)) else ""} for row in found
    ]


async def _tables(tenant: Tenant, names: Iterable[str]) -> dict[str, Known | None]:
    return {name: await _table(tenant, name) for name in names}


async def _table(tenant: Tenant, name: str) -> Known | None:
    path = f"EntityDefinitions(LogicalName='{name}')"
    selected = "MetadataId,EntitySetName,TableType,ExternalName,ExternalCollectionName,DataSourceId"
    definition = await tenant.get(f"{path}?$select={selected},PrimaryIdAttribute")
    if definition is None:
        return None
    columns = await tenant.get(f"{path}/Attributes?$select=LogicalName,AttributeType,ExternalName")
    keys = await tenant.get(f"{path}/Keys?$select=KeyAttributes")
    primary = None
    if definition["TableType"] == "Virtual":
        cast = "Microsoft.Dynamics.CRM.UniqueIdentifierAttributeMetadata"
        key = definition["PrimaryIdAttribute"]
        primary = await tenant.get(f"{path}/Attributes(LogicalName='{key}')/{cast}")
    return Known(
        definition["MetadataId"],
        {one["LogicalName"]: one for one in (columns or {}).get("value", ())},
        tuple(frozenset(one["KeyAttributes"]) for one in (keys or {}).get("value", ())),
        definition,
        primary or {},
    )


async def _business_unit(tenant: Tenant, name: str | None) -> str:
    condition = f"name eq {quote_literal(name)}" if name else "_parentbusinessunitid_value eq null"
    found = await tenant.rows("businessunits", ("businessunitid", "name"), condition)
    if not found:
        raise Misconfigured(f"there is no business unit {name or 'at the root'}")
    return str(found[0]["businessunitid"])


async def _schemas(tenant: Tenant, names: Iterable[str]) -> dict[str, str]:
    """Schema names, by which privileges are named; none of a table that is not there yet."""
    found = {}
    for name in names:
        answer = await tenant.get(f"EntityDefinitions(LogicalName='{name}')?$select=SchemaName")
        if answer is not None:
            found[name] = str(answer["SchemaName"])
    return found


async def _privileges(tenant: Tenant, names: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for first in range(0, len(names), _PRIVILEGES):
        asked = names[first : first + _PRIVILEGES]
        condition = " or ".join(f"name eq {quote_literal(name)}" for name in asked)
        answer = await tenant.rows("privileges", ("privilegeid", "name"), condition)
        found |= {str(row["name"]).lower(): str(row["privilegeid"]) for row in answer}
    return found


async def _granted(tenant: Tenant, role: str | None) -> frozenset[str]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/retrieveroleprivilegesrole"""
    if role is None:
        return frozenset()
    answer = await tenant.get(f"RetrieveRolePrivilegesRole(RoleId={role})") or {}
    whole = (one for one in answer.get("RolePrivileges", ()) if one.get("Depth") == "Global")
    return frozenset(str(one["PrivilegeId"]) for one in whole)


async def _held(tenant: Tenant, user: str | None) -> frozenset[str]:
    if user is None:
        return frozenset()
    path = f"systemusers({user})/systemuserroles_association"
    return frozenset(str(row["roleid"]) for row in await tenant.rows(path, ("roleid",)))


def _id(row: Row | None, column: str) -> str | None:
    return None if row is None else str(row[column])
