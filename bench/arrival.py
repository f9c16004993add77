"""Measure how long a small delivery takes from its POST to the contact's row in Dataverse.

Deliveries are sent at a fixed rate, whether or not earlier ones have arrived, and each is measured
from the time at which it was due. So a relay that falls behind shows it:
https://groups.google.com/g/mechanical-sympathy/c/icNZJejUHfE
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

from bench.route import HEADERS, MeasuredRoute, encode, wait_until_done
from local.samples import build_transaction

RATE = 20  # deliveries a second
SECONDS = 15
ENTRIES = 5  # a patient with an encounter and a condition
PATIENCE = 120  # seconds, for a relay that is slower than the rate


async def measure_arrival(route: MeasuredRoute) -> list[float]:
    """Return the seconds of each delivery until its contact was written."""
    number = RATE * SECONDS
    bodies = [encode(build_transaction([ENTRIES], seed=f"arrival {n}")) for n in range(number)]
    rows_before = await _count_contacts(route)
    begun = time.time()
    due = [begun + n / RATE for n in range(number)]
    addresses = await asyncio.gather(
        *(_post_when_due(route, body, at) for body, at in zip(bodies, due, strict=True))
    )
    async with asyncio.timeout(PATIENCE):
        while await _count_contacts(route) < rows_before + number:
            await asyncio.sleep(0.5)
    written = await _list_write_times(route)
    contacts = [await _find_contact(route, address) for address in addresses]
    return [written[contact] - at for contact, at in zip(contacts, due, strict=True)]


async def _post_when_due(route: MeasuredRoute, body: bytes, at: float) -> str:
    """Send the delivery at that time. Return the address of its status."""
    await asyncio.sleep(at - time.time())
    answer = await route.http.post(f"{route.host}/api/fhir", content=body, headers=HEADERS)
    assert answer.status_code == 202, answer.text
    return str(answer.headers["content-location"])


async def _find_contact(route: MeasuredRoute, address: str) -> str:
    """Return the key of the delivery's contact: the id of its Patient."""
    bundle = await wait_until_done(route, address)
    locations = [entry["response"]["location"] for entry in bundle["entry"]]
    (patient,) = [name for name in locations if "/Patient/" in name or name.startswith("Patient/")]
    return str(patient).partition("Patient/")[2].partition("/")[0]


async def _count_contacts(route: MeasuredRoute) -> int:
    stats = await route.http.get(f"{route.running.dataverse_url}/control/stats")
    return int(stats.json()["rows"].get("contact", 0))


async def _list_write_times(route: MeasuredRoute) -> dict[str, float]:
    """Return when each contact was first written, in seconds since 1970."""
    address = f"{route.running.dataverse_url}/control/writes?last=10000"
    writes = (await route.http.get(address)).json()
    times: dict[str, float] = {}
    for write in writes:
        if write["table"] == "contact":
            times.setdefault(write["id"], datetime.fromisoformat(write["at"]).timestamp())
    return times
