"""Read the FHIR server's resources and Dataverse's rows, from them and never from the relay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

import httpx

from faults.mirror_verdict import FhirState, ShownRow
from faults.route import gather_limited
from local.services import Running

NUMBERS = "urn:faults:number"

_READS_PER_BATCH = 200
_PATIENT = 935000000  # msemr_contacttype


async def read_states(
    http: httpx.AsyncClient, running: Running, people: Mapping[str, str]
) -> list[FhirState]:
    """Read the resources, persons by Type/id, in the order given."""
    found: list[FhirState] = []
    identities = list(people)
    for start in range(0, len(identities), _READS_PER_BATCH):
        chunk = identities[start : start + _READS_PER_BATCH]
        reads = [{"request": {"method": "GET", "url": identity}} for identity in chunk]
        answer = await http.post(
            running.fhir_url,
            json={"resourceType": "Bundle", "type": "batch", "entry": reads},
            headers={"content-type": "application/fhir+json"},
        )
        answer.raise_for_status()
        entries = answer.json()["entry"]
        found += [
            _parse_state(people[identity], identity, entry.get("resource"))
            for identity, entry in zip(chunk, entries, strict=True)
        ]
    return found


def _parse_state(person: str, identity: str, resource: Any) -> FhirState:
    if not resource or resource["resourceType"] == "OperationOutcome":
        return FhirState(person=person, identity=identity)
    name = resource["name"]
    return FhirState(
        person=person,
        identity=identity,
        version=resource["meta"]["versionId"],
        name=name if isinstance(name, str) else name[0]["family"],
        active=resource.get("active", True),
        numbers=frozenset(
            number["value"]
            for number in resource.get("identifier", ())
            if number.get("system") == NUMBERS
        ),
        owner=resource.get("managingOrganization", {}).get("reference"),
    )


async def read_rows(
    http: httpx.AsyncClient, running: Running, table: str, *, ids: Collection[str]
) -> list[ShownRow]:
    """Read all rows of patients in `contact`, or of `account`. `ids`: the FHIR ids of the rows
    whose history is read."""
    numbers = defaultdict(set)
    if table == "contact":
        async for child in read_all(http, running, "msemr_medicalidentifiers"):
            if child["msemr_identifiersystem"] == NUMBERS:
                numbers[child["_msemr_assignee_value"]].add(child["msemr_value"])
    rows = [
        row
        async for row in read_all(http, running, f"{table}s")
        if row.get("msemr_contacttype", _PATIENT) in (_PATIENT, None)
    ]
    wanted = set(ids)

    async def build(row: Mapping[str, Any]) -> ShownRow:
        key, fhir_id = row[f"{table}id"], row["msemr_azurefhirid"]
        return ShownRow(
            key=key,
            fhir_id=fhir_id,
            version=row["msemr_azurefhirversion"],
            name=_get_name(row) or "",
            active=row["statecode"] == 0,
            merged=bool(row.get("merged")),
            numbers=frozenset(numbers[key]),
            owner=row.get("_msemr_managingorganization_value"),
            names=await _read_names(http, running, table, key) if fhir_id in wanted else (),
        )

    return await gather_limited([build(row) for row in rows])


async def _read_names(
    http: httpx.AsyncClient, running: Running, table: str, key: str
) -> tuple[str, ...]:
    """Return the names that the row has shown since it was created, oldest first."""
    url = f"{running.dataverse_url}/control/history"
    answer = await http.get(url, params={"table": table, "id": key})
    answer.raise_for_status()
    names: list[str] = []
    for state in answer.json():
        if state["action"] == "delete":
            names.clear()
        elif name := _get_name(state["values"]):
            names.append(name)
    return tuple(names)


async def read_all(
    http: httpx.AsyncClient, running: Running, entity_set: str
) -> AsyncIterator[Mapping[str, Any]]:
    """Yield all rows of a table."""
    url = f"{running.dataverse_url}/api/data/v9.2/{entity_set}"
    while url:
        answer = await http.get(url)
        answer.raise_for_status()
        page = answer.json()
        for row in page["value"]:
            yield row
        url = page.get("@odata.nextLink", "")


def _get_name(row: Mapping[str, Any]) -> str | None:
    name: str | None = row.get("lastname") or row.get("name")
    return name
