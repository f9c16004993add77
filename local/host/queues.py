"""Queue triggers: poll, lease, run, then delete, release or poison, like the WebJobs extension.

The rules are those of QueueListener.cs and QueueProcessor.cs in
https://github.com/Azure/azure-sdk-for-net/tree/main/sdk/storage (Extensions.Storage.*).
"""

from __future__ import annotations

import asyncio
import logging
import math
from random import SystemRandom

from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.queue import QueueMessage

from local.host import leases
from local.host.leases import Trigger
from local.host.messages import Undecodable, build_trigger_value, decode

log = logging.getLogger("local.host")

MINIMUM_POLL = 0.1  # QueuePollingIntervals.Minimum
_random = SystemRandom()


async def listen(trigger: Trigger, stopping: asyncio.Event, drain: float) -> None:
    """Process messages until stopping, then give running ones `drain` seconds to end."""
    running: set[asyncio.Task[None]] = set()
    empty_polls = 0
    while not stopping.is_set():
        batch = await _receive(trigger)
        empty_polls = 0 if batch else empty_polls + 1
        for message in batch:
            task = asyncio.create_task(_process_safely(trigger, message))
            running.add(task)
            task.add_done_callback(running.discard)
        if batch:
            await _wait_for_room(running, trigger.options.new_batch_threshold, stopping)
        else:
            await leases.pause(
                stopping, compute_poll_delay(empty_polls, trigger.options.max_polling_interval)
            )
    if running:
        await asyncio.wait(running, timeout=drain)
    left = list(running)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def compute_poll_delay(empty_polls: int, max_delay: float) -> float:
    """Return the seconds until the next poll: RandomizedExponentialBackoffStrategy.cs."""
    if empty_polls > 30:
        return max_delay
    delay: float = (
        MINIMUM_POLL + _random.uniform(0.8, 1.2) * 2.0 ** (empty_polls - 1) * MINIMUM_POLL
    )
    return min(delay, max_delay)


async def _receive(trigger: Trigger) -> list[QueueMessage]:
    options = trigger.options
    pages = trigger.queue.receive_messages(
        messages_per_page=options.batch_size, visibility_timeout=math.ceil(options.lease)
    ).by_page()
    try:
        async for page in pages:
            return [message async for message in page]
    except ResourceNotFoundError:
        log.debug("queue.missing", extra=trigger.extra)
    except AzureError as error:
        log.warning("queue.unavailable", extra={**trigger.extra, "error": type(error).__name__})
    return []


async def _wait_for_room(
    running: set[asyncio.Task[None]], threshold: int, stopping: asyncio.Event
) -> None:
    """Wait for the number of running messages to fall to the threshold."""
    stop = asyncio.create_task(stopping.wait())
    try:
        while len(running) > threshold and not stop.done():
            await asyncio.wait({*running, stop}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()


async def _process_safely(trigger: Trigger, message: QueueMessage) -> None:
    """Process the message. On a fault of the host or of storage, log it; the lease expires."""
    try:
        await _process(trigger, message)
    except Exception:
        log.exception("message.left_to_lease", extra=leases.build_log_fields(trigger, message))


async def _process(trigger: Trigger, message: QueueMessage) -> None:
    options = trigger.options
    if leases.get_dequeue_count(message) > options.max_dequeue_count:
        await _park(trigger, message)
        return
    try:
        value = build_trigger_value(
            message, decode(message.content, options.base64), trigger.function
        )
    except Undecodable:
        log.warning("message.undecodable", extra=leases.build_log_fields(trigger, message))
        await _park(trigger, message)
        return
    done = asyncio.Event()
    renewal = asyncio.create_task(leases.renew_lease(trigger, message, done))
    try:
        result = await trigger.worker.run(trigger.function, value)
    except asyncio.CancelledError:
        await leases.stop_renewal(renewal, done)
        await leases.release_message(trigger, message, 0)
        log.warning("message.released", extra=leases.build_log_fields(trigger, message))
        raise
    await leases.stop_renewal(renewal, done)
    if result.succeeded:
        deleting = trigger.queue.delete_message(message.id, message.pop_receipt)
        await leases.ignore_lost_lease(deleting, trigger, message)
    elif (
        trigger.poison is not None
        and leases.get_dequeue_count(message) >= options.max_dequeue_count
    ):
        await _park(trigger, message)
    elif trigger.poison is not None:
        await leases.release_message(trigger, message, options.visibility_timeout)


async def _park(trigger: Trigger, message: QueueMessage) -> None:
    """Copy the message unchanged to the poison queue, then delete it."""
    if trigger.poison is None:
        return
    try:
        await trigger.poison.send_message(message.content)
    except ResourceNotFoundError:
        await trigger.poison.create_queue()
        await trigger.poison.send_message(message.content)
    log.warning("message.poisoned", extra=leases.build_log_fields(trigger, message))
    deleting = trigger.queue.delete_message(message.id, message.pop_receipt)
    await leases.ignore_lost_lease(deleting, trigger, message)
