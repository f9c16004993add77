"""Every log event of the app, with its level, its fields and what it means.

docs/operations.md shows this table. A field holds an id, a type, a count, a duration or a reason of
ours, and never patient data.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from integration.core.errors import Misconfigured

_log = logging.getLogger("integration")

_BY_CAUSE = (logging.WARNING, logging.ERROR)


@dataclass(frozen=True, slots=True)
class LogEvent:
    """`levels`: the one it has, or a lower one and that which it has `when`."""

    levels: tuple[int, ...]
    fields: tuple[str, ...]
    meaning: str
    when: str


def _event(
    level: int | tuple[int, ...], fields: str, meaning: str, when: str = "an operator must act"
) -> LogEvent:
    levels = level if isinstance(level, tuple) else (level,)
    return LogEvent(levels, tuple(fields.split()), meaning, when)


LOG_EVENTS = {
    "delivery.accepted": _event(
        logging.INFO,
        "delivery kind entries bytes repeat",
        "kept and queued; `repeat`: the same bytes came before",
    ),
    "delivery.done": _event(
        (logging.INFO, logging.WARNING),
        "delivery entries written skipped refused superseded queued_rows units split",
        "every entry has its result; `skipped`: left out on purpose; `split`: a transaction that "
        "could not stay one",
        when="entries were refused",
    ),
    "delivery.corrected": _event(
        logging.INFO,
        "delivery corrects entries bytes",
        "an operator has sent it in the place of `corrects`, which it corrects",
    ),
    "delivery.held": _event(
        logging.ERROR,
        "delivery reason",
        "its sender is not to hear of a refusal: it is parked for an operator; `reason` says why",
    ),
    "delivery.requeued": _event(
        _BY_CAUSE,
        "delivery lane attempt reason",
        "a service did not do its part; the delivery is tried again later",
    ),
    "delivery.tried": _event(
        _BY_CAUSE,
        "delivery lane reason",
        "an operator had it tried at once, and it failed again; it is tried in its own turn, too",
    ),
    "delivery.handed_on": _event(
        logging.INFO,
        "delivery lane",
        "its time in one invocation is over; the rest is queued",
    ),
    "delivery.cancelled": _event(
        logging.INFO, "delivery", "its sender cancelled it; what was written stays"
    ),
    "delivery.parked": _event(
        logging.ERROR,
        "delivery lane attempt reason",
        "given up; `reason` says why. Its bytes and results are kept for a replay. Without "
        "`lane` and `attempt` where housekeeping parked it",
    ),
    "delivery.queued_again": _event(
        logging.WARNING,
        "delivery status work_items",
        "housekeeping queued `work_items` that were lost",
    ),
    "configuration.published": _event(
        logging.INFO,
        "version restores documents",
        "somebody has published `documents` changed documents of the configuration; `restores`: "
        "the version that was rolled back to",
    ),
    "configuration.used": _event(
        logging.INFO,
        "version",
        "a worker works by another version of the configuration from now on",
    ),
    "configuration.not_refreshed": _event(
        logging.WARNING,
        "reason",
        "a worker could not look for a later version of the configuration, and works by the one "
        "that it knows; it looks again",
    ),
    "inbox.taken": _event(
        logging.INFO,
        "sender deliveries refused",
        "a file of the inbox was taken and deleted; how many deliveries it became, and how many "
        "parts of it were refused",
    ),
    "inbox.refused": _event(
        logging.WARNING,
        "sender reason",
        "a file, or a member of one, is no delivery; its answer says why",
    ),
    "inbox.requeued": _event(
        _BY_CAUSE,
        "sender attempt reason",
        "a file could not be taken; it stays, and is tried again later",
    ),
    "inbox.left": _event(
        logging.WARNING,
        "sender reason",
        "a file stays where it is. `sender`: whose folder it is in, where that is a listed one",
    ),
    "answer.written": _event(logging.INFO, "delivery", "what came as a file has its answer"),
    "answer.requeued": _event(
        _BY_CAUSE, "delivery attempt reason", "the answer is written again later"
    ),
    "answer.dropped": _event(
        logging.ERROR, "delivery reason", "the answer is not written; the journal has the results"
    ),
    "notification.handshake": _event(logging.INFO, "", "a subscription begins"),
    "notification.heartbeat": _event(logging.INFO, "", "a subscription is alive"),
    "notification.empty": _event(logging.INFO, "", "a notification without resources"),
    "notification.gap": _event(
        logging.WARNING,
        "delivery missed",
        "`missed` events of a subscription did not arrive; `delivery` showed it, or a heartbeat",
    ),
    "row.queued": _event(
        logging.INFO,
        "delivery resource",
        "an operator has the row brought up to date now; `delivery` holds the result",
    ),
    "row.mirrored": _event(
        logging.INFO,
        "delivery resource row action notes",
        "`action`: created, updated, unchanged, deactivated, deleted, absent, refused; `notes`: "
        "how many elements were not mapped",
    ),
    "row.tried": _event(
        _BY_CAUSE,
        "delivery resource reason",
        "an operator had it tried at once, and it failed again; it is tried in its own turn, too",
    ),
    "row.requeued": _event(
        _BY_CAUSE, "delivery resource attempt reason", "the row is tried again later"
    ),
    "row.parked": _event(
        logging.ERROR,
        "delivery resource reason",
        "given up; housekeeping tries it once more, 10 to 20 minutes later. Then replay it once "
        "the cause is mended",
    ),
    "row.skipped": _event(
        logging.INFO, "delivery resource", "its table became a virtual one after it was queued"
    ),
    "edits.queued": _event(
        logging.INFO,
        "delivery table rows",
        "somebody has changed `rows` rows of `table` in Dataverse; they are mirrored under "
        "`delivery`, which writes the edits to FHIR",
    ),
    "edits.left": _event(
        logging.WARNING, "reason", "a look that somebody rang for failed; the timer looks again"
    ),
    "edits.lost_track": _event(
        logging.WARNING,
        "table",
        "Dataverse does not take the link to the latest changes any more, as after seven days "
        "without a look: every row is compared",
    ),
    "external_event.sent": _event(
        logging.INFO,
        "delivery resource action",
        "Dataverse heard of a change: `action`, or `nothing new`",
    ),
    "external_event.requeued": _event(
        _BY_CAUSE, "delivery resource attempt reason", "Dataverse is told again later"
    ),
    "external_event.dropped": _event(
        logging.ERROR,
        "delivery resource attempt reason",
        "given up; the record itself is in FHIR, and shown as it is",
    ),
    "fhir_event.queued": _event(
        logging.INFO,
        "delivery resource",
        "somebody changed `resource` at the FHIR server; it is mirrored under `delivery`",
    ),
    "fhir_event.dropped": _event(
        logging.WARNING, "type reason", "an event that is not for this app"
    ),
    "fhir_event.ignored": _event(
        logging.DEBUG, "type reason", "an event of a type that no table shows"
    ),
    "activity.dropped": _event(
        logging.WARNING,
        "entries reason",
        "storage did not take `entries` of the activity log; logged once until it takes some again",
    ),
    "flow.not_stored": _event(
        logging.WARNING,
        "hours reason",
        "storage did not take what a worker counted in `hours`; it is tried again each minute, and "
        "logged once until it takes some again",
    ),
    "audit.dropped": _event(
        logging.ERROR,
        "kind delivery reason",
        "storage did not take an entry of the audit log, and `AUDIT_FAILURES` says to answer: "
        "somebody was shown data without a record of it",
    ),
    "audit.incomplete": _event(
        logging.ERROR,
        "kind entry reason",
        "a write through a virtual table was done; its audit entry `entry` says only that it was "
        "begun",
    ),
    "housekeeping.done": _event(
        logging.INFO,
        "queued parked forgotten locks activity audit concerns rows failed more",
        "how many deliveries, write locks, activity and audit entries it handled; `concerns`: how "
        "many it dropped, since they were mended; `rows`: how many are mirrored again, since their "
        "day has come; `more`: the next run goes on",
    ),
    "job.started": _event(logging.INFO, "job kind", "an operator has started a job"),
    "job.done": _event(
        logging.INFO,
        "job kind looked_at done left_out failed",
        "a job has worked on all that it found; `left_out`: did not match any more, or is as it "
        "should be; `failed`: the job says why the last one did, or how it differs",
    ),
    "job.stopped": _event(
        logging.INFO,
        "job kind looked_at done left_out failed",
        "an operator has stopped a job; what is done stays done",
    ),
    "job.failed": _event(
        logging.ERROR,
        "job kind looked_at done left_out failed",
        "the work of a job failed repeatedly, or an operator must act first; what is done stays "
        "done",
    ),
    "job.queued_again": _event(
        logging.WARNING, "job kind", "a job made no progress; housekeeping queued it again"
    ),
    "request.unproven": _event(
        logging.WARNING,
        "sender scheme reason",
        "an endpoint answered 401: nobody has proven to have sent it. `sender` and `scheme`: whose "
        "address it came to",
    ),
    "request.unavailable": _event(logging.WARNING, "reason", "an endpoint answered 503"),
    "request.misconfigured": _event(
        logging.ERROR, "reason", "an endpoint answered 500: an operator must act"
    ),
    "request.failed": _event(
        logging.ERROR, "error", "an endpoint answered 500: a defect; its type and place"
    ),
}


def log_event(
    event: str, cause: Exception | None = None, *, is_warning: bool = False, **fields: object
) -> None:
    """Log an event of the table. Where the cause decides the level, an operator's is an error;
    `is_warning`: the higher of two levels."""
    known = LOG_EVENTS[event]
    level = known.levels[-1 if is_warning or isinstance(cause, Misconfigured) else 0]
    _log.log(level, event, extra=fields, stacklevel=2)
