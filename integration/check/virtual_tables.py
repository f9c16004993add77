"""Check what Dataverse shows from FHIR: virtual tables, data source, external events, the feed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from integration.check import remedies, results
from integration.check.connections import Connections
from integration.check.dataverse import fetch_json
from integration.check.report import CheckResult, report_failure, report_ok, report_skip
from integration.check.runner import run_check
from integration.core.errors import Misconfigured
from integration.core.http import Upstream
from integration.core.model import Request
from integration.provision import records

_TABLES, _SOURCE, _EVENTS, _FEED = "virtual tables", "data source", "external events", "feed"


async def check_virtual_tables(
    connections: Connections, tables_by_type: Mapping[str, str], event_tables: Collection[str]
) -> list[CheckResult]:
    """`tables_by_type`: the virtual table of each resource type that has one.

    `event_tables`: those whose changes the app sends to Dataverse.
    """
    if connections.feed is None:
        why = "FEED_URL is not set, so virtual tables are not checked"
        return [report_skip(name, why) for name in (_TABLES, _SOURCE, _EVENTS, _FEED)]
    away = remedies.DATAVERSE_UNREACHABLE
    prefix = connections.settings.mirror.map_prefix
    if prefix is None:
        unnamed = report_failure(
            _TABLES, "MAP_PREFIX is not set, and their names start with it", remedies.SETTINGS
        )
        return [unnamed, await _run_feed_check(connections.feed, connections.feed_key)]
    return list(
        await asyncio.gather(
            run_check(
                _TABLES,
                _check_tables(connections, tables_by_type),
                if_unreachable=away,
                if_refused=remedies.PROVISION,
            ),
            run_check(
                _SOURCE,
                _check_data_source(connections, connections.feed),
                if_unreachable=away,
                if_refused=None,
            ),
            run_check(
                _EVENTS,
                _check_events(connections, event_tables),
                if_unreachable=away,
                if_refused=None,
            ),
            _run_feed_check(connections.feed, connections.feed_key),
        )
    )


async def _check_tables(connections: Connections, tables_by_type: Mapping[str, str]) -> CheckResult:
    found = {
        table: await _fetch_definition(connections, table) for table in tables_by_type.values()
    }
    missing = [table for table, definition in found.items() if definition is None]
    if missing:
        return report_failure(
            _TABLES, f"missing: {results.abbreviate(missing)}", remedies.PROVISION
        )
    other = [
        table
        for table, definition in found.items()
        if definition and definition["TableType"] != "Virtual"
    ]
    if other:
        return report_failure(
            _TABLES, f"not virtual: {results.abbreviate(other)}", remedies.PROVISION
        )
    return report_ok(_TABLES, f"all {len(found)}")


async def _check_data_source(connections: Connections, feed: Upstream) -> CheckResult:
    """Read its address, and not its key."""
    selected = f"{records.SOURCE}?$select={records.SOURCE_KEY},msdyn_name,msdyn_uri"
    found = records.find_data_source(
        (await fetch_json(connections, selected) or {}).get("value", ())
    )
    if found is None:
        return report_failure(
            _SOURCE, f"the data source {records.SOURCE_NAME} does not exist", remedies.PROVISION
        )
    if str(found.get("msdyn_uri")).rstrip("/") != feed.base:
        return report_failure(_SOURCE, "its address differs from FEED_URL", remedies.PROVISION)
    return report_ok(_SOURCE, f"{records.SOURCE_NAME}, with the address FEED_URL")


async def _check_events(connections: Connections, event_tables: Collection[str]) -> CheckResult:
    if not event_tables:
        return report_skip(_EVENTS, "EXTERNAL_EVENTS is not set")
    columns = ",".join(("_extensionofrecordid_value", *records.EVENTS))
    answer = await fetch_json(connections, f"virtualentitymetadatas?$select={columns}") or {}
    on = {row.get("_extensionofrecordid_value") for row in answer.get("value", ())
          if all(row.get(name) for name in records.EVENTS)}  # fmt: skip
    off = []
    for table in event_tables:
        definition = await _fetch_definition(connections, table) or {}
        if definition.get("MetadataId") not in on:
            off.append(table)
    if off:
        return report_failure(_EVENTS, f"off for {results.abbreviate(off)}", remedies.PROVISION)
    return report_ok(_EVENTS, f"on for {len(event_tables)}")


async def _fetch_definition(connections: Connections, table: str) -> dict[str, Any] | None:
    selected = "$select=MetadataId,TableType"
    return await fetch_json(connections, f"EntityDefinitions(LogicalName='{table}')?{selected}")


async def _run_feed_check(feed: Upstream, key: str | None) -> CheckResult:
    return await run_check(
        _FEED, _check_feed(feed, key), if_unreachable=remedies.FEED, if_refused=remedies.FEED_KEY
    )


async def _check_feed(feed: Upstream, key: str | None) -> CheckResult:
    """Get the feed's metadata. Without FEED_KEY it is enough that the endpoint requires a key."""
    headers = {"x-functions-key": key} if key else {}
    try:
        answer = await feed.send(Request("GET", "$metadata", headers=headers))
    except Misconfigured:
        if key is None:
            return report_ok(_FEED, "answers, and requires a key; set FEED_KEY to check more")
        return report_failure(_FEED, "FEED_KEY is not one of its keys", remedies.FEED_KEY)
    if answer.status != 200 or b"Edmx" not in answer.body[:200]:
        return report_failure(_FEED, f"answered {answer.status}, without metadata", remedies.FEED)
    return report_ok(_FEED, "answers with its metadata")
