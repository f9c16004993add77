"""What a delivery names without bringing it: fetched, and kept before anything is planned.

Addresses are the sender's choice, so only those below a base that the operator has named are
asked (FETCH_FROM). Every answer is kept, a refusal to ask too: a claim that comes again plans the
same work, whatever the settings and the server say by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

from integration.core.activity import add_activity_context
from integration.core.errors import Unavailable
from integration.core.http import Upstream
from integration.core.model import Request
from integration.core.offload import offload
from integration.fhir import bundle, collections, fetched, notifications
from integration.fhir.collections import PagedContents
from integration.fhir.entries import Contents
from integration.fhir.fetched import NOT_FETCHED, TOO_LARGE, FetchedResponse
from integration.fhir.notifications import Notification
from integration.journal.store import Journal, Payload

# Not packed: what is small on its way may be beyond all bounds when it is unfolded.
_HEADERS = {"accept": "application/fhir+json", "accept-encoding": "identity"}

# Answers that are waited for at once; each may be as large as a delivery.
_MAX_CONCURRENT = 4


@dataclass(frozen=True, slots=True)
class Sources:
    """From where to fetch, by base address, and how much for one delivery."""

    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    max_pages: int = 100  # after the sender's own
    max_bytes: int = 50_000_000  # as of a delivery itself


NO_SOURCES = Sources()


@dataclass(slots=True)
class _FetchJob:
    """For one delivery: what may still come."""

    sources: Sources
    journal: Journal
    delivery: str
    bytes_left: int


async def read_contents(
    sources: Sources, journal: Journal, delivery: str, kept: Payload
) -> tuple[Contents, int]:
    """The delivery taken apart, with what was fetched for it, and how many bytes both are.

    Raises Unavailable when a server is in trouble; what came before that is kept.
    """
    parsed = await offload(len(kept.body), lambda: bundle.read(kept.body, kept.request))
    job = _FetchJob(sources, journal, delivery, sources.max_bytes)
    if isinstance(parsed, Notification) and parsed.urls_to_fetch:
        parsed = await _fetch_resources(job, parsed)
    elif isinstance(parsed, PagedContents):
        parsed = await _fetch_pages(job, parsed)
    return parsed, len(kept.body) + sources.max_bytes - job.bytes_left


async def _fetch_resources(job: _FetchJob, notification: Notification) -> Contents:
    semaphore = asyncio.Semaphore(_MAX_CONCURRENT)

    async def fetch(position: int, address: str) -> tuple[int, FetchedResponse]:
        async with semaphore:
            return position, await _load_or_fetch(job, position, address)

    answers = dict(
        await asyncio.gather(*(fetch(*wanted) for wanted in notification.urls_to_fetch.items()))
    )
    size = sum(len(answer.body) for answer in answers.values())
    return await offload(size, lambda: notifications.add_fetched(notification, answers))


async def _fetch_pages(job: _FetchJob, first_page: PagedContents) -> Contents:
    entries, address, seen = list(first_page.entries), first_page.next_url, set[str]()
    for number in count(2):  # the sender's own bundle is the first page
        if address is None:
            break
        is_excess = address in seen or number > job.sources.max_pages + 1
        seen.add(address)
        answer = await _load_or_fetch(job, number, "" if is_excess else address)
        if answer.status == NOT_FETCHED:
            break
        parse_page = partial(collections.read_further_page, number, len(entries), answer)
        page = await offload(len(answer.body), parse_page)
        entries += page.entries
        address = page.next_url
    return replace(first_page, entries=tuple(entries), has_next_page=address is not None)


async def _load_or_fetch(job: _FetchJob, number: int, address: str) -> FetchedResponse:
    """What was kept under this number, else what the address answers now."""
    data = await job.journal.get_fetched(job.delivery, number)
    if data is None:
        encoded = fetched.encode(await _fetch(job, address))
        data = await job.journal.save_fetched(job.delivery, number, encoded)
    answer = fetched.decode(data)
    job.bytes_left -= len(answer.body)
    return answer


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
        reason = f"a fetch was answered {response.status}"
        raise Unavailable(upstreams[base].name, reason, response.retry_after)
    if len(response.body) > job.bytes_left:
        return FetchedResponse(TOO_LARGE)
    return FetchedResponse(response.status, response.body if response.status == 200 else b"")
