"""One page of rows, and the way to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Misconfigured, Unavailable
from integration.core.model import Request, Response
from integration.dataverse.client import Dataverse

Page = Mapping[str, Any]


def parse_page(dataverse: Dataverse, response: Response) -> Page:
    """The answer to a question for rows."""
    name = dataverse.upstream.name
    if response.status != 200:
        raise Misconfigured(f"{name}: a look-up was answered {response.status}")
    return _decode(name, response)


def build_next_request(dataverse: Dataverse, request: Request, page: Page) -> Request | None:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/page-results"""
    url = page.get("@odata.nextLink")
    if url is None:
        return None
    upstream = dataverse.upstream
    return replace(request, path=_make_relative(upstream.name, upstream.base, str(url)))


def _make_relative(name: str, base: str, url: str) -> str:
    """The address relative to the neighbour's. The token goes with it, so it goes nowhere else."""
    if not url.startswith((f"{base}/", f"{base}?")):
        raise Misconfigured(f"{name} named a next page that is not below its own address")
    return url[len(base) :].removeprefix("/")


def _decode(name: str, response: Response) -> dict[str, Any]:
    decoded = decimal_json.decode_object(response.body)
    if decoded is None:
        raise Unavailable(name, "a page was no JSON object")
    return decoded
