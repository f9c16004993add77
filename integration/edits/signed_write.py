"""Write a changed resource together with a Provenance that names the person who changed it.

Both go in one transaction, so that neither is there without the other.
https://hl7.org/fhir/R4/provenance.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from integration.core import decimal_json
from integration.core.activity_recorder import add_activity_context
from integration.core.errors import Rejected, Unavailable
from integration.core.model import FhirResource, Request
from integration.core.state_version import StateVersion, get_version
from integration.edits import guarded_write
from integration.edits.guarded_write import (
    CONFLICT_STATUSES,
    HEADERS,
    build_write_error,
    lock_resource,
)
from integration.fhir import entry_results, write_mark
from integration.fhir.client import FhirServer
from integration.journal.write_guard import WriteGuard

_OPERATIONS = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_PARTICIPANTS = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who has changed a row: a user of Dataverse. `name`: "" where it is not known."""

    id: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditWriter:
    """What writing needs. `new_run_id`: makes an id that sorts by time, as ids of deliveries do.
    `dataverse_url`: of the organisation, whose users the ids of authors are."""

    fhir: FhirServer
    guard: WriteGuard
    new_run_id: Callable[[], str]
    now: Callable[[], datetime]
    dataverse_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What became of a write. `resource`: as it was stored, where the server says so."""

    version: StateVersion
    resource: FhirResource | None


async def write_signed(
    writer: EditWriter, before: FhirResource | None, after: FhirResource, author: Author
) -> Stored | None:
    """Write `after` in the place of `before`; None: as a new resource. Return None where somebody
    has changed or made it in between.

    Raises Rejected where the FHIR server does not take it, Unavailable and Misconfigured.
    """
    name = f"{after['resourceType']}/{after['id']}"
    version = None if before is None else guarded_write.get_version(before)
    run_id = writer.new_run_id()
    # Microsoft's service reads no ifNoneMatch of a PUT in a bundle: there the lock alone keeps
    # others out.
    condition = {"ifNoneMatch": "*"} if version is None else {"ifMatch": f'W/"{version}"'}
    marked = (
        guarded_write.mark(after, run_id)
        if version is None
        else write_mark.add_edit(after, version)
    )
    entries = [
        {
            "resource": marked,
            "request": {"method": "PUT", "url": name, **condition},
        },
        _build_provenance_entry(writer, name, version, run_id, author),
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    request = Request("POST", "", decimal_json.encode(bundle), HEADERS)
    try:
        is_new = version is None
        async with lock_resource(writer.guard, name, run_id, is_ordered=is_new) as attempt:
            attempt.is_sent = True
            with add_activity_context(action="write an edit", resource=name):
                response = await writer.fhir.send(request, run_id)
            if response.status >= 300 and response.status not in CONFLICT_STATUSES:
                # Inside: where a gateway answers, the server may be at work, and the lock stays.
                raise build_write_error(writer.fhir.upstream.name, response.status)
            attempt.record_response(response)
    except Rejected as error:
        if error.status in CONFLICT_STATUSES:  # a later delivery has the lock
            return None
        raise
    if response.status in CONFLICT_STATUSES:
        return None
    answers = entry_results.parse_response_entries(response)
    if answers is None or len(answers) != len(entries):
        why = "the response to an edit is no bundle with the result of each entry"
        raise Unavailable(writer.fhir.upstream.name, why, is_outcome_unknown=True)
    return _read_stored(answers[0])


def _read_stored(answer: Any) -> Stored:
    resource = answer.get("resource") if isinstance(answer, dict) else None
    if isinstance(resource, dict) and get_version(resource).id is not None:
        return Stored(version=get_version(resource), resource=resource)
    response = answer.get("response", {}) if isinstance(answer, dict) else {}
    etag, updated = entry_results.get_version(response.get("etag")), response.get("lastModified")
    return Stored(version=StateVersion(id=etag, updated=updated), resource=None)


def _build_provenance_entry(
    writer: EditWriter, name: str, version: str | None, run_id: str, author: Author
) -> dict[str, Any]:
    id_ = str(uuid5(NAMESPACE_URL, f"{writer.dataverse_url}/{run_id}/{name}"))
    who: dict[str, Any] = {
        "identifier": {"system": f"{writer.dataverse_url}/systemusers", "value": author.id}
    }
    if author.name:
        who["display"] = author.name
    resource: dict[str, Any] = {
        "resourceType": "Provenance",
        "id": id_,
        "target": [{"reference": name}],
        "recorded": writer.now().astimezone(UTC).isoformat(timespec="milliseconds"),
        "activity": _build_concept(_OPERATIONS, "CREATE" if version is None else "UPDATE"),
        "agent": [
            {
                "type": _build_concept(_PARTICIPANTS, "author"),
                "who": who,
            }
        ],
    }
    if version is not None:
        # The version that the person saw, and that this one takes the place of.
        replaced = {"reference": f"{name}/_history/{version}"}
        resource["entity"] = [{"role": "revision", "what": replaced}]
    return {"resource": resource, "request": {"method": "PUT", "url": f"Provenance/{id_}"}}


def _build_concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}
