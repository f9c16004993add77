"""Build OData's JSON of entities, collections and errors. Pure.

https://docs.oasis-open.org/odata/odata-json-format/v4.0/errata03/os/odata-json-format-v4.0-errata03-os-complete.html
`root` is the absolute URL of the feed, with a slash at its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from integration.core.errors import Issue
from integration.odata.headers import Format, format_etag
from integration.odata.model import NAMESPACE, EntityType, EntityValues, Property, Type, Value

Json = dict[str, Any]

# Numbers that a double cannot hold: text where the client wants IEEE754Compatible.
_LONG = frozenset({Type.INT64, Type.DECIMAL})
# Types that JSON itself shows: "Primitive values" in the format's section on odata.type.
_SELF_EVIDENT = frozenset({Type.STRING, Type.BOOLEAN})


def build_entity(
    values: EntityValues,
    entity_type: EntityType,
    root: str,
    format_: Format,
    *,
    select: Sequence[Property] | None = None,
    version: str | None = None,
) -> Json:
    """Build the payload of a single entity."""
    context = f"{root}$metadata#{entity_type.set}{_format_select(select)}/$entity"
    head = {} if format_.metadata == "none" else {"@odata.context": context}
    return {
        **head,
        **_build_item(values, entity_type, root, format_, select=select, version=version),
    }


def build_collection(
    rows: Iterable[tuple[EntityValues, str | None]],
    entity_type: EntityType,
    root: str,
    format_: Format,
    *,
    select: Sequence[Property] | None = None,
    count: int | None = None,
    next_link: str | None = None,
) -> Json:
    """Build the payload of a page of rows, each with its version."""
    body: Json = {}
    if format_.metadata != "none":
        body["@odata.context"] = f"{root}$metadata#{entity_type.set}{_format_select(select)}"
    if count is not None:
        body["@odata.count"] = str(count) if format_.ieee754 else count
    body["value"] = [
        _build_item(values, entity_type, root, format_, select=select, version=version)
        for values, version in rows
    ]
    if next_link is not None:
        body["@odata.nextLink"] = next_link
    return body


def build_error(issues: Sequence[Issue]) -> Json:
    """Build the payload of an error: https://docs.oasis-open.org/odata/odata-json-format/v4.0/errata03/os/odata-json-format-v4.0-errata03-os-complete.html#_Toc453766668"""
    first, *others = (_build_error_detail(issue) for issue in issues)
    return {"error": {**first, "details": others} if others else first}


def format_entity_url(entity_type: EntityType, key: UUID, root: str = "") -> str:
    """Format the URL of an entity, for Location and @odata.id."""
    return f"{root}{entity_type.set}({key})"


def _build_error_detail(issue: Issue) -> Json:
    detail = {"code": issue.code, "message": issue.text}
    return {**detail, "target": issue.expression} if issue.expression else detail


def _format_select(select: Sequence[Property] | None) -> str:
    return "" if select is None else f"({','.join(property_.name for property_ in select)})"


def _build_item(
    values: EntityValues,
    entity_type: EntityType,
    root: str,
    format_: Format,
    *,
    select: Sequence[Property] | None,
    version: str | None,
) -> Json:
    item: Json = {}
    is_full = format_.metadata == "full"
    if is_full:
        url = format_entity_url(entity_type, values[entity_type.key], root)  # type: ignore[arg-type]  # a key is a GUID
        item |= {"@odata.type": f"#{NAMESPACE}.{entity_type.name}", "@odata.id": url}
    if version is not None and format_.metadata != "none":
        item["@odata.etag"] = format_etag(version)
    if is_full:
        item["@odata.editLink"] = item["@odata.id"]
    for property_ in entity_type.properties if select is None else select:
        value = values[property_.name]
        if is_full and value is not None and property_.type not in _SELF_EVIDENT:
            item[f"{property_.name}@odata.type"] = f"#{property_.type.removeprefix('Edm.')}"
        item[property_.name] = _format_value(value, property_.type, format_)
    return item


def _format_value(value: Value, kind: Type, format_: Format) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, UUID):
        return str(value)
    if format_.ieee754 and kind in _LONG and isinstance(value, int | Decimal):
        return str(value)
    return value
