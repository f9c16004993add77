"""Fetch pages of FHIR searches that are small enough for a worker to hold many at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from integration.core.errors import ResponseTooLarge
from integration.fhir.client import FhirServer
from integration.odata.refusals import NotSupported

# Without it a server ignores search parameters that it does not know, and finds or counts too many.
# https://learn.microsoft.com/azure/healthcare-apis/fhir/overview-of-search
STRICT = {"prefer": "handling=strict"}

# Shrunk pages that are read while rows are gathered, at most.
MAX_SHRUNK_PAGES = 8

# A page that is too large is requested again with this many times fewer resources.
_SHRINK_FACTOR = 4
_COUNT = re.compile(r"(?<=[?&]_count=)[0-9]{1,4}(?=&|$)")


async def fetch_page(
    fhir: FhirServer, path: str, size: int, max_bytes: int, run_id: str
) -> tuple[str, Mapping[str, Any], bool]:
    """Fetch a page of a search in up to `max_bytes`.

    Returns its path, the searchset, and whether it was shrunk: it has fewer than `size` resources,
    because they are large. Raises Rejected, 501, for a single resource that is too large.
    """
    while True:
        count = _COUNT.search(path)
        requested = int(count[0]) if count else size
        try:
            searchset = await fhir.search(path, run_id, STRICT, max_bytes)
        except ResponseTooLarge:
            if count is None or requested <= 1:
                raise build_too_large_error() from None
            path = _COUNT.sub(str(max(1, requested // _SHRINK_FACTOR)), path)
        else:
            return path, searchset, requested < size


def set_count(path: str, size: int) -> str:
    """Return the path of a page that has up to `size` resources, if the path says how many."""
    return _COUNT.sub(str(size), path)


def build_too_large_error() -> NotSupported:
    """Build the refusal of a query that would have to look at too many large resources."""
    text = (
        "the resources are too large to look at all of them: narrow the query down, or request "
        "fewer rows"
    )
    return NotSupported(text, "$filter")
