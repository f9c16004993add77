"""Read one page of a searchset: https://hl7.org/fhir/R4/http.html#search. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from integration.core.errors import Misconfigured
from integration.core.model import FhirResource

Searchset = Mapping[str, Any]  # a FHIR resource that is only read

# https://hl7.org/fhir/R4/datatypes.html#id
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


def is_searchset(value: object) -> bool:
    """Whether the value is a searchset, as far as this app reads one."""
    if not isinstance(value, dict):
        return False
    entries, links = value.get("entry", []), value.get("link", [])
    if not (isinstance(entries, list) and isinstance(links, list)):
        return False
    resources = [entry.get("resource", {}) for entry in entries if isinstance(entry, dict)]
    return all(isinstance(item, dict) for item in (*entries, *links, *resources))


def list_matches(type_: str, searchset: Searchset) -> Iterator[FhirResource]:
    """Yield the matches, without included resources and OperationOutcomes."""
    for entry in searchset.get("entry", ()):
        resource = entry.get("resource", {})
        if resource.get("resourceType") == type_ and _ID.fullmatch(str(resource.get("id"))):
            yield resource


def find_next_path(searchset: Searchset, name: str, base: str) -> str | None:
    """Return the path of the next page, relative to `base`; None after the last page.

    The access token is sent there, so raises Misconfigured if the address is not below `base`.
    https://hl7.org/fhir/R4/http.html#paging
    """
    for link in searchset.get("link", ()):
        if link.get("relation") == "next":
            url = str(link.get("url"))
            if not url.startswith((f"{base}/", f"{base}?")):
                raise Misconfigured(
                    f"{name} returned a next page that is not below its own address"
                )
            return url[len(base) :].removeprefix("/")
    return None
