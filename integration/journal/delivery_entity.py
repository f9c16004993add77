"""Conversion of a delivery to an entity of a table, and back. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from integration.core.model import Delivery, Status
from integration.journal.bounds import bound_texts
from integration.journal.table_keys import build_delivery_key

# Storage itself keeps the ETag.
_MOMENTS = ("accepted", "finished", "replayed", "checked", "waiting", "next_attempt", "parked")

# A merge cannot remove a property: what stands for none.
_NO_MOMENT = datetime(1970, 1, 1, tzinfo=UTC)

_PROPERTIES = frozenset(field.name for field in fields(Delivery)) - {"etag"}


def to_entity(delivery: Delivery) -> dict[str, Any]:
    partition, row = build_delivery_key(delivery.id)
    values = {name: getattr(delivery, name) for name in _PROPERTIES}
    return {"PartitionKey": partition, "RowKey": row, **to_properties(values)}


def to_properties(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as a table holds them. A table has no null, so leave those out."""
    stated = {
        name: str(value) if isinstance(value, Status) else value
        for name, value in values.items()
        if value is not None
    }
    return bound_texts(stated)


def to_changes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return changed values for a merge, which leaves alone what is left out."""
    cleared: dict[str, Any] = {
        name: _NO_MOMENT if name in _MOMENTS else ""
        for name, value in values.items()
        if value is None and name in ("reason", *_MOMENTS)
    }
    return to_properties(values) | cleared


def from_entity(entity: Mapping[str, Any]) -> Delivery:
    values = {name: value for name, value in entity.items() if name in _PROPERTIES}
    values["status"] = Status(values["status"])
    values["reason"] = values.get("reason") or None
    for name in _MOMENTS:
        if name in values:
            moment = datetime.fromisoformat(values[name].isoformat())
            values[name] = None if moment == _NO_MOMENT else moment
    metadata = getattr(entity, "metadata", {})
    return Delivery(**values, etag=metadata.get("etag"))


def hash_key(text: str) -> str:
    """Return a key without the characters that a key may not hold.

    https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model
    """
    return hashlib.sha256(text.encode()).hexdigest()
