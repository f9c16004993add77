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
from integration.journal.keys import new_delivery_id
from integration.journal.store import Journal
from integration.queues.queue_sender import ChangeQueues, QueueSender

KIND = "events"

_OURS = frozenset(
    f"Microsoft.HealthcareApis.FhirResource{what}" for what in ("Created", "Updated", "Deleted")
)

# https://hl7.org/fhir/R4/datatypes.html#id
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")

# A name that can be told without telling anything else.
_NAME = re.compile(r"[A-Za-z0-9.\-]{1,100}")

# The clouds' own addresses; behind another one, a gateway's, no account can be told from another.
_SERVICE = re.compile(r".+\.azurehealthcareapis\.(?:com|us|cn)")

# Rows are noted under the hour in which their events came, so that no list grows without end.
_HOUR = timedelta(hours=1)


class Unreadable(ValueError):
    """No event. The text quotes nothing of it."""


class _Data(msgspec.Struct):
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


_events = msgspec.json.Decoder(_Event | list[_Event])
_data = msgspec.json.Decoder(_Data)


@dataclass(frozen=True, slots=True)
class Events:
    """What taking events needs. `base`: the address of the FHIR server."""

    journal: Journal
    queue: QueueSender
    followed: ChangeQueues
    base: str
    now: Callable[[], datetime]
    noted: set[str] = field(default_factory=set)  # the hour that this worker has noted last


async def take(it: Events, body: bytes) -> None:
    """Queue what has to be done about what changed. Raises Unreadable for what is no event."""
    followed = await it.followed()
    changed = dict.fromkeys(_changed(it, body, followed))
    if not changed:
        return
    delivery = await _hour(it)
    for resource in changed:
        queue = followed[resource.partition("/")[0]]
        await it.queue.send(queue, WorkItem(delivery, resource=resource))
        log_event("fhir_event.queued", delivery=delivery, resource=resource)


def _changed(it: Events, body: bytes, followed: Collection[str]) -> Iterator[str]:
    """Type/id of the resources that are followed, of all that a message tells of."""
    for event in _read(body):
        if event.name not in _OURS:
            log_event(
                "fhir_event.dropped", type=_name(event), reason="no change of a FHIR resource"
            )
            continue
        data = _told(event)
        if not _is_here(data.account, it.base):
            log_event("fhir_event.dropped", type=_name(event), reason="of another FHIR service")
        elif data.resource_type not in followed:
            log_event("fhir_event.ignored", type=_name(event), reason="no table shows its type")
        else:
            yield f"{data.resource_type}/{data.resource_id}"


def _read(body: bytes) -> list[_Event]:
    try:
        found = _events.decode(body)
    # `from None`: the text of these may quote the message.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable("no JSON of Event Grid or CloudEvents") from None
    events = found if isinstance(found, list) else [found]
    if not all(event.name for event in events):
        raise Unreadable("an event without a type")
    return events


def _told(event: _Event) -> _Data:
    try:
        data = _data.decode(event.data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Unreadable("an event whose data names no resource") from None
    if not _ID.fullmatch(data.resource_id):
        raise Unreadable("an event whose resourceFhirId is no id")
    return data


def _is_here(account: str, base: str) -> bool:
    """Several services of a workspace may tell one queue of their changes."""
    host = urlsplit(base).hostname or ""
    return not account or not _SERVICE.fullmatch(host) or account.lower() == host


def _name(event: _Event) -> str:
    """The type of an event, where it can be logged without repeating what a stranger wrote."""
    return event.name if _NAME.fullmatch(event.name) else "?"


async def _hour(it: Events) -> str:
    """The delivery that stands for the events of this hour, the same in every worker."""
    began = it.now().astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    id_ = new_delivery_id(began, 0)
    if id_ not in it.noted:
        await synthetic_deliveries.note(it.journal, id_, KIND, began, began + _HOUR)
        it.noted.clear()
        it.noted.add(id_)
    return id_
