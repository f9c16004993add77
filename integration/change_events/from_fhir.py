"""VERB take: what changed at the FHIR server without this app's doing reaches Dataverse, too.

The service tells of changes through Event Grid: at least once, in any order, and never what has
changed. The mirror needs no more, since it looks at the current state: a repeat costs it a look.
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
from integration.journal import synthetic_deliveries
from integration.journal.keys import make_delivery_id
from integration.journal.store import Journal
from integration.queues.queue_sender import ChangeQueues, QueueSender

KIND = "events"

_CHANGE_TYPES = frozenset(
    f"Microsoft.HealthcareApis.FhirResource{what}" for what in ("Created", "Updated", "Deleted")
)

# https://hl7.org/fhir/R4/datatypes.html#id
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")

# A name that can be told without telling anything else.
_SAFE_NAME = re.compile(r"[A-Za-z0-9.\-]{1,100}")

# The clouds' own addresses; behind another one, a gateway's, no account can be told from another.
_SERVICE_HOST = re.compile(r".+\.azurehealthcareapis\.(?:com|us|cn)")

# Rows are noted under the hour in which their events came, so that no list grows without end.
_HOUR = timedelta(hours=1)


class UnreadableEvent(ValueError):
    """No event. The text quotes nothing of it."""


class _EventData(msgspec.Struct):
    resource_type: str = msgspec.field(name="resourceType")
    resource_id: str = msgspec.field(name="resourceFhirId")
    account: str = msgspec.field(name="resourceFhirAccount", default="")


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


@dataclass(frozen=True, slots=True)
class Events:
    """What taking events needs. `base`: the address of the FHIR server."""

    journal: Journal
    queue: QueueSender
    change_queues: ChangeQueues
    fhir_url: str
    now: Callable[[], datetime]
    recorded_hours: set[str] = field(
        default_factory=set
    )  # the hour that this worker has noted last


async def queue_changes(events: Events, body: bytes) -> None:
    """Queue what has to be done about what changed. Raises Unreadable for what is no event."""
    change_queues = await events.change_queues()
    resources = dict.fromkeys(_find_changes(events, body, change_queues))
    if not resources:
        return
    delivery = await _ensure_hourly_delivery(events)
    for resource in resources:
        queue = change_queues[resource.partition("/")[0]]
        await events.queue.send(queue, WorkItem(delivery, resource=resource))
        log_event("fhir_event.queued", delivery=delivery, resource=resource)


def _find_changes(events: Events, body: bytes, followed_types: Collection[str]) -> Iterator[str]:
    """Type/id of the resources that are followed, of all that a message tells of."""
    for event in _parse_events(body):
        if event.name not in _CHANGE_TYPES:
            log_event(
                "fhir_event.dropped",
                type=_get_safe_name(event),
                reason="no change of a FHIR resource",
            )
            continue
        data = _parse_data(event)
        if not _is_our_service(data.account, events.fhir_url):
            log_event(
                "fhir_event.dropped", type=_get_safe_name(event), reason="of another FHIR service"
            )
        elif data.resource_type not in followed_types:
            log_event(
                "fhir_event.ignored", type=_get_safe_name(event), reason="no table shows its type"
            )
        else:
            yield f"{data.resource_type}/{data.resource_id}"


def _parse_events(body: bytes) -> list[_Event]:
    try:
        decoded = _event_decoder.decode(body)
    # `from None`: the text of these may quote the message.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableEvent("no JSON of Event Grid or CloudEvents") from None
    events = decoded if isinstance(decoded, list) else [decoded]
    if not all(event.name for event in events):
        raise UnreadableEvent("an event without a type")
    return events


def _parse_data(event: _Event) -> _EventData:
    try:
        data = _data_decoder.decode(event.data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnreadableEvent("an event whose data names no resource") from None
    if not _ID.fullmatch(data.resource_id):
        raise UnreadableEvent("an event whose resourceFhirId is no id")
    return data


def _is_our_service(account: str, fhir_url: str) -> bool:
    """Several services of a workspace may tell one queue of their changes."""
    host = urlsplit(fhir_url).hostname or ""
    return not account or not _SERVICE_HOST.fullmatch(host) or account.lower() == host


def _get_safe_name(event: _Event) -> str:
    """The type of an event, where it can be logged without repeating what a stranger wrote."""
    return event.name if _SAFE_NAME.fullmatch(event.name) else "?"


async def _ensure_hourly_delivery(events: Events) -> str:
    """The delivery that stands for the events of this hour, the same in every worker."""
    hour = events.now().astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    id_ = make_delivery_id(hour, 0)
    if id_ not in events.recorded_hours:
        await synthetic_deliveries.add_synthetic_delivery(
            events.journal, id_, KIND, hour, hour + _HOUR
        )
        events.recorded_hours.clear()
        events.recorded_hours.add(id_)
    return id_
