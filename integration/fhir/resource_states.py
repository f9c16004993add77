"""The present and earlier states of a resource on the FHIR server. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from integration.core.model import FhirResource
from integration.fhir.write_mark import Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceState:
    """The present state of a resource, without its content."""

    version: str
    meta: Mapping[str, Any]
    mark: Mark | None = None
    is_delete_announced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceVersion:
    """One version in the history of a resource. `resource`: None for a deletion."""

    version: str
    resource: FhirResource | None = None
    mark: Mark | None = None
    is_delete_announced: bool = False
    edited: str | None = None  # the version that an edit from Dataverse has taken the place of

    @property
    def is_deleted(self) -> bool:
        """Whether the resource was deleted in this version."""
        return self.resource is None
