"""Read what the FHIR server and Dataverse hold, from them and never from the relay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from faults.deliveries import ISSUED, MARKER_SYSTEM, TrackedResource
from faults.route import gather_limited
from faults.verdict import StoredContact, StoredResource
from integration.fhir import write_mark

_READS_PER_BATCH = 200  # reads in one batch
_MAX_VERSIONS = 1000  # of one resource: what the FHIR server gives in one page


async def read_resources(
    http: httpx.AsyncClient, fhir_url: str, things: Iterable[TrackedResource]
) -> dict[TrackedResource, StoredResource]:
    """Find each resource by its identifier, then read its whole history."""
    tracked = list(dict.fromkeys(things))
    searches = [f"{t.type}?identifier={quote(t.query.partition('=')[2])}" for t in tracked]
    found = [
        _list_identities(tracked_resource, answer)
        for tracked_resource, answer in zip(
            tracked, await _read_batch(http, fhir_url, searches), strict=True
        )
    ]
    identities = sorted({identity for ids in found for identity in ids})
    histories = [f"{identity}/_history?_count={_MAX_VERSIONS}" for identity in identities]
    answers = await _read_batch(http, fhir_url, histories)
    stored = dict(zip(identities, answers, strict=True))
    return {
        tracked_resource: _build_stored(ids, stored[ids[0]]) if ids else StoredResource(())
        for tracked_resource, ids in zip(tracked, found, strict=True)
    }


async def read_contacts(
    http: httpx.AsyncClient, dataverse_url: str, identities: Iterable[str]
) -> dict[str, StoredContact]:
    """Return the contact of each patient, by Type/id."""
    patients = [identity for identity in identities if identity.startswith("Patient/")]
    found = await gather_limited(
        [_read_contact(http, dataverse_url, identity) for identity in patients]
    )
    return dict(zip(patients, found, strict=True))


async def _read_batch(http: httpx.AsyncClient, url: str, addresses: Sequence[str]) -> list[Any]:
    """Read these addresses in batches. Return each resource, or None."""
    answers: list[Any] = []
    for start in range(0, len(addresses), _READS_PER_BATCH):
        chunk = addresses[start : start + _READS_PER_BATCH]
        reads = [{"request": {"method": "GET", "url": address}} for address in chunk]
        bundle = {"resourceType": "Bundle", "type": "batch", "entry": reads}
        headers = {"content-type": "application/fhir+json"}
        answer = await http.post(url, json=bundle, headers=headers)
        answer.raise_for_status()
        answers += [address.get("resource") for address in answer.json()["entry"]]
    return answers


def _list_identities(tracked: TrackedResource, searchset: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the Type/id of each match; without one, the id that the sender assigned, if any."""
    found = [f"{tracked.type}/{entry['resource']['id']}" for entry in searchset.get("entry", ())]
    if not found and tracked.identity:
        found = [tracked.identity]
    return tuple(found)


def _build_stored(ids: tuple[str, ...], history: Mapping[str, Any] | None) -> StoredResource:
    entries = history.get("entry", ()) if history else ()
    issued = {entry.get("resource", {}).get("issued", ISSUED) for entry in entries}
    return StoredResource(ids, _list_states(history), is_rewritten=issued != {ISSUED})


def _list_states(history: Mapping[str, Any] | None) -> tuple[tuple[str, str | None], ...]:
    """Return (version, marker) of each version, oldest first."""
    entries = history.get("entry", ()) if history and history["resourceType"] == "Bundle" else ()
    newest_first = [
        (entry["response"]["etag"].strip('W/"'), _find_marker(entry.get("resource")))
        for entry in entries
        # The announcement of a delete changes nothing that a sender sent.
        if not write_mark.is_delete_announced(entry.get("resource"))
    ]
    return tuple(reversed(newest_first))


def _find_marker(resource: Mapping[str, Any] | None) -> str | None:
    if resource is None:
        return None
    (marker,) = [
        identifier["value"]
        for identifier in resource["identifier"]
        if identifier["system"] == MARKER_SYSTEM
    ]
    return str(marker)


async def _read_contact(http: httpx.AsyncClient, url: str, identity: str) -> StoredContact:
    answer = await http.get(
        f"{url}/api/data/v9.2/contacts",
        params={"$filter": f"msemr_azurefhirid eq '{identity.partition('/')[2]}'"},
    )
    answer.raise_for_status()
    found = answer.json()["value"]
    if len(found) != 1:
        return StoredContact(len(found))
    (row,) = found
    query = {"table": "contact", "id": row["contactid"]}
    history = (await http.get(f"{url}/control/history", params=query)).json()
    versions = [version["values"].get("msemr_azurefhirversion") for version in history]
    shown = tuple(version for version in versions if version)
    return StoredContact(1, row["msemr_azurefhirversion"], row["statecode"] == 0, shown)
