"""A delivery as an entity of a table, and back. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from integration.core.model import Delivery, Status
from integration.journal.keys import delivery_key


def entity(it: Delivery) -> dict[str, Any]:
    partition, row = delivery_key(it.id)
    values = {name.name: getattr(it, name.name) for name in fields(Delivery)}
    return {"PartitionKey": partition, "RowKey": row, **plain(values)}


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as a table holds them; a table has no null."""
    return {
        name: str(value) if isinstance(value, Status) else value
        for name, value in values.items()
        if value is not None
    }


def delivery(found: Mapping[str, Any]) -> Delivery:
    known = {name.name for name in fields(Delivery)}
    values = {name: value for name, value in found.items() if name in known}
    values["status"] = Status(values["status"])
    values["reason"] = values.get("reason") or None
    for moment in ("accepted", "finished", "replayed", "looked"):
        if moment in values:
            values[moment] = datetime.fromisoformat(values[moment].isoformat())
    return Delivery(**values)


def safe(text: str) -> str:
    """https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model"""
    return hashlib.sha256(text.encode()).hexdigest()
