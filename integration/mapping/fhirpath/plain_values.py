"""A resource as paths see it: its values alone, and what is in use on a day. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

from integration.mapping.fhirpath.periods import is_in_use, list_changes, mark_as_not_in_use

# Takes the place of a value that is absent; Unicode has no such character.
NO_VALUE = "\ufdd0"


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
        """Copy these elements of a resource, which cost less than all."""
        return {
            name: self.copy(resource[name], is_resource=name == "contained")
            for name in names
            if name in resource
        }

    def copy(self, node: Any, *, is_resource: bool = False) -> Any:
        if type(node) is list:
            items = (NO_VALUE if item is None and self._mark_missing else item for item in node)
            return [self.copy(item, is_resource=is_resource) for item in items if item is not None]
        if type(node) is not dict:
            return node
        if "resourceType" in node and not is_resource:
            self.has_inner_resources = True
        copied: dict[str, Any] = {}
        if "use" in node or "period" in node:
            self._heed_use(node, copied)
        for name, value in node.items():
            if type(value) is str and name[:1] != "_":
                copied[name] = value
            elif name[:1] != "_":
                copied[name] = self.copy(value, is_resource=name == "contained")
            elif _lacks_value(node.get(name[1:])):
                self.missing.add(name[1:])
                if self._mark_missing and name[1:] not in node:
                    copied[name[1:]] = NO_VALUE
        return copied

    def _heed_use(self, item: Mapping[str, Any], copied: dict[str, Any]) -> None:
        """Mark the copy of an item that is not in use, and remember when that changes."""
        if not is_in_use(item, self._today):
            mark_as_not_in_use(copied)
        for day in list_changes(item, self._today):
            self.changes_on = min(self.changes_on or day, day)


def _lacks_value(value: Any) -> bool:
    return value is None or (isinstance(value, list) and None in value)
