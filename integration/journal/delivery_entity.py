"""Conversion of a delivery to an entity of a table, and back. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from integration.core.model import Delivery, Status
from integration.journal.bounds import bound_texts
from integration.journal.table_keys import build_delivery_key

# Storage itself keeps the ETag.
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


def from_entity(entity: Mapping[str, Any]) -> Delivery:
    values = {name: value for name, value in entity.items() if name in _PROPERTIES}
    values["status"] = Status(values["status"])
    values["reason"] = values.get("reason") or None
    for moment in ("accepted", "finished", "replayed", "checked"):
        if moment in values:
            values[moment] = datetime.fromisoformat(values[moment].isoformat())
    metadata = getattr(entity, "metadata", {})
    return Delivery(**values, etag=metadata.get("etag"))


def hash_key(text: str) -> str:
    """Return a key without the characters that a key may not hold.

    https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model
    """
    return hashlib.sha256(text.encode()).hexdigest()
