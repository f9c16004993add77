"""Measure what a proof costs a sender: the time to the answer, with a signature and without one.

The baseline is the same delivery at the address whose function key the host checks. A host of its
own takes both, and requests of all senders alternate, so that whatever else is under way counts for
each alike.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import statistics
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.route import HEADERS, MeasuredRoute, encode
from local.samples import build_transaction
from local.services import find_free_ports, start_host

ROUNDS = 80
ENTRIES = 250

_SECRET = "made-up-secret-of-the-bench-0123"  # noqa: S105 -- opens nothing
_SETTINGS = {
    "HOST_USE_FUNC": "0",
    "HOST_LOG_LEVEL": "WARNING",
    "BENCH_SECRET": _SECRET,
    "BENCH_WEBHOOK": f"whsec_{b64encode(_SECRET.encode()).decode()}",
}
_SENDERS = """
[keyed.proof]
scheme = "function-key"

[bearer.proof]
scheme = "bearer"
secrets = ["BENCH_SECRET"]

[hmac.proof]
scheme = "hmac"
header = "X-Signature"
secrets = ["BENCH_SECRET"]

[webhooks.proof]
scheme = "standard-webhooks"
secrets = ["BENCH_WEBHOOK"]
"""

Sign = Callable[[bytes, int], Mapping[str, str]]


async def measure_signatures(route: MeasuredRoute) -> dict[str, float]:
    """Return, by scheme, the median time to the answer over that with a function key."""
    with TemporaryDirectory() as name:
        file = Path(name) / "senders.toml"
        file.write_text(_SENDERS, "utf-8")
        settings = {**route.running.settings(), **_SETTINGS, "SENDERS": str(file)}
        with start_host(settings, find_free_ports().host, Path(name)) as host:
            return await _compare(route, host.url)


async def _compare(route: MeasuredRoute, host: str) -> dict[str, float]:
    schemes: dict[str, tuple[str, Sign]] = {
        "function-key": (f"{host}/api/fhir", lambda body, number: {}),
        "bearer": (f"{host}/api/senders/bearer/fhir", _authorize),
        "hmac": (f"{host}/api/senders/hmac/fhir", _sign_body),
        "standard-webhooks": (f"{host}/api/senders/webhooks/fhir", _sign_webhook),
    }
    seconds: dict[str, list[float]] = {name: [] for name in schemes}
    names = list(schemes)
    for number in range(ROUNDS):
        # Each comes first as often as the others: the relay is still busy with those before.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            address, sign = schemes[name]
            body = encode(build_transaction([ENTRIES], seed=f"{name} {number}"))
            headers = {**HEADERS, **sign(body, number)}
            begun = time.perf_counter()
            answer = await route.http.post(address, content=body, headers=headers)
            seconds[name].append(time.perf_counter() - begun)
            assert answer.status_code == 202, answer.text
        await asyncio.sleep(0.3)  # for what the relay does with them
    medians = {name: statistics.median(values[5:]) for name, values in seconds.items()}
    baseline = medians.pop("function-key")
    return {name: median / baseline for name, median in medians.items()}


def _authorize(body: bytes, number: int) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {_SECRET}"}


def _sign_body(body: bytes, number: int) -> Mapping[str, str]:
    return {"X-Signature": hmac.digest(_SECRET.encode(), body, hashlib.sha256).hex()}


def _sign_webhook(body: bytes, number: int) -> Mapping[str, str]:
    id_, at = f"msg_{number}", f"{time.time():.0f}"
    text = f"{id_}.{at}.".encode() + body
    signature = b64encode(hmac.digest(_SECRET.encode(), text, hashlib.sha256)).decode()
    return {
        "webhook-id": id_,
        "webhook-timestamp": at,
        "webhook-signature": f"v1,{signature}",
    }
