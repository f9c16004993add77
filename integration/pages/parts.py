"""What pages are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from integration.core.byte_budget import ByteBudget
from integration.journal.activity_log import ActivityLog
from integration.journal.audit_recorder import AuditRecorder
from integration.journal.flow_log import FlowReader
from integration.journal.store import Journal
from integration.operations.deliveries import ReplayTerms
from integration.operations.jobs import JobParts
from integration.operations.status import StatusCheck
from integration.pages.people import SignIn
from integration.queues.queue_sender import QueueSender


@dataclass(frozen=True, slots=True, kw_only=True)
class PagesParts:
    """What pages hand to the verbs."""

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
