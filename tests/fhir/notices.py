"""Notifications as the servers of each version of FHIR send them."""

from __future__ import annotations

from typing import Any

VERSIONS = ("R4", "R4B", "R5")

HOME = "https://home.example/fhir"
SUBSCRIPTION = f"{HOME}/Subscription/s1"

Event = tuple[int, str | None]


def make_notification(
    *entries: dict[str, Any],
    version: str = "R4",
    kind: str = "event-notification",
    since: int | None = None,
    events: tuple[Event, ...] = (),
    subscription: str = SUBSCRIPTION,
) -> dict[str, Any]:
    """`events`: the number and the focus of each."""
    since = max((number for number, _ in events), default=0) if since is None else since
    make_status = _make_parameters if version == "R4" else _make_status
    first = {
        "fullUrl": "urn:uuid:63c28e8a-f402-43e4-beb2-75b1c0f6833f",
        "resource": make_status(kind, since, events, subscription),
        "request": {"method": "GET", "url": f"{subscription}/$status"},
        "response": {"status": "200"},
    }
    type_ = "subscription-notification" if version == "R5" else "history"
    return {"resourceType": "Bundle", "type": type_, "entry": [first, *entries]}


def make_full_entry(resource: dict[str, Any], method: str = "PUT", **more: Any) -> dict[str, Any]:
    """An entry with its resource."""
    identity = f"{resource['resourceType']}/{resource['id']}"
    url = resource["resourceType"] if method == "POST" else identity
    request = {"method": method, "url": url}
    return {"fullUrl": f"{HOME}/{identity}", "resource": resource, "request": request, **more}


def make_named_entry(identity: str, method: str = "POST", home: str = HOME) -> dict[str, Any]:
    """An entry that names its resource, as payloads without content do."""
    url = identity.partition("/")[0] if method == "POST" else identity
    return {"fullUrl": f"{home}/{identity}", "request": {"method": method, "url": url}}


def make_deletion(identity: str) -> dict[str, Any]:
    return make_named_entry(identity, "DELETE")


def _make_status(
    kind: str, since: int, events: tuple[Event, ...], subscription: str
) -> dict[str, Any]:
    stated_events = [
        {"eventNumber": str(number), "focus": {"reference": focus}}
        if focus
        else {"eventNumber": str(number)}
        for number, focus in events
    ]
    return {
        "resourceType": "SubscriptionStatus",
        "status": "active",
        "type": kind,
        "eventsSinceSubscriptionStart": str(since),
        "subscription": {"reference": subscription},
        **({"notificationEvent": stated_events} if stated_events else {}),
    }


def _make_parameters(
    kind: str, since: int, events: tuple[Event, ...], subscription: str
) -> dict[str, Any]:
    parameter: list[dict[str, Any]] = [
        {"name": "subscription", "valueReference": {"reference": subscription}},
        {"name": "status", "valueCode": "active"},
        {"name": "type", "valueCode": kind},
        {"name": "events-since-subscription-start", "valueString": str(since)},
    ]
    for number, focus in events:
        part: list[dict[str, Any]] = [{"name": "event-number", "valueString": str(number)}]
        if focus:
            part.append({"name": "focus", "valueReference": {"reference": focus}})
        parameter.append({"name": "notification-event", "part": part})
    return {"resourceType": "Parameters", "parameter": parameter}
