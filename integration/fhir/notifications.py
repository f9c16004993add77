"""The notifications of subscriptions: which resources they bring, and which they only name. Pure.

R4 sends them as a history that begins with Parameters, R4B as one that begins with a
SubscriptionStatus: https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/notifications.html
R5 has a type of bundle for them: https://hl7.org/fhir/R5/subscriptionstatus.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from integration.core.errors import Issue, Rejected
from integration.fhir import collections, fetched, subscription_status
from integration.fhir.entries import MAX_ISSUES, Contents, Entry
from integration.fhir.fetched import Fetched
from integration.fhir.grammar import literal
from integration.fhir.requests import checked_entry, full_url_of, method_of, request_of
from integration.fhir.subscription_status import SubscriptionStatus

KIND = "notification"
R5_TYPE = "subscription-notification"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification(Contents):
    """The contents of a notification, and the addresses of what it names without bringing it."""

    status: SubscriptionStatus
    wanted: Mapping[int, str]  # by position

    @property
    def brings(self) -> bool:
        """Whether it tells of anything besides its status."""
        return len(self.entries) > 1


def is_notification(kind: str, values: Sequence[Any]) -> bool:
    """Whether the bundle is one, whatever else may be wrong with it."""
    first = values[0] if isinstance(values[0], dict) else {}
    resource, request = first.get("resource"), first.get("request")
    type_ = resource.get("resourceType") if isinstance(resource, dict) else None
    url = request.get("url") if isinstance(request, dict) else None
    asked = isinstance(url, str) and url.endswith("$status")
    begins = type_ == "SubscriptionStatus" or (type_ == "Parameters" and asked)
    return kind == R5_TYPE or (kind == "history" and begins)


def read(values: Sequence[Any]) -> Notification:
    """Raises Rejected with every issue found, up to a bound."""
    status = subscription_status.read(values[0])
    entries, issues = [_left_out(values[0])], list[Issue]()
    for position, value in enumerate(values[1:], 1):
        try:
            entries.append(_entry(position, value))
        except Rejected as error:
            issues += error.issues
            if len(issues) >= MAX_ISSUES:
                break
    if issues:
        raise Rejected(*issues[:MAX_ISSUES])
    if status.type != "event-notification" and len(entries) > 1:
        text = f"a {status.type} brings nothing besides its status"
        raise Rejected(Issue("invalid", text, "Bundle.entry"))
    sequenced = collections.in_turn(entries, values)
    named = (*sequenced, *_not_brought(status.focuses, sequenced))
    roots = _roots(status)
    wanted = {item.position: _address(item, roots) for item in named if item.id and item.refusal}
    return Notification(KIND, named, status=status, wanted=wanted)


def with_fetched(contents: Notification, answers: Mapping[int, Fetched]) -> Contents:
    """The contents, with the resources that were fetched for them."""
    entries = (
        fetched.filled(entry, answers[entry.position]) if entry.position in answers else entry
        for entry in contents.entries
    )
    return replace(contents, entries=tuple(entries), wanted={})


def _left_out(value: dict[str, Any]) -> Entry:
    where = "Bundle.entry[0]"
    issue = Issue("informational", "left out: status of the subscription", where, "information")
    return Entry(0, where, "", "", full_url=full_url_of(value, where), refusal=issue)


def _entry(position: int, value: Any) -> Entry:
    """Whatever the method says was done to it, a resource is as it is here; but a delete."""
    where, value = checked_entry(position, value)
    request = request_of(value, where) if "request" in value else None
    method = method_of(request, where) if request else "GET"
    named = collections.named(request.get("url"), where) if request else None
    if method == "DELETE" or "resource" in value:
        return collections.written(position, where, value, method, named)
    full_url = full_url_of(value, where)
    if full_url is None and named and named[0]:
        full_url = f"{named[0]}{named[1]}"
    known = literal(full_url or "") or named
    if known is None:
        text = "neither fullUrl nor request.url says which resource to fetch"
        raise Rejected(Issue("required", text, f"{where}.fullUrl"))
    kind, _, identifier = known[1].partition("/")
    refusal = fetched.not_asked(where)
    return Entry(position, where, "", kind, identifier, full_url=full_url, refusal=refusal)


def _not_brought(focuses: Sequence[str], entries: Sequence[Entry]) -> Iterator[Entry]:
    """What the status names and no entry is about, after the sender's own entries."""
    known = {entry.identity for entry in entries} | {entry.full_url for entry in entries}
    position = len(entries)
    for focus in focuses:
        found = literal(focus)
        identity = found[1] if found else focus
        if identity in known:
            continue
        known.add(identity)
        where = f"focus {position - len(entries) + 1}"
        kind, _, identifier = identity.partition("/") if found else ("", "", None)
        issue = fetched.not_asked(where)
        if not found:
            issue = Issue("not-supported", "the focus is no type and id of FHIR R4", where)
        yield Entry(position, where, "", kind, identifier, refusal=issue)
        position += 1


def _roots(status: SubscriptionStatus) -> dict[str, str]:
    """Where each focus lives; under "", where the subscription does."""
    found = [literal(focus) for focus in status.focuses]
    roots = {identity: root for root, identity, _ in filter(None, found) if root}
    own = literal(status.subscription)
    return {"": own[0] if own else "", **roots}


def _address(entry: Entry, roots: Mapping[str, str]) -> str:
    identity = entry.identity or ""
    named = literal(entry.full_url or "")
    root = named[0] if named else ""
    return f"{root or roots.get(identity) or roots['']}{identity}"
