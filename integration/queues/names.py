"""The names of this app's queues."""

from __future__ import annotations

RELAY_QUEUE = "relay"
MIRROR_QUEUE = "mirror"
EXTERNAL_QUEUE = "external-events"
INBOX_QUEUE = "inbox-events"
ANSWER_QUEUE = "inbox-answers"
JOB_QUEUE = "jobs"
