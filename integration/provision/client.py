"""Read what an organisation has, stage by stage, and send the steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from integration.core import decimal_json
from integration.core.errors import Misconfigured
from integration.core.model import Request, Response
from integration.dataverse.requests import API, quote_literal
from integration.provision import records, tables
from integration.provision.model import SECRET, Item, Requirements, Step
from integration.provision.tables import ExistingTable

_HEADERS = {
    "accept": "application/json",
    "odata-version": "4.0",
    "odata-maxversion": "4.0",
    # Without it, a server may answer from a cache that does not know yet what we just added:
    # https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors#other-headers
    "consistency": "Strong",
}

# A filter with more names makes the address too long.
_PRIVILEGES_PER_FILTER = 25

_MAX_ERROR_LENGTH = 500

Row = Mapping[str, Any]


class Refused(Misconfigured):
    """Dataverse refused a step."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A Dataverse organisation. Without `feed_key`, the key of a data source is not compared."""

    send_request: Callable[[Request], Awaitable[Response]]
    base: str  # the address of the organisation
    feed_key: str | None = None

    async def get(self, path: str) -> Row | None:
        """Get JSON from the Web API; None for 404. Raises Misconfigured for other responses."""
        response = await self.send_request(Request("GET", f"{API}/{path}", headers=_HEADERS))
        if response.status == 404:
            return None
        if response.status != 200:
            raise Misconfigured(f"{path.partition('?')[0]}: {self._describe_error(response)}")
        answer = decimal_json.decode_object(response.body)
        if answer is None:
            raise Misconfigured(
                "Dataverse answered with something else than JSON: check DATAVERSE_URL"
            )
        return answer

    async def fetch_rows(
        self, entity_set: str, columns: Iterable[str], condition: str = ""
    ) -> list[Row]:
        """Get rows. What is read here has few rows, so there is never a second page."""
        path = f"{entity_set}?$select={','.join(columns)}"
        answer = await self.get(path + (f"&$filter={quote(condition)}" if condition else ""))
        if answer is None:
            raise Misconfigured(f"the organisation has no table with the set {entity_set}")
        found: list[Row] = answer["value"]
        return found

    async def send(self, step: Step) -> None:
        """Send the request of a step. Raises Refused with Dataverse's reason to refuse it, and
        Misconfigured where it cannot be sent."""
        if "<the id of" in step.path + decimal_json.encode(step.body).decode():
            raise Misconfigured(
                f"{step.description}: Dataverse does not show yet what an earlier step added: "
                "run this command again in a minute"
            )
        if SECRET in step.body.values() and self.feed_key is None:
            raise Misconfigured("set FEED_KEY to a function key of the app")
        body = {
            name: self.feed_key if value == SECRET else value for name, value in step.body.items()
        }
        headers = {**_HEADERS, "content-type": "application/json; charset=utf-8"}
        if step.solution is not None:
            headers["mscrm.solutionuniquename"] = step.solution
        if step.method == "PUT":
            headers["mscrm.mergelabels"] = "true"
        request = Request(step.method, f"{API}/{step.path}", decimal_json.encode(body), headers)
        response = await self.send_request(request)
        if response.status >= 400:
            raise Refused(f"{step.description}: {self._describe_error(response)}")

    def _describe_error(self, response: Response) -> str:
        """Return Dataverse's error, which is about definitions and so holds no patient data.

        It may quote the key, which is removed.
        """
        try:
            error = decimal_json.decode(response.body)["error"]
            reported = f": {error['code']} {error['message']}"
        except (decimal_json.Malformed, KeyError, TypeError):
            reported = ""
        reported = reported.replace(self.feed_key, SECRET) if self.feed_key else reported
        return f"Dataverse answered {response.status}{reported[:_MAX_ERROR_LENGTH]}"


async def plan_stages(tenant: Tenant, requirements: Requirements) -> AsyncIterator[Iterable[Item]]:
    """Yield the items of each stage.

    The caller sends the steps of a stage before it asks for the next one, which reads the result.
    """
    requirements = replace(requirements, language=await _fetch_language(tenant))
    yield records.plan_publisher(requirements, await _fetch_publishers(tenant, requirements))
    owner = _get_id(
        records.find_publisher(await _fetch_publishers(tenant, requirements)), "publisherid"
    )
    columns = ("solutionid", "uniquename", "ismanaged", "_publisherid_value")
    condition = f"uniquename eq {quote_literal(requirements.solution)}"
    yield records.plan_solution(
        requirements, await tenant.fetch_rows("solutions", columns, condition), owner
    )
    yield tables.plan_custom_tables(
        requirements,
        await _fetch_tables(
            tenant,
            (table.table for table in requirements.custom_tables),
            [table.table for table in requirements.custom_tables if table.tracked],
        ),
    )
    names = [table.name for table in requirements.own_tables]
    if names:
        yield tables.plan_own_tables(requirements, await _fetch_tables(tenant, names))
        yield tables.plan_own_columns(requirements, await _fetch_tables(tenant, names))
    if requirements.feed is not None:
        async for items in _plan_virtual_tables(tenant, requirements):
            yield items
    async for items in _plan_identity(tenant, requirements):
        yield items


