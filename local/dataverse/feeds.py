"""Send requests to the feeds of virtual tables, as their data sources configure it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from local.dataverse import refusals
from local.dataverse.setup import SOURCE
from local.dataverse.tables import Table
from local.dataverse.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """The feed of one virtual table."""

    http: httpx.AsyncClient
    address: str
    collection: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    timeout: float

    async def send(
        self, method: str, url: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> httpx.Response:
        """Send a request to the feed. Raises Refusal if it fails, except for 404 and 410."""
        parameters = {**(query or {}), **self.query}
        address = (
            f"{url}?{urlencode(parameters, quote_via=quote, safe='$,()')}" if parameters else url
        )
        content = None if body is None else json.dumps(body).encode()
        content_type = {} if body is None else {"content-type": "application/json"}
        headers = {
            "accept": "application/json",
            "odata-maxversion": "4.0",
            **content_type,
            **self.headers,
        }
        try:
            response = await self.http.request(
                method, address, content=content, headers=headers, timeout=self.timeout
            )
        except httpx.HTTPError as error:
            raise refusals.feed_failed() from error
        if response.status_code >= 400 and response.status_code not in (404, 410):
            raise refusals.feed_failed()
        return response


class Feeds:
    """Opens feeds. All share one HTTP client, which is created at first use."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None) -> None:
        self._transport = transport
        self._http: httpx.AsyncClient | None = None

    def open_feed(self, world: World, table: Table) -> Feed:
        assert table.external is not None
        row = world.store.get(world.catalog.by_name[SOURCE], str(table.external.source))
        if row is None:
            raise refusals.feed_failed()
        headers, query = dict[str, str](), dict[str, str]()
        for number in range(1, 11):
            name = row.values.get(f"msdyn_parameter{number}name")
            if name:
                target = headers if row.values.get(f"msdyn_isparameter{number}header") else query
                target[name] = row.values.get(f"msdyn_parameter{number}value") or ""
        if self._http is None:
            self._http = httpx.AsyncClient(transport=self._transport)
        address = row.values["msdyn_uri"].rstrip("/")
        collection = f"{address}/{table.external.collection}"
        timeout = float(row.values.get("msdyn_timeout") or 120)
        return Feed(
            http=self._http,
            address=address,
            collection=collection,
            headers=headers,
            query=query,
            timeout=timeout,
        )

    async def aclose(self) -> None:
        if self._http is not None:
            await self._http.aclose()
