"""Read the toolkit's rows, and the metadata of the tables that they name, from an organisation.

The Web API: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query-data-web-api
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Misconfigured
from integration.core.model import Request, Response
from integration.mapping.toolkit.attributes import COLUMN
from integration.mapping.toolkit.rows import (
    LABELS,
    TABLES,
    NewerColumns,
    Table,
    Toolkit,
    read_toolkit,
)

# Labels beside values: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/select-columns#formatted-values
_HEADERS = {"accept": "application/json", "odata-version": "4.0", "odata-maxversion": "4.0"}

_MAX_PAGES = 1000


@dataclass(frozen=True, slots=True)
class Organisation:
    """A Dataverse that answers requests; `base` is its address, `api` the path of the Web API."""

    send: Callable[[Request], Awaitable[Response]]
    base: str
    api: str
    page_size: int = 500  # rows

    async def get(self, path: str) -> Mapping[str, Any] | None:
        """Get JSON from the Web API; None for 404. Raises Misconfigured for other responses."""
        prefer = f'odata.include-annotations="*",odata.maxpagesize={self.page_size}'
        headers = {**_HEADERS, "prefer": prefer}
        response = await self.send(Request("GET", f"{self.api}/{path}", headers=headers))
        if response.status == 404:
            return None
        if response.status != 200:
            raise Misconfigured(
                f"Dataverse answered {response.status} to a request for the toolkit's tables"
            )
        answer = decimal_json.decode_object(response.body)
        if answer is None:
            raise Misconfigured(
                "Dataverse answered with something else than JSON: check DATAVERSE_URL"
            )
        return answer


async def fetch_toolkit(organisation: Organisation, newer_columns: NewerColumns) -> Toolkit:
    """Read everything. Raises Misconfigured if the organisation has no toolkit."""
    names = {table: await _fetch_table(organisation, table) for table in TABLES}
    missing = [table for table, named in names.items() if named is None]
    if missing:
        raise Misconfigured(f"the organisation has no table {', '.join(missing)}")
    found, notes = await _find_newer_columns(organisation, newer_columns)
    rows = {
        table: await _fetch_rows(organisation, named.entity_set)
        for table, named in names.items()
        if named is not None
    }
    kit = read_toolkit(rows, found)
    tables: dict[str, Table] = {}
    for name in sorted({entity.table for entity in kit.entities if COLUMN.fullmatch(entity.table)}):
        named = await _fetch_table(organisation, name)
        if named is not None:
            tables[name] = replace(
                named, date_only=await _fetch_date_only_columns(organisation, name)
            )
    return replace(kit, tables=tables, notes=(*kit.notes, *notes))


async def _fetch_table(organisation: Organisation, table: str) -> Table | None:
    select = "$select=LogicalName,EntitySetName,PrimaryIdAttribute"
    answer = await organisation.get(f"EntityDefinitions(LogicalName='{table}')?{select}")
    return Table(answer["EntitySetName"], answer["PrimaryIdAttribute"]) if answer else None


async def _fetch_date_only_columns(organisation: Organisation, table: str) -> frozenset[str]:
    """Read which DateTime columns have the format DateOnly."""
    cast = "Microsoft.Dynamics.CRM.DateTimeAttributeMetadata"
    answer = await organisation.get(
        f"EntityDefinitions(LogicalName='{table}')/Attributes/{cast}?$select=LogicalName,Format"
    )
    columns = answer["value"] if answer else []
    return frozenset(
        column["LogicalName"] for column in columns if column.get("Format") == "DateOnly"
    )


async def _find_newer_columns(
    organisation: Organisation, newer_columns: NewerColumns
) -> tuple[NewerColumns, list[str]]:
    """Find columns without a published name by their labels, unless an option has named them."""
    notes: list[str] = []
    for name, (table, label) in LABELS.items():
        if getattr(newer_columns, name):
            continue
        answer = await organisation.get(
            f"EntityDefinitions(LogicalName='{table}')/Attributes?$select=LogicalName,DisplayName"
        )
        columns = [
            column for column in (answer or {}).get("value", ()) if _read_label(column) == label
        ]
        if len(columns) == 1:
            newer_columns = replace(newer_columns, **{name: columns[0]["LogicalName"]})
            notes.append(f"{label} is {columns[0]['LogicalName']}, by its label")
    return newer_columns, notes


def _read_label(attribute: Mapping[str, Any]) -> str:
    label = (attribute.get("DisplayName") or {}).get("UserLocalizedLabel") or {}
    return str(label.get("Label", ""))


async def _fetch_rows(organisation: Organisation, entity_set: str) -> list[dict[str, Any]]:
    """Read all pages: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/page-results"""
    found: list[dict[str, Any]] = []
    path, root = entity_set, f"{organisation.base}/{organisation.api}/"
    for _ in range(_MAX_PAGES):
        answer = await organisation.get(path)
        if answer is None:
            raise Misconfigured(f"Dataverse has no {entity_set}")
        found += answer["value"]
        following = answer.get("@odata.nextLink")
        if following is None:
            return found
        # The request carries our token, so it must go nowhere else.
        if not str(following).startswith(root):
            raise Misconfigured("Dataverse gave a next page whose address is not below its own")
        path = str(following)[len(root) :]
    raise Misconfigured(f"{entity_set} has more than {_MAX_PAGES} pages")
