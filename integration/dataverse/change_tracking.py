"""Requests and answers of change tracking: which rows of a table were written, and by whom. Pure.

The first request is answered with every row and a link; a link is answered with what was written
or deleted since, and the next link. Pages have up to 5,000 rows, in the order of their versions. A
link is good for seven days unless the organisation says otherwise.
https://learn.microsoft.com/power-apps/developer/data-platform/use-change-tracking-synchronize-data-external-systems
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from integration.core import decimal_json
from integration.core.model import Request, Response, Row
from integration.dataverse.requests import API, HEADERS

# No annotations: with them, the last page may lack its link.
# https://github.com/MicrosoftDocs/powerapps-docs/issues/439
_PREFER = "odata.track-changes,odata.maxpagesize={}"

# https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/page-results
MAX_PAGE_SIZE = 5000

_ROOT = "/api/data/"
_NEXT, _DELTA = "@odata.nextLink", "@odata.deltaLink"


class UnreadableChanges(ValueError):
    """An answer that is no page of changes. The text quotes nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesPage:
    """A page of changes. `rows`: those that were written; who was deleted is not among them.
    `link`: where to go on, from `api/data` on. `is_last`: it leads to changes that come later, not
    to another page."""

    rows: tuple[Row, ...]
    link: str
    is_last: bool


def build_first_request(
    entity_set: str, columns: Iterable[str], page_size: int = MAX_PAGE_SIZE
) -> Request:
    """Return the request for all rows, with these columns. It takes no filter and no order."""
    path = f"{API}/{entity_set}?$select={','.join(columns)}"
    return Request("GET", path, headers={**HEADERS, "prefer": _PREFER.format(page_size)})


def build_next_request(link: str, page_size: int = MAX_PAGE_SIZE) -> Request:
    """Return the request that the link of a page asks for."""
    return Request("GET", link, headers={**HEADERS, "prefer": _PREFER.format(page_size)})


def parse_page(response: Response) -> ChangesPage:
    """Return a page of changes. Raises UnreadableChanges."""
    body = decimal_json.decode_object(response.body) or {}
    value = body.get("value")
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UnreadableChanges("the response has no rows")
    # Whatever its host is called there, it is asked where the organisation is known to be: another
    # host would get this app's token.
    _, root, below = str(body.get(_NEXT, body.get(_DELTA, ""))).partition(_ROOT)
    if not below:
        raise UnreadableChanges("the response has no link to later changes")
    return ChangesPage(
        rows=tuple(item for item in value if not _is_deleted(item)),
        link=f"{root.lstrip('/')}{below}",
        is_last=_NEXT not in body,
    )


def _is_deleted(item: dict[str, Any]) -> bool:
    return "reason" in item and str(item.get("@odata.context", "")).endswith("/$deletedEntity")
