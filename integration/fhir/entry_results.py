"""From the FHIR server's response to the result of each entry of a unit. Pure.

An entry is settled when it is written or refused for good. The others are sent again, without it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Issue
from integration.core.model import EntryResult, Response
from integration.fhir import operation_outcome
from integration.fhir.grammar import parse_literal
from integration.fhir.json_objects import get_object
from integration.fhir.units import Unit, UnitEntry

# Most conflicts and time-outs pass by themselves. Some never do (a validation error was once
# answered 408), so they are final after some attempts: https://github.com/microsoft/fhir-server/pull/5582
_TRANSIENT_AT_FIRST = (408, 409)

# Transient statuses by which a server says that it has done nothing.
_NOT_DONE = (401, 403, 409, 429, 503)

MAX_CONFLICT_ATTEMPTS = 5

# Statuses by which a server refuses the body of a request. A batch should never be refused as a
# whole (https://hl7.org/fhir/R4/http.html#brules), but microsoft/fhir-server does it when any entry
# does not parse as FHIR: its FhirJsonInputFormatter, and [ValidateModelState].
_BODY_REFUSED = (400, 408, 409, 413, 422)

# The largest resource of a read that is kept: the journal is no copy of the FHIR server.
MAX_RESOURCE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class UnitResults:
    """The results of one request. `unfinished` entries are sent again after `retry_after` seconds,
    if the server named any. `is_conflict`: some of them were answered 408 or 409. `may_be_done`:
    some of them may be written all the same. `halves`: what to send instead, one after the other,
    to find the entry for which all were refused."""

    settled: tuple[EntryResult, ...]
    unfinished: tuple[UnitEntry, ...] = ()
    retry_after: float | None = None
    is_conflict: bool = False
    may_be_done: bool = False
    halves: tuple[tuple[UnitEntry, ...], ...] = ()
    is_contested: bool = False  # an entry was refused that was sent on condition of a version


def read_response(
    unit: Unit,
    entries: Sequence[UnitEntry],
    response: Response,
    conflicts: int,
    conditional: Collection[int] = (),
) -> UnitResults:
    """Return the results of `units.build_request(unit, entries)`, matched by position.

    `conflicts` counts the earlier attempts that were answered 408 or 409; see
    MAX_CONFLICT_ATTEMPTS. `conditional`: the positions of entries that were sent on condition of a
    version by this app. Where such a condition may have failed, the entry is unfinished.
    """
    if response.status != 200:
        if conditional and _is_contested(response.status, conflicts):
            return UnitResults((), tuple(entries), response.retry_after, is_contested=True)
        return _read_failed_unit(unit, entries, response, conflicts)
    responses = parse_response_entries(response)
    if responses is None or not len(entries) <= len(responses) <= len(entries) + 1:
        # A server may append one entry of its own. Fewer, or an unreadable body, prove nothing.
        return UnitResults((), tuple(entries), may_be_done=True)
    settled: list[EntryResult] = []
    unfinished: list[UnitEntry] = []
    is_conflict = may_be_done = is_contested = False
    for entry, entry_response in zip(entries, responses, strict=False):
        result = read_entry_response(entry, entry_response)
        if result is not None and (
            entry.position in conditional and _is_contested(result.status, conflicts)
        ):
            unfinished.append(entry)
            is_contested = True
        elif result is None or _is_transient(result.status, conflicts):
            unfinished.append(entry)
            is_conflict |= result is not None and result.status in _TRANSIENT_AT_FIRST
            may_be_done |= result is None or result.status not in _NOT_DONE
        else:
            settled += copy_to_duplicates(entry, result)
    return UnitResults(
        tuple(settled),
        tuple(unfinished),
        response.retry_after,
        is_conflict,
        may_be_done,
        is_contested=is_contested,
    )


def refuse(entry: UnitEntry, issue: Issue, status: int) -> EntryResult:
    """Return the result of an entry that is not sent."""
    return EntryResult(
        position=entry.position,
        status=status,
        full_url=entry.full_url,
        issues=[operation_outcome.as_json(issue)],
    )


def add_issue(result: EntryResult, issue: Issue) -> EntryResult:
    """Return the result with one more issue."""
    return replace(result, issues=[*(result.issues or ()), operation_outcome.as_json(issue)])


def add_duplicates(unit: Unit, results: Sequence[EntryResult]) -> list[EntryResult]:
    """Return the results, and those of the entries that are the same as one of theirs and have
    none: what is settled without being sent is settled for all of them."""
    known = {result.position: result for result in results}
    added = [
        duplicate
        for entry in unit.entries
        if entry.same and entry.position in known
        for duplicate in copy_to_duplicates(entry, known[entry.position])[1:]
        if duplicate.position not in known
    ]
    return [*results, *added]


def copy_to_duplicates(entry: UnitEntry, result: EntryResult) -> list[EntryResult]:
    """Return the result, and that of each entry that is the same. For those of a conditional create
    the resource existed already."""
    status = 200 if result.status == 201 else result.status
    duplicates = (replace(result, position=n, full_url=url, status=status) for n, url in entry.same)
    with_notes = result
    for issue in entry.notes:
        with_notes = add_issue(with_notes, issue)
    return [with_notes, *duplicates]


def _read_failed_unit(
    unit: Unit, entries: Sequence[UnitEntry], response: Response, conflicts: int
) -> UnitResults:
    """Return the results of a unit that was refused, or failed, as a whole."""
    # A gateway may answer 204 or 302. Only a bundle with status 200 says that anything was written.
    if response.status < 400 or _is_transient(response.status, conflicts):
        is_conflict = response.status in _TRANSIENT_AT_FIRST
        may_be_done = response.status not in _NOT_DONE
        return UnitResults(
            (), tuple(entries), response.retry_after, is_conflict, may_be_done=may_be_done
        )
    if unit.kind == "batch" and len(entries) > 1 and response.status in _BODY_REFUSED:
        # One bad entry of n is found with 2·log2(n) more requests.
        middle = len(entries) // 2
        return UnitResults((), halves=(tuple(entries[:middle]), tuple(entries[middle:])))
    found_issues = operation_outcome.parse_outcome(_parse(response.body))
    found_issues = operation_outcome.translate(found_issues, [entry.where for entry in entries])
    return UnitResults(
        tuple(
            item
            for entry in entries
            for item in copy_to_duplicates(
                entry,
                EntryResult(
                    position=entry.position,
                    status=response.status,
                    full_url=entry.full_url,
                    issues=found_issues,
                ),
            )
        )
    )


def _is_transient(status: int, conflicts: int) -> bool:
    # 401 and 403 are for an operator to fix; the entry is not at fault.
    is_transient = status in (401, 403, 429) or status >= 500
    return is_transient or (status in _TRANSIENT_AT_FIRST and conflicts < MAX_CONFLICT_ATTEMPTS)


def _is_contested(status: int, conflicts: int) -> bool:
    """Whether a condition on a version may have failed: HAPI answers 409 where others answer 412,
    and 404 or 410 tell that the resource was deleted. Where it never passes, it was something else
    that the server refused."""
    return status in (404, 409, 410, 412) and conflicts < MAX_CONFLICT_ATTEMPTS


def parse_response_entries(response: Response) -> list[Any] | None:
    """Return the entries of a response bundle; None if the response is no such bundle."""
    bundle = _parse(response.body) if response.status == 200 else None
    entries = bundle.get("entry") if isinstance(bundle, dict) else None
    return entries if isinstance(entries, list) else None


def read_entry_response(entry: UnitEntry, entry_response: Any) -> EntryResult | None:
    """Return the result of one entry; None if its response is unreadable, which is no success."""
    status = get_status(entry_response)
    if status is None:
        return None
    response, resource = entry_response["response"], entry_response.get("resource")
    meta = get_object(resource, "meta")
    location = None if entry.is_read else _parse_location(response.get("location"))
    writes = entry.method != "DELETE" and not entry.is_read
    if location is None and 200 <= status < 300 and writes:
        location = _build_location(resource) or (entry.target if "/" in entry.target else None)
    found_issues = operation_outcome.parse_outcome(response.get("outcome"))
    result = EntryResult(
        position=entry.position,
        status=status,
        full_url=entry.full_url,
        location=location,
        etag=_parse_etag(response.get("etag")) or _build_etag(meta.get("versionId")),
        last_modified=_get_text(response.get("lastModified")) or _get_text(meta.get("lastUpdated")),
        issues=operation_outcome.translate(found_issues, [entry.where], entry.where),
    )
    return _add_resource(result, resource) if entry.method == "GET" and status == 200 else result


def _add_resource(result: EntryResult, resource: Any) -> EntryResult:
    """Add the resource that a read has returned."""
    content = decimal_json.encode(resource)
    if len(content) > MAX_RESOURCE_BYTES:
        text = (
            f"the resource has more than {MAX_RESOURCE_BYTES} bytes and is not kept: "
            "read it from the FHIR server"
        )
        return add_issue(result, Issue("too-long", text, severity="warning"))
    return replace(result, resource=content.decode())


def get_status(entry_response: Any) -> int | None:
    """Return the status of one entry of a response bundle; None if it states none."""
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
    return f"{parsed.identity}{parsed.version}" if parsed else None


def _build_location(resource: Any) -> str | None:
    if not isinstance(resource, dict) or resource.get("resourceType") == "OperationOutcome":
        return None
    identity = f"{resource.get('resourceType')}/{resource.get('id')}"
    version = _get_text(get_object(resource, "meta").get("versionId"))
    return _parse_location(f"{identity}/_history/{version}" if version else identity)


def get_version(etag: Any) -> str | None:
    """Return the version that an ETag names; None if it is none."""
    version = etag.removeprefix("W/").strip('"') if isinstance(etag, str) else ""
    return version or None


def _parse_etag(value: Any) -> str | None:
    """Return an ETag as https://hl7.org/fhir/R4/http.html#versioning has it.

    HAPI's server states the version alone, see docs/fhir-servers.md.
    """
    text = _get_text(value)
    return text if text and '"' in text else _build_etag(text)


def _build_etag(value: Any) -> str | None:
    version = _get_text(value)
    return f'W/"{version}"' if version else None


def _get_text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _parse(body: bytes) -> Any:
    try:
        return decimal_json.decode(body)
    except decimal_json.Malformed:
        return None
