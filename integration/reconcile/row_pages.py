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


def rows(dataverse: Dataverse, answer: Response) -> Page:
    """The answer to a question for rows."""
    name = dataverse.upstream.name
    if answer.status != 200:
        raise Misconfigured(f"{name}: a look-up was answered {answer.status}")
    return _decoded(name, answer)


def next_rows(dataverse: Dataverse, before: Request, page: Page) -> Request | None:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/page-results"""
    url = page.get("@odata.nextLink")
    if url is None:
        return None
    neighbour = dataverse.upstream
    return replace(before, path=_own(neighbour.name, neighbour.base, str(url)))


def _own(name: str, base: str, url: str) -> str:
    """The address relative to the neighbour's. The token goes with it, so it goes nowhere else."""
    if not url.startswith((f"{base}/", f"{base}?")):
        raise Misconfigured(f"{name} named a next page that is not below its own address")
    return url[len(base) :].removeprefix("/")


def _decoded(name: str, answer: Response) -> dict[str, Any]:
    decoded = decimal_json.decode_object(answer.body)
    if decoded is None:
        raise Unavailable(name, "a page was no JSON object")
    return decoded