async def _plan_virtual_tables(
    tenant: Tenant, requirements: Requirements
) -> AsyncIterator[Iterable[Item]]:
    assert requirements.feed is not None
    provider = await _find_provider(tenant)
    yield records.plan_data_source(requirements.feed, await _fetch_sources(tenant))
    source = _get_id(records.find_data_source(await _fetch_sources(tenant)), records.SOURCE_KEY)
    names = [table.name for table in requirements.virtual_tables]
    yield tables.plan_virtual_tables(
        requirements, await _fetch_tables(tenant, names), provider, source
    )
    existing = await _fetch_tables(tenant, names)
    yield tables.plan_virtual_columns(requirements, existing)
    yield tables.plan_tried_lookups(requirements, existing)
    ids = {name: found.id if found is not None else None for name, found in existing.items()}
    columns = ("virtualentitymetadataid", "_extensionofrecordid_value", *records.EVENTS)
    yield records.plan_events(
        requirements, ids, await tenant.fetch_rows("virtualentitymetadatas", columns)
    )


async def _plan_identity(
    tenant: Tenant, requirements: Requirements
) -> AsyncIterator[Iterable[Item]]:
    unit = await _find_business_unit(tenant, requirements.business_unit)

    async def fetch_roles() -> list[Row]:
        named = (
            f"name eq {quote_literal(requirements.role.name)} and _businessunitid_value eq {unit}"
        )
        return await tenant.fetch_rows("roles", ("roleid", "name"), named)

    async def fetch_users() -> list[Row]:
        if requirements.identity is None:
            return []
        columns, condition = (
            ("systemuserid", "isdisabled"),
            f"applicationid eq {requirements.identity}",
        )
        return await tenant.fetch_rows("systemusers", columns, condition)

    yield records.plan_role(requirements, unit, await fetch_roles())
    yield records.plan_user(requirements, unit, await fetch_users())
    role_id = _get_id(next(iter(await fetch_roles()), None), "roleid")
    user_id = _get_id(next(iter(await fetch_users()), None), "systemuserid")
    schemas = await _fetch_schema_names(tenant, requirements.role.tables)
    named = records.list_privilege_names(requirements.role, schemas)
    privileges = await _fetch_privileges(tenant, list(named.values()))
    granted = await _fetch_granted_privileges(tenant, role_id)
    yield records.plan_privileges(requirements, schemas, privileges, role_id, granted)
    held = await _fetch_user_roles(tenant, user_id)
    yield records.plan_assignment(requirements, f"{tenant.base}/{API}", user_id, role_id, held)


async def _fetch_language(tenant: Tenant) -> int:
    """Return the organisation's base language, as a number of Windows: 1033 is English.
    https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/organization"""
    (organization,) = await tenant.fetch_rows("organizations", ("languagecode",))
    return int(organization["languagecode"])


async def _fetch_publishers(tenant: Tenant, requirements: Requirements) -> list[Row]:
    columns = ("publisherid", "uniquename", "isreadonly")
    condition = f"customizationprefix eq {quote_literal(requirements.prefix)}"
    return await tenant.fetch_rows("publishers", columns, condition)


async def _find_provider(tenant: Tenant) -> str:
    """Return the id of Dataverse's own OData v4 provider, found by the table of its data sources.

    Raises Misconfigured if the organisation has none, or one whose data sources differ.
    """
    path = f"EntityDefinitions(LogicalName='{records.SOURCE}')/Attributes?$select=LogicalName"
    answer = await tenant.get(path)
    condition = f"datasourcelogicalname eq {quote_literal(records.SOURCE)}"
    columns = ("entitydataproviderid", "name")
    found = await tenant.fetch_rows("entitydataproviders", columns, condition)
    if answer is None or not found:
        raise Misconfigured(
            f"the organisation has no OData v4 data provider (table {records.SOURCE}). It is part "
            "of every Dataverse database: ask Microsoft's support"
        )
    names = {column["LogicalName"] for column in answer["value"]}
    missing = [name for name in records.SOURCE_COLUMNS if name not in names]
    if missing:
        raise Misconfigured(
            f"{records.SOURCE} has no {', '.join(missing)}; expected were "
            f"{', '.join(records.SOURCE_COLUMNS)}"
        )
    return str(found[0]["entitydataproviderid"])


async def _fetch_sources(tenant: Tenant) -> list[Row]:
    """Read all data sources: that their table, a virtual one, can be filtered is not documented.

    The key is replaced: by SECRET if it equals ours, or if we have none to compare it with.
    """
    found = await tenant.fetch_rows(records.SOURCE, (records.SOURCE_KEY, *records.SOURCE_COLUMNS))
    column = records.SECRET_COLUMN
    return [
        {**row, column: SECRET if tenant.feed_key in (None, row.get(column)) else ""}
        for row in found
    ]


