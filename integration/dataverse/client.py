"""Dataverse as a neighbour: the one module of this folder that sends."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from integration.core import activity, decimal_json
from integration.core.activity import (
    ActivityContext,
    add_activity_context,
    categorize_status,
    share_activity_contexts,
)
from integration.core.errors import Misconfigured, Unavailable
from integration.core.http import Upstream
from integration.core.model import Column, Request, Response
from integration.dataverse import batch, metadata, requests
from integration.dataverse.requests import Change

# An admin who widens a column waits no longer than this, in seconds.
_METADATA_AGE = 600.0

# Who stands before Dataverse has waited long enough; Dataverse itself may go on.
_GATEWAY_TIMEOUTS = (408, 502, 504)

# Questions that go in one request, at most; and requests of questions under way at once.
_MAX_READS_PER_BATCH = 100
_MAX_BATCHES = 4


@dataclass(slots=True)
class Dataverse:
    """One organisation's Web API; remembers the columns of its tables for a while.

    `options` are headers that go with every change.
    """

    upstream: Upstream
    options: Mapping[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _columns: dict[str, tuple[float, Mapping[str, Column]]] = field(default_factory=dict)
    _metadata_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _pending_reads: deque[_PendingRead] = field(default_factory=deque)
    _batches: set[asyncio.Task[None]] = field(default_factory=set)

    async def send(
        self, request: Request, correlation: str, before_send: Callable[[], object] = lambda: None
    ) -> Response:
        """Send, so that the delivery can be found again in Dataverse's own logs."""
        headers = {**request.headers, "x-ms-client-request-id": correlation}
        request = Request(request.method, request.path, request.body, headers)
        response = await self.upstream.send(request, before_send)
        self._apply_parallelism_hint(response.headers.get("x-ms-dop-hint", ""))
        return self._raise_if_unavailable(response)

    async def read(self, requests_: Sequence[Request], correlation: str) -> list[Response]:
        """The answers to reads. What is asked while others are under way goes together with what
        everybody else asks then, in one request."""
        with add_activity_context(action="look-up"):
            reads = [
                _PendingRead(read, correlation, activity.get_activity_context())
                for read in requests_
            ]
        self._pending_reads.extend(reads)
        if len(self._batches) < _MAX_BATCHES:
            task = asyncio.create_task(self._send_pending_reads())
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)
        return list(await asyncio.gather(*(read.response for read in reads)))

    async def apply_changes(self, changes: Sequence[Change], correlation: str) -> Response:
        """All of the changes or none: the answer to the one that failed, or to the last."""
        requests_ = [
            _add_headers(requests.build_change(change), self.options) for change in changes
        ]
        with add_activity_context(**_describe_changes(changes)):
            if len(requests_) == 1:
                return await self.send(requests_[0], correlation)
            # A part inherits the caller from the whole, and no other header.
            change_set = _add_headers(batch.build_change_set(requests_), self.options)
            whole = await self.send(change_set, correlation)
            responses = self._parse_parts(whole)
            failed = [response for response in responses if response.status >= 400]
            if not failed and len(responses) != len(requests_):
                raise Unavailable(self.upstream.name, "a change set was answered in part")
            if failed and whole.status < 400:
                self._record_failure(failed[0], activity.get_activity_context())
        return self._raise_if_unavailable((failed or responses)[0])

    async def _send_pending_reads(self) -> None:
        await asyncio.sleep(0)  # what is ready now may ask, too
        while self._pending_reads:
            count = min(len(self._pending_reads), _MAX_READS_PER_BATCH)
            reads = [self._pending_reads.popleft() for _ in range(count)]
            try:
                results: Sequence[Response | Exception] = await self._send_reads(reads)
            except Exception as error:  # whoever asked has to hear it
                results = [error] * count
            for read, result in zip(reads, results, strict=True):
                _set_result(read.response, result)

    async def _send_reads(self, reads: Sequence[_PendingRead]) -> list[Response | Exception]:
        with share_activity_contexts(read.about for read in reads):
            if len(reads) == 1:
                return [await self.send(reads[0].request, reads[0].correlation)]
            batched = batch.build_batch([read.request for read in reads])
            responses = self._parse_parts(await self.send(batched, reads[0].correlation))
        if len(responses) != len(reads):
            raise Unavailable(self.upstream.name, "a batch was answered in part")
        for read, response in zip(reads, responses, strict=True):
            if response.status >= 400:
                self._record_failure(response, read.about)
        return [self._find_error(response) or response for response in responses]

    def _record_failure(self, response: Response, about: ActivityContext) -> None:
        """A part of a batch that is answered 200 as a whole."""
        activities, category = self.upstream.activities, categorize_status(response.status)
        activities.record(category, self.upstream.name, str(response.status), about)

    def _parse_parts(self, response: Response) -> list[Response]:
        try:
            return batch.parse_responses(response)
        except ValueError:
            if response.status >= 400:
                return [response]
            raise Unavailable(self.upstream.name, "a batch was not answered as one") from None

    def _raise_if_unavailable(self, response: Response) -> Response:
        error = self._find_error(response)
        if error is not None:
            raise error
        return response

    def _find_error(self, response: Response) -> Unavailable | None:
        """429 in a part of a batch; the transport knows that of a whole request."""
        if response.status >= 500 or response.status in (408, 429):
            why = f"answered {response.status}"
            unheard = response.status in _GATEWAY_TIMEOUTS
            return Unavailable(
                self.upstream.name, why, response.retry_after, is_outcome_unknown=unheard
            )
        return None

    def _apply_parallelism_hint(self, hint: str) -> None:
        """The recommended degree of parallelism:
        https://learn.microsoft.com/power-apps/developer/data-platform/send-parallel-requests
        """
        if hint.isascii() and hint.isdigit() and len(hint) <= 6:
            self.upstream.limiter.set_advice(int(hint))

    async def get_columns(self, table: str) -> Mapping[str, Column]:
        """The table's columns. Raises Misconfigured where the organisation has no such table."""
        async with self._metadata_lock:
            cached = self._columns.get(table)
            if cached is None or self.clock() - cached[0] > _METADATA_AGE:
                cached = self.clock(), await self._read_columns(table)
                self._columns[table] = cached
            return cached[1]

    async def _read_columns(self, table: str) -> Mapping[str, Column]:
        queries = (requests.build_columns_query(table, cast) for cast in requests.CASTS)
        with add_activity_context(action="metadata", table=table):
            responses = await asyncio.gather(
                *(self.send(request, "metadata") for request in queries)
            )
        for response in responses:
            if response.status != 200:
                raise Misconfigured(
                    f"{self.upstream.name} answered {response.status} about table {table}"
                )
        return metadata.parse_columns(decimal_json.decode(response.body) for response in responses)


