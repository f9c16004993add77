"""Turn a request for a page into what pages know, and their reply into the host's response."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import unquote, urlsplit

import azure.functions as func

from integration.core.errors import Issue, Rejected
from integration.pages.answer import answer_page
from integration.pages.http import ROOT, PageRequest
from integration.pages.parts import PagesParts


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
    try:
        url = urlsplit(req.url)
    except ValueError:  # the Host header is in it
        text = "the address of the request cannot be read"
        raise Rejected(Issue("structure", text), status=400) from None
    # Routes ignore case: https://learn.microsoft.com/aspnet/core/fundamentals/routing#url-matching
    start = url.path.lower().find(ROOT)
    path = url.path[start + len(ROOT) :] if start >= 0 else ""
    return PageRequest(
        method=req.method,
        path=unquote(path).strip("/"),
        query=url.query,
        headers={name.lower(): value for name, value in req.headers.items()},
        body=req.get_body(),
        url=req.url,
        origins=frozenset(map(_read_origin, roots)),
    )


def _read_origin(root: str) -> str:
    """Return scheme, host and port, as a browser states them: in lower case, without a path."""
    parts = urlsplit(root)
    return f"{parts.scheme}://{parts.netloc}".lower()
