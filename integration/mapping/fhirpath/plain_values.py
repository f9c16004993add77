"""A resource as paths see it: its values alone, and what is in use on a day. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

from integration.mapping.fhirpath.periods import is_in_use, list_changes, mark_as_not_in_use

# Takes the place of a value that is absent; Unicode has no such character.
NO_VALUE = "\ufdd0"

_CONTAINERS = frozenset({dict, list})


class PlainValues:
    """Copies a resource without what stands beside its values: fhirpathpy would take the extensions
    in `_line` for further lines, and null for text. Marks what is not in use: see
    periods.

    Collects in `missing` the names of elements that have extensions and no value. With
    `mark_missing`, the copy has a mark in the place of each such value. `has_inner_resources` tells
    whether an element, other than a contained resource, has a `resourceType`.
    """

    def __init__(self, today: date, mark_missing: bool = False) -> None:
        self._today = today
        self.changes_on: date | None = None
        self.missing: set[str] = set()
        self.has_inner_resources = False
        self._mark_missing = mark_missing

    def copy_elements(self, resource: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
        """Copy these elements of a resource, which costs less than all of them."""
        copied: dict[str, Any] = {}
        for name in names:
            value = resource.get(name)
            if type(value) in _CONTAINERS:
                copied[name] = self.copy(value, is_resource=name == "contained")
            elif value is not None:
                copied[name] = value
        return copied

    def copy(self, node: Any, *, is_resource: bool = False) -> Any:
        if type(node) is list:
            if self._mark_missing:
                node = [NO_VALUE if item is None else item for item in node]
            return [
                self.copy(item, is_resource=is_resource) if type(item) in _CONTAINERS else item
                for item in node
                if item is not None
            ]
        if type(node) is not dict:
            return node
        if "resourceType" in node and not is_resource:
            self.has_inner_resources = True
        copied: dict[str, Any] = {}
        if "use" in node or "period" in node:
            self._heed_use(node, copied)
        for name, value in node.items():
            if name[:1] == "_":
                self._heed_extensions(name[1:], node, copied)
            elif type(value) in _CONTAINERS:
                copied[name] = self.copy(value, is_resource=name == "contained")
            else:
                copied[name] = value
        return copied

    def _heed_extensions(self, name: str, node: Mapping[str, Any], copied: dict[str, Any]) -> None:
        """Note an element that has extensions, and in its place no value."""
        if _lacks_value(node.get(name)):
            self.missing.add(name)
            if self._mark_missing and name not in node:
                copied[name] = NO_VALUE

    def _heed_use(self, item: Mapping[str, Any], copied: dict[str, Any]) -> None:
        """Mark the copy of an item that is not in use, and remember when that changes."""
        if not is_in_use(item, self._today):
            mark_as_not_in_use(copied)
        for day in list_changes(item, self._today):
            self.changes_on = min(self.changes_on or day, day)


def _lacks_value(value: Any) -> bool:
    return value is None or (isinstance(value, list) and None in value)
