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

from integration.core.activity import doing
from integration.core.errors import Unavailable
from integration.core.http import Upstream
from integration.core.model import Request
from integration.core.offload import offload
from integration.fhir import bundle, collections, fetched, notifications
from integration.fhir.collections import PagedContents
from integration.fhir.entries import Contents
from integration.fhir.fetched import NOT_ASKED, TOO_LARGE, Fetched
from integration.fhir.notifications import Notification
from integration.journal.store import Journal, Kept

# Not packed: what is small on its way may be beyond all bounds when it is unfolded.
_HEADERS = {"accept": "application/fhir+json", "accept-encoding": "identity"}

# Answers that are waited for at once; each may be as large as a delivery.
_SIDE_BY_SIDE = 4


@dataclass(frozen=True, slots=True)
class Sources:
    """From where to fetch, by base address, and how much for one delivery."""

    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    max_pages: int = 100  # after the sender's own
    max_bytes: int = 50_000_000  # as of a delivery itself


NO_SOURCES = Sources()


@dataclass(slots=True)
class _Fetching:
    """For one delivery: what may still come."""

    sources: Sources
    journal: Journal
    delivery: str
    room: int


async def contents(
    sources: Sources, journal: Journal, delivery: str, kept: Kept
) -> tuple[Contents, int]:
    """The delivery taken apart, with what was fetched for it, and how many bytes both are.

    Raises Unavailable when a server is in trouble; what came before that is kept.
    """
    found = await offload(len(kept.body), lambda: bundle.read(kept.body, kept.received))
    fetching = _Fetching(sources, journal, delivery, sources.max_bytes)
    if isinstance(found, Notification) and found.wanted:
        found = await _with_resources(fetching, found)
    elif isinstance(found, PagedContents):
        found = await _with_pages(fetching, found)
    return found, len(kept.body) + sources.max_bytes - fetching.room


async def _with_resources(fetching: _Fetching, found: Notification) -> Contents:
    places = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def one(position: int, address: str) -> tuple[int, Fetched]:
        async with places:
            return position, await _answer(fetching, position, address)

    answers = dict(await asyncio.gather(*(one(*wanted) for wanted in found.wanted.items())))
    size = sum(len(answer.body) for answer in answers.values())
    return await offload(size, lambda: notifications.with_fetched(found, answers))


async def _with_pages(fetching: _Fetching, found: PagedContents) -> Contents:
    entries, address, seen = list(found.entries), found.next, set[str]()
    for number in count(2):  # the sender's own bundle is the first page
        if address is None:
            break
        again = address in seen or number > fetching.sources.max_pages + 1
        seen.add(address)
        answer = await _answer(fetching, number, "" if again else address)
        if answer.status == NOT_ASKED:
            break
        turn_over = partial(collections.further_page, number, len(entries), answer)
        page = await offload(len(answer.body), turn_over)
        entries += page.entries
        address = page.next
    return replace(found, entries=tuple(entries), more=address is not None)


async def _answer(fetching: _Fetching, number: int, address: str) -> Fetched:
    """What was kept under this number, else what the address answers now."""
    data = await fetching.journal.fetched(fetching.delivery, number)
    if data is None:
        asked = fetched.kept(await _asked(fetching, address))
        data = await fetching.journal.keep_fetched(fetching.delivery, number, asked)
    answer = fetched.restored(data)
    fetching.room -= len(answer.body)
    return answer


async def _asked(fetching: _Fetching, address: str) -> Fetched:
    neighbours = fetching.sources.upstreams
    allowed = fetched.below(address, neighbours)
    if allowed is None:
        return Fetched(NOT_ASKED)
    if fetching.room <= 0:
        return Fetched(TOO_LARGE)
    base, path = allowed
    with doing(action="fetch"):
        response = await neighbours[base].send(Request("GET", path, headers=_HEADERS))
    if response.status == 408 or response.status >= 500:
        why = f"a fetch was answered {response.status}"
        raise Unavailable(neighbours[base].name, why, response.retry_after)
    if len(response.body) > fetching.room:
        return Fetched(TOO_LARGE)
    return Fetched(response.status, response.body if response.status == 200 else b"")
