"""Entities, collections and errors as OData's JSON. Pure.

https://docs.oasis-open.org/odata/odata-json-format/v4.0/errata03/os/odata-json-format-v4.0-errata03-os-complete.html
`root` is the absolute address of the feed, with a slash at its end.
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

# Numbers that a double cannot hold: text where IEEE754Compatible is asked for.
_LONG = frozenset({Type.INT64, Type.DECIMAL})
# What a reader sees by itself: "Primitive values" in the format's section on odata.type.
_SELF_EVIDENT = frozenset({Type.STRING, Type.BOOLEAN})


def build_entity(
    row: EntityValues,
    of: EntityType,
    root: str,
    form: Format,
    *,
    select: Sequence[Property] | None = None,
    version: str | None = None,
) -> Json:
    """One entity by itself."""
    context = f"{root}$metadata#{of.set}{_selected(select)}/$entity"
    head = {} if form.metadata == "none" else {"@odata.context": context}
    return {**head, **_item(row, of, root, form, select, version)}


def build_collection(
    rows: Iterable[tuple[EntityValues, str | None]],
    of: EntityType,
    root: str,
    form: Format,
    *,
    select: Sequence[Property] | None = None,
    count: int | None = None,
    next_link: str | None = None,
) -> Json:
    """A page of rows, each with its version."""
    shape: Json = {}
    if form.metadata != "none":
        shape["@odata.context"] = f"{root}$metadata#{of.set}{_selected(select)}"
    if count is not None:
        shape["@odata.count"] = str(count) if form.ieee754 else count
    shape["value"] = [_item(row, of, root, form, select, version) for row, version in rows]
    if next_link is not None:
        shape["@odata.nextLink"] = next_link
    return shape


def build_error(issues: Sequence[Issue]) -> Json:
    """https://docs.oasis-open.org/odata/odata-json-format/v4.0/errata03/os/odata-json-format-v4.0-errata03-os-complete.html#_Toc453766668"""
    first, *others = (_told(issue) for issue in issues)
    return {"error": {**first, "details": others} if others else first}


def format_entity_url(of: EntityType, key: UUID, root: str = "") -> str:
    """The address of an entity, for Location and @odata.id."""
    return f"{root}{of.set}({key})"


def _told(issue: Issue) -> Json:
    shape = {"code": issue.code, "message": issue.text}
    return {**shape, "target": issue.expression} if issue.expression else shape


def _selected(select: Sequence[Property] | None) -> str:
    return "" if select is None else f"({','.join(each.name for each in select)})"


def _item(
    row: EntityValues,
    of: EntityType,
    root: str,
    form: Format,
    select: Sequence[Property] | None,
    version: str | None,
) -> Json:
    shape: Json = {}
    full = form.metadata == "full"
    if full:
        own = format_entity_url(of, row[of.key], root)  # type: ignore[arg-type]  # a key is a GUID
        shape |= {"@odata.type": f"#{NAMESPACE}.{of.name}", "@odata.id": own}
    if version is not None and form.metadata != "none":
        shape["@odata.etag"] = format_etag(version)
    if full:
        shape["@odata.editLink"] = shape["@odata.id"]
    for each in of.properties if select is None else select:
        value = row[each.name]
        if full and value is not None and each.type not in _SELF_EVIDENT:
            shape[f"{each.name}@odata.type"] = f"#{each.type.removeprefix('Edm.')}"
        shape[each.name] = _written(value, each.type, form)
    return shape


def _written(value: Value, kind: Type, form: Format) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, UUID):
        return str(value)
    if form.ieee754 and kind in _LONG and isinstance(value, int | Decimal):
        return str(value)
    return value
