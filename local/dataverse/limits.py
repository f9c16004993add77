"""Service protection limits: what one user may request from one web server in five minutes.

https://learn.microsoft.com/power-apps/developer/data-platform/api-limits
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from local.dataverse.wire import Call, Refusal, Reply

REQUESTS = "0x80072322"
TIME = "0x80072321"
CONCURRENT = "0x80072326"

# Retry-After for too many concurrent requests; Dataverse's own value is not published.
CONCURRENT_RETRY_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Microsoft's default limits. `dop` is the parallelism that responses recommend."""

    requests: int = 6000
    seconds: float = 1200.0  # of execution, all requests together
    concurrent: int = 52
    window: float = 300.0
    dop: int = 4

    def format_message(self, code: str) -> str:
        window = f"over time window of {self.window:.0f} seconds."
        messages = {
            REQUESTS: f"Number of requests exceeded the limit of {self.requests} {window}",
            TIME: "Combined execution time of incoming requests exceeded limit of "
            f"{self.seconds * 1000:,.0f} milliseconds {window} Decrease number of concurrent "
            "requests or reduce the duration of requests and try again later.",
            CONCURRENT: f"Number of concurrent requests exceeded the limit of {self.concurrent}.",
        }
        return messages[code]


DEFAULT_LIMITS = Limits()


class Protection:
    """Counts requests and execution time by `clock`. Without limits it admits everything."""

    def __init__(self, limits: Limits | None, clock: Callable[[], float]) -> None:
        self.limits = limits
        self._clock = clock
        self.running = 0
        self.reset()

    def reset(self) -> None:
        self.refused: dict[str, int] = {}
        self.max_running = self.running
        self._sent: deque[float] = deque()
        self._spent: deque[tuple[float, float]] = deque()
        self._seconds = 0.0

    def admit(self) -> Reply | None:
        """Return a refusal, or None: then the request runs until `finish`.

        A refused request counts too, so that a client that does not wait has to wait longer.
        """
        if self.limits is not None:
            self._drop_expired(self.limits)
            self._sent.append(self._clock())
            if self.running >= self.limits.concurrent:
                return self._refuse(self.limits, CONCURRENT, CONCURRENT_RETRY_SECONDS)
            if len(self._sent) > self.limits.requests:
                return self._refuse(self.limits, REQUESTS, self._compute_requests_wait(self.limits))
            if self._seconds >= self.limits.seconds:
                return self._refuse(self.limits, TIME, self._compute_time_wait(self.limits))
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        return None

    def finish(self, seconds: float) -> None:
        self.running -= 1
        if self.limits is not None:
            self._spent.append((self._clock(), seconds))
            self._seconds += seconds

    def build_headers(self) -> dict[str, str]:
        limits = self.limits or DEFAULT_LIMITS
        return {
            "x-ms-dop-hint": str(limits.dop),
            "x-ms-ratelimit-burst-remaining-xrm-requests": str(
                max(limits.requests - max(len(self._sent), 1), 0)
            ),
            "x-ms-ratelimit-time-remaining-xrm-requests": (
                f"{max(limits.seconds - self._seconds, 0):,.2f}"
            ),
        }

    def _drop_expired(self, limits: Limits) -> None:
        window_start = self._clock() - limits.window
        while self._sent and self._sent[0] <= window_start:
            self._sent.popleft()
        while self._spent and self._spent[0][0] <= window_start:
            self._seconds -= self._spent.popleft()[1]

    def _compute_requests_wait(self, limits: Limits) -> float:
        """Return the seconds until one more request is within the limit."""
        return self._sent[len(self._sent) - limits.requests] + limits.window - self._clock()

    def _compute_time_wait(self, limits: Limits) -> float:
        remaining = self._seconds
        for finished, seconds in self._spent:
            remaining -= seconds
            if remaining < limits.seconds:
                return finished + limits.window - self._clock()
        return limits.window

    def _refuse(self, limits: Limits, code: str, wait: float) -> Reply:
        self.refused[code] = self.refused.get(code, 0) + 1
        document = Refusal(429, code, limits.format_message(code)).build_reply().document
        return Reply(429, document, {"Retry-After": str(max(ceil(wait), 1))})


def count_operations(call: Call) -> int:
    """Return the number of rows in a call: parts of a batch or targets of a bulk action."""
    if call.resource == "$batch":
        return max(call.body.count(b" HTTP/1.1\r\n"), 1)
    if call.resource.endswith("Multiple"):
        return max(call.body.count(b'"@odata.type"'), 1)
    return 1
