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
from integration.fhir.fetched import FetchedResponse
from integration.fhir.grammar import parse_literal
from integration.fhir.requests import check_entry, get_full_url, get_method, get_request
from integration.fhir.subscription_status import SubscriptionStatus

KIND = "notification"
R5_TYPE = "subscription-notification"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification(Contents):
    """The contents of a notification, and the addresses of what it names without bringing it."""

    status: SubscriptionStatus
    urls_to_fetch: Mapping[int, str]  # by position

    @property
    def has_content(self) -> bool:
        """Whether it tells of anything besides its status."""
        return len(self.entries) > 1


def is_notification(kind: str, values: Sequence[Any]) -> bool:
    """Whether the bundle is one, whatever else may be wrong with it."""
    first = values[0] if isinstance(values[0], dict) else {}
    resource, request = first.get("resource"), first.get("request")
    type_ = resource.get("resourceType") if isinstance(resource, dict) else None
    url = request.get("url") if isinstance(request, dict) else None
    names_status = isinstance(url, str) and url.endswith("$status")
    starts_with_status = type_ == "SubscriptionStatus" or (type_ == "Parameters" and names_status)
    return kind == R5_TYPE or (kind == "history" and starts_with_status)


def read(values: Sequence[Any]) -> Notification:
    """Raises Rejected with every issue found, up to a bound."""
    status = subscription_status.read(values[0])
    entries, issues = [_make_status_entry(values[0])], list[Issue]()
    for position, value in enumerate(values[1:], 1):
        try:
            entries.append(_read_entry(position, value))
        except Rejected as error:
            issues += error.issues
            if len(issues) >= MAX_ISSUES:
                break
    if issues:
        raise Rejected(*issues[:MAX_ISSUES])
    if status.type != "event-notification" and len(entries) > 1:
        text = f"a {status.type} brings nothing besides its status"
        raise Rejected(Issue("invalid", text, "Bundle.entry"))
    sequenced = collections.order_versions(entries, values)
    named = (*sequenced, *_find_missing_focuses(status.focuses, sequenced))
    roots = _find_base_urls(status)
    wanted = {item.position: _build_url(item, roots) for item in named if item.id and item.refusal}
    return Notification(KIND, named, status=status, urls_to_fetch=wanted)


def add_fetched(contents: Notification, responses: Mapping[int, FetchedResponse]) -> Contents:
    """The contents, with the resources that were fetched for them."""
    entries = (
        fetched.fill_entry(entry, responses[entry.position])
        if entry.position in responses
        else entry
        for entry in contents.entries
    )
    return replace(contents, entries=tuple(entries), urls_to_fetch={})


def _make_status_entry(value: dict[str, Any]) -> Entry:
    where = "Bundle.entry[0]"
    issue = Issue("informational", "left out: status of the subscription", where, "information")
    return Entry(0, where, "", "", full_url=get_full_url(value, where), refusal=issue)


def _read_entry(position: int, value: Any) -> Entry:
    """Whatever the method says was done to it, a resource is as it is here; but a delete."""
    where, value = check_entry(position, value)
    request = get_request(value, where) if "request" in value else None
    method = get_method(request, where) if request else "GET"
    named = collections.parse_request_url(request.get("url"), where) if request else None
    if method == "DELETE" or "resource" in value:
        return collections.read_written(position, where, value, method, named)
    full_url = get_full_url(value, where)
    if full_url is None and named and named[0]:
        full_url = f"{named[0]}{named[1]}"
    named_resource = parse_literal(full_url or "") or named
    if named_resource is None:
        text = "neither fullUrl nor request.url says which resource to fetch"
        raise Rejected(Issue("required", text, f"{where}.fullUrl"))
    kind, _, identifier = named_resource[1].partition("/")
    refusal = fetched.make_not_fetched_issue(where)
    return Entry(position, where, "", kind, identifier, full_url=full_url, refusal=refusal)


def _find_missing_focuses(focuses: Sequence[str], entries: Sequence[Entry]) -> Iterator[Entry]:
    """What the status names and no entry is about, after the sender's own entries."""
    listed = {entry.identity for entry in entries} | {entry.full_url for entry in entries}
    position = len(entries)
    for focus in focuses:
        found = parse_literal(focus)
        identity = found[1] if found else focus
        if identity in listed:
            continue
        listed.add(identity)
        where = f"focus {position - len(entries) + 1}"
        kind, _, identifier = identity.partition("/") if found else ("", "", None)
        issue = fetched.make_not_fetched_issue(where)
        if not found:
            issue = Issue("not-supported", "the focus is no type and id of FHIR R4", where)
        yield Entry(position, where, "", kind, identifier, refusal=issue)
        position += 1


def _find_base_urls(status: SubscriptionStatus) -> dict[str, str]:
    """Where each focus lives; under "", where the subscription does."""
    found = [parse_literal(focus) for focus in status.focuses]
    roots = {identity: root for root, identity, _ in filter(None, found) if root}
    subscription = parse_literal(status.subscription)
    return {"": subscription[0] if subscription else "", **roots}


def _build_url(entry: Entry, roots: Mapping[str, str]) -> str:
    identity = entry.identity or ""
    named = parse_literal(entry.full_url or "")
    root = named[0] if named else ""
    return f"{root or roots.get(identity) or roots['']}{identity}"
