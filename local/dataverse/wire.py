"""The values that modules exchange: a call, its reply, and the refusal that becomes a reply."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

# A preference: text between commas, except commas in quotes.
PREFERENCE = re.compile(r'(?:"[^"]*"|[^",])+')


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request below /api/data/v9.x, sent alone or in a batch."""

    method: str
    path: str  # below the root, still percent-encoded
    query: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    root: str  # https://host/api/data/v9.2

    @property
    def resource(self) -> str:
        return unquote(self.path)

    @property
    def options(self) -> dict[str, str]:
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def preferences(self) -> dict[str, str]:
        """The header `Prefer: return=representation, odata.maxpagesize=2` as a mapping."""
        preferences = (
            preference.strip() for preference in PREFERENCE.findall(self.headers.get("prefer", ""))
        )
        pairs = (preference.partition("=") for preference in preferences if preference)
        return {name.strip(): value.strip().strip('"') for name, _, value in pairs}


@dataclass(frozen=True, slots=True)
class Reply:
    """A response: a JSON document, or raw bytes with their own content type, or nothing."""

    status: int
    document: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None

    def encode(self) -> bytes:
        if self.raw is not None:
            return self.raw
        if self.document is None:
            return b""
        return json.dumps(self.document).encode()

    def build_headers(self) -> dict[str, str]:
        headers = {"OData-Version": "4.0", **self.headers}
        if self.document is not None:
            headers.setdefault("Content-Type", "application/json; odata.metadata=minimal")
        return headers


class Refusal(Exception):
    """An error response of Dataverse: a status, a code and a message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def build_reply(self) -> Reply:
        return Reply(self.status, {"error": {"code": self.code, "message": self.message}})