async def _fetch_tables(
    tenant: Tenant, names: Iterable[str], tracked: Collection[str] = ()
) -> dict[str, ExistingTable | None]:
    return {name: await _fetch_table(tenant, name, is_tracked=name in tracked) for name in names}


async def _fetch_table(tenant: Tenant, name: str, *, is_tracked: bool) -> ExistingTable | None:
    """`is_tracked`: its changes are to be tracked, which may need its whole definition."""
    path = f"EntityDefinitions(LogicalName='{name}')"
    selected = "MetadataId,EntitySetName,TableType,ExternalName,ExternalCollectionName,DataSourceId"
    selected += ",PrimaryIdAttribute,ChangeTrackingEnabled"
    definition = await tenant.get(f"{path}?$select={selected}")
    if definition is None:
        return None
    is_changed = is_tracked and not definition.get("ChangeTrackingEnabled")
    whole = await tenant.get(path) if is_changed else None
    columns = await tenant.get(f"{path}/Attributes?$select=LogicalName,AttributeType,ExternalName")
    keys = await tenant.get(f"{path}/Keys?$select=KeyAttributes,EntityKeyIndexStatus")
    primary, unnamed = None, frozenset[str]()
    if definition["TableType"] == "Virtual":
        cast = "Microsoft.Dynamics.CRM.PicklistAttributeMetadata"
        expanded = "$select=LogicalName&$expand=OptionSet($select=Options)"
        choices = await tenant.get(f"{path}/Attributes/{cast}?{expanded}")
        unnamed = _find_unnamed_options((choices or {}).get("value", ()))
        cast = "Microsoft.Dynamics.CRM.UniqueIdentifierAttributeMetadata"
        key = definition["PrimaryIdAttribute"]
        primary = await tenant.get(f"{path}/Attributes(LogicalName='{key}')/{cast}")
    return ExistingTable(
        id=definition["MetadataId"],
        columns={column["LogicalName"]: column for column in (columns or {}).get("value", ())},
        keys={
            frozenset(key["KeyAttributes"]): str(key.get("EntityKeyIndexStatus", "Active"))
            for key in (keys or {}).get("value", ())
        },
        definition=definition,
        primary=primary or {},
        whole=whole or {},
        unnamed_options=unnamed,
    )


def _find_unnamed_options(columns: Iterable[Row]) -> frozenset[str]:
    """Return the columns with an option that has no external value."""
    return frozenset(
        str(column["LogicalName"])
        for column in columns
        if any(not option.get("ExternalValue") for option in column["OptionSet"]["Options"])
    )


async def _find_business_unit(tenant: Tenant, name: str | None) -> str:
    condition = f"name eq {quote_literal(name)}" if name else "_parentbusinessunitid_value eq null"
    found = await tenant.fetch_rows("businessunits", ("businessunitid", "name"), condition)
    if not found:
        raise Misconfigured(
            f"the organisation has no business unit {name or 'at the root'}: check --business-unit"
        )
    return str(found[0]["businessunitid"])


async def _fetch_schema_names(tenant: Tenant, names: Iterable[str]) -> dict[str, str]:
    """Read the schema names of tables, which name privileges. Leave out missing tables."""
    found = {}
    for name in names:
        answer = await tenant.get(f"EntityDefinitions(LogicalName='{name}')?$select=SchemaName")
        if answer is not None:
            found[name] = str(answer["SchemaName"])
    return found


async def _fetch_privileges(tenant: Tenant, names: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for first in range(0, len(names), _PRIVILEGES_PER_FILTER):
        some = names[first : first + _PRIVILEGES_PER_FILTER]
        condition = " or ".join(f"name eq {quote_literal(name)}" for name in some)
        answer = await tenant.fetch_rows("privileges", ("privilegeid", "name"), condition)
        found |= {str(row["name"]).lower(): str(row["privilegeid"]) for row in answer}
    return found


async def _fetch_granted_privileges(tenant: Tenant, role: str | None) -> frozenset[str]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/retrieveroleprivilegesrole"""
    if role is None:
        return frozenset()
    answer = await tenant.get(f"RetrieveRolePrivilegesRole(RoleId={role})") or {}
    whole = (
        privilege
        for privilege in answer.get("RolePrivileges", ())
        if privilege.get("Depth") == "Global"
    )
    return frozenset(str(privilege["PrivilegeId"]) for privilege in whole)


async def _fetch_user_roles(tenant: Tenant, user: str | None) -> frozenset[str]:
    if user is None:
        return frozenset()
    path = f"systemusers({user})/systemuserroles_association"
    return frozenset(str(row["roleid"]) for row in await tenant.fetch_rows(path, ("roleid",)))


def _get_id(row: Row | None, column: str) -> str | None:
    return None if row is None else str(row[column])
