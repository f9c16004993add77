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
    categorize_status,
    add_activity_context,
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
_GIVEN_UP = (408, 502, 504)

# Questions that go in one request, at most; and requests of questions under way at once.
_TOGETHER = 100
_FLIGHTS = 4


@dataclass(slots=True)
class Dataverse:
    """One organisation's Web API; remembers the columns of its tables for a while.

    `options` are headers that go with every change.
    """

    upstream: Upstream
    options: Mapping[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _columns: dict[str, tuple[float, Mapping[str, Column]]] = field(default_factory=dict)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _waiting: deque[_Question] = field(default_factory=deque)
    _flights: set[asyncio.Task[None]] = field(default_factory=set)

    async def send(
        self, request: Request, correlation: str, still: Callable[[], object] = lambda: None
    ) -> Response:
        """Send, so that the delivery can be found again in Dataverse's own logs."""
        headers = {**request.headers, "x-ms-client-request-id": correlation}
        request = Request(request.method, request.path, request.body, headers)
        response = await self.upstream.send(request, still)
        self._heed(response.headers.get("x-ms-dop-hint", ""))
        return self._heard(response)

    async def ask(self, questions: Sequence[Request], correlation: str) -> list[Response]:
        """The answers to reads. What is asked while others are under way goes together with what
        everybody else asks then, in one request."""
        with add_activity_context(action="look-up"):
            asked = [
                _Question(each, correlation, activity.get_activity_context()) for each in questions
            ]
        self._waiting.extend(asked)
        if len(self._flights) < _FLIGHTS:
            flight = asyncio.create_task(self._fly())
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)
        return list(await asyncio.gather(*(each.answer for each in asked)))

    async def change(self, changes: Sequence[Change], correlation: str) -> Response:
        """All of the changes or none: the answer to the one that failed, or to the last."""
        asked = [_with(requests.change(each), self.options) for each in changes]
        with add_activity_context(**_told(changes)):
            if len(asked) == 1:
                return await self.send(asked[0], correlation)
            # A part inherits the caller from the whole, and no other header.
            at_once = _with(batch.change_set(asked), self.options)
            whole = await self.send(at_once, correlation)
            answers = self._parts(whole)
            failed = [answer for answer in answers if answer.status >= 400]
            if not failed and len(answers) != len(asked):
                raise Unavailable(self.upstream.name, "a change set was answered in part")
            if failed and whole.status < 400:
                self._note_failure(failed[0], activity.get_activity_context())
        return self._heard((failed or answers)[0])

    async def _fly(self) -> None:
        await asyncio.sleep(0)  # what is ready now may ask, too
        while self._waiting:
            count = min(len(self._waiting), _TOGETHER)
            asked = [self._waiting.popleft() for _ in range(count)]
            try:
                answers: Sequence[Response | Exception] = await self._answers(asked)
            except Exception as error:  # whoever asked has to hear it
                answers = [error] * count
            for each, answer in zip(asked, answers, strict=True):
                _settle(each.answer, answer)

    async def _answers(self, asked: Sequence[_Question]) -> list[Response | Exception]:
        with share_activity_contexts(each.about for each in asked):
            if len(asked) == 1:
                return [await self.send(asked[0].request, asked[0].correlation)]
            questions = batch.questions([each.request for each in asked])
            answers = self._parts(await self.send(questions, asked[0].correlation))
        if len(answers) != len(asked):
            raise Unavailable(self.upstream.name, "a batch was answered in part")
        for each, answer in zip(asked, answers, strict=True):
            if answer.status >= 400:
                self._note_failure(answer, each.about)
        return [self._trouble(answer) or answer for answer in answers]

    def _note_failure(self, answer: Response, about: ActivityContext) -> None:
        """A part of a batch that is answered 200 as a whole."""
        activities, category = self.upstream.activities, categorize_status(answer.status)
        activities.record(category, self.upstream.name, str(answer.status), about)

    def _parts(self, response: Response) -> list[Response]:
        try:
            return batch.answers(response)
        except ValueError:
            if response.status >= 400:
                return [response]
            raise Unavailable(self.upstream.name, "a batch was not answered as one") from None

    def _heard(self, response: Response) -> Response:
        trouble = self._trouble(response)
        if trouble is not None:
            raise trouble
        return response

    def _trouble(self, response: Response) -> Unavailable | None:
        """429 in a part of a batch; the transport knows that of a whole request."""
        if response.status >= 500 or response.status in (408, 429):
            why = f"answered {response.status}"
            unheard = response.status in _GIVEN_UP
            return Unavailable(
                self.upstream.name, why, response.retry_after, is_outcome_unknown=unheard
            )
        return None

    def _heed(self, hint: str) -> None:
        """The recommended degree of parallelism:
        https://learn.microsoft.com/power-apps/developer/data-platform/send-parallel-requests
        """
        if hint.isascii() and hint.isdigit() and len(hint) <= 6:
            self.upstream.limiter.set_advice(int(hint))

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
        with add_activity_context(action="metadata", table=table):
            responses = await asyncio.gather(*(self.send(request, "metadata") for request in asked))
        for response in responses:
            if response.status != 200:
                raise Misconfigured(
                    f"{self.upstream.name} answered {response.status} about table {table}"
                )
        return metadata.columns(decimal_json.decode(response.body) for response in responses)


@dataclass(frozen=True, slots=True)
class _Question:
    request: Request
    correlation: str
    about: ActivityContext
    answer: asyncio.Future[Response] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


def _settle(answer: asyncio.Future[Response], said: Response | Exception) -> None:
    if answer.done():  # who asked has given up
        return
    if isinstance(said, Exception):
        answer.set_exception(said)
    else:
        answer.set_result(said)


def _told(changes: Sequence[Change]) -> dict[str, str]:
    """What the activity log tells of them: the row's own change among them has a condition."""
    own = next((each for each in changes if each.new or each.etag is not None), changes[0])
    if own.method == "DELETE":
        return {"action": "delete", "row": own.key}
    return {"action": "create" if own.new else "update", "row": own.key}


def _with(request: Request, headers: Mapping[str, str]) -> Request:
    return replace(request, headers={**request.headers, **headers})


def error_code(response: Response) -> str:
    """Dataverse's own code; its message may quote a value, so it goes no further.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors
    """
    try:
        error = decimal_json.decode(response.body).get("error", {})
        return str(error.get("code", ""))[:20]
    except (decimal_json.Malformed, AttributeError):
        return ""


def rows(response: Response) -> list[dict[str, Any]]:
    """The rows of a collection. Raises Unavailable for an answer that broke off."""
    try:
        found: list[dict[str, Any]] = decimal_json.decode(response.body)["value"]
    except (decimal_json.Malformed, KeyError, TypeError):
        raise Unavailable("Dataverse", "an answer is not the collection it should be") from None
    return found