@dataclass(frozen=True, slots=True)
class _PendingRead:
    request: Request
    correlation: str
    about: ActivityContext
    response: asyncio.Future[Response] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


def _set_result(future: asyncio.Future[Response], result: Response | Exception) -> None:
    if future.done():  # who asked has given up
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _describe_changes(changes: Sequence[Change]) -> dict[str, str]:
    """What the activity log tells of them: the row's own change among them has a condition."""
    row_change = next(
        (change for change in changes if change.new or change.etag is not None), changes[0]
    )
    if row_change.method == "DELETE":
        return {"action": "delete", "row": row_change.key}
    return {"action": "create" if row_change.new else "update", "row": row_change.key}


def _add_headers(request: Request, headers: Mapping[str, str]) -> Request:
    return replace(request, headers={**request.headers, **headers})


def get_error_code(response: Response) -> str:
    """Dataverse's own code; its message may quote a value, so it goes no further.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors
    """
    try:
        error = decimal_json.decode(response.body).get("error", {})
        return str(error.get("code", ""))[:20]
    except (decimal_json.Malformed, AttributeError):
        return ""


def parse_rows(response: Response) -> list[dict[str, Any]]:
    """The rows of a collection. Raises Unavailable for an answer that broke off."""
    try:
        rows: list[dict[str, Any]] = decimal_json.decode(response.body)["value"]
    except (decimal_json.Malformed, KeyError, TypeError):
        raise Unavailable("Dataverse", "an answer is not the collection it should be") from None
    return rows
