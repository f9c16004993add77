"""VERB write_answer: what came as a file is answered by a file, when its delivery has ended.

Its work item is queued after the delivery has ended, and the delivery says that its answer is due
until it is written. Whoever ends before that leaves one of both behind, so the answer is written at
least once. A second time it is written over itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from integration.core.errors import Issue, Misconfigured, Unavailable
from integration.core.log_events import log_event
from integration.core.model import OPEN, Status, WorkItem
from integration.core.offload import offload
from integration.fhir.operation_outcome import as_json
from integration.journal.inbox_files import InboxFiles
from integration.journal.store import Journal
from integration.operations import deliveries, views
from integration.operations.deliveries import DeliveryStatus
from integration.queues.names import ANSWER_QUEUE
from integration.queues.queue_sender import QueueSender
from integration.queues.retry import plan_retry

# What an entry of a response bundle takes, in bytes.
_ENTRY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What answering needs. `files`: None without an inbox; `max_age`: seconds of retries."""

    journal: Journal
    files: InboxFiles | None
    queue: QueueSender
    now: Callable[[], datetime]
    max_age: float


async def write_answer(answers: Answers, item: WorkItem) -> None:
    """Write the answer of a delivery that has ended. If storage fails, queue it again.

    Raises Unavailable when the queue does not accept the work item.
    """
    try:
        await _write(answers, item.delivery)
    except (Unavailable, Misconfigured) as error:
        retry = plan_retry(item, error, answers.now(), answers.max_age)
        log_event(
            "answer.requeued",
            error,
            delivery=item.delivery,
            attempt=item.attempt,
            reason=str(error),
        )
        if retry.delay is not None:
            await answers.queue.send(ANSWER_QUEUE, retry.item, retry.delay)


def leave_answer(item: WorkItem) -> None:
    """Give up a work item that failed repeatedly. The answer stays due, for housekeeping."""
    reason = "writing it failed repeatedly; housekeeping has it tried again"
    log_event("answer.requeued", delivery=item.delivery, attempt=item.attempt, reason=reason)


async def _write(answers: Answers, id_: str) -> None:
    delivery = await answers.journal.get_delivery(id_)
    if delivery is None or delivery.status in OPEN:
        return  # forgotten since, or replayed: then its end queues the answer again
    if answers.files is None:
        await _drop(answers, id_, "the setting INBOX is empty")
        return
    try:
        request = await answers.journal.get_request(id_)
    except KeyError:
        await _drop(answers, id_, "what came with its bytes is deleted")
        return
    if request.answer_to is not None:
        status = await deliveries.get_status(answers.journal, id_)
        body = await offload(delivery.entries * _ENTRY, lambda: _build_answer(status))
        await answers.files.write_answer(request.answer_to, body)
        log_event("answer.written", delivery=id_)
    await answers.journal.update_delivery(id_, answer_due=False)


async def _drop(answers: Answers, id_: str, reason: str) -> None:
    log_event("answer.dropped", delivery=id_, reason=reason)
    await answers.journal.update_delivery(id_, answer_due=False)


def _build_answer(status: DeliveryStatus) -> bytes:
    delivery = status.delivery
    if delivery.status is Status.DONE:
        return msgspec.json.encode(
            views.build_response_bundle(delivery, status.results, status.rows)
        )
    issue = as_json(Issue("not-found", views.describe_cancelled(delivery)))
    return msgspec.json.encode({"resourceType": "OperationOutcome", "issue": [issue]})
