"""What the FHIR server and Dataverse hold, read from them, never from the relay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from faults.deliveries import MARK, Thing
from faults.route import side_by_side
from faults.verdict import Held, Row

_AT_ONCE = 200  # reads in one batch


async def held(
    http: httpx.AsyncClient, fhir_url: str, things: Iterable[Thing]
) -> dict[Thing, Held]:
    """Each thing as the FHIR server has it: found by its identifier, then its whole history."""
    wanted = list(dict.fromkeys(things))
    searches = [f"{t.type}?identifier={quote(t.query.partition('=')[2])}" for t in wanted]
    identities = [
        _found(thing, answer)
        for thing, answer in zip(wanted, await _batch(http, fhir_url, searches), strict=True)
    ]
    asked = sorted({each for found in identities for each in found})
    answers = await _batch(http, fhir_url, [f"{identity}/_history" for identity in asked])
    states = dict(zip(asked, map(_states, answers), strict=True))
    return {
        thing: Held(found, states[found[0]] if found else ())
        for thing, found in zip(wanted, identities, strict=True)
    }


async def rows(
    http: httpx.AsyncClient, dataverse_url: str, identities: Iterable[str]
) -> dict[str, Row]:
    """What Dataverse shows of each patient."""
    patients = [each for each in identities if each.startswith("Patient/")]
    found = await side_by_side([_row(http, dataverse_url, each) for each in patients])
    return dict(zip(patients, found, strict=True))


async def _batch(http: httpx.AsyncClient, url: str, addresses: Sequence[str]) -> list[Any]:
    """The resource that each read gives, or None."""
    answers: list[Any] = []
    for start in range(0, len(addresses), _AT_ONCE):
        some = addresses[start : start + _AT_ONCE]
        reads = [{"request": {"method": "GET", "url": each}} for each in some]
        bundle = {"resourceType": "Bundle", "type": "batch", "entry": reads}
        headers = {"content-type": "application/fhir+json"}
        answer = await http.post(url, json=bundle, headers=headers)
        answer.raise_for_status()
        answers += [each.get("resource") for each in answer.json()["entry"]]
    return answers


def _found(thing: Thing, searchset: Mapping[str, Any]) -> tuple[str, ...]:
    """What exists; where nothing does, the resource that may have existed."""
    found = [f"{thing.type}/{each['resource']['id']}" for each in searchset.get("entry", ())]
    if not found and thing.identity:
        found = [thing.identity]
    return tuple(found)


def _states(history: Mapping[str, Any] | None) -> tuple[tuple[str, str | None], ...]:
    """(version, mark), oldest first; a history is newest first."""
    entries = history.get("entry", ()) if history and history["resourceType"] == "Bundle" else ()
    newest_first = [
        (each["response"]["etag"].strip('W/"'), _mark(each.get("resource"))) for each in entries
    ]
    return tuple(reversed(newest_first))


def _mark(resource: Mapping[str, Any] | None) -> str | None:
    if resource is None:
        return None
    (mark,) = [each["value"] for each in resource["identifier"] if each["system"] == MARK]
    return str(mark)


async def _row(http: httpx.AsyncClient, url: str, identity: str) -> Row:
    answer = await http.get(
        f"{url}/api/data/v9.2/contacts",
        params={"$filter": f"msemr_azurefhirid eq '{identity.partition('/')[2]}'"},
    )
    answer.raise_for_status()
    found = answer.json()["value"]
    if len(found) != 1:
        return Row(len(found))
    (row,) = found
    asked = {"table": "contact", "id": row["contactid"]}
    history = (await http.get(f"{url}/control/history", params=asked)).json()
    versions = [each["values"].get("msemr_azurefhirversion") for each in history]
    shown = tuple(each for each in versions if each)
    return Row(1, row["msemr_azurefhirversion"], row["statecode"] == 0, shown)
