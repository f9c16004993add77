"""What pages are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from integration.journal.audit_recorder import AuditRecorder
from integration.journal.flow_log import FlowReader
from integration.journal.store import Journal
from integration.operations.jobs import JobParts
from integration.operations.status import StatusCheck
from integration.pages.people import SignIn


@dataclass(frozen=True, slots=True, kw_only=True)
class PagesParts:
    """What pages hand to the verbs."""

    sign_in: SignIn
    journal: Journal
    audit: AuditRecorder
    status_check: StatusCheck
    jobs: JobParts
    flow: FlowReader
    now: Callable[[], datetime]
    new_token: Callable[[], str]
