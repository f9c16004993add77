"""The chapter of refusals: everything that may need attention, in bulk and among faults.

After each part, when all work has ended, the list of what needs attention is compared with what the
servers hold. Then causes are mended and the work is replayed, and what is well must have left it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from faults import injected, refusals
from faults.attention import check_attention, read_list
from faults.attention_rows import search_all
from faults.attention_verdict import ShownConcern, find_missing
from faults.deliveries import (
    MARKER_SYSTEM,
    TRACKED_SYSTEM,
    Delivery,
    DeliveryFactory,
    Stream,
    TrackedResource,
    build_bundle,
    build_entry,
)
from faults.judge import Report
from faults.kills import SIDES
from faults.mirror_chapter import build_settings as build_map_settings
from faults.mirror_truth import read_all
from faults.proxy import KINDS
from faults.refusal_rows import RowTroubles
from faults.refusals import CORRECTION
from faults.route import PATIENCE, Route, gather_limited
from faults.sweeping import sweep_later
from faults.verdict import AcceptedDelivery, Finding, StoredResource, Tally
from integration.journal.concern import ConcernKind

_SENDERS_AT_ONCE = 6
_MIRRORED = ("Patient", "Organization")
_TYPES = ("Observation", *_MIRRORED)
_SHORT_AGE, _AGE, _LONG_AGE = "6", "120", "259200"  # seconds: MAX_AGE
_UNIT_MAX_ENTRIES = "100"
_MAX_REQUEST = 150  # before which the host is killed
_EVER = 10**6  # requests
_PAUSE = 0.2
_PATIENCE_WITH_JOB = 20.0  # seconds
_LATER = timedelta(minutes=11)
# Dataverse takes no change sets. It can be read, which the suite does too.
_FORBIDDEN = {"kind": "status", "status": 403, "method": "POST", "next": _EVER}
# What this chapter injects besides refused entries.
OTHERS = (
    *(injected.ROW_REFUSED, injected.PART_REFUSED, injected.LOOKUP_WAITED, injected.ROW_PARKED),
    *(injected.PARKED, injected.CANCELLED, injected.REPLAYED),
    *(injected.WAITING, injected.ROW_WAITING),
)
_REPLAYS = ({"status": "parked"}, {"attention": "entries"}, {"attention": "rows"})


def build_settings(folder: Path) -> dict[str, str]:
    """Return the app settings of the chapter: several senders, small units, short patience."""
    return {
        **build_map_settings(folder),
        "SENDERS": str(_write_senders(folder, is_generous=False)),
        "NORTH_TOKEN": refusals.NORTH_TOKEN,
        "FEED_TOKEN": refusals.FEED_TOKEN,
        "UNIT_MAX_ENTRIES": _UNIT_MAX_ENTRIES,
        "UNIT_MAX_BYTES": str(refusals.MAX_UNIT_BYTES),
        "MAX_AGE": _AGE,
        "HOST_LEASE_SECONDS": "20",
        "UPSTREAM_TIMEOUT": "8",
    }


def _write_senders(folder: Path, *, is_generous: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"senders-{is_generous}.toml"
    path.write_text(refusals.build_senders(is_generous=is_generous), "utf-8")
    return path


@dataclass(slots=True, kw_only=True)
class RefusalChapter:
    """Runs the parts. `accepted`: all deliveries so far, each stream in its order; `cancelled`: the
    ids of some."""

    route: Route
    report: Report
    maker: DeliveryFactory
    folder: Path
    accepted: list[AcceptedDelivery] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    _is_mended: bool = False

    async def run(self, number: int, size: int) -> None:
        """Send so many entries, of which some are refused, in deliveries of this size."""
        await self.route.take_injected()
        await self.refuse_entries(number, size)
        few = max(min(number // 600, 24), 3)
        await self.refuse_rows(few)
        await self.park(few)
        await self.mend()
        await self.wait_for_operator(few)

    # -- the parts -------------------------------------------------------------------------------

    async def refuse_entries(self, number: int, size: int, kills: int = 3) -> None:
        """Send entries of which some are refused, while workers are killed and storage fails."""
        streams: list[Stream] = []
        counted = 0
        while counted < number or len(streams) < len(refusals.REFUSALS):
            for make in refusals.REFUSALS.values():
                stream = make(self.maker, size)
                streams.append(stream)
                counted += sum(len(delivery.intents) for delivery in stream)
                if counted >= number and len(streams) >= len(refusals.REFUSALS):
                    break
        # A correction that overtakes its delivery would leave nothing to correct.
        corrections = [[sent] for stream in streams for sent in stream if sent.name == CORRECTION]
        others = [[sent for sent in stream if sent.name != CORRECTION] for stream in streams]
        async with self._bring_trouble(len(streams), kills=kills):
            sent = await self._send(others)
            await self._settle()
            await self._send(corrections)
            await self._settle()
        lines = {line.delivery for line in await self._read_list() if not line.is_row}
        self._count_injected(item.sent.name for item in sent if item.id in lines)
        # What a later delivery has corrected stays on the list until it is replayed: then it is
        # superseded.
        corrected = [item for item in self.accepted if item.sent.name == injected.CORRECTED]
        await gather_limited([self.route.replay(item) for item in corrected])
        await self._settle()
        await self._check("refused entries")

    async def refuse_rows(self, number: int) -> None:
        """Send patients whose rows, or parts of them, Dataverse does not take."""
        await self.route.restart_all(MAX_AGE=_SHORT_AGE)
        rows = RowTroubles(self.route, self.maker)
        await rows.prepare()
        async with self._bring_trouble(number // 4):
            await self._send([rows.make_patients(number)])
            await self._settle()
            await self.route.inject_fault("dataverse", **_FORBIDDEN)
            await self._send([rows.make_patients(number, is_plain=True)])
            await self._settle()
        await self.route.clear_faults()
        await self._check("refused rows")
        await self._count_rows(
            {
                ConcernKind.ROW_REFUSED: (injected.ROW_REFUSED, injected.PART_REFUSED),
                ConcernKind.ROW_PARKED: (injected.ROW_PARKED, injected.ROW_PARKED),
                ConcernKind.ROW_INCOMPLETE: (injected.LOOKUP_WAITED, injected.LOOKUP_WAITED),
            }
        )
        await rows.mend()
        await self._send([rows.make_owners()])
        await self._settle()
        await self._check("rows that others brought")

    async def park(self, number: int) -> None:
        """The FHIR server refuses the app, and then fails, for longer than deliveries may wait."""
        for status in (401, 503):
            fault = {"kind": "status", "status": status, "method": "POST", "next": _EVER}
            await self.route.inject_fault("fhir", **fault)
            self._fail_concerns(number)
            streams = [[self._make_good(3)] for _ in range(number)]
            sent = await self._send(streams)
            await self._settle()
            await self._count_deliveries(sent, ConcernKind.PARKED, injected.PARKED)
            await self.route.clear_faults()
            await self._check(f"parked by {status}")
            await gather_limited([self._cancel(item) for item in sent[::3]])
        await self._check("cancelled")

    async def mend(self) -> None:
        """Give the sender its rights, replay everything that can be, and correct nothing."""
        self._is_mended = True
        senders = str(_write_senders(self.folder, is_generous=True))
        await self.route.restart_all(SENDERS=senders, MAX_AGE=_AGE)
        async with self._bring_trouble(len(self.accepted) // 8):
            for found in _REPLAYS:
                await self._replay_all(found)
            await self._settle()
        await self._replay_all(_REPLAYS[0])  # what the trouble has parked
        await self._settle()
        await self._check("replayed")

    async def wait_for_operator(self, number: int) -> None:
        """The FHIR server refuses the app, and Dataverse does, but deliveries may wait for days."""
        await self.route.restart_all(MAX_AGE=_LONG_AGE)
        rows = RowTroubles(self.route, self.maker)
        await self.route.inject_fault("dataverse", **_FORBIDDEN)
        self._fail_concerns(number)
        before = await self._count_faults("dataverse")
        await self._send([rows.make_patients(number, is_plain=True)])
        await self._wait_until_met("dataverse", before + number)
        refused = {"kind": "status", "status": 401, "method": "POST", "path": "", "next": _EVER}
        await self.route.inject_fault("fhir", **refused)
        before = await self._count_faults("fhir")
        sent = await self._send([[self._make_good(3)] for _ in range(number)])
        await self._wait_until_met("fhir", before + number)
        await self._check("waiting", sweeps=False)
        await self._count_deliveries(sent, ConcernKind.WAITING, injected.WAITING)
        await self._count_rows(
            {ConcernKind.ROW_WAITING: (injected.ROW_WAITING, injected.ROW_WAITING)}
        )
        await self.route.clear_faults()
        await self._settle()
        await self._check("gone on")

    # -- what has happened: as the list says ------------------------------------------------------

    async def _read_list(self) -> list[ShownConcern]:
        return await read_list(self.route.http, self.route.host.url)

    async def _count_rows(self, names: Mapping[str, tuple[str, str]]) -> None:
        """Count the rows of these kinds: by the first name those that are not there at all, by the
        second one the others."""
        rows = read_all(self.route.http, self.report.running, "contacts")
        existing = {f"Patient/{row['msemr_azurefhirid']}" async for row in rows}
        for line in await self._read_list():
            if line.kind in names:
                self.report.tally.injected[names[line.kind][line.resource in existing]] += 1

    async def _count_deliveries(
        self, sent: Sequence[AcceptedDelivery], kind: ConcernKind, name: str
    ) -> None:
        lines = {line.delivery for line in await self._read_list() if line.kind == kind}
        self._count_injected(name for item in sent if item.id in lines)

    def _count_injected(self, names: Iterable[str]) -> None:
        """Count deliveries by the trouble that they have met; others prepare or correct it."""
        known = (*refusals.REFUSALS, *OTHERS)
        self.report.tally.injected.update(name for name in names if name in known)

    # -- sending ---------------------------------------------------------------------------------

    def _make_good(self, size: int) -> Delivery:
        intents = [
            self.maker.make_intent("sets", self.maker.make_resource("Observation"))
            for _ in range(size)
        ]
        body = build_bundle("batch", [build_entry(intent) for intent in intents])
        return Delivery(name="good batch", body=body, intents=tuple(intents))

    async def _send(self, streams: Sequence[Stream]) -> list[AcceptedDelivery]:
        """Send the streams. Each delivery has a key: if its answer is lost, its repeat is no other
        delivery."""
        keyed = [[self._add_key(delivery) for delivery in stream] for stream in streams]
        sent = await gather_limited([self.route.send(stream) for stream in keyed], _SENDERS_AT_ONCE)
        new = [item for stream in sent for item in stream]
        self.accepted += new
        return new

    def _add_key(self, delivery: Delivery) -> Delivery:
        key = {"idempotency-key": self.maker.make_guid()}
        return replace(delivery, headers={**delivery.headers, **key})

    async def _cancel(self, item: AcceptedDelivery) -> None:
        answer = await self.route.http.delete(item.address)
        answer.raise_for_status()
        self.cancelled.add(item.id)
        self.report.tally.injected[injected.CANCELLED] += 1

    async def _replay_all(self, found: Mapping[str, str]) -> None:
        """Have a job replay all that matches, and wait for its end."""
        body = {"kind": "replay", "filter": found, "started_by": "faults"}
        async with asyncio.timeout(PATIENCE):
            job, rests = await self._ask("POST", "jobs", json=body), 0
            while job["state"] in ("running", "stopping"):
                await asyncio.sleep(_PAUSE)
                before, job = job, await self._ask("GET", f"jobs/{job['id']}")
                rests = rests + 1 if job == before else 0
                if rests * _PAUSE > _PATIENCE_WITH_JOB:
                    # Its worker was killed, and its work item deleted by the other worker that had
                    # it. Housekeeping queues it again after ten minutes.
                    await sweep_later(self.route.running, _LATER)
                    rests = 0
        if job["state"] != "done":
            self.report.record_stuck_work(f"a job that replays {found}: {job}")
        self.report.tally.injected[injected.REPLAYED] += job["done"]

    async def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send a request to the app, as often as it takes to be answered: it may be killed."""
        while True:
            with contextlib.suppress(httpx.TransportError):
                url = f"{self.route.host.url}/api/{path}"
                answer = await self.route.http.request(method, url, **options)
                if answer.status_code < 500:
                    answer.raise_for_status()
                    return dict(answer.json())
            await asyncio.sleep(_PAUSE)

    # -- trouble ---------------------------------------------------------------------------------

    def _fail_concerns(self, number: int) -> None:
        """Let storage fail at some of the next writes of the list: once, or so often in a row that
        no client's patience is enough."""
        random = self.maker.random
        for _ in range(number):
            passing = [None] * random.randint(0, 4)
            failing = [random.choice(KINDS)] * random.choice((1, 2, 6))
            self.route.proxy.concern_faults.extend([*passing, *failing])

    @contextlib.asynccontextmanager
    async def _bring_trouble(self, number: int, kills: int = 1) -> AsyncIterator[None]:
        """Fail the list's writes so often, kill the host, and deliver work items twice."""
        self._fail_concerns(number)
        self.route.proxy.doubles = max(number // 4, 2)
        killing = asyncio.create_task(self._kill(kills))
        try:
            yield
        finally:
            killing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await killing
            self.route.disarm()
            self.route.proxy.doubles = 0
            self.route.proxy.concern_faults.clear()
            await self.route.wait_until_ready()
            self.report.tally.injected.update(await self.route.take_injected())

    async def _kill(self, number: int) -> None:
        random = self.maker.random
        for _ in range(number):
            order = f"{random.choice(SIDES)}:{random.randint(1, _MAX_REQUEST)}"
            self.route.arm(f"{order} {self.report.next_number()}")
            while self.route.killed_at is None:
                await asyncio.sleep(_PAUSE)
            self.report.tally.injected[injected.KILLED] += 1
            self.route.disarm()
            await self.route.wait_until_ready()

    async def _count_faults(self, service: str) -> int:
        stats = await self.route.http.get(f"{self.route.control_urls[service]}/stats")
        return int(stats.json()["faults"])

    async def _wait_until_met(self, service: str, number: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self._count_faults(service) < number:
                await asyncio.sleep(_PAUSE)

    # -- the end of work -------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Wait until nothing is under way: all deliveries are done, parked or cancelled."""
        self.report.record_stuck_work(await self.route.wait_until_idle())
        async with asyncio.timeout(PATIENCE):
            left: Sequence[AcceptedDelivery] = self.accepted
            while left := await self._list_under_way(left):
                await asyncio.sleep(_PAUSE)
        self.report.record_stuck_work(await self.route.wait_until_idle())

    async def _list_under_way(self, items: Sequence[AcceptedDelivery]) -> list[AcceptedDelivery]:
        async def is_under_way(item: AcceptedDelivery) -> bool:
            try:
                answer = await self.route.http.get(item.address)
            except httpx.TransportError:
                return True
            progress = str(answer.headers.get("x-progress", ""))
            return answer.status_code >= 500 or progress.startswith(("accepted", "processing"))

        found = await gather_limited([is_under_way(item) for item in items])
        return [item for item, is_open in zip(items, found, strict=True) if is_open]

    async def _check(self, where: str, *, sweeps: bool = True) -> None:
        """Compare the list with what the servers hold now."""
        held = await self._read_held()
        missing = find_missing(self.accepted, held)
        missing |= {id_: frozenset() for id_ in self.cancelled}
        self.report.missing.update(missing)
        self._count(where, missing)
        await check_attention(self.route, self.report, where, mirrored=_MIRRORED, sweeps=sweeps)
        self.report.print_progress(where)

    def _count(self, where: str, missing: dict[str, frozenset[int]]) -> None:
        """Count the entries, and find those that are written and invalid."""
        counts, tally = self.report.tally.counts, Tally()
        total = sum(len(item.sent.intents) for item in self.accepted)
        counts["entries"], counts["refused"] = total, sum(map(len, missing.values()))
        counts["written"] = total - counts["refused"]
        for item in self.accepted if not self._is_mended else ():
            bad = {n for n, intent in enumerate(item.sent.intents) if intent.action == "fails"}
            if item.sent.name != injected.CORRECTED and (written := bad - missing[item.id]):
                what = f"entries {sorted(written)} are invalid and were written"
                place = f"seed {self.report.seed}, {where}: {item.name}"
                tally.findings.append(Finding("unexplained", place, what))
        self.report.add_tally(tally, len(tally.findings))

    async def _read_held(self) -> dict[TrackedResource, StoredResource]:
        """Return what the FHIR server holds now of each resource."""
        markers: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
        for type_ in _TYPES:
            async for resource in search_all(self.route.http, self.route.running.fhir_url, type_):
                names = {name["system"]: name["value"] for name in resource["identifier"]}
                version = resource["meta"]["versionId"]
                markers.setdefault((type_, names[TRACKED_SYSTEM]), []).append(
                    (f"{type_}/{resource['id']}", version, names[MARKER_SYSTEM])
                )
        return {
            tracked: StoredResource(
                tuple(identity for identity, _, _ in found),
                tuple((version, marker) for _, version, marker in found),
            )
            for item in self.accepted
            for tracked in (intent.tracked for intent in item.sent.intents)
            if (found := markers.get((tracked.type, tracked.name)))
        }
