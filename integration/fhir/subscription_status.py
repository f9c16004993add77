"""The status of a subscription: the first entry of each of its notifications. Pure.

https://hl7.org/fhir/R5/subscriptionstatus.html; R4 has Parameters instead:
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/StructureDefinition-backport-subscription-status-r4.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from integration.core.model import FhirResource
from integration.fhir.entries import refuse

_STATUS = "Bundle.entry[0].resource"
_QUERY_TYPES = ("query-status", "query-event")
_TYPES = ("event-notification", "handshake", "heartbeat", *_QUERY_TYPES)

# Above any real count, and small enough for a table and an address.
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionStatus:
    """What a notification states about its subscription."""

    type: str
    subscription: str
    event_count: int | None  # since the subscription began
    event_numbers: tuple[int, ...]  # of the events in this notification
    focuses: tuple[str, ...]

    @property
    def first_event(self) -> int | None:
        """Return the first event of this notification; for a heartbeat, the one that comes next."""
        if self.type == "heartbeat":
            return None if self.event_count is None else self.event_count + 1
        return min(self.event_numbers, default=self.event_count)

    @property
    def last_event(self) -> int:
        """Return the last event that has happened, as far as the notification states it."""
        return max(self.event_numbers, default=self.event_count or 0)


def find_gap(status: SubscriptionStatus, last_received: int) -> tuple[int, int] | None:
    """Return the first and last event that are missing between `last_received` and this
    notification; None if none are."""
    if status.first_event is None or status.first_event <= last_received + 1:
        return None
    return last_received + 1, status.first_event - 1


def describe_gap(gap: tuple[int, int]) -> str:
    """Return a gap in words."""
    first, last = gap
    if first == last:
        return f"event {first} of the subscription was not received"
    return f"events {first} to {last} of the subscription were not received"


def read(value: Any) -> SubscriptionStatus:
    """Read the status in the first entry of a notification. Raises Rejected."""
    resource = value.get("resource") if isinstance(value, dict) else None
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    if not isinstance(resource, dict) or kind not in ("SubscriptionStatus", "Parameters"):
        text = "a notification begins with the status of its subscription"
        refuse("invalid", text, _STATUS)
    status = _convert_parameters(resource) if kind == "Parameters" else resource
    type_, subscription = status.get("type"), _get_reference(status.get("subscription"))
    if type_ not in _TYPES:
        text = f"the type of a notification must be one of {', '.join(_TYPES)}"
        refuse("value", text, _STATUS)
    if type_ in _QUERY_TYPES:
        text = f"a {type_} is the response to a query; only notifications are accepted"
        refuse("not-supported", text, _STATUS, status=422)
    if not subscription:
        refuse("required", "the status does not name its subscription", _STATUS)
    listed = status.get("notificationEvent")
    listed = listed if isinstance(listed, list) else []
    events = [event for event in listed if isinstance(event, dict)]
    numbers = (_parse_count(event.get("eventNumber"), "the number of an event") for event in events)
    focuses = (_get_reference(event.get("focus")) for event in events)
    return SubscriptionStatus(
        type=str(type_),
        subscription=subscription,
        event_count=_parse_count(status.get("eventsSinceSubscriptionStart"), "the count of events"),
        event_numbers=tuple(number for number in numbers if number is not None),
        focuses=tuple(focus for focus in focuses if focus),
    )


def _convert_parameters(resource: FhirResource) -> dict[str, Any]:
    """Return the Parameters of R4 in the form of R5's SubscriptionStatus."""
    parts = _list_parts(resource.get("parameter"))
    values = dict(parts)
    events = [
        dict(value)
        for name, value in parts
        if name == "notification-event" and isinstance(value, list)
    ]
    return {
        "type": values.get("type"),
        "subscription": values.get("subscription"),
        "eventsSinceSubscriptionStart": values.get("events-since-subscription-start"),
        "notificationEvent": [
            {"eventNumber": event.get("event-number"), "focus": event.get("focus")}
            for event in events
        ],
    }


def _list_parts(listed: Any) -> list[tuple[str, Any]]:
    """Return (name, value) of each parameter. The value of a parameter with parts is their list."""
    return [
        (str(item.get("name")), _list_parts(item["part"]) if "part" in item else _get_value(item))
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, dict)
    ]


def _get_value(parameter: dict[str, Any]) -> Any:
    return next((value for name, value in parameter.items() if name.startswith("value")), None)


def _get_reference(value: Any) -> str | None:
    stated = value.get("reference") if isinstance(value, dict) else None
    return stated if isinstance(stated, str) else None


def _parse_count(value: Any, name: str) -> int | None:
    """Parse a count; R5's integer64 is a string in JSON:
    https://hl7.org/fhir/R5/json.html#primitive"""
    text = str(value) if isinstance(value, str | int) else ""
    if value is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        refuse("value", f"{name} must be a whole number", _STATUS)
    return int(text)
