"""The client of Dataverse's Web API: the only module of this folder that sends anything."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

from integration.core import activity_recorder, decimal_json
from integration.core.activity_recorder import (
    ActivityContext,
    add_activity_context,
    categorize_status,
    share_activity_contexts,
)
from integration.core.errors import Misconfigured, Unavailable
from integration.core.http import Upstream
from integration.core.model import Columns, Request, Response, Row
from integration.dataverse import batch, metadata, requests
from integration.dataverse.error_codes import Meaning, describe_failure, read_meaning
from integration.dataverse.requests import Change

# Seconds for which the columns of a table are remembered: an admin who changes a column waits no
# longer for this app to notice.
_METADATA_AGE = 600.0

# Seconds for which known columns are used before Dataverse is asked again, after it did not answer.
_METADATA_PAUSE = 30.0

# A gateway in front of Dataverse has stopped waiting. Dataverse itself may still be at work.
_GATEWAY_TIMEOUTS = (408, 502, 504)

# What an operator does about a refusal for want of rights.
_GIVE_ROLE = "give this app's application user its role, and see that it is enabled there"

# The most reads in one batch, and the most batches of reads under way at once.
_MAX_READS_PER_BATCH = 100
_MAX_BATCHES = 4


def _send_at_once() -> None:
    """There is nothing to look at before a request starts."""


class ChangeFailed(Unavailable):
    """One change of a change set was answered 500, so that none of them was applied: a plug-in or a
    flow of the organisation may fail each time. `position`: of that change. `response`: to it."""

    def __init__(self, upstream: str, table: str, position: int, response: Response) -> None:
        super().__init__(upstream, f"{table}: {describe_failure(response)}")
        self.position = position
        self.response = response


@dataclass(frozen=True, slots=True)
class ChangesResult:
    """What became of changes of which all are applied, or none. `response`: to the change that
    failed, else to the first. `failed`: the position of the one that failed; None: none failed, or
    Dataverse did not say which."""

    response: Response
    failed: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status of the response."""
        return self.response.status


@dataclass(slots=True)
class _Columns:
    """The columns of a table, and until when they are used without asking again."""

    columns: Columns
    until: float


