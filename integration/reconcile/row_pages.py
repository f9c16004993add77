"""Parse one page of rows, and build the request for the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Misconfigured, Unavailable
from integration.core.model import Request, Response
from integration.dataverse.client import Dataverse

RowPage = Mapping[str, Any]


def parse_page(dataverse: Dataverse, response: Response) -> RowPage:
    """Return a page of rows. Raises Misconfigured or Unavailable if the response is none."""
    name = dataverse.upstream.name
    if response.status != 200:
        raise Misconfigured(f"{name} answered a request for rows with {response.status}")
    page = decimal_json.decode_object(response.body)
    if page is None:
        raise Unavailable(name, "answered a request for rows with something else than JSON")
    return page


def build_next_request(dataverse: Dataverse, request: Request, page: RowPage) -> Request | None:
    """Build the request for the page after `page`; None if it is the last one.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/page-results
    Raises Misconfigured for an address elsewhere: the token would go there, too.
    """
    url = page.get("@odata.nextLink")
    if url is None:
        return None
    name, base = dataverse.upstream.name, dataverse.upstream.base
    if not str(url).startswith((f"{base}/", f"{base}?")):
        raise Misconfigured(f"{name} gave a next page whose address is not below its own")
    return replace(request, path=str(url)[len(base) :].removeprefix("/"))
