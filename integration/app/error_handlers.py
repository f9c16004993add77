"""Convert errors of endpoints to HTTP, and those of triggers to exceptions that are safe to log."""

from __future__ import annotations

import functools
import math
import traceback
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec

import azure.functions as func

from integration.app import responses
from integration.app.raw_query import parse_query
from integration.core.errors import (
    IntegrationError,
    Issue,
    Misconfigured,
    Overloaded,
    Rejected,
    Unavailable,
)
from integration.core.log_events import log_event

Endpoint = Callable[[func.HttpRequest], Awaitable[func.HttpResponse]]
EndpointWithQuery = Callable[[func.HttpRequest, Mapping[str, str]], Awaitable[func.HttpResponse]]
ErrorResponse = Callable[[int, Sequence[Issue], Mapping[str, str]], func.HttpResponse]
Bindings = ParamSpec("Bindings")

_FAILED = 500

# Seconds, where the upstream stated none.
_RETRY_AFTER = 30.0


def endpoint(parameters: Collection[str] = ()) -> Callable[[EndpointWithQuery], Endpoint]:
    """Hand the query parameters to an endpoint, and refuse those that are not in `parameters`.

    Errors are answered with an OperationOutcome: https://hl7.org/fhir/R4/operationoutcome.html
    """

    def decorate(work: EndpointWithQuery) -> Endpoint:
        async def answer(req: func.HttpRequest) -> func.HttpResponse:
            return await work(req, parse_query(req.url, parameters))

        return _answer_errors(answer, responses.build_outcome, work)

    return decorate


def sender_endpoint(work: Endpoint) -> Endpoint:
    """Answer errors with an OperationOutcome. Which parameters an address takes depends on it."""
    return _answer_errors(work, responses.build_outcome, work)


def public_sender_endpoint(work: Endpoint) -> Endpoint:
    """Do the same where anybody may ask: what an operator must do stands in the log alone."""

    def respond(
        status: int, issues: Sequence[Issue], headers: Mapping[str, str]
    ) -> func.HttpResponse:
        if status == _FAILED:
            text = "the app cannot take this request: its log tells an operator why"
            issues = [Issue("exception", text)]
        return responses.build_outcome(status, issues, headers)

    return _answer_errors(work, respond, work)


def page_endpoint(work: Endpoint) -> Endpoint:
    """Answer what no page could answer: anybody may ask, so the log alone says what is wrong."""
    return _answer_errors(work, responses.build_page_error, work)


def odata_endpoint(work: Endpoint) -> Endpoint:
    """Answer errors as OData clients expect them. OData has rules of its own for its query."""
    return _answer_errors(work, responses.build_odata_error, work)


def trigger(work: Callable[Bindings, Awaitable[None]]) -> Callable[Bindings, Awaitable[None]]:
    """Replace the exceptions of a queue or timer trigger, because the host logs the whole chain."""

    @functools.wraps(work)
    async def run(*args: Bindings.args, **kwargs: Bindings.kwargs) -> None:
        try:
            await work(*args, **kwargs)
        except Exception as error:
            raise RuntimeError(describe_error(error)) from None

    return run


def describe_error(error: BaseException) -> str:
    """Describe what failed and where, without the exception's text, which may quote a patient."""
    if isinstance(error, IntegrationError):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}" if last else "?"


def _answer_errors(
    work: Endpoint, respond: ErrorResponse, named: Callable[..., object]
) -> Endpoint:
    """Return `work` with its errors answered, under the name of the function `named`."""

    # The signature stays that of `answer`: the host binds one argument, the request.
    @functools.wraps(named, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
    async def answer(req: func.HttpRequest) -> func.HttpResponse:
        try:
            return await work(req)
        except Rejected as error:
            return respond(error.status, error.issues, error.headers)
        except Overloaded as error:
            log_event("request.unavailable", reason=str(error))
            text = "the app is busy with other large deliveries: send the request again later"
            wait = math.ceil(error.retry_after or _RETRY_AFTER)
            return respond(503, [Issue("throttled", text)], {"Retry-After": str(wait)})
        except Unavailable as error:
            log_event("request.unavailable", reason=str(error))
            wait = math.ceil(error.retry_after or _RETRY_AFTER)
            text = "a service that this app needs does not respond: send the request again later"
            return respond(503, [Issue("transient", text)], {"Retry-After": str(wait)})
        except Misconfigured as error:
            log_event("request.misconfigured", reason=str(error))
            return respond(_FAILED, [Issue("exception", str(error))], {})
        except Exception as error:
            log_event("request.failed", error=describe_error(error))
            text = "the app failed; the log names the place"
            return respond(_FAILED, [Issue("exception", text)], {})

    del answer.__wrapped__  # inspect.signature would follow it
    return answer
