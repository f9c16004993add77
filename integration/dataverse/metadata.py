"""What a table's columns take, from EntityDefinitions. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from integration.model import Column


def columns(answers: Iterable[Mapping[str, Any]]) -> dict[str, Column]:
    """The columns by name, from the answers to `requests.columns_of`, the general one first."""
    found: dict[str, Column] = {}
    for answer in answers:
        for attribute in answer["value"]:
            name = attribute["LogicalName"]
            options = attribute.get("OptionSet") or {}
            values = [option["Value"] for option in options.get("Options", [])]
            found[name] = Column(
                name=name,
                type=attribute.get("AttributeType") or found[name].type,
                max_length=attribute.get("MaxLength"),
                options=frozenset(values) if values else None,
            )
    return found
