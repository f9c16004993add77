"""The FHIR server as a neighbour: the one module of this folder that sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from integration.core import decimal_json
from integration.core.activity import add_activity_context
from integration.core.errors import Misconfigured, Unavailable
from integration.core.http import Upstream
from integration.core.model import Request, Response
from integration.fhir.searchset import is_searchset


@dataclass(frozen=True, slots=True)
class FhirServer:
    """https://hl7.org/fhir/R4/http.html"""

    upstream: Upstream

    async def send(
        self, request: Request, delivery: str, before_send: Callable[[], object] = lambda: None
    ) -> Response:
        """Send, so that the delivery can be found again in the server's own logs."""
        headers = {**request.headers, "x-ms-client-request-id": delivery}
        return await self.upstream.send(replace(request, headers=headers), before_send)

    async def read(self, identity: str, delivery: str) -> dict[str, Any] | None:
        """The current state of Type/id; None when it is deleted, or never was."""
        headers = {"accept": "application/fhir+json"}
        with add_activity_context(action="read", resource=identity):
            response = await self.send(Request("GET", identity, headers=headers), delivery)
        if response.status in (404, 410):
            return None
        if response.status != 200:
            raise Unavailable(self.upstream.name, f"a read was answered {response.status}")
        try:
            resource: dict[str, Any] = decimal_json.decode(response.body)
        except decimal_json.Malformed:
            raise Unavailable(self.upstream.name, "a read was answered with no JSON") from None
        return resource

    async def search(
        self,
        path: str,
        correlation: str,
        headers: Mapping[str, str] | None = None,
        max_bytes: int | None = None,
    ) -> dict[str, Any]:
        """A searchset. Raises TooLong for one of more than `most` bytes, Unavailable, or
        Misconfigured where the server takes no such search.
        Of an answer no more is told than its status: it may repeat what was searched for."""
        headers = {"accept": "application/fhir+json", **(headers or {})}
        name = self.upstream.name
        response = await self.send(
            Request("GET", path, headers=headers, max_bytes=max_bytes), correlation
        )
        if response.status >= 500 or response.status == 408:
            raise Unavailable(name, f"a search was answered {response.status}")
        if response.status != 200:
            raise Misconfigured(f"{name}: a search was answered {response.status}")
        try:
            searchset = decimal_json.decode(response.body)
        except decimal_json.Malformed:
            searchset = None
        if not is_searchset(searchset):
            raise Unavailable(name, "a page was no searchset")
        page: dict[str, Any] = searchset
        return page
