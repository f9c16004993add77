"""Errors, grouped by what to do next.

IntegrationError
  Rejected        the sender must change the request     4xx + OperationOutcome, never retried
  Unmappable      this element or row cannot be mapped   recorded in the journal, the rest goes on
  Unavailable     an upstream is down or throttling      503 + Retry-After; requeued with a delay
  Misconfigured   an operator must act                   500; requeued with a long delay, an error

Texts name the element, never its value: a value is patient data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Issue:
    """One OperationOutcome.issue. `code` is from https://hl7.org/fhir/R4/valueset-issue-type.html"""

    code: str
    text: str
    expression: str | None = None
    severity: str = "error"


class IntegrationError(Exception):
    """The root of everything this app raises on purpose."""


class Rejected(IntegrationError):
    """The sender must change the request. `status` and `headers`: of the HTTP response."""

    def __init__(
        self, *issues: Issue, status: int = 400, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__("; ".join(issue.text for issue in issues))
        self.issues = issues
        self.status = status
        self.headers = dict(headers or {})


class MethodNotAllowed(Rejected):
    """405: the address has other methods."""

    def __init__(self, *allowed: str) -> None:
        text = f"this address takes {' and '.join(allowed)}"
        headers = {"Allow": ", ".join(allowed)}
        super().__init__(Issue("not-supported", text), status=405, headers=headers)


class Unauthorized(Rejected):
    """401: no sender is proven by the request. It is not said why: the log says it."""

    def __init__(self, text: str) -> None:
        # A challenge is due (https://www.rfc-editor.org/rfc/rfc9110#section-15.5.2), and this one
        # has browsers ask for nothing.
        headers = {"WWW-Authenticate": 'Bearer realm="relay"'}
        super().__init__(Issue("login", text), status=401, headers=headers)


class Unmappable(IntegrationError):
    """One element, or one row, cannot be mapped to Dataverse."""

    def __init__(self, why: str, where: str | None = None) -> None:
        super().__init__(f"{why} @ {where}" if where else why)
        self.why = why
        self.where = where


class Unavailable(IntegrationError):
    """An upstream is down or throttling.

    `retry_after`: seconds, as the upstream stated; `is_outcome_unknown`: the upstream may have done
    what was requested; `is_answer`: it has answered, and refused.
    """

    def __init__(
        self,
        upstream: str,
        why: str,
        retry_after: float | None = None,
        *,
        is_outcome_unknown: bool = False,
        is_answer: bool = False,
    ) -> None:
        super().__init__(f"{upstream}: {why}")
        self.upstream = upstream
        self.why = why
        self.retry_after = retry_after
        self.is_outcome_unknown = is_outcome_unknown
        self.is_answer = is_answer


class UnitConflict(Unavailable):
    """The FHIR server answered a unit with 408 or 409. Most of these pass by themselves."""

    def __init__(
        self, upstream: str, why: str, retry_after: float | None = None, *, unit: str
    ) -> None:
        super().__init__(upstream, why, retry_after)
        self.unit = unit


class ResponseTooLarge(Unavailable):
    """The response of an upstream has more bytes than requested: request less."""


class Overloaded(Unavailable):
    """This worker is busy with as many bytes of deliveries as it can hold."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("this app", "busy with other large deliveries", retry_after)


class Misconfigured(IntegrationError):
    """An operator must act: a setting, a role or a map is wrong."""


class SearchRefused(Misconfigured):
    """The FHIR server does not take a search. Whoever knows what was searched for may know better:
    a value that it does not take, or a page that it has forgotten."""
