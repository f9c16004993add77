"""Build what takes files and answers them: see integration.intake.inbox."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from integration.app.settings import Settings
from integration.intake.accept import Intake
from integration.intake.identify import Identification
from integration.intake.inbox import Inbox
from integration.operations.answers import Answers

if TYPE_CHECKING:  # its SDKs are slow to import
    from integration.app.storage_clients import Stores


def build_inbox(
    settings: Settings, stores: Stores, intake: Intake, identification: Identification
) -> Inbox | None:
    """Build the inbox. None: the setting INBOX is empty."""
    if settings.inbox.container is None or stores.inbox is None:
        return None
    return Inbox(
        container=settings.inbox.container,
        files=stores.inbox,
        intake=intake,
        queue=stores.queue,
        senders=identification.senders or {},
        quotas=identification.quotas,
        now=intake.now,
    )


def build_answers(settings: Settings, stores: Stores, now: Callable[[], datetime]) -> Answers:
    """Build what writes the answers of files."""
    return Answers(
        journal=stores.journal,
        files=stores.inbox,
        queue=stores.queue,
        now=now,
        max_age=float(settings.max_age),
    )
