"""Pages of FHIR searches, of no more bytes than a worker can hold of many at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from integration.core.errors import Rejected, ResponseTooLarge
from integration.fhir.client import FhirServer
from integration.odata.refusals import NotSupported

# Else a server leaves out what it does not know of a search, and finds too much or counts wrongly.
# https://learn.microsoft.com/azure/healthcare-apis/fhir/overview-of-search
STRICT = {"prefer": "handling=strict"}

# Pages of large resources that are gathered for one request, at most.
MAX_SHRUNK_PAGES = 8

# Of a page that has more, so many times fewer resources are asked for.
_FEWER = 4
_COUNT = re.compile(r"(?<=[?&]_count=)[0-9]{1,4}(?=&|$)")


async def fetch_page(
    fhir: FhirServer, path: str, size: int, most: int, run: str
) -> tuple[str, Mapping[str, Any], bool]:
    """A page of a search in up to `most` bytes, its address, and whether it has fewer resources
    than `size` because they are large. Raises Rejected, 501, for one that is too large alone."""
    while True:
        count = _COUNT.search(path)
        asked = int(count[0]) if count else size
        try:
            found = await fhir.search(path, run, STRICT, most)
        except ResponseTooLarge:
            if count is None or asked <= 1:
                raise build_too_large_error() from None
            path = _COUNT.sub(str(max(1, asked // _FEWER)), path)
        else:
            return path, found, asked < size


def build_too_large_error() -> Rejected:
    text = "the resources are too large to look at them all: narrow it down, or ask for fewer rows"
    return NotSupported(text, "$filter")