@dataclass(slots=True)
class Dataverse:
    """The Web API of one organisation. Remembers the columns of its tables for a while.

    `options`: headers that are sent with every change.
    """

    upstream: Upstream
    options: Mapping[str, str] = field(default_factory=dict)
    _: KW_ONLY
    clock: Callable[[], float] = time.monotonic
    _user_id: str | None = None
    _columns: dict[str, _Columns] = field(default_factory=dict)
    _column_reads: dict[str, asyncio.Task[Columns]] = field(default_factory=dict)
    _pending_reads: deque[_PendingRead] = field(default_factory=deque)
    _batches: set[asyncio.Task[None]] = field(default_factory=set)

    async def send(
        self,
        request: Request,
        correlation: str,
        before_send: Callable[[], object] = _send_at_once,
    ) -> Response:
        """Send a request. `correlation`: the delivery's id, by which Dataverse's own logs find the
        request. `before_send`: called when the request may start, which it may prevent by raising.

        Raises Unavailable when Dataverse does not answer, is in trouble, or throttles, and
        Misconfigured when it refuses this app.
        """
        return self._raise_if_unavailable(await self._exchange(request, correlation, before_send))

    async def _exchange(
        self, request: Request, correlation: str, before_send: Callable[[], object]
    ) -> Response:
        headers = {**request.headers, "x-ms-client-request-id": correlation}
        request = Request(request.method, request.path, request.body, headers)
        response = await self.upstream.send(request, before_send)
        self._apply_parallelism_hint(response.headers.get("x-ms-dop-hint", ""))
        return response

    async def read(
        self, queries: Sequence[Request], correlation: str, *, in_body: bool = False
    ) -> list[Response]:
        """Send requests that change nothing, and return their responses. Reads of several callers
        are sent in one batch while other batches are under way. `in_body`: their addresses hold
        values of a patient, so they are sent in a batch even alone.

        Raises Unavailable as `send` does.
        """
        with add_activity_context(action="look-up"):
            context = activity_recorder.get_activity_context()
            reads = [
                _PendingRead(query, correlation, context, in_body=in_body) for query in queries
            ]
        self._pending_reads.extend(reads)
        if len(self._batches) < _MAX_BATCHES:
            task = asyncio.create_task(self._send_pending_reads())
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)
        return list(await asyncio.gather(*(read.response for read in reads)))

    async def apply_changes(self, changes: Sequence[Change], correlation: str) -> ChangesResult:
        """Apply all of these changes, or none.

        Raises ChangeFailed when one of several was answered 500, else Unavailable as `send` does.
        """
        parts = [_add_headers(requests.build_change(change), self.options) for change in changes]
        with add_activity_context(**_describe_changes(changes)):
            if len(parts) == 1:
                response = await self.send(parts[0], correlation)
                return ChangesResult(response, 0 if response.status >= 400 else None)
            # A part inherits no header of the whole but the caller.
            change_set = _add_headers(batch.build_change_set(parts), self.options)
            whole = await self._exchange(change_set, correlation, _send_at_once)
            responses = self._parse_parts(whole)
            answered = whole if whole.status >= 400 else None
            failed = next((part for part in responses if part.status >= 400), answered)
            if failed is None:
                if len(responses) != len(parts):
                    why = "the response to a change set lacks parts"
                    raise Unavailable(self.upstream.name, why)
                return ChangesResult(responses[0])
            if whole.status < 400:
                self._record_failure(failed, activity_recorder.get_activity_context())
        position = batch.get_position(failed, len(parts))
        if failed.status == 500 and position is not None and read_meaning(failed) is Meaning.BUSY:
            table = changes[position].entity_set
            raise ChangeFailed(self.upstream.name, table, position, failed)
        return ChangesResult(self._raise_if_unavailable(failed), position)

    async def _send_pending_reads(self) -> None:
        await asyncio.sleep(0)  # let callers that are ready add their reads
        while self._pending_reads:
            count = min(len(self._pending_reads), _MAX_READS_PER_BATCH)
            reads = [self._pending_reads.popleft() for _ in range(count)]
            try:
                results: Sequence[Response | Exception] = await self._send_reads(reads)
            except Exception as error:  # each caller gets it
                results = [error] * count
            for read, result in zip(reads, results, strict=True):
                _set_result(read.response, result)

    async def _send_reads(self, reads: Sequence[_PendingRead]) -> list[Response | Exception]:
        with share_activity_contexts(read.context for read in reads):
            if len(reads) == 1 and not reads[0].in_body:
                return [await self.send(reads[0].request, reads[0].correlation)]
            batched = batch.build_batch([read.request for read in reads])
            responses = self._parse_parts(await self.send(batched, reads[0].correlation))
        if len(responses) != len(reads):
            raise Unavailable(self.upstream.name, "the response to a batch lacks parts")
        for read, response in zip(reads, responses, strict=True):
            if response.status >= 400:
                self._record_failure(response, read.context)
        return [self._find_error(response) or response for response in responses]

    def _record_failure(self, response: Response, context: ActivityContext) -> None:
        """Record the failure of a part: the batch as a whole was answered 200."""
        activities, category = self.upstream.activities, categorize_status(response.status)
        activities.record(category, self.upstream.name, str(response.status), context)

    def _parse_parts(self, response: Response) -> list[Response]:
        try:
            return batch.parse_responses(response)
        except ValueError:
            if response.status >= 400:
                return [response]
            raise Unavailable(
                self.upstream.name, "the response to a batch is not multipart"
            ) from None

    def _raise_if_unavailable(self, response: Response) -> Response:
        error = self._find_error(response)
        if error is not None:
            raise error
        return response

    def _find_error(self, response: Response) -> Unavailable | Misconfigured | None:
        """Return the error of a response after which the caller has to wait: for Dataverse, or for
        an operator. The transport does this for a whole request, but not for the parts of a
        batch."""
        if response.status < 400:
            return None
        meaning, name = read_meaning(response), self.upstream.name
        if meaning is Meaning.NO_RIGHTS:
            return Misconfigured(f"{name} {describe_failure(response)}: {_GIVE_ROLE}")
        if meaning is Meaning.BUSY:
            why = f"answered {response.status}"
            unknown = response.status in _GATEWAY_TIMEOUTS
            return Unavailable(
                name, why, response.retry_after, is_outcome_unknown=unknown, is_answer=True
            )
        return None

    def _apply_parallelism_hint(self, hint: str) -> None:
        """Pass the recommended degree of parallelism on to the rate limiter.

        https://learn.microsoft.com/power-apps/developer/data-platform/send-parallel-requests
        """
        if hint.isascii() and hint.isdigit() and len(hint) <= 6:
            self.upstream.limiter.set_advice(int(hint))

    async def get_user_id(self) -> str:
        """Return the id of this app's user. Raises as `send` does."""
        if self._user_id is None:
            with add_activity_context(action="who am I"):
                response = await self.send(requests.build_who_am_i(), "metadata")
            body = decimal_json.decode_object(response.body) or {}
            if response.status != 200 or "UserId" not in body:
                raise Unavailable(self.upstream.name, f"WhoAmI was answered {response.status}")
            self._user_id = str(body["UserId"])
        return self._user_id

    async def get_columns(self, table: str) -> Columns:
        """Return the columns of a table. All that ask for them at once share one request.

        Raises Misconfigured when there is no such table, and Unavailable when Dataverse does not
        answer and has never said: known columns are used while it does not.
        """
        known = self._columns.get(table)
        if known is not None and self.clock() < known.until:
            return known.columns
        task = self._column_reads.get(table)
        if task is None:
            task = self._column_reads[table] = asyncio.create_task(self._read_columns(table))
            task.add_done_callback(lambda done: self._keep_columns(table, done))
        try:
            # Whoever gives up does not take the request from the others.
            return await asyncio.shield(task)
        except Unavailable:
            if known is None:
                raise
            return known.columns

    def expire_columns(self, tables: Iterable[str] | None = None) -> None:
        """Ask Dataverse for the columns of these tables again at their next use; None: of all."""
        for table in [*self._columns] if tables is None else tables:
            if known := self._columns.get(table):
                self._columns[table] = replace(known, until=self.clock())

    def get_known_columns(self, table: str) -> Columns | None:
        """Return the columns of a table as Dataverse told them last; None: it was not asked."""
        known = self._columns.get(table)
        return None if known is None else known.columns

    def _keep_columns(self, table: str, task: asyncio.Task[Columns]) -> None:
        del self._column_reads[table]
        if task.cancelled():
            return
        error, known = task.exception(), self._columns.get(table)
        if error is None:
            self._columns[table] = _Columns(task.result(), self.clock() + _METADATA_AGE)
        elif isinstance(error, Unavailable):
            if known is not None:
                known.until = self.clock() + _METADATA_PAUSE
        else:
            self._columns.pop(table, None)  # there is no such table by now

    async def _read_columns(self, table: str) -> Columns:
        queries = (requests.build_columns_query(table, cast) for cast in requests.CASTS)
        with add_activity_context(action="metadata", table=table):
            tasks = [asyncio.create_task(self.send(request, "metadata")) for request in queries]
            try:
                responses = await asyncio.gather(*tasks)
            finally:
                # If one failed, the others would take the places of requests that may do better.
                for task in tasks:
                    task.cancel()
        for response in responses:
            if response.status != 200:
                raise Misconfigured(
                    f"{self.upstream.name} answered {response.status} about the columns of {table}"
                )
        return metadata.parse_columns(decimal_json.decode(response.body) for response in responses)


