"""What a run works with, and how it asks upstreams that may be away or throttle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

from integration.core.errors import Misconfigured, Unavailable
from integration.core.model import FhirResource, WorkItem
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.fhir.searchset import Searchset, find_next_path, list_matches
from integration.mapping.model import EntityMap
from integration.mapping.primary_keys import ServerKeys
from integration.mirror.healthcare_api_sink import HealthcareApiSink
from integration.mirror.mirror import Mirror
from integration.mirror.web_api_sink import WebApiSink
from integration.queues.retry import plan_retry
from integration.reconcile.differences import Repair

# https://learn.microsoft.com/azure/healthcare-apis/fhir/fhir-features-supported
_PAGE_SIZE = 1000

# Ids in one search, whose address gets about 4,000 characters long.
_IDS_PER_SEARCH = 100

# Seconds to wait for an upstream that is down or throttling, before the run stops.
MAX_WAIT = 3600.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileRun:
    """What a run works with.

    `id`: the delivery under which it is recorded in the journal. `fhir_is_right`: rows that show a
    later version than FHIR has, or a resource that it does not know, are wrong. `max_wait`: seconds
    for which an upstream that is away is waited for; 0: not at all.
    """

    mirror: Mirror
    fhir: FhirServer
    dataverse: Dataverse
    id: str
    sleep: Callable[[float], Awaitable[object]]
    dry_run: bool = False  # find differences, and change nothing
    fhir_is_right: bool = False
    max_wait: float = MAX_WAIT
    page_size: int = _PAGE_SIZE
    ids_per_search: int = _IDS_PER_SEARCH

    @property
    def server_keys(self) -> ServerKeys:
        """How the keys of the FHIR server's rows are derived."""
        sink = self.mirror.sink
        web_api = sink.web_api if isinstance(sink, HealthcareApiSink) else sink
        return web_api.server_keys if isinstance(web_api, WebApiSink) else ServerKeys()

    def get_web_api(self) -> WebApiSink:
        """Return the sink whose maps say what rows should show. Raises Misconfigured if another one
        writes the rows."""
        if isinstance(self.mirror.sink, WebApiSink):
            return self.mirror.sink
        raise Misconfigured(
            "--all and --fhir-is-right need MIRROR_TO=web-api: with the healthcare APIs the "
            "organisation's own maps decide what a row shows. Run reconcile without them"
        )


@dataclass(frozen=True, slots=True)
class Position:
    """Where a walk can go on.

    `at`: in the words of the walk: the last update, or an id; None: from its beginning. `path`: the
    next page of the search, which the server may have forgotten by then: it need not keep the pages
    of a search (https://hl7.org/fhir/R4/http.html#paging). `resumed_at`: where that search began.
    `is_behind`: of rows: go on behind the id, not with it.
    """

    at: str | None = None
    path: str | None = None
    resumed_at: str | None = None
    is_behind: bool = False


START = Position()


@dataclass(frozen=True, slots=True)
class Page:
    """How many resources or rows were compared, and what differed. `position`: where a later run
    can go on. `is_last`: the walk ends here; other walks may end without saying so."""

    count: int
    repairs: Sequence[Repair]
    position: Position
    is_last: bool = False


async def count_resources(run: ReconcileRun, entity: EntityMap, since: str | None) -> int | None:
    """Return how many resources a walk will compare; None if the FHIR server does not say."""
    searchset = await search(run, build_search(entity, since, "_summary=count"))
    total = searchset.get("total")
    return total if isinstance(total, int) else None


async def read_pages(
    run: ReconcileRun, entity: EntityMap, begin: Position, options: str
) -> AsyncIterator[tuple[list[FhirResource], Position]]:
    """Yield the resources from a position on page by page, in the order of the last update, with
    the position behind each page.

    A resource that changes meanwhile moves towards the end, so no page is missed. Where the server
    refuses the next page, the search begins anew at the last update seen. That alone would not do
    as a position: more resources than a page holds may have one time.
    """
    first = f"_sort=_lastUpdated&_count={run.page_size}{options}"
    last = begin.at
    path, resumed_at = begin.path, begin.resumed_at
    if path is None:
        path, resumed_at = build_search(entity, last, first), last
    while path is not None:
        try:
            searchset = await search(run, path)
        except Misconfigured:
            if last == resumed_at:  # nothing was read since the search began
                raise
            resumed_at = last
            path = build_search(entity, last, first)
            continue
        found = list(list_matches(entity.resource, searchset))
        path = find_next_path(searchset, run.fhir.upstream.name, run.fhir.upstream.base)
        last = _get_last_update(found) or last
        yield found, Position(last, path, resumed_at)


def build_search(entity: EntityMap, since: str | None, options: str) -> str:
    """Return the path of a search for the resources updated since then, a FHIR date or time."""
    after = f"_lastUpdated=ge{quote(since)}&" if since else ""
    return f"{entity.resource}?{after}{options}"


def _get_last_update(resources: Sequence[FhirResource]) -> str | None:
    """Return `meta.lastUpdated` of the last resource of a page."""
    return resources[-1].get("meta", {}).get("lastUpdated") if resources else None


def search(run: ReconcileRun, path: str) -> Awaitable[Searchset]:
    """Return one page of a searchset. Raises Unavailable or Misconfigured."""
    return retry_while_unavailable(run, lambda: run.fhir.search(path, run.id))


async def retry_while_unavailable(run: ReconcileRun, work: Callable[[], Awaitable[T]]) -> T:
    """Do the work again while an upstream is unavailable, with the delays that the queue uses."""
    item = WorkItem(run.id)
    while True:
        try:
            return await work()
        except Unavailable as error:
            retry = plan_retry(item, error, run.mirror.now(), run.max_wait)
            if retry.delay is None:
                raise
            item = retry.item
            await run.sleep(retry.delay)
