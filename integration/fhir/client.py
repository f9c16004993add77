"""The client of the FHIR server: the only module of this folder that sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from integration.core import decimal_json
from integration.core.activity_recorder import add_activity_context
from integration.core.errors import Misconfigured, Unavailable
from integration.core.http import Upstream
from integration.core.model import FhirResource, Request, Response, WorkItem
from integration.fhir.searchset import is_searchset

# HAPI repeats the result of a search for a minute, inside a batch too, unless it is told not to:
# https://hapifhir.io/hapi-fhir/docs/server_jpa/performance.html
_CURRENT = {"cache-control": "no-cache"}

# Attempts until an absent resource is taken for deleted, though its work item knows a version of
# it: they take half a minute, and no replica lags that long.
_MAX_ABSENT = 4


@dataclass(frozen=True, slots=True)
class FhirServer:
    """Sends to the FHIR server: https://hl7.org/fhir/R4/http.html"""

    upstream: Upstream

    async def send(
        self, request: Request, delivery: str, before_send: Callable[[], object] = lambda: None
    ) -> Response:
        """Send a request, with the delivery's id for the server's own logs.

        `before_send` is called when the rate limiter lets the request go; it may raise.
        """
        headers = {**request.headers, **_CURRENT, "x-ms-client-request-id": delivery}
        return await self.upstream.send(replace(request, headers=headers), before_send)

    async def read(self, identity: str, delivery: str) -> FhirResource | None:
        """Return the current state of Type/id; None if it is deleted or never existed.

        Raises Unavailable for any other answer.
        """
        headers = {"accept": "application/fhir+json"}
        with add_activity_context(action="read", resource=identity):
            response = await self.send(Request("GET", identity, headers=headers), delivery)
        if response.status in (404, 410):
            return None
        if response.status != 200:
            raise Unavailable(self.upstream.name, f"a read returned status {response.status}")
        try:
            resource: FhirResource = decimal_json.decode(response.body)
        except decimal_json.Malformed:
            raise Unavailable(
                self.upstream.name, "a read returned something other than JSON"
            ) from None
        return resource

    async def read_current(self, item: WorkItem) -> FhirResource | None:
        """Return the current state of `item.resource`; None if it is deleted or never existed.

        Reads may lag behind writes: Microsoft's service reads from replicas of its database where
        they are on (SqlRetryService.cs in https://github.com/microsoft/fhir-server). Raises
        Unavailable for a state older than the one that the work item knows of, or no answer.
        """
        resource = await self.read(item.resource or "", item.delivery)
        if _is_behind(resource, item):
            raise Unavailable(self.upstream.name, "its reads lag behind its writes")
        return resource

    async def search(
        self,
        path: str,
        correlation: str,
        headers: Mapping[str, str] | None = None,
        max_bytes: int | None = None,
    ) -> FhirResource:
        """Return one page of a searchset.

        Raises ResponseTooLarge for a page of more than `max_bytes`, Unavailable, or Misconfigured
        if the server refuses the search. Errors quote nothing of the response but its status, since
        it may repeat the values that were searched for.
        """
        headers = {"accept": "application/fhir+json", **(headers or {})}
        name = self.upstream.name
        response = await self.send(
            Request("GET", path, headers=headers, max_bytes=max_bytes), correlation
        )
        if response.status >= 500 or response.status == 408:
            raise Unavailable(name, f"a search returned status {response.status}")
        if response.status != 200:
            raise Misconfigured(f"{name}: a search returned status {response.status}")
        try:
            searchset = decimal_json.decode(response.body)
        except decimal_json.Malformed:
            searchset = None
        if not is_searchset(searchset):
            raise Unavailable(name, "a search returned something other than a searchset")
        page: FhirResource = searchset
        return page


def _is_behind(resource: FhirResource | None, item: WorkItem) -> bool:
    """Whether this is an older state than the one that the work item knows of."""
    if item.version is None:
        return False
    if resource is None:
        return not item.deleted and item.attempt < _MAX_ABSENT
    version = str(resource.get("meta", {}).get("versionId"))
    # Whole numbers that grow are a convention that Microsoft and HAPI keep. Others tell no order.
    if not (_is_number(version) and _is_number(item.version)):
        return False
    return int(version) < int(item.version)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
