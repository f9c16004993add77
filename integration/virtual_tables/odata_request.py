"""A request to the feed and its answer, as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from integration.odata import headers


@dataclass(frozen=True, slots=True)
class ODataRequest:
    """A request. `root`: the absolute address of the feed, with a slash at its end; `path`: what
    follows it, decoded; `query`: as it came; header names are lower case."""

    method: str
    root: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class ODataResponse:
    """`headers` with the content type, where there is content."""

    status: int
    headers: Mapping[str, str] = field(default_factory=headers.build_headers)
    body: bytes = b""
