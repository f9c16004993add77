"""The client of the FHIR server: the only module of this folder that sends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote, urlencode

from integration.core import decimal_json
from integration.core.activity_recorder import add_activity_context
from integration.core.errors import Misconfigured, SearchRefused, Unavailable
from integration.core.http import Upstream
from integration.core.model import FhirResource, Request, Response, WorkItem
from integration.core.state_version import (
    NEVER_SEEN,
    StateVersion,
    compare,
    describe,
    get_version,
    is_believable,
)
from integration.fhir import state_reads
from integration.fhir.searchset import is_searchset
from integration.fhir.version_list import ListedVersion, list_versions

# HAPI repeats the result of a search for a minute, inside a batch too, unless it is told not to:
# https://hapifhir.io/hapi-fhir/docs/server_jpa/performance.html
_CURRENT = {"cache-control": "no-cache"}

# Answers to a search that the server does not take as it is. 404 and 410: it knows no such page.
# https://hl7.org/fhir/R4/http.html#paging
_REFUSED = (400, 404, 410, 414, 422)

_JSON = {"accept": "application/fhir+json"}


@dataclass(frozen=True, slots=True)
class CurrentState:
    """The current state of a resource. `resource`: None if it is deleted or never existed."""

    resource: FhirResource | None
    version: StateVersion


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

        Raises Misconfigured for a 404 that is not the FHIR server's, and Unavailable for any other
        answer.
        """
        response = await self._get(identity, delivery)
        return None if response.status in (404, 410) else self._parse_resource(response)

    async def read_version(self, identity: str, version: str, delivery: str) -> FhirResource | None:
        """Return a version of Type/id; None where the server does not show it: it was a deletion,
        or the server keeps no histories. Raises Unavailable when it does not answer.
        https://hl7.org/fhir/R4/http.html#vread"""
        with add_activity_context(action="read version", resource=identity):
            path = f"{identity}/_history/{quote(version, safe='')}"
            response = await self.send(Request("GET", path, headers=_JSON), delivery)
        if response.status >= 500 or response.status in (408, 429):
            why = f"a read of a version returned status {response.status}"
            raise Unavailable(self.upstream.name, why)
        return self._parse_resource(response) if response.status == 200 else None

    async def read_current(self, item: WorkItem) -> CurrentState:
        """Return the current state of `item.resource`: no earlier one than the item has heard of.

        A server may answer from a copy that lags behind its own writes. Raises Unavailable for such
        an answer, and as `read` does. A deletion costs a second request, for its version.
        https://learn.microsoft.com/azure/azure-sql/database/read-scale-out
        """
        identity, delivery = item.resource or "", item.delivery
        response = await self._get(identity, delivery)
        if response.status == 404:
            state = CurrentState(None, NEVER_SEEN)
        elif response.status == 410:
            state = CurrentState(None, await self._read_deletion(identity, delivery))
        else:
            resource = self._parse_resource(response)
            state = CurrentState(resource, get_version(resource))
        known = item.version
        if known is not None and not _is_late_enough(state.version, known, item.attempt):
            raise Unavailable(
                self.upstream.name,
                f"a read shows {describe(state.version)} after {describe(known)} was heard of: "
                "the server may have read from a copy that lags",
            )
        if state.version == NEVER_SEEN and known is not None:
            return CurrentState(None, known)  # the deletion that was heard of: it says more
        return state

    async def _get(self, identity: str, delivery: str) -> Response:
        """Return a response with status 200, 404 or 410."""
        with add_activity_context(action="read", resource=identity):
            response = await self.send(Request("GET", identity, headers=_JSON), delivery)
        if response.status == 404 and not _is_outcome(response):
            # A gateway, or a wrong FHIR_URL. Taken for a deletion, it would deactivate every row.
            raise Misconfigured(
                f"{self.upstream.name}: a read returned status 404 without an OperationOutcome: "
                "check FHIR_URL, and what is between this app and the server"
            )
        if response.status not in (200, 404, 410):
            raise Unavailable(self.upstream.name, f"a read returned status {response.status}")
        return response

    def _parse_resource(self, response: Response) -> FhirResource:
        resource = decimal_json.decode_object(response.body)
        if resource is None:
            raise Unavailable(self.upstream.name, "a read returned something other than JSON")
        return resource

    async def _read_deletion(self, identity: str, delivery: str) -> StateVersion:
        """Return which version the deletion of a resource is. Only its history says when it was.

        https://hl7.org/fhir/R4/http.html#history: the newest entry comes first. Raises Unavailable
        if that is no deletion: the resource has changed in between.
        """
        with add_activity_context(action="read history", resource=identity):
            path = state_reads.build_history_read(identity, newest=1)
            response = await self.send(Request("GET", path, headers=_JSON), delivery)
        if response.status == 429 or response.status >= 500 or response.status == 408:
            why = f"a read of a history returned status {response.status}"
            raise Unavailable(self.upstream.name, why)
        if response.status != 200:  # a server that shows no histories
            return NEVER_SEEN
        history = decimal_json.decode_object(response.body)
        deletion = state_reads.read_newest_deletion(history)
        if deletion is None:
            raise Unavailable(self.upstream.name, "a history does not show the deletion yet")
        return deletion

    async def search(
        self,
        path: str,
        correlation: str,
        headers: Mapping[str, str] | None = None,
        max_bytes: int | None = None,
    ) -> FhirResource:
        """Return one page of a searchset.

        Raises ResponseTooLarge for a page of more than `max_bytes`, Unavailable, or SearchRefused,
        which is a Misconfigured, if the server refuses the search. Errors quote nothing of the
        response but its status, since it may repeat the values that were searched for.
        """
        headers = {"accept": "application/fhir+json", **(headers or {})}
        response = await self.send(
            Request("GET", path, headers=headers, max_bytes=max_bytes), correlation
        )
        return self._parse_searchset(response)

    async def search_by_post(
        self, type_: str, parameters: Iterable[tuple[str, str]], correlation: str
    ) -> FhirResource:
        """Do the same for parameters that may hold values of a patient: they travel in the body,
        since addresses are logged. https://hl7.org/fhir/R4/http.html#search"""
        body = urlencode(list(parameters)).encode()
        headers = {**_JSON, "content-type": "application/x-www-form-urlencoded"}
        request = Request("POST", f"{type_}/_search", body, headers)
        with add_activity_context(action="search"):
            return self._parse_searchset(await self.send(request, correlation))

    async def list_versions(
        self, identity: str, correlation: str, newest: int
    ) -> list[ListedVersion]:
        """Return the newest versions of Type/id, the newest first: none if it never existed.

        Raises Unavailable, or Misconfigured for a server that shows no histories.
        """
        name = self.upstream.name
        with add_activity_context(action="read history", resource=identity):
            path = state_reads.build_history_read(identity, newest)
            response = await self.send(Request("GET", path, headers=_JSON), correlation)
        if response.status == 404:
            return []
        why = f"a read of a history returned status {response.status}"
        if response.status >= 500 or response.status in (408, 429):
            raise Unavailable(name, why)
        versions = list_versions(decimal_json.decode_object(response.body))
        if response.status != 200 or versions is None:
            raise Misconfigured(f"{name}: {why}, and shows no versions")
        return versions

    def _parse_searchset(self, response: Response) -> FhirResource:
        name = self.upstream.name
        if response.status >= 500 or response.status == 408:
            raise Unavailable(name, f"a search returned status {response.status}")
        if response.status in _REFUSED:
            raise SearchRefused(f"{name}: a search returned status {response.status}")
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


def _is_late_enough(version: StateVersion, known: StateVersion, attempt: int) -> bool:
    """Whether a read shows what is known of the resource, or a later state."""
    if version == NEVER_SEEN and not known.is_deleted:
        return False
    return is_believable(compare(version, known), attempt)


def _is_outcome(response: Response) -> bool:
    """Whether the body is an OperationOutcome, as a FHIR server's own answer has it:
    https://hl7.org/fhir/R4/http.html#read"""
    body = decimal_json.decode_object(response.body)
    return body is not None and body.get("resourceType") == "OperationOutcome"
