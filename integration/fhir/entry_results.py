"""What the FHIR server's answer says about each entry of a unit. Pure.

An entry is settled when it is written or refused for good; the rest is to be tried again, alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Issue
from integration.core.model import EntryResult, Response
from integration.fhir import issues
from integration.fhir.grammar import literal
from integration.fhir.units import Unit, UnitEntry

# Conflicts and time-outs pass by themselves, but some never do (a validation error was once
# answered 408): https://github.com/microsoft/fhir-server/pull/5582
_CAPPED = (408, 409)
CAP = 5

# Bytes of an answer to a read that are kept: the journal is no copy of the FHIR server.
MAX_FOUND = 1_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """`settled` is for good; `unfinished` waits `retry_after` seconds, if the server named any."""

    settled: tuple[EntryResult, ...]
    unfinished: tuple[UnitEntry, ...] = ()
    retry_after: float | None = None


def of_unit(unit: Unit, entries: Sequence[UnitEntry], response: Response, attempt: int) -> Answer:
    """The answer to `units.request(unit, entries)`, matched by position and checked by count."""
    if response.status != 200:
        return _whole(entries, response, attempt)
    answers = entries_of(response)
    if answers is None or not len(entries) <= len(answers) <= len(entries) + 1:
        # A server may append one entry of its own; fewer, or an unreadable answer, proves nothing.
        return Answer((), tuple(entries))
    settled: list[EntryResult] = []
    unfinished: list[UnitEntry] = []
    for entry, answer in zip(entries, answers, strict=False):
        outcome = of_entry(entry, answer)
        if outcome is None or _passes(outcome.status, attempt):
            unfinished.append(entry)
        else:
            settled += spread(entry, outcome)
    return Answer(tuple(settled), tuple(unfinished), response.retry_after)


def refused(entry: UnitEntry, issue: Issue, status: int) -> EntryResult:
    """An entry that is not sent, and why."""
    return EntryResult(entry.position, status, entry.full_url, issues=[issues.as_json(issue)])


def noted(outcome: EntryResult, issue: Issue) -> EntryResult:
    """The outcome with one more issue."""
    return replace(outcome, issues=[*(outcome.issues or ()), issues.as_json(issue)])


def spread(entry: UnitEntry, outcome: EntryResult) -> list[EntryResult]:
    """The outcome, and that of every entry that asks for the same conditional create: to those,
    the resource was there already."""
    status = 200 if outcome.status == 201 else outcome.status
    rest = (replace(outcome, position=n, full_url=url, status=status) for n, url in entry.same)
    told = outcome
    for issue in entry.notes:
        told = noted(told, issue)
    return [told, *rest]


def _whole(entries: Sequence[UnitEntry], response: Response, attempt: int) -> Answer:
    """The unit was refused, or failed, as a whole."""
    # A gateway may answer 204 or 302; only a bundle with 200 says that anything was written.
    if response.status < 400 or _passes(response.status, attempt):
        return Answer((), tuple(entries), response.retry_after)
    told = issues.of_outcome(_parsed(response.body))
    told = issues.translated(told, [entry.where for entry in entries])
    return Answer(
        tuple(
            item
            for entry in entries
            for item in spread(
                entry, EntryResult(entry.position, response.status, entry.full_url, issues=told)
            )
        )
    )


def _passes(status: int, attempt: int) -> bool:
    # 401 and 403 are for an operator to mend, and no fault of the entry.
    lasting = status in (401, 403, 429) or status >= 500
    return lasting or (status in _CAPPED and attempt < CAP)


def entries_of(response: Response) -> list[Any] | None:
    """The entries of a response bundle; None when it is none, or not whole."""
    bundle = _parsed(response.body) if response.status == 200 else None
    entries = bundle.get("entry") if isinstance(bundle, dict) else None
    return entries if isinstance(entries, list) else None


def of_entry(entry: UnitEntry, answer: Any) -> EntryResult | None:
    """One entry's answer; None when the answer cannot be read: that is no success."""
    status = status_of(answer)
    if status is None:
        return None
    said, resource = answer["response"], answer.get("resource")
    meta = _meta(resource)
    location = None if entry.reads else _location(said.get("location"))
    writes = entry.method != "DELETE" and not entry.reads
    if location is None and 200 <= status < 300 and writes:
        location = _stored(resource) or (entry.target if "/" in entry.target else None)
    told = issues.of_outcome(said.get("outcome"))
    outcome = EntryResult(
        position=entry.position,
        status=status,
        full_url=entry.full_url,
        location=location,
        etag=_text(said.get("etag")) or _etag(meta),
        last_modified=_text(said.get("lastModified")) or _text(meta.get("lastUpdated")),
        issues=issues.translated(told, [entry.where], entry.where),
    )
    return _with_found(outcome, resource) if entry.method == "GET" and status == 200 else outcome


def _with_found(outcome: EntryResult, resource: Any) -> EntryResult:
    """What a read found, as it was answered."""
    found = decimal_json.encode(resource)
    if len(found) > MAX_FOUND:
        text = f"above {MAX_FOUND} bytes, which is more than is kept: read it from the FHIR server"
        return noted(outcome, Issue("too-long", text, severity="warning"))
    return replace(outcome, resource=found.decode())


def status_of(answer: Any) -> int | None:
    """The status of one entry of a response bundle."""
    said = answer.get("response") if isinstance(answer, dict) else None
    return _status(said.get("status")) if isinstance(said, dict) else None


def _status(value: Any) -> int | None:
    """https://hl7.org/fhir/R4/bundle-definitions.html#Bundle.entry.response.status: three digits,
    perhaps text after them. Anything else is unreadable."""
    match = re.match(r"\s*([1-5]\d\d)(?!\d)", value) if isinstance(value, str) else None
    return int(match[1]) if match else None


def _location(value: Any) -> str | None:
    """Type/id/_history/version, without the server's address."""
    parsed = literal(value) if isinstance(value, str) else None
    return f"{parsed[1]}{parsed[2]}" if parsed else None


def _stored(resource: Any) -> str | None:
    if not isinstance(resource, dict) or resource.get("resourceType") == "OperationOutcome":
        return None
    identity = f"{resource.get('resourceType')}/{resource.get('id')}"
    version = _text(_meta(resource).get("versionId"))
    return _location(f"{identity}/_history/{version}" if version else identity)


def _meta(resource: Any) -> dict[str, Any]:
    meta = resource.get("meta") if isinstance(resource, dict) else None
    return meta if isinstance(meta, dict) else {}


def _etag(meta: Any) -> str | None:
    version = _text(meta.get("versionId"))
    return f'W/"{version}"' if version else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _parsed(body: bytes) -> Any:
    try:
        return decimal_json.decode(body)
    except decimal_json.Malformed:
        return None
