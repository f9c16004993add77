"""Build OData's JSON of entities, collections and errors. Pure.

https://docs.oasis-open.org/odata/odata-json-format/v4.0/errata03/os/odata-json-format-v4.0-errata03-os-complete.html
`root` is the absolute URL of the feed, with a slash at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from integration.core.errors import Issue
from integration.odata.headers import Format, format_etag
from integration.odata.model import NAMESPACE, EntityType, EntityValues, Property, Type

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
    return {**head, **_make_item_builder(entity_type, root, format_, select)(values, version)}


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
    build_item = _make_item_builder(entity_type, root, format_, select)
    body["value"] = [build_item(values, version) for values, version in rows]
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


def _make_item_builder(
    entity_type: EntityType, root: str, format_: Format, select: Sequence[Property] | None
) -> Callable[[EntityValues, str | None], Json]:
    """Return what builds the JSON of a row with its version: all rows of a page are alike."""
    properties = entity_type.properties if select is None else select
    members = [
        (property_.name, _choose_formatter(property_.type, format_)) for property_ in properties
    ]
    has_version = format_.metadata != "none"

    def build_item(values: EntityValues, version: str | None) -> Json:
        item: Json = {}
        if version is not None and has_version:
            item["@odata.etag"] = format_etag(version)
        for name, format_value in members:
            value = values[name]
            item[name] = value if format_value is None or value is None else format_value(value)
        return item

    def build_full_item(values: EntityValues, version: str | None) -> Json:
        url = format_entity_url(entity_type, values[entity_type.key], root)  # type: ignore[arg-type]  # a key is a GUID
        item: Json = {"@odata.type": f"#{NAMESPACE}.{entity_type.name}", "@odata.id": url}
        if version is not None:
            item["@odata.etag"] = format_etag(version)
        item["@odata.editLink"] = url
        shown = build_item(values, None)
        for property_ in properties:
            name = property_.name
            if shown[name] is not None and property_.type not in _SELF_EVIDENT:
                item[f"{name}@odata.type"] = f"#{property_.type.removeprefix('Edm.')}"
            item[name] = shown[name]
        return item

    return build_full_item if format_.metadata == "full" else build_item


def _choose_formatter(type_: Type, format_: Format) -> Callable[[Any], Any] | None:
    """Return what formats a value of this type that is not null; None: JSON has it as it is."""
    if type_ is Type.DATE_TIME_OFFSET:
        return _format_datetime
    if type_ is Type.GUID:
        return str
    return str if format_.ieee754 and type_ in _LONG else None


def _format_datetime(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")
