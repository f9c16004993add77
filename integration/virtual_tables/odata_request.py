"""A request to the feed and the response to it, as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from integration.odata import headers


@dataclass(frozen=True, slots=True, kw_only=True)
class ODataRequest:
    """A request to the feed.

    `root`: the absolute URL of the feed, with a slash at its end; `path`: what follows it, decoded;
    `query`: as it was sent; names of `headers` are lower case.
    """

    method: str
    root: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class ODataResponse:
    """A response of the feed. `headers` have the content type, where there is content.

    `names`: Type/id of each resource that it shows, or that was written, for the audit log.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=headers.build_headers)
    body: bytes = b""
    names: tuple[str, ...] = ()
