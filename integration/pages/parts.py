"""What pages are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from integration.core.byte_budget import ByteBudget
from integration.fhir.client import FhirServer
from integration.intake.identify import Identification
from integration.journal.activity_log import ActivityLog
from integration.journal.audit_recorder import AuditRecorder
from integration.journal.flow_log import FlowReader
from integration.journal.row_keys import RowKeys
from integration.journal.store import Journal
from integration.mirror.mirror import Mirror
from integration.operations.deliveries import ReplayTerms
from integration.operations.jobs import JobParts
from integration.operations.status import StatusCheck
from integration.pages.people import SignIn
from integration.queues.queue_sender import ChangeQueues, QueueSender


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
    replay_terms: ReplayTerms
    status_check: StatusCheck
    jobs: JobParts
    flow: FlowReader
    budget: ByteBudget  # of planning what is shown
    dataverse_url: str
    now: Callable[[], datetime]
    new_token: Callable[[], str]
    identification: Identification
    public_url: str | None
    patients: PatientParts