@dataclass(frozen=True, slots=True)
class _PendingRead:
    request: Request
    correlation: str
    context: ActivityContext
    _: KW_ONLY
    in_body: bool = False
    response: asyncio.Future[Response] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


def _set_result(future: asyncio.Future[Response], result: Response | Exception) -> None:
    if future.done():  # the caller has given up
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _describe_changes(changes: Sequence[Change]) -> dict[str, str]:
    """Return what the activity log says of these changes. The change of the row itself, as opposed
    to those of its children, is the one with a condition."""
    row_change = next(
        (change for change in changes if change.only_new or change.etag is not None), changes[0]
    )
    if row_change.method == "DELETE":
        return {"action": "delete", "row": row_change.key}
    return {"action": "create" if row_change.only_new else "update", "row": row_change.key}


def _add_headers(request: Request, headers: Mapping[str, str]) -> Request:
    return replace(request, headers={**request.headers, **headers})


def parse_rows(response: Response) -> list[Row]:
    """Return the rows of a response. Raises Unavailable when it is not a whole collection."""
    try:
        rows: list[Row] = decimal_json.decode(response.body)["value"]
    except (decimal_json.Malformed, KeyError, TypeError):
        raise Unavailable("Dataverse", "the response is not a collection of rows") from None
    return rows
