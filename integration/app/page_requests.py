"""Turn a request for a page into what pages know, and their reply into the host's response."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import unquote, urlsplit

import azure.functions as func

from integration.core.errors import Issue, Rejected
from integration.pages.answer import answer_page
from integration.pages.http import ROOT, PageRequest
from integration.pages.parts import PagesParts

_METHODS = ("GET", "POST")


async def answer_page_request(
    parts: PagesParts, req: func.HttpRequest, roots: Collection[str]
) -> func.HttpResponse:
    """Answer a request below /api/pages. `roots`: what may stand before /api, as people know it."""
    reply = await answer_page(parts, _build_request(req, roots))
    return func.HttpResponse(
        reply.body,
        status_code=reply.status,
        headers=dict(reply.headers),
        mimetype=reply.media,
        charset="utf-8",
    )


def _build_request(req: func.HttpRequest, roots: Collection[str]) -> PageRequest:
    if req.method not in _METHODS:
        raise Rejected(Issue("not-supported", "pages take GET and POST"), status=405)
    url = urlsplit(req.url)
    _, _, path = url.path.partition(ROOT)
    return PageRequest(
        method=req.method,
        path=unquote(path).strip("/"),
        query=url.query,
        headers={name.lower(): value for name, value in req.headers.items()},
        body=req.get_body(),
        url=req.url,
        origins=frozenset(roots),
    )
