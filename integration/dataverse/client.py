"""Dataverse as a neighbour: the one module of this folder that sends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from integration import exact_json
from integration.dataverse import metadata, requests
from integration.errors import Misconfigured, Unavailable
from integration.model import Column, Request, Response
from integration.transport import Neighbour

# An admin who widens a column waits no longer than this, in seconds.
_METADATA_AGE = 600.0


@dataclass(slots=True)
class Dataverse:
    """One organisation's Web API; remembers the columns of its tables for a while."""

    neighbour: Neighbour
    clock: Callable[[], float] = time.monotonic
    _columns: dict[str, tuple[float, Mapping[str, Column]]] = field(default_factory=dict)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def send(self, request: Request, correlation: str) -> Response:
        """Send, so that the delivery can be found again in Dataverse's own logs."""
        headers = {**request.headers, "x-ms-client-request-id": correlation}
        request = Request(request.method, request.path, request.body, headers)
        response = await self.neighbour.send(request)
        self._heed(response.headers.get("x-ms-dop-hint", ""))
        if response.status >= 500 or response.status == 408:
            raise Unavailable(self.neighbour.name, f"answered {response.status}")
        return response

    def _heed(self, hint: str) -> None:
        """The recommended degree of parallelism:
        https://learn.microsoft.com/power-apps/developer/data-platform/send-parallel-requests
        """
        if hint.isascii() and hint.isdigit() and len(hint) <= 6:
            self.neighbour.places.advise(int(hint))

    async def columns(self, table: str) -> Mapping[str, Column]:
        """The table's columns. Raises Misconfigured where the organisation has no such table."""
        async with self._asking:
            known = self._columns.get(table)
            if known is None or self.clock() - known[0] > _METADATA_AGE:
                known = self.clock(), await self._read_columns(table)
                self._columns[table] = known
            return known[1]

    async def _read_columns(self, table: str) -> Mapping[str, Column]:
        asked = (requests.columns_of(table, cast) for cast in requests.CASTS)
        responses = await asyncio.gather(*(self.send(request, "metadata") for request in asked))
        for response in responses:
            if response.status != 200:
                raise Misconfigured(
                    f"{self.neighbour.name} answered {response.status} about table {table}"
                )
        return metadata.columns(exact_json.decode(response.body) for response in responses)


def error_code(response: Response) -> str:
    """Dataverse's own code; its message may quote a value, so it goes no further.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors
    """
    try:
        error = exact_json.decode(response.body).get("error", {})
        return str(error.get("code", ""))[:20]
    except (exact_json.Malformed, AttributeError):
        return ""


def rows(response: Response) -> list[dict[str, Any]]:
    """The rows of a collection."""
    found: list[dict[str, Any]] = exact_json.decode(response.body)["value"]
    return found
