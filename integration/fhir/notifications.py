"""Notifications of subscriptions: the resources they hold, and those they only name. Pure.

R4 sends them as a history that begins with Parameters, R4B as one that begins with a
SubscriptionStatus: https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/notifications.html
R5 has a type of bundle for them: https://hl7.org/fhir/R5/subscriptionstatus.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from integration.core.errors import Issue
from integration.fhir import fetched, history, subscription_status
from integration.fhir.entries import Contents, Entry, refuse, refuse_alone
from integration.fhir.fetched import FetchedResponse
from integration.fhir.grammar import parse_literal
from integration.fhir.json_objects import get_object
from integration.fhir.raw_entry import RawEntry, open_entry, read_entries
from integration.fhir.subscription_status import SubscriptionStatus

KIND = "notification"
R5_TYPE = "subscription-notification"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification(Contents):
    """The contents of a notification, and the addresses of resources that it names only."""

    status: SubscriptionStatus
    urls_to_fetch: Mapping[int, str]  # by position

    @property
    def has_content(self) -> bool:
        """Whether it has entries besides its status."""
        return len(self.entries) > 1


def is_notification(kind: str, values: Sequence[Any]) -> bool:
    """Whether the bundle is a notification, whatever else may be wrong with it."""
    type_ = get_object(values[0], "resource").get("resourceType")
    url = get_object(values[0], "request").get("url")
    names_status = isinstance(url, str) and url.endswith("$status")
    starts_with_status = type_ == "SubscriptionStatus" or (type_ == "Parameters" and names_status)
    return kind == R5_TYPE or (kind == "history" and starts_with_status)


def read(values: Sequence[Any], bases: Sequence[str] = ()) -> Notification:
    """Read the entries of a notification. One that is wrong is refused alone. Raises Rejected if
    none is sound. `bases`: of the sender; a relative reference begins at the first."""
    status = subscription_status.read(values[0])
    status_entry = _make_status_entry(values[0])
    others = read_entries(((n, value, None) for n, value in enumerate(values[1:], 1)), _read_entry)
    if status.type != "event-notification" and others:
        refuse("invalid", f"a {status.type} must hold nothing besides its status", "Bundle.entry")
    sent = history.order_versions([status_entry, *others], values)
    entries = (*sent, *_find_missing_focuses(status.focuses, sent))
    base_urls = _find_base_urls(status, f"{bases[0]}/" if bases else "")
    urls = {item.position: _build_url(item, base_urls) for item in entries if _is_to_fetch(item)}
    return Notification(KIND, entries, status=status, urls_to_fetch=urls)


def add_fetched(contents: Notification, responses: Mapping[int, FetchedResponse]) -> Contents:
    """Return the contents with the resources that were fetched for them, by position."""
    entries = (
        fetched.fill_entry(entry, responses[entry.position])
        if entry.position in responses
        else entry
        for entry in contents.entries
    )
    return replace(contents, entries=tuple(entries), urls_to_fetch={})


def _make_status_entry(value: Any) -> Entry:
    raw = open_entry(0, "Bundle.entry[0]", value)
    text = "left out: status of the subscription"
    issue = Issue("informational", text, raw.where, "information")
    full_url = raw.get_full_url()
    return Entry(position=0, where=raw.where, method="", type="", full_url=full_url, refusal=issue)


def _read_entry(raw: RawEntry) -> Entry:
    """Read what happened to a resource. Whatever the method says, a resource in the entry is
    written as it is here, unless it was deleted; one that is only named is to be fetched."""
    has_request = "request" in raw.value and raw.request != {}
    method = raw.get_method() if has_request else "GET"
    named = history.parse_request_url(raw) if has_request else None
    if method == "DELETE" or "resource" in raw.value:
        return history.read_written(raw, method, named)
    full_url = raw.get_full_url()
    if full_url is None and named and named.root:
        full_url = f"{named.root}{named.identity}"
    named = parse_literal(full_url or "") or named
    if named is None:
        text = "neither fullUrl nor request.url says which resource to fetch"
        raw.refuse("required", text, "fullUrl")
    return _make_entry_to_fetch(raw.position, raw.where, named.identity, full_url)


def _make_entry_to_fetch(
    position: int, where: str, identity: str, full_url: str | None = None
) -> Entry:
    kind, _, identifier = identity.partition("/")
    return Entry(
        position=position,
        where=where,
        method="",
        type=kind,
        id=identifier,
        full_url=full_url,
        refusal=fetched.make_not_fetched_issue(where),
    )


def _is_to_fetch(entry: Entry) -> bool:
    return entry.id is not None and entry.refusal is not None


def _find_missing_focuses(focuses: Sequence[str], entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield what the status names and no entry is about, after the sender's own entries."""
    listed = {entry.identity for entry in entries} | {entry.full_url for entry in entries}
    position = len(entries)
    for focus in focuses:
        named = parse_literal(focus)
        identity = named.identity if named else focus
        if identity in listed:
            continue
        listed.add(identity)
        where = f"focus {position - len(entries) + 1}"
        if named:
            yield _make_entry_to_fetch(position, where, identity)
        else:
            text = "the focus is no type and id of FHIR R4"
            yield refuse_alone(position, where, Issue("not-supported", text, where))
        position += 1


def _find_base_urls(status: SubscriptionStatus, sender_root: str) -> dict[str, str]:
    """Return the base address of each focus by Type/id; under "", that of the subscription, else
    the sender's."""
    named = [parse_literal(focus) for focus in status.focuses]
    base_urls = {focus.identity: focus.root for focus in named if focus and focus.root}
    subscription = parse_literal(status.subscription)
    return {"": (subscription and subscription.root) or sender_root, **base_urls}


def _build_url(entry: Entry, base_urls: Mapping[str, str]) -> str:
    identity = entry.identity or ""
    named = parse_literal(entry.full_url or "")
    root = named.root if named else ""
    return f"{root or base_urls.get(identity) or base_urls['']}{identity}"
