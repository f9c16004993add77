"""VERB queue_changes: what others change at the FHIR server reaches Dataverse, too.

The service reports changes through Event Grid: at least once, in any order, and without saying what
has changed. The mirror reads the current state, and needs to know only which version it must not
be older than; a repeat costs one read.
https://learn.microsoft.com/azure/healthcare-apis/events/events-message-structure
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import msgspec

from integration.core.log_events import log_event
from integration.core.model import WorkItem
from integration.core.state_version import Order, StateVersion, compare
from integration.fhir.grammar import is_id
from integration.journal import synthetic_deliveries
from integration.journal.store import Journal
from integration.journal.table_keys import make_delivery_id
from integration.queues.queue_sender import ChangeQueues, QueueSender

KIND = "events"

_CREATED, _UPDATED, _DELETED = (
    f"Microsoft.HealthcareApis.FhirResource{change}" for change in ("Created", "Updated", "Deleted")
)
_CHANGE_TYPES = frozenset({_CREATED, _UPDATED, _DELETED})

_EARLIER = (Order.OLDER, Order.PROBABLY_OLDER)

# The types of events that may be logged.
_SAFE_NAME = re.compile(r"[A-Za-z0-9.\-]{1,100}")

# The hosts of the service in each cloud. Behind another host, such as a gateway, the account of an
# event cannot be compared.
_SERVICE_HOST = re.compile(r".+\.azurehealthcareapis\.(?:com|us|cn)")

# The row results of one hour belong to one delivery, so that none of them grows without end.
_HOUR = timedelta(hours=1)


class UnreadableEvent(ValueError):
    """A message that is not an event. The text quotes nothing of it."""


class _EventData(msgspec.Struct):
    resource_type: str = msgspec.field(name="resourceType")
    resource_id: str = msgspec.field(name="resourceFhirId")
    account: str = msgspec.field(name="resourceFhirAccount", default="")
    version: int | str | None = msgspec.field(name="resourceVersionId", default=None)


class _Event(msgspec.Struct):
    """In Event Grid's own schema the type is `eventType`, in CloudEvents 1.0 it is `type`.

    https://learn.microsoft.com/azure/event-grid/event-schema
    https://learn.microsoft.com/azure/event-grid/cloud-event-schema
    """

    event_type: str | None = msgspec.field(name="eventType", default=None)
    type: str | None = None
    data: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))

    @property
    def name(self) -> str:
        return self.event_type or self.type or ""


_event_decoder = msgspec.json.Decoder(_Event | list[_Event])
_data_decoder = msgspec.json.Decoder(_EventData)


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What queueing changes needs. `fhir_url`: the base address of the FHIR server."""

    journal: Journal
    queue: QueueSender
    change_queues: ChangeQueues
    fhir_url: str
    now: Callable[[], datetime]
    recorded_hours: set[str] = field(default_factory=set)  # the last one that this worker recorded


async def queue_changes(events: Events, body: bytes) -> None:
    """Queue the resources that have changed according to a message, which may hold many events.

    Raises UnreadableEvent when a part of the message is not an event.
    """
    change_queues = await events.change_queues()
    changes: dict[str, _Change] = {}
    for resource, change in _find_changes(events, body, change_queues):
        known = changes.get(resource)
        if known is None or compare(change.version, known.version) not in _EARLIER:
            changes[resource] = change
    if not changes:
        return
    delivery = await _ensure_hourly_delivery(events)
    for resource, change in changes.items():
        item = WorkItem(
            delivery, resource=resource, version=change.version, is_create=change.is_create
        )
        await events.queue.send(change_queues[resource.partition("/")[0]], item)
        log_event("fhir_event.queued", delivery=delivery, resource=resource)


@dataclass(frozen=True, slots=True)
class _Change:
    """What an event says of a resource: which version it has by now."""

    version: StateVersion
    is_create: bool


def _find_changes(
    events: Events, body: bytes, followed_types: Collection[str]
) -> Iterator[tuple[str, _Change]]:
    """Yield `Type/id` of the changed resources that a table shows, and the change."""
    for event in _parse_events(body):
        type_ = _get_safe_name(event)
        if event.name not in _CHANGE_TYPES:
            log_event("fhir_event.dropped", type=type_, reason="not a change of a FHIR resource")
            continue
        data = _parse_data(event)
        if not _is_our_service(data.account, events.fhir_url):
            log_event("fhir_event.dropped", type=type_, reason="of another FHIR service")
        elif data.resource_type not in followed_types:
            log_event("fhir_event.ignored", type=type_, reason="no table shows its type")
        else:
            version = StateVersion(
                id=None if data.version is None else str(data.version),
                is_deleted=event.name == _DELETED,
            )
            yield (
                f"{data.resource_type}/{data.resource_id}",
                _Change(version, event.name == _CREATED),
            )


def _parse_events(body: bytes) -> list[_Event]:
    try:
        decoded = _event_decoder.decode(body)
    # `from None`: the text of these may quote the message.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableEvent("the message is not JSON of Event Grid or CloudEvents") from None
    events = decoded if isinstance(decoded, list) else [decoded]
    if not all(event.name for event in events):
        raise UnreadableEvent("the message has an event without a type")
    return events


def _parse_data(event: _Event) -> _EventData:
    try:
        data = _data_decoder.decode(event.data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnreadableEvent("the message has an event that names no resource") from None
    if not is_id(data.resource_id):
        raise UnreadableEvent("the message has an event whose resourceFhirId is not an id")
    if data.version is not None and not is_id(str(data.version)):
        raise UnreadableEvent("the message has an event whose resourceVersionId is no version")
    return data


def _is_our_service(account: str, fhir_url: str) -> bool:
    """Whether an event is of our FHIR server. Other services of its workspace may report theirs."""
    host = urlsplit(fhir_url).hostname or ""
    return not account or not _SERVICE_HOST.fullmatch(host) or account.lower() == host


def _get_safe_name(event: _Event) -> str:
    """Return the type of an event for the log. A text that a stranger may have written is `?`."""
    return event.name if _SAFE_NAME.fullmatch(event.name) else "?"


async def _ensure_hourly_delivery(events: Events) -> str:
    """Return the synthetic delivery for the events of this hour, the same in every worker."""
    hour = events.now().astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    id_ = make_delivery_id(hour, 0)
    if id_ not in events.recorded_hours:
        await synthetic_deliveries.add_synthetic_delivery(
            events.journal, id_, KIND, hour, hour + _HOUR
        )
        events.recorded_hours.clear()
        events.recorded_hours.add(id_)
    return id_
