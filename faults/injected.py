"""The kinds of faults, in the words of the output. Pure."""

from __future__ import annotations

# Counted by the services that do the harm.
FHIR_FAILED = "the FHIR server failed, hung up or answered nonsense"
DATAVERSE_FAILED = "Dataverse failed, hung up or answered nonsense"
STORAGE_FAILED = "storage failed or hung up"
QUEUE_FAILED = "the queue failed in the middle of a fan-out"
DELIVERED_TWICE = "a work item was delivered to two workers at once"
BATCH_REFUSED = "a whole bundle was refused, since a part of it did not parse"

# Counted once for each time that it was set and met a request.
FHIR_CLOCK = "the FHIR server's clock was a minute off"
READS_LAGGED = "the FHIR server's reads lagged behind its writes"
STORAGE_CLOCK = "storage's clock was a minute off"

# Counted once for each delivery.
REWRITTEN = "the FHIR server rewrote what a delivery had sent"
KEY_REPEATED = "an Idempotency-Key came again while its delivery was open"
LIMITS_CHANGED = "a delivery went on with other limits"

KILLED = "the host was killed"
COPIED = "a queue message was copied"
REFUSED_FOR_HOURS = "a request was refused during hours without a FHIR server"
TIMED_OUT = "an invocation ran into functionTimeout"
QUEUED_AGAIN = "housekeeping queued work that was under way"
REPLAY_BROKEN = "a replay was broken off"
