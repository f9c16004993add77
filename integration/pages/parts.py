"""What pages are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from integration.core.byte_budget import ByteBudget
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.intake.accept import Intake
from integration.intake.identify import Identification
from integration.journal.activity_log import ActivityLog
from integration.journal.audit_recorder import AuditRecorder
from integration.journal.flow_log import FlowReader
from integration.journal.row_keys import RowKeys
from integration.journal.store import Journal
from integration.mapping.files import MapFile
from integration.mirror.mirror import Mirror
from integration.operations.configuration import ConfigurationParts
from integration.operations.deliveries import ReplayTerms
from integration.operations.jobs import JobParts
from integration.operations.status import StatusCheck
from integration.pages.people import SignIn
from integration.queues.queue_sender import ChangeQueues, QueueSender
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
class PatientParts:
    """What the page of a patient needs. `load_mirror`: loads the maps at its first call. `timeout`:
    seconds that each part of the page has."""

    fhir: FhirServer
    queue: QueueSender
    row_keys: RowKeys
    change_queues: ChangeQueues
    load_mirror: Callable[[], Mirror]
    new_id: Callable[[datetime], str]
    timeout: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PagesParts:
    """What pages hand to the verbs. `public_url`: what stands before /api for senders; None: what
    stands there for whoever asks."""

    sign_in: SignIn
    journal: Journal
    audit: AuditRecorder
    activity: ActivityLog
    queue: QueueSender
    intake: Intake
    replay_terms: ReplayTerms
    status_check: StatusCheck
    jobs: JobParts
    configuration: ConfigurationParts
    flow: FlowReader
    budget: ByteBudget  # of planning what is shown
    dataverse_url: str
    fhir: FhirServer
    dataverse: Dataverse
    data_routes: DataRoutes
    maps: MapSources
    app: AppFacts
    now: Callable[[], datetime]
    new_token: Callable[[], str]
    identification: Identification
    public_url: str | None
    patients: PatientParts
    # Seconds that a page waits for upstreams that it asks. One that hangs must not keep it.
    patience: float = 2.0
