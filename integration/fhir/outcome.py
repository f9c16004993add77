"""What the FHIR server's answer says about each entry of a unit. Pure.

An entry is settled when it is written or refused for good; the rest is to be tried again, alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from integration import exact_json
from integration.errors import Issue
from integration.fhir import issues
from integration.fhir.grammar import literal
from integration.fhir.units import Unit, UnitEntry
from integration.model import Outcome, Response

# Conflicts and time-outs pass by themselves, but some never do (a validation error was once
# answered 408): https://github.com/microsoft/fhir-server/pull/5582
_CAPPED = (408, 409)
CAP = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """`settled` is for good; `unfinished` waits `retry_after` seconds, if the server named any."""

    settled: tuple[Outcome, ...]
    unfinished: tuple[UnitEntry, ...] = ()
    retry_after: float | None = None


def of_unit(unit: Unit, entries: Sequence[UnitEntry], response: Response, attempt: int) -> Answer:
    """The answer to `units.request(unit, entries)`, matched by position and checked by count."""
    if response.status != 200:
        return _whole(entries, response, attempt)
    answers = _response_entries(response.body)
    if answers is None or not len(entries) <= len(answers) <= len(entries) + 1:
        # A server may append one entry of its own; fewer, or an unreadable answer, proves nothing.
        return Answer((), tuple(entries))
    settled: list[Outcome] = []
    unfinished: list[UnitEntry] = []
    for entry, answer in zip(entries, answers, strict=False):
        outcome = _of_entry(entry, answer)
        if outcome is None or _passes(outcome.status, attempt):
            unfinished.append(entry)
        else:
            settled += spread(entry, outcome)
    return Answer(tuple(settled), tuple(unfinished), response.retry_after)


def of_inquiry(
    unit: Unit, entries: Sequence[UnitEntry], response: Response
) -> dict[int, Outcome] | None:
    """Of the entries asked about with `units.inquiry`: which have been done by an earlier try?

    Only a create proves anything, because nobody else can have used its id. A transaction is all
    or nothing, so one create that is there proves the whole unit. None when the server has not
    said of every entry that it is there, or is not: that is no leave to write.
    """
    answers = _response_entries(response.body) if response.status == 200 else None
    if answers is None or len(answers) < len(entries):
        return None
    pairs = list(zip(entries, answers, strict=False))
    if any(_status_of(answer) not in (200, 404, 410) for _, answer in pairs):
        return None
    proofs = [pair for pair in pairs if pair[0].created and _status_of(pair[1]) != 404]
    done = pairs if proofs and unit.kind == "transaction" else proofs
    return {entry.position: _done(entry, answer) for entry, answer in done}


def refused(entry: UnitEntry, issue: Issue, status: int) -> Outcome:
    """An entry that is not sent, and why."""
    return Outcome(entry.position, status, entry.full_url, issues=[issues.as_json(issue)])


def spread(entry: UnitEntry, outcome: Outcome) -> list[Outcome]:
    """The outcome, and that of every entry that asks for the same conditional create: to those,
    the resource was there already."""
    status = 200 if outcome.status == 201 else outcome.status
    rest = (replace(outcome, position=n, full_url=url, status=status) for n, url in entry.same)
    return [outcome, *rest]


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
                entry, Outcome(entry.position, response.status, entry.full_url, issues=told)
            )
        )
    )


def _passes(status: int, attempt: int) -> bool:
    # 401 and 403 are for an operator to mend, and no fault of the entry.
    lasting = status in (401, 403, 429) or status >= 500
    return lasting or (status in _CAPPED and attempt < CAP)


def _response_entries(body: bytes) -> list[Any] | None:
    bundle = _parsed(body)
    entries = bundle.get("entry") if isinstance(bundle, dict) else None
    return entries if isinstance(entries, list) else None


def _of_entry(entry: UnitEntry, answer: Any) -> Outcome | None:
    """None when the answer cannot be read: that is no success."""
    status = _status_of(answer)
    if status is None:
        return None
    said, resource = answer["response"], answer.get("resource")
    meta = _meta(resource)
    location = _location(said.get("location"))
    if location is None and 200 <= status < 300 and not entry.deletes:
        location = _stored(resource) or (entry.target if "/" in entry.target else None)
    told = issues.of_outcome(said.get("outcome"))
    return Outcome(
        position=entry.position,
        status=status,
        full_url=entry.full_url,
        location=location,
        etag=_text(said.get("etag")) or _etag(meta),
        last_modified=_text(said.get("lastModified")) or _text(meta.get("lastUpdated")),
        issues=issues.translated(told, [entry.where], entry.where),
    )


def _done(entry: UnitEntry, answer: Any) -> Outcome:
    """The outcome of an entry that an earlier try has done. What somebody has deleted, or made
    again, since then is not ours to bring back, or to delete."""
    if entry.deletes:
        return Outcome(entry.position, 204, entry.full_url)
    read = _of_entry(entry, answer) if _status_of(answer) == 200 else None
    return read or Outcome(entry.position, 200, entry.full_url, location=entry.target)


def _status_of(answer: Any) -> int | None:
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
        return exact_json.decode(body)
    except exact_json.Malformed:
        return None
