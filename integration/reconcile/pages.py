"""One page of a search at the FHIR server, or of rows, and the way to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from integration import exact_json
from integration.dataverse.client import Dataverse
from integration.errors import Misconfigured, Unavailable
from integration.fhir.client import FhirServer
from integration.model import Request, Response
from integration.reconcile.differences import ID

Page = Mapping[str, Any]


async def search(fhir: FhirServer, path: str, run: str) -> Page:
    """A searchset. Raises Unavailable, or Misconfigured where the server takes no such search."""
    name, headers = fhir.neighbour.name, {"accept": "application/fhir+json"}
    answer = await fhir.send(Request("GET", path, headers=headers), run)
    if answer.status >= 500 or answer.status == 408:
        raise Unavailable(name, f"a search was answered {answer.status}")
    if answer.status != 200:
        raise Misconfigured(f"{name}: a search was answered {answer.status}")
    return _decoded(name, answer)


def matches(type_: str, searchset: Page) -> Iterator[dict[str, Any]]:
    """What was searched, without what was only included or said about it."""
    for entry in searchset.get("entry", ()):
        resource = entry.get("resource", {})
        if resource.get("resourceType") == type_ and ID.fullmatch(str(resource.get("id"))):
            yield resource


def next_search(fhir: FhirServer, searchset: Page) -> str | None:
    """https://hl7.org/fhir/R4/http.html#paging"""
    for link in searchset.get("link", ()):
        if link.get("relation") == "next":
            return _own(fhir.neighbour.name, fhir.neighbour.base, str(link.get("url")))
    return None


def rows(dataverse: Dataverse, answer: Response) -> Page:
    """The answer to a question for rows."""
    name = dataverse.neighbour.name
    if answer.status != 200:
        raise Misconfigured(f"{name}: a look-up was answered {answer.status}")
    return _decoded(name, answer)


def next_rows(dataverse: Dataverse, before: Request, page: Page) -> Request | None:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/page-results"""
    url = page.get("@odata.nextLink")
    if url is None:
        return None
    neighbour = dataverse.neighbour
    return replace(before, path=_own(neighbour.name, neighbour.base, str(url)))


def _own(name: str, base: str, url: str) -> str:
    """The address relative to the neighbour's. The token goes with it, so it goes nowhere else."""
    if not url.startswith((f"{base}/", f"{base}?")):
        raise Misconfigured(f"{name} named a next page that is not below its own address")
    return url[len(base) :].removeprefix("/")


def _decoded(name: str, answer: Response) -> dict[str, Any]:
    try:
        decoded = exact_json.decode(answer.body)
    except exact_json.Malformed:
        decoded = None
    if not isinstance(decoded, dict):
        raise Unavailable(name, "a page was no JSON object")
    return decoded
