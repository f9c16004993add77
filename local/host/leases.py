"""The lease of a queue message: renewed while its function runs, then released."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable
from dataclasses import dataclass

from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueClient

from local.host.functions import Function
from local.host.settings import QueueOptions
from local.host.worker import Worker

log = logging.getLogger("local.host")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A function and its queue. Without a poison queue, a failed message waits for its lease."""

    function: Function
    queue: QueueClient
    poison: QueueClient | None
    options: QueueOptions
    worker: Worker

    @property
    def extra(self) -> dict[str, object]:
        return {"function": self.function.name, "queue": self.queue.queue_name}


async def stop_renewal(renewal: asyncio.Task[None], done: asyncio.Event) -> None:
    # Not cancelled: a renewal in progress would change the pop receipt without our knowing it.
    done.set()
    await renewal


async def renew_lease(trigger: Trigger, message: QueueMessage, done: asyncio.Event) -> None:
    lease, interval = trigger.options.lease, trigger.options.lease / 2
    while True:
        await pause(done, interval)
        if done.is_set():
            return
        try:
            renewed = await trigger.queue.update_message(
                message.id, message.pop_receipt, visibility_timeout=math.ceil(lease)
            )
            message.pop_receipt, interval = renewed.pop_receipt, lease / 2
            log.debug("lease.renewed", extra=build_log_fields(trigger, message))
        except AzureError as error:
            if _is_lease_lost(error):
                log.warning("lease.lost", extra=build_log_fields(trigger, message))
                return
            # LinearSpeedupStrategy.cs: retry sooner after a failure
            interval = max(interval / 2, 0.5)
            log.warning("lease.not_renewed", extra=build_log_fields(trigger, message))


async def release_message(trigger: Trigger, message: QueueMessage, seconds: float) -> None:
    releasing = trigger.queue.update_message(
        message.id, message.pop_receipt, visibility_timeout=math.ceil(seconds)
    )
    await ignore_lost_lease(releasing, trigger, message)


async def ignore_lost_lease(
    request: Awaitable[object], trigger: Trigger, message: QueueMessage
) -> None:
    try:
        await request
    except HttpResponseError as error:
        if not _is_lease_lost(error):
            raise
        # The lease expired and another instance took the message.
        log.warning("message.taken_over", extra=build_log_fields(trigger, message))


def _is_lease_lost(error: AzureError) -> bool:
    if isinstance(error, ResourceNotFoundError):
        return True
    # Equal to the text, though str() of this enumeration gives the member's name.
    return getattr(error, "error_code", "") in ("PopReceiptMismatch", "QueueBeingDeleted")


def get_dequeue_count(message: QueueMessage) -> int:
    return int(message.dequeue_count or 0)


def build_log_fields(trigger: Trigger, message: QueueMessage) -> dict[str, object]:
    return {**trigger.extra, "message_id": message.id, "dequeue_count": get_dequeue_count(message)}


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()
