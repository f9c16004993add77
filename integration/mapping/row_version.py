"""Whether a resource is newer than the row that shows it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from integration.mapping.model import EntityMap
from integration.mapping.values import parse_instant


def is_newer(
    entity: EntityMap,
    resource: Mapping[str, Any],
    row: Mapping[str, Any],
    *,
    fhir_is_right: bool = False,
) -> bool:
    """Whether `resource` is a later state than the one that `row` shows.

    `fhir_is_right`: an operator's word that the FHIR server was set back, as by a restore: what it
    has is the later state, whatever the versions say.

    Versions of the FHIR service are whole numbers that grow. Where a server has other versions,
    the time of the last update decides. Raises Unmappable for a time that is no instant.
    """
    if fhir_is_right:
        return True
    meta = resource.get("meta", {})
    version, row_version = meta.get("versionId"), row.get(entity.version_column)
    if row_version is None:
        return True
    if str(version).isdigit() and str(row_version).isdigit():
        return int(version) > int(row_version)
    updated, row_updated = meta.get("lastUpdated"), row.get(entity.updated_column)
    if updated is None or row_updated is None:
        return bool(version != row_version)
    # Dataverse keeps whole seconds.
    resource_time = parse_instant(updated).replace(microsecond=0)
    row_time = parse_instant(row_updated).replace(microsecond=0)
    return resource_time > row_time or (resource_time == row_time and version != row_version)
