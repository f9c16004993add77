"""Doubles for schedules: Dataverse that finishes a write late, a FHIR server whose reads lag behind,
and stores whose requests wait for their turn."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime

import httpx

from integration.core.state_version import StateVersion
from integration.journal.deletions import MemoryDeletions
from integration.journal.pending_lookups import LookupState, MemoryPendingLookups
from tests.builders import Body
from tests.doubles import Clock, FhirDouble
from tests.mirror.schedules import Access, Schedule


def has_changes(request: httpx.Request) -> bool:
    return request.method != "GET" and (
        not request.url.path.endswith("$batch") or b"changeset_" in request.content
    )


@dataclass(slots=True)
class LateTransport(httpx.AsyncBaseTransport):
    """Dataverse, which hears the first write in time and finishes it when nobody waits for it."""

    inner: httpx.AsyncBaseTransport
    clock: Clock
    armed: bool = False
    held: list[tuple[datetime, httpx.Request]] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self.armed or not has_changes(request):
            return await self.inner.handle_async_request(request)
        self.armed = False
        headers = [pair for pair in request.headers.items() if pair[0] != "content-length"]
        again = httpx.Request(request.method, request.url, headers=headers, content=request.content)
        self.held.append((self.clock(), again))
        raise httpx.ReadTimeout("late", request=request)

    async def finish(self) -> None:
        for _, request in self.held:
            await self.inner.handle_async_request(request)
        self.held.clear()


class LaggingFhir(FhirDouble):
    """Reads see the first of the `replicas`, where there is one; writes and their conditions see the
    newest state."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.replicas: list[tuple[dict[str, Body], dict[str, int]]] = []

    def add_replica(self) -> None:
        """Have reads see what is there now, once they have seen what was there before."""
        self.replicas.append(deepcopy((self.stored, self.versions)))

    def get(self, url: str) -> tuple[int, Body]:
        if not self.replicas:
            return super().get(url)
        newest = self.stored, self.versions
        self.stored, self.versions = self.replicas[0]
        try:
            return super().get(url)
        finally:
            self.stored, self.versions = newest


@dataclass(slots=True)
class GatedDeletions(MemoryDeletions):
    """The deletions, whose requests wait for their turn."""

    schedule: Schedule | None = None

    async def _wait(self, *, writes: bool) -> None:
        if self.schedule is not None:
            await self.schedule.wait_for_turn(Access("deletions", writes))

    async def record(self, resource: str, deletion: StateVersion) -> None:
        await self._wait(writes=True)
        await MemoryDeletions.record(self, resource, deletion)

    async def find(self, resource: str) -> StateVersion | None:
        await self._wait(writes=False)
        return await MemoryDeletions.find(self, resource)

    async def forget(self, resource: str, deletion: StateVersion) -> None:
        await self._wait(writes=True)
        await MemoryDeletions.forget(self, resource, deletion)


@dataclass(slots=True)
class GatedLookups(MemoryPendingLookups):
    """The pending lookups, whose requests wait for their turn."""

    schedule: Schedule | None = None

    async def _wait(self, *, writes: bool) -> None:
        if self.schedule is not None:
            await self.schedule.wait_for_turn(Access("pending lookups", writes))

    async def add(self, target: str, resource: str, state: LookupState) -> None:
        await self._wait(writes=True)
        await MemoryPendingLookups.add(self, target, resource, state)

    async def list_resources(self, target: str, state: LookupState) -> Sequence[str]:
        await self._wait(writes=False)
        return await MemoryPendingLookups.list_resources(self, target, state)

    async def remove(self, target: str, resource: str, state: LookupState) -> None:
        await self._wait(writes=True)
        await MemoryPendingLookups.remove(self, target, resource, state)
