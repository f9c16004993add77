"""Check Dataverse: the user of this identity, its privileges, and the tables that maps write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from integration.check import remedies, results
from integration.check.connections import Connections
from integration.check.report import (
    CheckResult,
    report_failure,
    report_ok,
    report_skip,
    report_warning,
)
from integration.check.runner import check_clock, run_check
from integration.core import decimal_json
from integration.core.activity_recorder import add_activity_context
from integration.core.errors import Misconfigured
from integration.core.model import Request, Response
from integration.dataverse import change_tracking, requests
from integration.dataverse.change_tracking import UnreadableChanges
from integration.dataverse.error_codes import describe_failure
from integration.dataverse.requests import API
from integration.mapping.load import Maps
from integration.mapping.model import EntityMap, Route
from integration.mapping.row_stamp import can_hold_stamp
from integration.mapping.schema_mismatches import find_schema_mismatches
from integration.provision import load as provision
from integration.provision.model import CustomTable
from integration.provision.records import list_privilege_names

_CHECK = "check"
_USER, _PRIVILEGES = "Dataverse user", "Dataverse privileges"
_WRITE_BACK = "write-back of the data integration toolkit"

# Seconds. To read the columns of a table takes a dozen requests, and there may be forty tables.
_COLUMNS_TIMEOUT = 120.0


async def check_dataverse(
    connections: Connections, maps: Maps, mirrored: Sequence[EntityMap], event_tables: list[str]
) -> list[CheckResult]:
    """`event_tables`: the virtual tables whose changes the app sends to Dataverse."""
    used = connections.settings.mirror
    custom_tables = provision.build_custom_tables(
        mirrored, used.map_set, used.map_prefix or "", keys=False
    )
    by_toolkit = used.target == "healthcare-api"
    checks = [
        run_check(
            _USER,
            _check_user(connections),
            if_unreachable=remedies.DATAVERSE_UNREACHABLE,
            if_refused=remedies.PROVISION,
        ),
        run_check(
            _WRITE_BACK,
            _check_write_back(connections),
            if_unreachable=remedies.DATAVERSE_UNREACHABLE,
            if_refused=None,
        ),
        check_clock(
            connections,
            "clock of Dataverse",
            lambda: send(connections, requests.build_who_am_i()),
        ),
        run_check(
            _PRIVILEGES,
            _check_privileges(connections, maps, mirrored, event_tables),
            if_unreachable=remedies.DATAVERSE_UNREACHABLE,
            if_refused=None,
        ),
        *(
            run_check(
                _name_columns_check(entity),
                _check_columns(connections, entity, by_toolkit=by_toolkit),
                if_unreachable=remedies.DATAVERSE_UNREACHABLE,
                if_refused=remedies.PROVISION,
                max_seconds=_COLUMNS_TIMEOUT,
            )
            for entity in mirrored
        ),
        *(
            run_check(
                _name_tracking_check(entity.table),
                _check_tracking(connections, entity),
                if_unreachable=remedies.DATAVERSE_UNREACHABLE,
                if_refused=remedies.PROVISION,
            )
            for entity in mirrored
            if used.write_back != "off" and entity.is_written_back
        ),
        *(
            run_check(
                _name_keys_check(table.table),
                _check_keys(connections, table),
                if_unreachable=remedies.DATAVERSE_UNREACHABLE,
                if_refused=remedies.PROVISION,
            )
            for table in custom_tables
            if table.keys
        ),
    ]
    return list(await asyncio.gather(*checks))


async def send(connections: Connections, request: Request) -> Response:
    with add_activity_context(action=_CHECK):
        return await connections.dataverse.send(request, _CHECK)


async def fetch_json(connections: Connections, path: str) -> dict[str, Any] | None:
    """Get JSON from the Web API; None for 404. Raises Misconfigured for any other response."""
    headers = {"accept": "application/json", "odata-version": "4.0", "odata-maxversion": "4.0"}
    answer = await send(connections, Request("GET", f"{API}/{path}", headers=headers))
    if answer.status == 404:
        return None
    body = decimal_json.decode_object(answer.body) if answer.status == 200 else None
    if body is None:
        what = path.partition("?")[0].partition("(")[0]
        raise Misconfigured(f"Dataverse answered {answer.status} to a request for {what}")
    return body


async def _check_user(connections: Connections) -> CheckResult:
    answer = await fetch_json(connections, "WhoAmI")
    if answer is None or "UserId" not in answer:
        return report_failure(
            _USER, "it does not answer WhoAmI, as Dataverse does", remedies.DATAVERSE_UNREACHABLE
        )
    return report_ok(_USER, str(answer["UserId"]))


async def _check_write_back(connections: Connections) -> CheckResult:
    """Look whether Microsoft's data integration toolkit writes rows to FHIR as well: then two would
    answer each other's changes for ever. The table is that of its entity maps.
    https://learn.microsoft.com/dynamics365/industry/healthcare/dataverse-healthcare-apis-writeback
    """
    table = "msind_updateserviceentitymap"
    definition = f"{_build_definition_path(table)}?$select=LogicalName"
    if await fetch_json(connections, definition) is None:
        return report_ok(_WRITE_BACK, "the toolkit is not there")
    query = "$select=msind_entityname,msind_writeback,msind_disabled"
    rows = (await fetch_json(connections, f"{table}s?{query}") or {}).get("value", ())
    is_on = [row for row in rows if row["msind_writeback"] is True and not row["msind_disabled"]]
    if not is_on:
        return report_ok(_WRITE_BACK, "off")
    names = results.abbreviate(sorted({str(row["msind_entityname"]) for row in is_on}))
    return report_warning(_WRITE_BACK, f"on for {names}", remedies.TOOLKIT_WRITE_BACK)


async def _check_privileges(
    connections: Connections, maps: Maps, mirrored: Sequence[EntityMap], event_tables: list[str]
) -> CheckResult:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/retrieveuserprivileges"""
    role = provision.build_role(connections.settings.mirror, maps, mirrored, event_tables)
    schemas = dict[str, str]()
    for name in role.tables:
        path = f"{_build_definition_path(name)}?$select=SchemaName"
        definition = await fetch_json(connections, path)
        if definition:
            schemas[name] = str(definition["SchemaName"])
    user = (await fetch_json(connections, "WhoAmI") or {}).get("UserId")
    path = f"systemusers({user})/Microsoft.Dynamics.CRM.RetrieveUserPrivileges()"
    held = (await fetch_json(connections, path) or {}).get("RolePrivileges", [])
    if held and not any(privilege.get("PrivilegeName") for privilege in held):
        return report_skip(
            _PRIVILEGES, f"Dataverse does not name them: {remedies.PROVISION_DRY_RUN}"
        )
    return results.evaluate_privileges(
        _PRIVILEGES, list_privilege_names(role, schemas).values(), held
    )


