"""What intake would make of the content of a request, without repeating a value of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from integration.core import decimal_json
from integration.core.errors import Rejected
from integration.core.model import ALL_RIGHTS, Rights
from integration.fhir import bundle
from integration.fhir.entries import Contents
from integration.fhir.notifications import Notification
from integration.fhir.rights import collect_needed_rights, find_violations
from integration.intake import dialects
from integration.intake.http_request import IncomingRequest, parse_request
from integration.senders.model import ProvenSender, Sender
from integration.senders.proofs.proof import SignedRequest
from integration.senders.read_key import read_content_key
from integration.senders.render import describe_rights

_THIN = (
    "the relay writes FHIR alone. Have the vendor send FHIR if it can; else let your own "
    "integration fetch the data and send them as FHIR, as a sender of its own (docs/senders.md)"
)


@dataclass(frozen=True, slots=True)
class Content:
    """`lines`: for a terminal. `rights`: what the request needs; None: it brings nothing."""

    lines: tuple[str, ...]
    rights: Rights | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentLimits:
    """As the settings of the same names say."""

    bytes: int = 50_000_000
    entries: int = 100_000


_DEFAULT_LIMITS = ContentLimits()


@dataclass(slots=True)
class _Found:
    lines: list[str] = field(default_factory=list)
    can_be_held: bool = False  # its address and headers are in order
    rights: Rights | None = None


def split_address(url: str) -> tuple[str | None, str | None]:
    """Return type and id that stand after /fhir in an address."""
    rest = urlsplit(url).path.partition("/fhir/")[2]
    type_, _, id_ = rest.partition("/")
    return type_ or None, id_ or None


def describe_content(
    request: SignedRequest,
    sender: Sender,
    limits: ContentLimits = _DEFAULT_LIMITS,
    message_id: str | None = None,
) -> Content:
    """Return what would become of a request that this sender has proven. `message_id`: the id that
    the proof covers."""
    found = _Found()
    try:
        handshake = dialects.answer_preflight(sender.policy.dialect, request)
        handshake = handshake or dialects.answer_handshake(sender.policy.dialect, request)
        if handshake is not None:
            text = "a handshake of the dialect: answered at once, and nothing of it is kept"
            return Content((text,))
        _describe_delivery(
            request, ProvenSender(sender=sender, message_id=message_id), limits, found
        )
    except Rejected as error:
        what = f"refused with {error.status}"
        if found.can_be_held and sender.policy.refused_deliveries == "hold":
            what = f"answered with {sender.policy.accepted_status}, and parked for an operator"
        for issue in error.issues:
            place = f"{issue.expression}: " if issue.expression else ""
            found.lines.append(f"{what}: {place}{issue.text}")
        if not _is_fhir(request.body):
            found.lines.append(f"{_describe_form(request.body)}: {_THIN}")
    return Content(tuple(found.lines), found.rights)


def _describe_delivery(
    request: SignedRequest, proven: ProvenSender, limits: ContentLimits, found: _Found
) -> None:
    sender = proven.sender
    type_, id_ = split_address(request.url)
    incoming = IncomingRequest(
        method=request.method,
        type=type_,
        id=id_,
        headers=request.headers,
        body=request.body,
        sender=proven,
    )
    deleted = dialects.find_deleted_resource(sender.policy.dialect, request)
    if deleted is not None:
        found.lines.append("a delete of Medplum: it is asked for at base before it is done")
        incoming = replace(incoming, method="DELETE", type=deleted[0], id=deleted[1], body=b"")
    parsed = parse_request(incoming, limits.bytes)
    found.can_be_held = True
    bases = (sender.policy.base,) if sender.policy.base else ()
    stated = parsed.request
    policy = replace(stated.policy, fetch_from=bases)
    contents = bundle.read(
        parsed.body, replace(stated, policy=policy, rights=ALL_RIGHTS), limits.entries
    )
    found.rights = collect_needed_rights(contents.entries, _list_to_fetch(contents))
    found.lines += _describe_contents(contents, found.rights)
    content_key = read_content_key(parsed.body, sender.policy.idempotency_pointers)
    if parsed.idempotency_key is None and content_key is None:
        found.lines.append(
            "repeats: known by their bytes alone, since no id was found by which they could be"
        )
    found.lines += _describe_lack(contents, sender.rights)


def _list_to_fetch(contents: Contents) -> frozenset[int]:
    return frozenset(contents.urls_to_fetch if isinstance(contents, Notification) else ())


def _describe_contents(contents: Contents, rights: Rights) -> Iterator[str]:
    number = len(contents.entries)
    yield f"FHIR: {contents.kind} of {number} {'entry' if number == 1 else 'entries'}"
    if isinstance(contents, Notification) and not contents.has_content:
        yield "it brings no resource: answered with 200, and nothing is written"
    to_fetch = _list_to_fetch(contents)
    if to_fetch:
        yield f"to fetch: {len(to_fetch)}, from below base of the sender (FETCH_FROM allows it)"
    if rights.methods or rights.reads:
        yield f"rights that it needs: {describe_rights(rights)}"
    refusals = Counter(
        entry.refusal.text
        for entry in contents.entries
        if entry.refusal and entry.refusal.severity == "error" and entry.position not in to_fetch
    )
    yield from (f"refused alone, {count} times: {text}" for text, count in refusals.items())


def _describe_lack(contents: Contents, rights: Rights) -> Iterator[str]:
    """Yield what the rights of the sender do not cover."""
    to_fetch = _list_to_fetch(contents)
    texts = {
        issue.text
        for entry in contents.entries
        if entry.refusal is None and entry.position not in to_fetch
        for issue in find_violations(entry, rights)
    }
    yield from (f"rights that are missing: {text}" for text in sorted(texts))


def _is_fhir(body: bytes) -> bool:
    value = _decode(body)
    return isinstance(value, dict) and "resourceType" in value


def _describe_form(body: bytes) -> str:
    if not body:
        return "the body is empty"
    value = _decode(body)
    if isinstance(value, dict):
        return "a JSON object without resourceType"
    return "a JSON list" if isinstance(value, list) else "no JSON"


def _decode(body: bytes) -> Any:
    try:
        return decimal_json.decode(body)
    except decimal_json.Malformed:
        return None
