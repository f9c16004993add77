"""Find the resources whose rows are not as the FHIR server holds them: both servers are asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any

import httpx

from faults.mirror_truth import read_all
from local.services import Running

Json = Mapping[str, Any]
Numbers = frozenset[tuple[str, str]]

_PAGE = 1000
_PATIENT = 935000000  # msemr_contacttype
_TABLES = {"Patient": "contact", "Organization": "account"}


async def find_wrong_rows(
    http: httpx.AsyncClient, running: Running, types: Collection[str]
) -> set[str]:
    """Return the resources of these types, as Type/id, whose row is missing, doubled or inactive,
    or shows another version, or lacks a child or a lookup of a resource of these types; and those
    that FHIR does not have, or no more, and whose row is active."""
    wrong: set[str] = set()
    for type_ in types:
        rows = await _read_rows(http, running, _TABLES[type_])
        numbers = await _read_numbers(http, running) if type_ == "Patient" else {}
        async for resource in search_all(http, running.fhir_url, type_):
            in_use = rows.pop(resource["id"], [])
            if len(in_use) != 1 or not _is_right(resource, in_use[0], numbers, types):
                wrong.add(f"{type_}/{resource['id']}")
        wrong.update(
            f"{type_}/{id_}"
            for id_, left in rows.items()
            if any(row["statecode"] == 0 for row in left)
        )
    return wrong


def _is_right(
    resource: Json, row: Json, numbers: Mapping[str, Numbers], types: Collection[str]
) -> bool:
    is_active = resource.get("active", True) == (row["statecode"] == 0)
    if row["msemr_azurefhirversion"] != resource["meta"]["versionId"] or not is_active:
        return False
    if resource["resourceType"] != "Patient":
        return True
    wanted = frozenset(
        (number["system"], number["value"]) for number in resource.get("identifier", ())
    )
    owner = resource.get("managingOrganization", {}).get("reference", "").partition("/")[0]
    has_owner = row.get("_msemr_managingorganization_value") is not None
    is_linked = has_owner or owner not in types
    return is_linked and numbers.get(row["contactid"], frozenset()) == wanted


async def _read_rows(
    http: httpx.AsyncClient, running: Running, table: str
) -> dict[str, list[Json]]:
    """Return the rows by FHIR id, but for those that were merged into another."""
    rows: dict[str, list[Json]] = defaultdict(list)
    async for row in read_all(http, running, f"{table}s"):
        is_patient = row.get("msemr_contacttype", _PATIENT) in (_PATIENT, None)
        if row["msemr_azurefhirid"] is not None and is_patient and not row.get("merged"):
            rows[row["msemr_azurefhirid"]].append(row)
    return rows


async def _read_numbers(http: httpx.AsyncClient, running: Running) -> dict[str, Numbers]:
    """Return the identifiers of each contact, by its key."""
    numbers: dict[str, set[tuple[str, str]]] = defaultdict(set)
    async for child in read_all(http, running, "msemr_medicalidentifiers"):
        number = child["msemr_identifiersystem"], child["msemr_value"]
        numbers[child["_msemr_assignee_value"]].add(number)
    return {key: frozenset(found) for key, found in numbers.items()}


async def search_all(
    http: httpx.AsyncClient, fhir_url: str, type_: str
) -> AsyncIterator[dict[str, Any]]:
    """Yield all resources of a type."""
    url = f"{fhir_url}/{type_}?_count={_PAGE}"
    while url:
        answer = await http.get(url)
        answer.raise_for_status()
        page = answer.json()
        for entry in page.get("entry", ()):
            yield entry["resource"]
        url = _find_next(page.get("link", ()))


def _find_next(links: Iterable[Json]) -> str:
    return next((str(link["url"]) for link in links if link["relation"] == "next"), "")
