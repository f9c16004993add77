"""Read what a work item is about, as new as the work item knows it.

Reads may lag behind writes: Microsoft's service reads from replicas of its database where they are
on (SqlRetryService.cs in https://github.com/microsoft/fhir-server). What follows a resource is told
once of each change. An older state would stand until the next one.
"""

from __future__ import annotations

from integration.core.errors import Unavailable
from integration.core.model import FhirResource, WorkItem
from integration.fhir.client import FhirServer

# Attempts until an absent resource is taken for deleted, though the work item knows a version of
# it: they take half a minute, and no replica lags that long.
_MAX_ATTEMPTS = 4


async def read_current(fhir: FhirServer, item: WorkItem) -> FhirResource | None:
    """Return the current state of `item.resource`; None if it is deleted or never existed.

    Raises Unavailable when the server does not answer, or answers with an older state than the
    work item knows of.
    """
    resource = await fhir.read(item.resource or "", item.delivery)
    if _is_behind(resource, item):
        raise Unavailable(fhir.upstream.name, "its reads lag behind its writes")
    return resource


def _is_behind(resource: FhirResource | None, item: WorkItem) -> bool:
    if item.version is None:
        return False
    if resource is None:
        return not item.deleted and item.attempt < _MAX_ATTEMPTS
    version = str(resource.get("meta", {}).get("versionId"))
    # Whole numbers that grow are a convention that Microsoft and HAPI keep. Others tell no order.
    if not (_is_number(version) and _is_number(item.version)):
        return False
    return int(version) < int(item.version)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
