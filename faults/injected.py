"""The kinds of faults, in the words of the output. Pure."""

from __future__ import annotations

# Counted by the services that do the harm.
FHIR_FAILED = "the FHIR server failed, hung up or answered nonsense"
DATAVERSE_FAILED = "Dataverse failed, hung up or answered nonsense"
STORAGE_FAILED = "storage failed or hung up"
QUEUE_FAILED = "the queue failed in the middle of a fan-out"
CONCERN_FAILED = "storage failed when the list of what needs attention was written"
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

# What is refused, held, parked or waits: counted once for each delivery, or for each row.
BAD_DATE = "a date that does not exist was refused"
BAD_CODE = "a code that is none of the value set was refused"
UNKNOWN_ELEMENT = "an element that FHIR does not have was refused"
BAD_INSTANT = "an instant that does not parse was refused"
DANGLING = "a reference to nothing in the bundle was refused"
TRANSACTION_REFUSED = "a transaction was refused for one of its entries"
VERSION_CONFLICT = "an update of another version was refused"
SEVERAL_MATCHES = "a conditional create with several matches was refused"
NO_RIGHTS = "an entry outside of the rights of its sender was refused"
TOO_LARGE = "an entry larger than a unit was refused"
HELD_BODY = "a delivery that cannot be read was held"
HELD_ENTRIES = "a delivery with refused entries was held"
CORRECTED = "a refused entry was corrected by a later delivery"
PARKED = "a delivery was parked"
CANCELLED = "a delivery was cancelled"
WAITING = "a delivery waited for an operator"
ROW_REFUSED = "a row was refused, since another one has its key"
PART_REFUSED = "a part of a row was refused"
ROW_PARKED = "a row was parked"
ROW_WAITING = "a row waited for an operator"
LOOKUP_WAITED = "a lookup waited for a row that may never come"
REPLAYED = "what was refused or parked was replayed when its cause was mended"
