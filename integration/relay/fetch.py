"""Fetch what a delivery refers to but does not contain, and store it before it is planned.

The sender chooses the addresses, so only those below a base that the operator has named in
FETCH_FROM are requested. Every response is stored, and so is the decision to send no request: when
the work item is processed again, the plan is the same, whatever the settings and the server say by
then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Protocol

from integration.core.activity_recorder import add_activity_context
from integration.core.errors import Rejected, Unavailable
from integration.core.http import Upstream
from integration.core.model import DeliveryRequest, Request
from integration.core.offload import offload
from integration.fhir import bundle, collections, envelope, fetched, notifications
from integration.fhir.collections import PagedContents
from integration.fhir.duplicates import settle_duplicates
from integration.fhir.entries import Contents
from integration.fhir.fetched import NOT_FETCHED, TOO_LARGE, TOO_MANY, FetchedResponse
from integration.fhir.notifications import Notification
from integration.fhir.rights import refuse_forbidden
from integration.journal.store import Payload

# No compression: a small response could unpack to more than fits into memory.
_HEADERS = {"accept": "application/fhir+json", "accept-encoding": "identity"}

# Requests that run at the same time. Each response may be as large as a delivery.
_MAX_CONCURRENT = 4


@dataclass(frozen=True, slots=True)
class Sources:
    """The servers to fetch from, by base address, and the limits for one delivery."""

    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    max_pages: int = 100  # besides the page that the sender posted
    max_bytes: int = 50_000_000  # all responses together
    max_entries: int = 100_000  # of all pages together


NO_SOURCES = Sources()


class FetchedStore(Protocol):
    """Where what was fetched is kept: the part of the journal that fetching needs."""

    async def save_fetched(self, id_: str, number: int, data: bytes) -> bytes:
        """See Journal."""

    async def get_fetched(self, id_: str, number: int) -> bytes | None:
        """See Journal."""


@dataclass(slots=True)
class _FetchJob:
    """The fetches of one delivery. `bytes_left` counts down from the limit."""

    sources: Sources
    journal: FetchedStore
    delivery: str
    bytes_left: int


async def read_contents(
    sources: Sources, journal: FetchedStore, delivery: str, payload: Payload
) -> tuple[Contents, int]:
    """Parse a delivery and fetch what it refers to. Return both, and their size in bytes.

    Raises Unavailable when a server fails; what was fetched before that stays stored.
    """
    parsed = await offload(len(payload.body), lambda: bundle.read(payload.body, payload.request))
    sources = _restrict(sources, payload.request.policy.fetch_from)
    job = _FetchJob(sources, journal, delivery, sources.max_bytes)
    if isinstance(parsed, Notification) and parsed.urls_to_fetch:
        parsed = await _fetch_resources(job, parsed)
    elif isinstance(parsed, PagedContents):
        parsed = await _fetch_pages(job, parsed)
    elif payload.request.confirm:
        parsed = await _confirm_delete(job, parsed, payload.request)
    parsed = refuse_forbidden(parsed, payload.request.rights, alone=True)
    return parsed, len(payload.body) + sources.max_bytes - job.bytes_left


def _restrict(sources: Sources, bases: Collection[str] | None) -> Sources:
    """Return the sources below which a delivery may have resources fetched: its sender's own."""
    if bases is None:
        return sources
    upstreams = {base: upstream for base, upstream in sources.upstreams.items() if base in bases}
    return replace(sources, upstreams=upstreams)


async def _confirm_delete(job: _FetchJob, contents: Contents, request: DeliveryRequest) -> Contents:
    """Ask the sender's server for a resource that is said to be deleted there, and whose deletion
    is not proven. What it still has is written as it is."""
    base = next(iter(request.policy.fetch_from or ()), "")
    address = f"{base}/{request.type}/{request.id}"
    response = await _load_or_fetch(job, 0, address)
    entries = (fetched.confirm_deleted(entry, response) for entry in contents.entries)
    return replace(contents, entries=tuple(entries))


async def _fetch_resources(job: _FetchJob, notification: Notification) -> Contents:
    semaphore = asyncio.Semaphore(_MAX_CONCURRENT)

    async def fetch(position: int, address: str) -> tuple[int, FetchedResponse]:
        async with semaphore:
            return position, await _load_or_fetch(job, position, address)

    urls = notification.urls_to_fetch.items()
    responses = dict(await asyncio.gather(*(fetch(position, url) for position, url in urls)))
    size = sum(len(response.body) for response in responses.values())
    return await offload(size, lambda: notifications.add_fetched(notification, responses))


async def _fetch_pages(job: _FetchJob, first_page: PagedContents) -> Contents:
    entries, address, seen = list(first_page.entries), first_page.next_url, set[str]()
    for number in count(2):  # the sender's own bundle is the first page
        if address is None:
            break
        is_excess = address in seen or number > job.sources.max_pages + 1
        seen.add(address)
        max_entries = max(job.sources.max_entries - len(entries), 0)
        response = await _load_or_fetch(job, number, "" if is_excess else address, max_entries)
        if response.status == NOT_FETCHED:
            break
        read_page = partial(collections.read_further_page, number, len(entries), response)
        page = await offload(len(response.body), read_page)
        entries += page.entries
        address = page.next_url
    # A server may send an included resource again on each page.
    settled = tuple(settle_duplicates(entries))
    return replace(first_page, entries=settled, has_next_page=address is not None)


async def _load_or_fetch(
    job: _FetchJob, number: int, address: str, max_entries: int | None = None
) -> FetchedResponse:
    """Return the response stored under this number. If there is none, fetch and store it.

    `max_entries`: how many it may have, if it is a page.
    """
    data = await job.journal.get_fetched(job.delivery, number)
    if data is None:
        response = await _fetch(job, address)
        if max_entries is not None and await _has_too_many(response, max_entries):
            response = FetchedResponse(TOO_MANY)
        encoded = fetched.encode(response)
        data = await job.journal.save_fetched(job.delivery, number, encoded)
    response = fetched.decode(data)
    job.bytes_left -= len(response.body)
    return response


async def _has_too_many(response: FetchedResponse, max_entries: int) -> bool:
    try:
        return await offload(
            len(response.body), lambda: envelope.has_more_entries(response.body, max_entries)
        )
    except Rejected:
        return True  # it may have as many as that


async def _fetch(job: _FetchJob, address: str) -> FetchedResponse:
    upstreams = job.sources.upstreams
    allowed = fetched.split_address(address, upstreams)
    if allowed is None:
        return FetchedResponse(NOT_FETCHED)
    if job.bytes_left <= 0:
        return FetchedResponse(TOO_LARGE)
    base, path = allowed
    with add_activity_context(action="fetch"):
        response = await upstreams[base].send(Request("GET", path, headers=_HEADERS))
    if response.status == 408 or response.status >= 500:
        reason = f"the server answered a fetch with status {response.status}"
        raise Unavailable(upstreams[base].name, reason, response.retry_after)
    if len(response.body) > job.bytes_left:
        return FetchedResponse(TOO_LARGE)
    return FetchedResponse(response.status, response.body if response.status == 200 else b"")
