"""What Dataverse shows from FHIR: virtual tables, their data source and events, and the feed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from integration.check import remedies, results
from integration.check.connections import Connections
from integration.check.dataverse import asked
from integration.check.report import Line, failed, ok, skipped
from integration.check.runner import attempt
from integration.core.errors import Misconfigured
from integration.core.http import Upstream
from integration.core.model import Request
from integration.provision import records

_TABLES, _SOURCE, _EVENTS, _FEED = "virtual tables", "data source", "external events", "feed"


async def lines(ends: Connections, named: Mapping[str, str], told: Collection[str]) -> list[Line]:
    """`named`: the virtual table of each resource type that is shown; `told`: the tables of whose
    changes Dataverse hears."""
    if ends.feed is None:
        why = "FEED_URL is not set, so no virtual tables are looked for"
        return [skipped(name, why) for name in (_TABLES, _SOURCE, _EVENTS, _FEED)]
    away = remedies.DATAVERSE_AWAY
    prefix = ends.settings.mirror.map_prefix
    if prefix is None:
        unnamed = failed(_TABLES, "MAP_PREFIX is not set: they have no names", remedies.SETTINGS)
        return [unnamed, await _fed(ends.feed, ends.feed_key)]
    return list(
        await asyncio.gather(
            attempt(_TABLES, _tables(ends, named), away=away, refused=remedies.PROVISION),
            attempt(_SOURCE, _source(ends, ends.feed), away=away, refused=None),
            attempt(_EVENTS, _events(ends, told), away=away, refused=None),
            _fed(ends.feed, ends.feed_key),
        )
    )


async def _tables(ends: Connections, named: Mapping[str, str]) -> Line:
    found = {table: await _definition(ends, table) for table in named.values()}
    lacking = [table for table, one in found.items() if one is None]
    if lacking:
        return failed(_TABLES, f"there is no {results.listed(lacking)}", remedies.PROVISION)
    other = [table for table, one in found.items() if one and one["TableType"] != "Virtual"]
    if other:
        return failed(_TABLES, f"not virtual: {results.listed(other)}", remedies.PROVISION)
    return ok(_TABLES, f"all {len(found)}")


async def _source(ends: Connections, feed: Upstream) -> Line:
    """The key of it is not asked for."""
    selected = f"{records.SOURCE}?$select={records.SOURCE_KEY},msdyn_name,msdyn_uri"
    found = records.the_source((await asked(ends, selected) or {}).get("value", ()))
    if found is None:
        return failed(_SOURCE, f"there is no data source {records.SOURCE_NAME}", remedies.PROVISION)
    if str(found.get("msdyn_uri")).rstrip("/") != feed.base:
        return failed(_SOURCE, "its address is not FEED_URL", remedies.PROVISION)
    return ok(_SOURCE, f"{records.SOURCE_NAME}, of FEED_URL")


async def _events(ends: Connections, told: Collection[str]) -> Line:
    if not told:
        return skipped(_EVENTS, "EXTERNAL_EVENTS names no type")
    columns = ",".join(("_extensionofrecordid_value", *records.EVENTS))
    answer = await asked(ends, f"virtualentitymetadatas?$select={columns}") or {}
    on = {one.get("_extensionofrecordid_value") for one in answer.get("value", ())
          if all(one.get(name) for name in records.EVENTS)}  # fmt: skip
    off = [table for table in told
           if (await _definition(ends, table) or {}).get("MetadataId") not in on]  # fmt: skip
    if off:
        return failed(_EVENTS, f"off for {results.listed(off)}", remedies.PROVISION)
    return ok(_EVENTS, f"on for {len(told)}")


async def _definition(ends: Connections, table: str) -> dict[str, Any] | None:
    selected = "$select=MetadataId,TableType"
    return await asked(ends, f"EntityDefinitions(LogicalName='{table}')?{selected}")


async def _fed(feed: Upstream, key: str | None) -> Line:
    return await attempt(_FEED, _answered(feed, key), away=remedies.FEED, refused=remedies.FEED_KEY)


async def _answered(feed: Upstream, key: str | None) -> Line:
    """Without a key it is enough that the door asks for one."""
    headers = {"x-functions-key": key} if key else {}
    try:
        answer = await feed.send(Request("GET", "$metadata", headers=headers))
    except Misconfigured:
        if key is None:
            return ok(_FEED, "there, and asks for a key; with FEED_KEY set more is looked at")
        return failed(_FEED, "FEED_KEY is none of its keys", remedies.FEED_KEY)
    if answer.status != 200 or b"Edmx" not in answer.body[:200]:
        return failed(_FEED, f"answered {answer.status}, and no metadata", remedies.FEED)
    return ok(_FEED, "answers with its metadata")
