"""Parsing of EntityDefinitions: which values the columns of a table accept. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from integration.core.model import Column

Details = dict[str, Any]

_ENFORCED = "SystemRequired"
_REQUIRED = frozenset({"ApplicationRequired", _ENFORCED})


def parse_columns(responses: Iterable[Mapping[str, Any]]) -> dict[str, Column]:
    """Return the columns by name. `responses`: the bodies of the responses to the queries of
    `requests.build_columns_query`, in the order of `requests.CASTS`."""
    details_by_name: dict[str, Details] = {}
    for response in responses:
        for item in response["value"]:
            if "ReferencingAttribute" in item:
                lookup = details_by_name.get(item["ReferencingAttribute"])
                if lookup is not None:
                    navigation = item["ReferencingEntityNavigationPropertyName"]
                    lookup.setdefault("targets", {})[item["ReferencedEntity"]] = navigation
            else:
                details = details_by_name.setdefault(
                    item["LogicalName"], {"name": item["LogicalName"]}
                )
                details |= {
                    name: value for name, value in _parse_details(item) if value is not None
                }
    return {name: Column(**details) for name, details in details_by_name.items()}


def _parse_details(attribute: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Iterate over the details of a column in one response. None: the response does not say.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/attributemetadata
    """
    get: Callable[[str], Any] = attribute.get
    yield "type", get("AttributeType")
    yield "max_length", get("MaxLength")
    yield "options", _parse_options(attribute)
    yield "minimum", get("MinValue")
    yield "maximum", get("MaxValue")
    yield "precision", get("Precision")
    yield "writable_on_create", get("IsValidForCreate")
    yield "writable_on_update", get("IsValidForUpdate")
    yield "secured", get("IsSecured")
    if get("RequiredLevel") is not None:
        yield "required", get("RequiredLevel")["Value"] in _REQUIRED
        yield "enforced", get("RequiredLevel")["Value"] == _ENFORCED
    if get("DateTimeBehavior") is not None:
        yield "behavior", get("DateTimeBehavior")["Value"]
    if get("Format") is not None:
        yield "format", get("Format")


def _parse_options(attribute: Mapping[str, Any]) -> frozenset[int] | None:
    """Return the values of a choice: the column has its own option set, or shares a global one."""
    sets = (attribute.get("OptionSet") or {}, attribute.get("GlobalOptionSet") or {})
    options = (option["Value"] for option_set in sets for option in option_set.get("Options", ()))
    return frozenset(options) or None
