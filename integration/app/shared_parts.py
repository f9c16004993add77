"""What several parts of the app are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from integration.app.settings import Settings
from integration.core.activity_recorder import ActivityRecorder
from integration.core.flow_recorder import FlowRecorder
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.journal.audit_recorder import AuditRecorder
from integration.journal.write_guard import WriteGuard
from integration.virtual_tables.data_routes import DataRoutes

if TYPE_CHECKING:  # these import SDKs and the mapping engine, which take long to load
    from integration.app.storage_clients import Stores
    from integration.mapping.load import Maps


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedParts:
    """What several parts are made of. `load_maps` loads the maps at its first call."""

    settings: Settings
    stores: Stores
    fhir: FhirServer
    dataverse: Dataverse
    guard: WriteGuard
    data_routes: DataRoutes
    activities: ActivityRecorder
    flow: FlowRecorder
    audit: AuditRecorder
    load_maps: Callable[[], Maps]
    now: Callable[[], datetime]
    new_id: Callable[[datetime], str]

    @property
    def max_age(self) -> float:
        """Seconds after which work is parked."""
        return float(self.settings.max_age)