def _name_columns_check(entity: EntityMap) -> str:
    return f"columns for {entity.resource}"


async def _check_columns(
    connections: Connections, entity: EntityMap, *, by_toolkit: bool
) -> CheckResult:
    name = _name_columns_check(entity)
    if by_toolkit:
        return report_skip(
            name, "MIRROR_TO is healthcare-api, so the toolkit's own maps write them"
        )
    on = entity.select_route(Route.DATAVERSE)
    tables = {table: await connections.dataverse.get_columns(table) for table in on.tables}
    wrong = find_schema_mismatches(on, tables)
    if wrong:
        mend = remedies.suggest_columns(connections.settings.mirror.map_prefix)
        return report_failure(name, results.abbreviate(wrong), mend)
    return report_ok(name, f"all that the map writes, in {', '.join(on.tables)}")


def _name_tracking_check(table: str) -> str:
    return f"changes of {table}"


async def _check_tracking(connections: Connections, entity: EntityMap) -> CheckResult:
    """Read a page of changes, as the app does to find people's edits."""
    name = _name_tracking_check(entity.table)
    if not entity.tells_maps:
        return report_failure(
            name, "its rows do not say which map has written them", remedies.MAP_DIGEST
        )
    request = change_tracking.build_first_request(entity.entity_set, [entity.key])
    answer = await send(connections, request)
    if answer.status != 200:
        return report_failure(
            name, f"they are not tracked: {describe_failure(answer)}", remedies.PROVISION
        )
    try:
        change_tracking.parse_page(answer)
    except UnreadableChanges as problem:
        return report_failure(name, str(problem), remedies.PROVISION)
    columns = await connections.dataverse.get_columns(entity.table)
    if not can_hold_stamp(entity, columns):
        return report_failure(
            name, f"{entity.map_column} is missing, or too short for a stamp", remedies.STAMP
        )
    return report_ok(name, "tracked, and edits of its rows are written to FHIR")


def _name_keys_check(table: str) -> str:
    return f"alternate keys of {table}"


async def _check_keys(connections: Connections, custom_table: CustomTable) -> CheckResult:
    name = _name_keys_check(custom_table.table)
    table = _build_definition_path(custom_table.table)
    path = f"{table}/Keys?$select=KeyAttributes,EntityKeyIndexStatus"
    found: Iterable[dict[str, Any]] = (await fetch_json(connections, path) or {}).get("value", ())
    return results.evaluate_keys(name, (key.columns for key in custom_table.keys), found)


def _build_definition_path(name: str) -> str:
    return f"EntityDefinitions(LogicalName='{name}')"
