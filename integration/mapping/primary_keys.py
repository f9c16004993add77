"""The primary key of the row that shows a resource, and the value of its id column. Pure.

docs/decisions/0003-the-row-key-follows-from-the-fhir-id.md
"""

from __future__ import annotations

import re
from uuid import UUID, uuid5

from integration.core.errors import Unmappable
from integration.core.model import Columns
from integration.mapping.model import EntityMap, LongId

# In lower case, as Dataverse writes it. The case of letters counts in a FHIR id
# (https://hl7.org/fhir/R4/datatypes.html#id) and not in a GUID, so of the ids that are one GUID in
# different spellings only one can have it as its key.
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# This project's own namespace. Rows are found by it, so it must never change.
_NAMESPACE = UUID("0b7a2f52-6a5c-5a0e-9d0c-2f4f2a7c6f10")


def derive_primary_key(resource: str, identifier: str) -> str:
    """Return the row's primary key: the FHIR id where it is a GUID in lower case, else a GUID
    derived from it.

    `resource` is the resource type. Ids that differ have keys that differ.
    """
    if _GUID.fullmatch(identifier):
        return identifier
    return str(uuid5(_NAMESPACE, f"{resource}/{identifier}"))


def fit_fhir_id(entity: EntityMap, identifier: str, columns: Columns) -> str:
    """Return the value of the row's id column: the FHIR id, or the substitute for one that is too
    long. Raises Unmappable where the map refuses long ids."""
    max_length = columns[entity.id_column].max_length
    if max_length is None or len(identifier) <= max_length:
        return identifier
    if entity.long_id is LongId.DIGEST:
        return derive_primary_key(entity.resource, identifier)
    raise Unmappable(f"the id is longer than the {max_length} characters of {entity.id_column}")
