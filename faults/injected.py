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

# Between FHIR and Dataverse, counted for each patient or request that met it.
STATES_LAGGED = "a patient changed while reads lagged"
FINISHED_LATE = "Dataverse finished a change when nobody waited for it"
DELETES_CROSSED = "a patient was deleted while it changed"
GATEWAY_ANSWERED = "a gateway answered 404 for a patient"
MIRROR_FAILED = "a request of the mirror failed, hung up or was answered nonsense"
VERSIONS_RESTARTED = "the versions of a patient began again"
WORK_COPIED = "several workers had one patient at once"
STAFF_MEDDLED = "staff deleted, merged, edited or deactivated a row"
DATAVERSE_HUNG = "Dataverse hung"
DEFINITIONS_HUNG = "Dataverse hung about its tables"
CHILD_REFUSED = "a key of the organization refused a child"
ROUTE_SWITCHED = "a resource changed just after its table's route"
ROW_TAKEN = "staff made a row that of somebody else"
CROWD_WAITED = "more than a thousand patients waited for one organization"
