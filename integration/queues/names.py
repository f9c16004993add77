"""The names of this app's queues."""

from __future__ import annotations

RELAY_QUEUE = "relay"
MIRROR_QUEUE = "mirror"
EXTERNAL_QUEUE = "external-events"
INBOX_QUEUE = "inbox-events"
ANSWER_QUEUE = "inbox-answers"
JOB_QUEUE = "jobs"
EDITS_QUEUE = "dataverse-edits"

# All of them. Each has a poison queue beside it.
APP_QUEUES = (
    *(RELAY_QUEUE, MIRROR_QUEUE, EXTERNAL_QUEUE, INBOX_QUEUE),
    *(ANSWER_QUEUE, JOB_QUEUE, EDITS_QUEUE),
)
