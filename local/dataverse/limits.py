"""Service protection limits: how much one user may ask of one web server within five minutes.

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

# For a request too many at once; how long Dataverse says then is not published.
SOON = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """Microsoft's default values; `dop` is the parallelism that answers recommend."""

    requests: int = 6000
    seconds: float = 1200.0  # of execution, all requests together
    concurrent: int = 52
    window: float = 300.0
    dop: int = 4

    def message(self, code: str) -> str:
        window = f"over time window of {self.window:.0f} seconds."
        told = {
            REQUESTS: f"Number of requests exceeded the limit of {self.requests} {window}",
            TIME: "Combined execution time of incoming requests exceeded limit of "
            f"{self.seconds * 1000:,.0f} milliseconds {window} Decrease number of concurrent "
            "requests or reduce the duration of requests and try again later.",
            CONCURRENT: f"Number of concurrent requests exceeded the limit of {self.concurrent}.",
        }
        return told[code]


USUAL = Limits()


class Protection:
    """Counts on the clock it is given. Without limits it counts nothing and admits everything."""

    def __init__(self, limits: Limits | None, clock: Callable[[], float]) -> None:
        self.limits = limits
        self._clock = clock
        self.running = 0
        self.forget()

    def forget(self) -> None:
        self.refused: dict[str, int] = {}
        self.most_running = self.running
        self._sent: deque[float] = deque()
        self._spent: deque[tuple[float, float]] = deque()
        self._seconds = 0.0

    def admit(self) -> Reply | None:
        """A refusal, or nothing: then the request runs until `done`.

        A refused request counts as sent, so that who does not wait, waits longer.
        """
        if self.limits is not None:
            self._slide(self.limits)
            self._sent.append(self._clock())
            if self.running >= self.limits.concurrent:
                return self._refusal(self.limits, CONCURRENT, SOON)
            if len(self._sent) > self.limits.requests:
                return self._refusal(self.limits, REQUESTS, self._until_fewer(self.limits))
            if self._seconds >= self.limits.seconds:
                return self._refusal(self.limits, TIME, self._until_less(self.limits))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        return None

    def done(self, seconds: float) -> None:
        self.running -= 1
        if self.limits is not None:
            self._spent.append((self._clock(), seconds))
            self._seconds += seconds

    def headers(self) -> dict[str, str]:
        limits = self.limits or USUAL
        return {
            "x-ms-dop-hint": str(limits.dop),
            "x-ms-ratelimit-burst-remaining-xrm-requests": str(
                max(limits.requests - max(len(self._sent), 1), 0)
            ),
            "x-ms-ratelimit-time-remaining-xrm-requests": (
                f"{max(limits.seconds - self._seconds, 0):,.2f}"
            ),
        }

    def _slide(self, limits: Limits) -> None:
        gone = self._clock() - limits.window
        while self._sent and self._sent[0] <= gone:
            self._sent.popleft()
        while self._spent and self._spent[0][0] <= gone:
            self._seconds -= self._spent.popleft()[1]

    def _until_fewer(self, limits: Limits) -> float:
        """Until one more request would be within the limit."""
        return self._sent[len(self._sent) - limits.requests] + limits.window - self._clock()

    def _until_less(self, limits: Limits) -> float:
        left = self._seconds
        for at, seconds in self._spent:
            left -= seconds
            if left < limits.seconds:
                return at + limits.window - self._clock()
        return limits.window

    def _refusal(self, limits: Limits, code: str, wait: float) -> Reply:
        self.refused[code] = self.refused.get(code, 0) + 1
        document = Refusal(429, code, limits.message(code)).reply().document
        return Reply(429, document, {"Retry-After": str(max(ceil(wait), 1))})


def operations(call: Call) -> int:
    """How many rows' work a call is: the parts of a batch, the targets of a bulk action."""
    if call.resource == "$batch":
        return max(call.body.count(b" HTTP/1.1\r\n"), 1)
    if call.resource.endswith("Multiple"):
        return max(call.body.count(b'"@odata.type"'), 1)
    return 1
