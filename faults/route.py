"""The running services, a sender that retries until it is accepted, and the end of all work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.queue.aio import QueueServiceClient

from faults.deliveries import Delivery, Stream
from faults.injected import BATCH_REFUSED, DATAVERSE_FAILED, FHIR_FAILED
from faults.proxy import Proxy
from faults.verdict import AcceptedDelivery, EntryAnswer
from local.host.emulator import build_connection_string
from local.host.kill import NOTE, VARIABLE
from local.processes import Child
from local.services import Running, find_free_ports, start_host

T = TypeVar("T")

# Seconds after which work counts as stuck. A throttling service gets fewer requests, and requeued
# work waits behind new work.
PATIENCE = 900.0
_PAUSE = 0.2
_MAX_PAUSE = 2.0
_SHORT_PAUSE = 0.05

_QUEUES = ("relay", "mirror", "relay-poison", "mirror-poison")

# The reason of a parked row in the response bundle, as function_app.py words it.
_PARKED_ROW = "mirroring failed repeatedly"

# Small units and short waits.
SETTINGS = {
    "UNIT_MAX_ENTRIES": "10",
    "UPSTREAM_TIMEOUT": "4",
    "HOST_USE_FUNC": "0",
    "HOST_LEASE_SECONDS": "30",
    "FHIR_MAX_READ_LAG": "6",  # more than `conditions` makes
    "HOST_LOG_LEVEL": "WARNING",
    "AzureFunctionsJobHost__extensions__queues__visibilityTimeout": "00:00:01",
    "AzureFunctionsJobHost__extensions__queues__maxPollingInterval": "00:00:00.200",
}


@dataclass(slots=True, kw_only=True)
class Route:
    """The running services, the host that can be killed, and the storage proxy. `others`: hosts
    that take work from the same queues."""

    running: Running
    host: Child
    others: Sequence[Child]
    http: httpx.AsyncClient
    queues: QueueServiceClient
    proxy: Proxy
    kill_file: Path  # names the request at which the host is killed
    # Requests without an answer: each may have become a delivery besides that of its repeat.
    unanswered: list[Delivery] = field(default_factory=list)
    _taken: Counter[str] = field(default_factory=Counter)

    # -- the host --------------------------------------------------------------------------------

    def arm(self, order: str) -> None:
        """Have the host killed at the request that `order` names, if any: see local.host.kill."""
        self.kill_file.with_suffix(NOTE).unlink(missing_ok=True)
        self.kill_file.write_text(order, "utf-8")

    def disarm(self) -> None:
        self.kill_file.write_text("", "utf-8")

    @property
    def killed_at(self) -> str | None:
        """The request at which the host was killed, if it was."""
        note = self.kill_file.with_suffix(NOTE)
        return note.read_text("utf-8") if note.exists() else None

    async def restart(self, **settings: str) -> None:
        """Kill the host and start it with these settings besides those that it has."""
        self.host.kill()
        self.host.part = replace(self.host.part, env={**self.host.part.env, **settings})
        await asyncio.to_thread(self.host.start)
        await self.wait_until_ready()

    async def restart_all(self, **settings: str) -> None:
        """Do the same with every host."""
        for other in self.others:
            other.kill()
            other.part = replace(other.part, env={**other.part.env, **settings})
            await asyncio.to_thread(other.start)
        await self.restart(**settings)

    async def shorten_leases(self, messages: int = 1, requests: int = 1) -> None:
        """Restart the host with short leases, so that work of a killed host resumes. `messages`:
        seconds of their leases; `requests`: of UPSTREAM_TIMEOUT. On a busy machine, leases of one
        second end while their work is still under way, and a request of a killed host arrives later
        than they say."""
        await self.restart(
            HOST_LEASE_SECONDS=str(messages),
            UPSTREAM_TIMEOUT=str(requests),
            FHIR_MAX_READ_LAG=str(requests),
        )

    async def wait_until_ready(self) -> None:
        """Wait until the host answers and has built its clients."""
        while True:
            if not self.host.running:
                raise RuntimeError(f"the host ended without a kill:\n{self.host.last_lines()}")
            with contextlib.suppress(httpx.TransportError):
                await self.http.get(f"{self.host.url}/api/deliveries?_count=1")
                return
            await asyncio.sleep(_SHORT_PAUSE)

    # -- the sender ------------------------------------------------------------------------------

    async def send(self, stream: Stream) -> list[AcceptedDelivery]:
        """Send each delivery when the one before is accepted. Use `wait_for_outcomes` later."""
        accepted = []
        for delivery in stream:
            addresses = [await self._send_until_accepted(delivery) for _ in range(delivery.times)]
            accepted += [
                AcceptedDelivery(delivery, address, None) for address in dict.fromkeys(addresses)
            ]
        return accepted

    async def _send_until_accepted(self, delivery: Delivery) -> str:
        """Repeat the request until it is accepted with 202. Return the delivery's address."""
        headers = {"content-type": "application/fhir+json", **delivery.headers}
        base = f"senders/{delivery.sender}/fhir" if delivery.sender else "fhir"
        url = f"{self.host.url}/api/{base}{delivery.path}"
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):  # the host is down, or has just died
                answer = await self.http.request(
                    delivery.method, url, content=delivery.body, headers=headers
                )
                if answer.status_code == 202:
                    id_ = answer.headers["content-location"].rpartition("/")[2]
                    return f"{self.host.url}/api/deliveries/{id_}"
                if answer.status_code < 500:
                    raise RuntimeError(f"{delivery.name}: intake answered {answer.text}")
            self.unanswered.append(delivery)
            await asyncio.sleep(_PAUSE)
        raise RuntimeError(f"{delivery.name}: never accepted")

    async def wait_for_outcomes(
        self, accepted: Iterable[AcceptedDelivery], patience: float = PATIENCE
    ) -> list[AcceptedDelivery]:
        """Wait until all deliveries are done, at most `patience` seconds. Replay parked ones, as
        an operator would."""
        until = time.monotonic() + patience
        return await gather_limited(
            [self._wait_for_outcome(delivery, until) for delivery in accepted]
        )

    async def get_state(self, accepted: AcceptedDelivery) -> str:
        """Return what the address of a delivery answers: its HTTP status, progress and text."""
        answer = await self.http.get(accepted.address)
        return f"{answer.status_code} {answer.headers.get('x-progress')} {answer.text}"

    async def is_open(self, accepted: AcceptedDelivery) -> bool:
        """Return whether the delivery is not done yet."""
        return (await self.get_state(accepted)).startswith("202")

    async def _wait_for_outcome(self, accepted: AcceptedDelivery, until: float) -> AcceptedDelivery:
        state, pause = "no answer", _PAUSE
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                answer = await self.http.get(accepted.address)
                is_over = answer.status_code == 200
                if is_over and _PARKED_ROW not in answer.text:
                    return replace(accepted, answers=_read_answers(answer.json()))
                state = f"{answer.status_code} {answer.headers.get('x-progress')} {answer.text}"
                # Parked because the host was killed with it several times, or storage failed.
                if is_over or "parked" in state:
                    await self.replay(accepted)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _MAX_PAUSE)
        return replace(accepted, state=state)

    # -- the queues ------------------------------------------------------------------------------

    async def replay(self, accepted: AcceptedDelivery) -> httpx.Response:
        """Replay a delivery, as an operator does."""
        id_ = accepted.address.rpartition("/")[2]
        answer = await self.http.post(f"{self.host.url}/api/deliveries/{id_}/replay")
        assert answer.status_code != 404, "no address of an operator's"
        return answer

    async def wait_until_idle(
        self, patience: float = PATIENCE, others: Sequence[str] = ()
    ) -> str | None:
        """Wait until the queues hold no message, visible or not. `others`: further queues, whose
        messages become those of the first. Return what is left, if any."""
        until = time.monotonic() + patience
        while left := [count for count in await self.count_messages(others) if count[1]]:
            if time.monotonic() > until:
                return ", ".join(f"{number} in {name}" for name, number in left)
            await asyncio.sleep(_PAUSE)
        return None

    async def count_messages(self, others: Sequence[str] = ()) -> list[tuple[str, int]]:
        """Return the number of messages in each queue, and in these others."""

        async def count_queue(name: str) -> tuple[str, int]:
            try:
                found = await self.queues.get_queue_client(name).get_queue_properties()
            except ResourceNotFoundError:
                return name, 0
            return name, int(found.approximate_message_count or 0)

        # The others first: what leaves them is in the queues that are counted after them.
        return [await count_queue(name) for name in (*others, *_QUEUES)]

    # -- the services ----------------------------------------------------------------------------

    @property
    def control_urls(self) -> Mapping[str, str]:
        """The address of each service's control API."""
        fhir = self.running.fhir_url.removesuffix("/fhir")
        return {"fhir": f"{fhir}/control", "dataverse": f"{self.running.dataverse_url}/control"}

    async def inject_fault(self, service: str, **fault: Any) -> None:
        answer = await self.http.post(f"{self.control_urls[service]}/faults", json=fault)
        answer.raise_for_status()

    async def clear_faults(self) -> None:
        self.proxy.faults.clear()
        self.proxy.queue_faults.clear()
        self.proxy.concern_faults.clear()
        for base in self.control_urls.values():
            (await self.http.delete(f"{base}/faults")).raise_for_status()

    async def delay_fhir(self, milliseconds: int) -> None:
        """Let each request to the FHIR server take this long."""
        url = f"{self.control_urls['fhir']}/latency"
        (await self.http.post(url, json={"requestMs": milliseconds})).raise_for_status()

    async def count_fhir_requests(self) -> int:
        stats = (await self.http.get(f"{self.control_urls['fhir']}/stats")).json()
        return int(stats["requests"])

    def count_in_log(self, event: str) -> int:
        """Return how often the host has logged this event."""
        return self.host.part.log.read_text("utf-8", errors="replace").count(f" {event}")

    async def change_fhir(self, **settings: float | bool) -> None:
        """Change the clock of the FHIR server, or how its reads lag."""
        url = f"{self.control_urls['fhir']}/settings"
        (await self.http.post(url, json=settings)).raise_for_status()

    async def count_injected(self) -> Counter[str]:
        """Return the number of faults that the services have injected so far, by their kind."""
        fhir, dataverse = [
            (await self.http.get(f"{self.control_urls[name]}/stats")).json()
            for name in ("fhir", "dataverse")
        ]
        counted = {
            FHIR_FAILED: int(fhir["faults"]),
            BATCH_REFUSED: int(fhir["refusedBundles"]),
            DATAVERSE_FAILED: int(dataverse["faults"]),
        }
        return Counter(counted) + self.proxy.injected

    async def take_injected(self) -> Counter[str]:
        """Return the faults since this was last called, by their kind."""
        now = await self.count_injected()
        new = now - self._taken
        self._taken = now
        return new


