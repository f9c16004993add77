"""What a table's columns take, from EntityDefinitions. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from integration.core.model import Column

Details = dict[str, Any]

_ENFORCED = "SystemRequired"
_REQUIRED = frozenset({"ApplicationRequired", _ENFORCED})


def columns(answers: Iterable[Mapping[str, Any]]) -> dict[str, Column]:
    """The columns by name, from the answers to `requests.columns_of`, the general one first."""
    found: dict[str, Details] = {}
    for answer in answers:
        for item in answer["value"]:
            if "ReferencingAttribute" in item:
                lookup = found.get(item["ReferencingAttribute"])
                if lookup is not None:
                    navigation = item["ReferencingEntityNavigationPropertyName"]
                    lookup.setdefault("targets", {})[item["ReferencedEntity"]] = navigation
            else:
                details = found.setdefault(item["LogicalName"], {"name": item["LogicalName"]})
                details |= {name: value for name, value in _details(item) if value is not None}
    return {name: Column(**details) for name, details in found.items()}


def _details(attribute: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """What one answer says of a column; None where it says nothing.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/attributemetadata
    """
    said: Callable[[str], Any] = attribute.get
    yield "type", said("AttributeType")
    yield "max_length", said("MaxLength")
    yield "options", _options(attribute)
    yield "minimum", said("MinValue")
    yield "maximum", said("MaxValue")
    yield "precision", said("Precision")
    yield "writable_on_create", said("IsValidForCreate")
    yield "writable_on_update", said("IsValidForUpdate")
    if said("RequiredLevel") is not None:
        yield "required", said("RequiredLevel")["Value"] in _REQUIRED
        yield "enforced", said("RequiredLevel")["Value"] == _ENFORCED
    if said("DateTimeBehavior") is not None:
        yield "behavior", said("DateTimeBehavior")["Value"]
        yield "format", said("Format")


def _options(attribute: Mapping[str, Any]) -> frozenset[int] | None:
    """A column has a choice of its own, or shares a global one."""
    sets = (attribute.get("OptionSet") or {}, attribute.get("GlobalOptionSet") or {})
    options = (option["Value"] for one in sets for option in one.get("Options", ()))
    return frozenset(options) or None
