"""What pages are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.journal.audit_recorder import AuditRecorder
from integration.journal.store import Journal
from integration.mapping.files import MapFile
from integration.operations.status import StatusCheck
from integration.pages.people import SignIn
from integration.virtual_tables.data_routes import DataRoutes

if TYPE_CHECKING:  # it imports the mapping engine, which takes long to load
    from integration.mapping.load import Maps


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSources:
    """The maps. `files`: of those in use, and of those that are not; `load`: compiles them at its
    first call; `on_delete`: what becomes of the row of a deleted resource."""

    files: Sequence[MapFile]
    load: Callable[[], Maps]
    on_delete: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSetting:
    """A setting as it may be shown. `value`: in use; None: nobody may see it, or there is none;
    `is_set`: whether the environment has it, or else it is the default."""

    group: str
    name: str
    value: str | None
    is_set: bool
    is_secret: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AppFacts:
    """What only the app knows of itself. `started`: this worker; `renamed`: settings by names of
    earlier versions that are still set, and are not read, with their names of today."""

    version: str
    started: datetime
    settings: Sequence[ShownSetting]
    renamed: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PagesParts:
    """What pages hand to the verbs."""

    sign_in: SignIn
    journal: Journal
    audit: AuditRecorder
    fhir: FhirServer
    dataverse: Dataverse
    status_check: StatusCheck
    data_routes: DataRoutes
    maps: MapSources
    app: AppFacts
    now: Callable[[], datetime]
    new_token: Callable[[], str]