def make_client() -> httpx.AsyncClient:
    """Return a client that uses no connection twice: an idle one may be closed under a request."""
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=0)
    return httpx.AsyncClient(timeout=60, limits=limits, trust_env=False)


@contextlib.asynccontextmanager
async def open_route(
    running: Running,
    folder: Path,
    app: Path,
    *,
    proxied: bool = True,
    hosts: int = 1,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Route]:
    """Start hosts that use these services, with their storage behind the proxy if `proxied`."""
    kill_file = folder / "kill"
    ports = running.ports
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy.open((ports.blob, ports.queue, ports.table)))
        env = {**running.settings(), **SETTINGS, **(settings or {}), VARIABLE: str(kill_file)}
        if proxied:
            env["AzureWebJobsStorage"] = build_connection_string(*proxy.ports)
        host = await asyncio.to_thread(start_host, env, ports.host, folder, app)
        stack.callback(host.kill)
        others = []
        for number in range(1, hosts):
            env, port = {**env, VARIABLE: ""}, find_free_ports().host
            other = await asyncio.to_thread(start_host, env, port, folder / f"host-{number}", app)
            stack.callback(other.kill)
            others.append(other)
        http = await stack.enter_async_context(make_client())
        queues = QueueServiceClient.from_connection_string(running.storage)
        await stack.enter_async_context(queues)
        route = Route(
            running=running,
            host=host,
            others=others,
            http=http,
            queues=queues,
            proxy=proxy,
            kill_file=kill_file,
        )
        await route.wait_until_ready()
        yield route


def _read_answers(bundle: Mapping[str, Any]) -> list[EntryAnswer]:
    return [
        EntryAnswer(int(entry["response"]["status"]), str(entry["response"].get("outcome", "")))
        for entry in bundle["entry"]
    ]


async def gather_limited(work: Sequence[Awaitable[T]], limit: int = 32) -> list[T]:
    """Await all, at most `limit` at once. Return the results in order."""
    semaphore = asyncio.Semaphore(limit)

    async def run(awaitable: Awaitable[T]) -> T:
        async with semaphore:
            return await awaitable

    return list(await asyncio.gather(*(run(awaitable) for awaitable in work)))
