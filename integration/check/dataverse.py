"""Dataverse: who this is there, what it may do, and whether the tables are as the maps want."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from integration.check import remedies, results
from integration.check.connections import Connections
from integration.check.report import Line, failed, ok, skipped
from integration.check.runner import attempt, clock_line
from integration.core import decimal_json
from integration.core.activity import add_activity_context
from integration.core.errors import Misconfigured
from integration.core.model import Request, Response
from integration.dataverse import requests
from integration.dataverse.requests import API
from integration.mapping.load import Maps
from integration.mapping.model import EntityMap, Route
from integration.mapping.schema_mismatches import find_schema_mismatches
from integration.provision import load as provision
from integration.provision.model import Custom
from integration.provision.records import privilege_names

_CHECK = "check"
_USER, _PRIVILEGES = "Dataverse user", "Dataverse privileges"

# To know a table takes a dozen requests, and there may be forty tables.
_LONG = 120.0


async def lines(
    ends: Connections, maps: Maps, mirrored: Sequence[EntityMap], told: list[str]
) -> list[Line]:
    """`told`: virtual tables of whose changes Dataverse hears."""
    used = ends.settings.mirror
    keys = provision.custom(mirrored, used.map_set, used.map_prefix or "", keys=False)
    by_toolkit = used.target == "healthcare-api"
    return list(
        await asyncio.gather(
            attempt(_USER, _user(ends), away=remedies.DATAVERSE_AWAY, refused=remedies.PROVISION),
            clock_line(ends, "clock of Dataverse", lambda: sent(ends, requests.build_who_am_i())),
            attempt(
                _PRIVILEGES,
                _privileges(ends, maps, mirrored, told),
                away=remedies.DATAVERSE_AWAY,
                refused=None,
            ),
            *(
                attempt(
                    _columns_of(entity),
                    _columns(ends, entity, by_toolkit=by_toolkit),
                    away=remedies.DATAVERSE_AWAY,
                    refused=remedies.PROVISION,
                    patience=_LONG,
                )
                for entity in mirrored
            ),
            *(
                attempt(
                    _keys_of(one.table),
                    _keys(ends, one),
                    away=remedies.DATAVERSE_AWAY,
                    refused=remedies.PROVISION,
                )
                for one in keys
                if one.keys
            ),
        )
    )


async def sent(ends: Connections, request: Request) -> Response:
    with add_activity_context(action=_CHECK):
        return await ends.dataverse.send(request, _CHECK)


async def asked(ends: Connections, path: str) -> dict[str, Any] | None:
    """None where there is no such thing. Raises Misconfigured for what is no answer."""
    headers = {"accept": "application/json", "odata-version": "4.0", "odata-maxversion": "4.0"}
    answer = await sent(ends, Request("GET", f"{API}/{path}", headers=headers))
    if answer.status == 404:
        return None
    body = decimal_json.decode_object(answer.body) if answer.status == 200 else None
    if body is None:
        what = path.partition("?")[0].partition("(")[0]
        raise Misconfigured(f"Dataverse answered {answer.status} about {what}")
    return body


async def _user(ends: Connections) -> Line:
    answer = await asked(ends, "WhoAmI")
    if answer is None or "UserId" not in answer:
        return failed(_USER, "WhoAmI is not known there", remedies.DATAVERSE_AWAY)
    return ok(_USER, str(answer["UserId"]))


async def _privileges(
    ends: Connections, maps: Maps, mirrored: Sequence[EntityMap], told: list[str]
) -> Line:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/retrieveuserprivileges"""
    role = provision.role(ends.settings.mirror, maps, mirrored, told)
    schemas = {name: str(found["SchemaName"]) for name in role.tables
               if (found := await asked(ends, f"{_table(name)}?$select=SchemaName"))}  # fmt: skip
    user = (await asked(ends, "WhoAmI") or {}).get("UserId")
    path = f"systemusers({user})/Microsoft.Dynamics.CRM.RetrieveUserPrivileges()"
    held = (await asked(ends, path) or {}).get("RolePrivileges", [])
    if held and not any(one.get("PrivilegeName") for one in held):
        return skipped(_PRIVILEGES, f"Dataverse names none: {remedies.PROVISION_LOOK}")
    return results.privileges(_PRIVILEGES, privilege_names(role, schemas).values(), held)


def _columns_of(entity: EntityMap) -> str:
    return f"columns for {entity.resource}"


async def _columns(ends: Connections, entity: EntityMap, *, by_toolkit: bool) -> Line:
    name = _columns_of(entity)
    if by_toolkit:
        return skipped(name, "MIRROR_TO is healthcare-api: the toolkit's own maps write them")
    on = entity.select_route(Route.DATAVERSE)
    tables = {table: await ends.dataverse.get_columns(table) for table in on.tables}
    wrong = find_schema_mismatches(on, tables)
    if wrong:
        mend = remedies.columns(ends.settings.mirror.map_prefix)
        return failed(name, results.listed(wrong), mend)
    return ok(name, f"as the map wants them, in {', '.join(on.tables)}")


def _keys_of(table: str) -> str:
    return f"alternate keys of {table}"


async def _keys(ends: Connections, wanted: Custom) -> Line:
    name = _keys_of(wanted.table)
    path = f"{_table(wanted.table)}/Keys?$select=KeyAttributes,EntityKeyIndexStatus"
    found: Iterable[dict[str, Any]] = (await asked(ends, path) or {}).get("value", ())
    return results.keys(name, (key.columns for key in wanted.keys), found)


def _table(name: str) -> str:
    return f"EntityDefinitions(LogicalName='{name}')"
