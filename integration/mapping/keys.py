"""The primary key of the row that shows a resource, and what its id column says. Pure.

docs/decisions/0003-the-row-key-follows-from-the-fhir-id.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from uuid import UUID, uuid5

from integration.core.errors import Unmappable
from integration.core.model import Column
from integration.mapping.model import EntityMap, LongId

_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

# A namespace of our own; rows are found by it for ever, so it never changes.
_NAMESPACE = UUID("0b7a2f52-6a5c-5a0e-9d0c-2f4f2a7c6f10")


def derive_primary_key(resource: str, identifier: str) -> str:
    """The row's primary key: the FHIR id where it is a GUID, else a GUID derived from it."""
    if _GUID.fullmatch(identifier):
        return identifier.lower()
    return str(uuid5(_NAMESPACE, f"{resource}/{identifier}"))


def fit_fhir_id(entity: EntityMap, identifier: str, columns: Mapping[str, Column]) -> str:
    """What the row's id column says of a resource: its id, never cut."""
    longest = columns[entity.id_column].max_length
    if longest is None or len(identifier) <= longest:
        return identifier
    if entity.long_id is LongId.DIGEST:
        return derive_primary_key(entity.resource, identifier)
    raise Unmappable(f"the id is longer than the {longest} characters of {entity.id_column}")
