"""Find out why the FHIR server refuses a search: a value of the request, or what the map names.

Both are answered with 400, and the texts of servers differ. So the same search is sent once more
with values that no server refuses. If it is refused again, the request is not at fault.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from integration.core.errors import IntegrationError, Misconfigured, SearchRefused
from integration.fhir.client import FhirServer
from integration.fhir.search import Parameters, build_path
from integration.odata.refusals import BadRequest
from integration.virtual_tables import fhir_pages

_DATE = re.compile(r"((?:ge|le)?)[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9:]+Z)?")
_REFERENCE = re.compile(r"([A-Z][A-Za-z]+/).*")


async def explain_refusal(
    fhir: FhirServer,
    resource: str,
    parameters: Parameters,
    properties: Collection[str],
    run_id: str,
) -> IntegrationError:
    """Return the error that says which. `properties`: those of the filter. Raises Unavailable."""
    harmless = [(name, _replace_value(name, value)) for name, value in parameters]
    path = build_path(resource, (*harmless, ("_summary", "count")))
    names = ", ".join(dict.fromkeys(name for name, _ in parameters)) or "nothing"
    refusal = Misconfigured(
        f"{fhir.upstream.name} refuses a search for {resource} by {names}: compare `search` and "
        "`sort` of the map with its capability statement"
    )
    if not properties:
        return refusal
    try:
        await fhir.search(path, run_id, fhir_pages.STRICT)
    except SearchRefused:
        return refusal
    return BadRequest(
        f"the FHIR server cannot search for a value of {', '.join(sorted(properties))}", "$filter"
    )


def _replace_value(name: str, value: str) -> str:
    if name == "_sort" or value in ("true", "false"):
        return value
    if date := _DATE.fullmatch(value):
        return f"{date[1]}2000-01-01"
    if reference := _REFERENCE.fullmatch(value):
        return f"{reference[1]}a"
    return "a"
