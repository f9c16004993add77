"""What reading the feed from FHIR needs, and one page of a search."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from integration.core.errors import SearchRefused, Unavailable
from integration.fhir.client import FhirServer
from integration.fhir.search import Parameters, build_path
from integration.fhir.searchset import find_next_path, list_matches
from integration.mapping.patient_columns import index_patients
from integration.odata.model import EntityValues
from integration.odata.refusals import Gone, NotSupported
from integration.virtual_tables import fhir_pages
from integration.virtual_tables.page_starts import PageStarts
from integration.virtual_tables.query_plan import QueryPlan
from integration.virtual_tables.resource_rows import Resource, build_rows
from integration.virtual_tables.row_keys import RowKeyResolver
from integration.virtual_tables.skip_token import PageCursor

# Resources that one search brings while rows are gathered; the FHIR service gives 1,000 at most.
BATCH_SIZE = 250


@dataclass(frozen=True, slots=True)
class FeedReader:
    """What reading needs.

    `max_scanned`: resources that one request may look at. `max_page_bytes`: of a page of the FHIR
    server, since a worker holds the pages of many requests at once. `get_token_key`: returns what
    skip tokens are signed with, the same in every worker. `patients`: of the resources that one
    request has read, by `Patient/id`.
    """

    fhir: FhirServer
    keys: RowKeyResolver
    max_scanned: int
    today: Callable[[], date]
    get_token_key: Callable[[], Awaitable[bytes]]
    max_page_bytes: int = 16_000_000
    page_starts: PageStarts = field(default_factory=PageStarts)
    patients: dict[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowPage:
    """Rows, each with its version, and the names of their resources; `next_cursor`: where the next
    page begins, to which `token` leads a client."""

    rows: Sequence[tuple[EntityValues, str | None]]
    names: tuple[str, ...] = ()
    count: int | None = None
    next_cursor: PageCursor | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Where reading begins: at `cursor`, None for the first page of the search. `row`: how many
    rows of the list come before it; None: nobody knows."""

    cursor: PageCursor | None = None
    row: int | None = 0


class PageForgotten(Exception):
    """The server does not take the address of a page any more that it has issued itself."""


@dataclass(frozen=True, slots=True)
class FhirPage:
    """A page of a search; `is_shrunk`: it has few resources, because they are large."""

    path: str
    resources: Sequence[Resource]
    next_path: str | None
    is_shrunk: bool

    def find_cursor(self, position: int) -> PageCursor | None:
        """Find where the resource at `position`, or else the next page, begins."""
        if position < len(self.resources):
            return PageCursor(self.path, position)
        return None if self.next_path is None else PageCursor(self.next_path, 0)


def build_search_path(plan: QueryPlan, batch: int) -> str:
    """Build the path of the first page of a search."""
    include = (("_include", plan.include),) if plan.include else ()
    parameters = (*list_parameters(plan), *include, ("_count", str(batch)))
    return build_path(plan.scanned_type.resource, parameters)


def list_parameters(plan: QueryPlan) -> Parameters:
    """List what is searched for, and how it is sorted."""
    return (*plan.parameters, ("_sort", plan.sort)) if plan.sort else plan.parameters


async def fetch_page(
    reader: FeedReader, plan: QueryPlan, path: str, batch: int, run_id: str, *, is_issued: bool
) -> FhirPage:
    """Fetch a page. Raises SearchRefused, or PageForgotten where the server has issued its
    address."""
    try:
        path, searchset, is_shrunk = await fhir_pages.fetch_page(
            reader.fhir, path, batch, reader.max_page_bytes, run_id
        )
    except SearchRefused:
        if is_issued:
            raise PageForgotten from None
        raise
    upstream = reader.fhir.upstream
    resources = list(list_matches(plan.scanned_type.resource, searchset))
    if plan.include:
        reader.patients.update(index_patients(searchset))
    return FhirPage(
        path, resources, find_next_path(searchset, upstream.name, upstream.base), is_shrunk
    )


async def build_chosen_page(
    reader: FeedReader,
    plan: QueryPlan,
    chosen: Sequence[tuple[Resource, EntityValues]],
    next_cursor: PageCursor | None,
) -> RowPage:
    """Build the page of the rows that were chosen, with all that it shows."""
    resources = [resource for resource, _ in chosen]
    if plan.is_exact and not plan.is_gathered:  # what was scanned has all that is shown
        rows: Sequence[EntityValues] = [values for _, values in chosen]
    else:
        rows = await build_rows(reader, plan.shown_type, resources, reader.patients)
    versions = (resource.get("meta", {}).get("versionId") for resource in resources)
    names = tuple(f"{resource['resourceType']}/{resource['id']}" for resource in resources)
    return RowPage(tuple(zip(rows, versions, strict=True)), names, next_cursor=next_cursor)


def limit_rows(plan: QueryPlan, size: int) -> int:
    """Return how many rows a page has at most."""
    return size if plan.query.top is None else min(size, plan.query.top)


def build_gone_error() -> Gone:
    """Build the refusal of a next link whose page the FHIR server has forgotten."""
    text = "the FHIR server has forgotten this page: read the list from its beginning"
    return Gone(text, "$skiptoken")


def build_forgotten_error(reader: FeedReader) -> Unavailable:
    """Build the error of a server that forgets a page while it is read."""
    return Unavailable(reader.fhir.upstream.name, "it does not take the next page of its search")


def build_too_broad_error(reader: FeedReader, plan: QueryPlan) -> NotSupported:
    """Build the refusal of a query for which too much has to be looked at."""
    return NotSupported(
        f"FHIR has no search that answers this ({', '.join(plan.cost_reasons)}), and there are "
        f"more than {reader.max_scanned:,} resources to look at: narrow it down, by the patient "
        "for example",
        plan.cost_target,
    )
