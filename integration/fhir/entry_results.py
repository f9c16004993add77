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
from integration.fhir.grammar import parse_literal
from integration.fhir.units import Unit, UnitEntry

# Conflicts and time-outs pass by themselves, but some never do (a validation error was once
# answered 408): https://github.com/microsoft/fhir-server/pull/5582
_GIVEN_UP = (408, 409)
MAX_CONFLICT_ATTEMPTS = 5

# Bytes of an answer to a read that are kept: the journal is no copy of the FHIR server.
MAX_RESOURCE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class UnitResults:
    """`settled` is for good; `unfinished` waits `retry_after` seconds, if the server named any."""

    settled: tuple[EntryResult, ...]
    unfinished: tuple[UnitEntry, ...] = ()
    retry_after: float | None = None


def read_response(
    unit: Unit, entries: Sequence[UnitEntry], response: Response, attempt: int
) -> UnitResults:
    """The answer to `units.request(unit, entries)`, matched by position and checked by count."""
    if response.status != 200:
        return _read_failed_unit(entries, response, attempt)
    responses = parse_response_entries(response)
    if responses is None or not len(entries) <= len(responses) <= len(entries) + 1:
        # A server may append one entry of its own; fewer, or an unreadable answer, proves nothing.
        return UnitResults((), tuple(entries))
    settled: list[EntryResult] = []
    unfinished: list[UnitEntry] = []
    for entry, entry_response in zip(entries, responses, strict=False):
        result = read_entry_response(entry, entry_response)
        if result is None or _is_transient(result.status, attempt):
            unfinished.append(entry)
        else:
            settled += copy_to_duplicates(entry, result)
    return UnitResults(tuple(settled), tuple(unfinished), response.retry_after)


def refuse(entry: UnitEntry, issue: Issue, status: int) -> EntryResult:
    """An entry that is not sent, and why."""
    return EntryResult(
        entry.position, status, full_url=entry.full_url, issues=[issues.as_json(issue)]
    )


def add_issue(result: EntryResult, issue: Issue) -> EntryResult:
    """The outcome with one more issue."""
    return replace(result, issues=[*(result.issues or ()), issues.as_json(issue)])


def copy_to_duplicates(entry: UnitEntry, result: EntryResult) -> list[EntryResult]:
    """The outcome, and that of every entry that asks for the same conditional create: to those,
    the resource was there already."""
    status = 200 if result.status == 201 else result.status
    duplicates = (replace(result, position=n, full_url=url, status=status) for n, url in entry.same)
    with_notes = result
    for issue in entry.notes:
        with_notes = add_issue(with_notes, issue)
    return [with_notes, *duplicates]


def _read_failed_unit(
    entries: Sequence[UnitEntry], response: Response, attempt: int
) -> UnitResults:
    """The unit was refused, or failed, as a whole."""
    # A gateway may answer 204 or 302; only a bundle with 200 says that anything was written.
    if response.status < 400 or _is_transient(response.status, attempt):
        return UnitResults((), tuple(entries), response.retry_after)
    found_issues = issues.parse_outcome(_parse(response.body))
    found_issues = issues.translate(found_issues, [entry.where for entry in entries])
    return UnitResults(
        tuple(
            item
            for entry in entries
            for item in copy_to_duplicates(
                entry,
                EntryResult(
                    entry.position, response.status, full_url=entry.full_url, issues=found_issues
                ),
            )
        )
    )


def _is_transient(status: int, attempt: int) -> bool:
    # 401 and 403 are for an operator to mend, and no fault of the entry.
    is_transient = status in (401, 403, 429) or status >= 500
    return is_transient or (status in _GIVEN_UP and attempt < MAX_CONFLICT_ATTEMPTS)


def parse_response_entries(response: Response) -> list[Any] | None:
    """The entries of a response bundle; None when it is none, or not whole."""
    bundle = _parse(response.body) if response.status == 200 else None
    entries = bundle.get("entry") if isinstance(bundle, dict) else None
    return entries if isinstance(entries, list) else None


def read_entry_response(entry: UnitEntry, entry_response: Any) -> EntryResult | None:
    """One entry's answer; None when the answer cannot be read: that is no success."""
    status = get_status(entry_response)
    if status is None:
        return None
    response, resource = entry_response["response"], entry_response.get("resource")
    meta = _get_meta(resource)
    location = None if entry.is_read else _parse_location(response.get("location"))
    writes = entry.method != "DELETE" and not entry.is_read
    if location is None and 200 <= status < 300 and writes:
        location = _build_location(resource) or (entry.target if "/" in entry.target else None)
    found_issues = issues.parse_outcome(response.get("outcome"))
    result = EntryResult(
        position=entry.position,
        status=status,
        full_url=entry.full_url,
        location=location,
        etag=_get_text(response.get("etag")) or _build_etag(meta),
        last_modified=_get_text(response.get("lastModified")) or _get_text(meta.get("lastUpdated")),
        issues=issues.translate(found_issues, [entry.where], entry.where),
    )
    return _add_resource(result, resource) if entry.method == "GET" and status == 200 else result


def _add_resource(result: EntryResult, resource: Any) -> EntryResult:
    """What a read found, as it was answered."""
    content = decimal_json.encode(resource)
    if len(content) > MAX_RESOURCE_BYTES:
        text = (
            f"above {MAX_RESOURCE_BYTES} bytes, which is more than is kept: "
            "read it from the FHIR server"
        )
        return add_issue(result, Issue("too-long", text, severity="warning"))
    return replace(result, resource=content.decode())


def get_status(entry_response: Any) -> int | None:
    """The status of one entry of a response bundle."""
    response = entry_response.get("response") if isinstance(entry_response, dict) else None
    return _parse_status(response.get("status")) if isinstance(response, dict) else None


def _parse_status(value: Any) -> int | None:
    """https://hl7.org/fhir/R4/bundle-definitions.html#Bundle.entry.response.status: three digits,
    perhaps text after them. Anything else is unreadable."""
    match = re.match(r"\s*([1-5]\d\d)(?!\d)", value) if isinstance(value, str) else None
    return int(match[1]) if match else None


def _parse_location(value: Any) -> str | None:
    """Type/id/_history/version, without the server's address."""
    parsed = parse_literal(value) if isinstance(value, str) else None
    return f"{parsed[1]}{parsed[2]}" if parsed else None


def _build_location(resource: Any) -> str | None:
    if not isinstance(resource, dict) or resource.get("resourceType") == "OperationOutcome":
        return None
    identity = f"{resource.get('resourceType')}/{resource.get('id')}"
    version = _get_text(_get_meta(resource).get("versionId"))
    return _parse_location(f"{identity}/_history/{version}" if version else identity)


def _get_meta(resource: Any) -> dict[str, Any]:
    meta = resource.get("meta") if isinstance(resource, dict) else None
    return meta if isinstance(meta, dict) else {}


def _build_etag(meta: Any) -> str | None:
    version = _get_text(meta.get("versionId"))
    return f'W/"{version}"' if version else None


def _get_text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _parse(body: bytes) -> Any:
    try:
        return decimal_json.decode(body)
    except decimal_json.Malformed:
        return None
