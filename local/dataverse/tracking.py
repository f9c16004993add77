"""Change tracking: all rows with a link to what changes after them, then what changed, by version.

https://learn.microsoft.com/power-apps/developer/data-platform/use-change-tracking-synchronize-data-external-systems
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from local.dataverse import paging, queries, refusals
from local.dataverse.rows import Slice, Values
from local.dataverse.tables import Table
from local.dataverse.wire import Call, Reply
from local.dataverse.world import World

PREFERENCE = "odata.track-changes"

# `ExpireChangeTrackingInDays` of the organization, as it is by default:
# https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/organization
LIFETIME = timedelta(days=7)

_TOKEN = re.compile(r"(\d+)!(\d\d/\d\d/\d{4} \d\d:\d\d:\d\d)", re.ASCII)
_DATE = "%m/%d/%Y %H:%M:%S"

# Of a page: the versions that came before it, and those that the first request found.
_PAGE = re.compile(r"tracked (\d+) (\d+)", re.ASCII)


def is_tracked(call: Call) -> bool:
    """Whether a query is for changes: it prefers to be told of them, or has a token."""
    options = call.options
    is_page = _PAGE.fullmatch(options.get("$skiptoken", "")) is not None
    return PREFERENCE in call.preferences or "$deltatoken" in options or is_page


def read_changes(world: World, call: Call, table: Table) -> Reply:
    """Return a page of rows in the order of their versions: at first all, later those that were
    written or deleted since. The last page has the link to the next changes."""
    options = call.options
    for name in options:
        if name not in ("$select", "$deltatoken", "$skiptoken"):
            text = f"The query option '{name}' is not supported with change tracking."
            raise refusals.bad_query(text)
    if not table.change_tracking:
        raise refusals.bad_query(f"Change tracking is not enabled for entity '{table.name}'.")
    chosen = queries.parse_select(table, options)
    since, after = _parse_position(world, options)
    size = paging.parse_page_size(call)
    found = _find_changes(world, table, since, after)
    rows, more = found[:size], len(found) > size
    annotations = queries.find_annotations(call)
    value: list[Values] = []
    for version, row in rows:
        if isinstance(row, str):
            context = f"{call.root}/$metadata#{table.entity_set}/$deletedEntity"
            value.append({"@odata.context": context, "id": row, "reason": "deleted"})
        else:
            value.append(queries.format_row(table, row, chosen, annotations))
        after = version
    columns = f"({','.join(chosen)})" if chosen else ""
    document: dict[str, Any] = {
        "@odata.context": f"{call.root}/$metadata#{table.entity_set}{columns}/$delta"
    }
    if more:
        link = {"$skiptoken": f"tracked {since} {after}"}
        document["@odata.nextLink"] = _build_link(call, link)
    elif not annotations:
        # With annotations the last page may lack it:
        # https://github.com/MicrosoftDocs/powerapps-docs/issues/439
        now = world.now().astimezone(UTC).strftime(_DATE)
        token = f"{world.store.read_version()}!{now}"
        document["@odata.deltaLink"] = _build_link(call, {"$deltatoken": token})
    document["value"] = value
    return Reply(200, document, {"Preference-Applied": PREFERENCE})


def _parse_position(world: World, options: dict[str, str]) -> tuple[int, int]:
    """Return the version since which changes are wanted, and the last one of the page before."""
    if match := _PAGE.fullmatch(options.get("$skiptoken", "")):
        return int(match[1]), int(match[2])
    if "$deltatoken" not in options:
        return 0, 0
    match = _TOKEN.fullmatch(options["$deltatoken"])
    if match is None:
        raise refusals.bad_query("The delta token is malformed.")
    issued = datetime.strptime(match[2], _DATE).replace(tzinfo=UTC)
    if world.now() - issued > LIFETIME:
        raise refusals.token_expired()
    return int(match[1]), int(match[1])


def _find_changes(world: World, table: Table, since: int, after: int) -> list[tuple[int, Any]]:
    """Return (version, row or the id of a deleted one), in order."""
    window = Slice(
        where="version > ?",
        parameters=[after],
        order="version",
        limit=paging.MAX_SIZE + 1,
        offset=0,
    )
    found: list[tuple[int, Any]] = [(row.version, row) for row in world.store.find(table, window)]
    if since:
        found += world.store.find_deleted(table, after)
    return sorted(found, key=lambda change: change[0])


def _build_link(call: Call, position: dict[str, str]) -> str:
    kept = {name: text for name, text in call.options.items() if name == "$select"}
    query = urlencode({**kept, **position}, quote_via=quote, safe="$,")
    return f"{call.root}/{call.path}?{query}"
