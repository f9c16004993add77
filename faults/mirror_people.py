"""The people and organizations of the mirror's chapter: what is written, and who is told."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from random import Random
from typing import Any
from uuid import UUID

from azure.core.exceptions import ResourceExistsError

from faults.deliveries import Delivery
from faults.mirror_truth import NUMBERS
from faults.mirror_verdict import Allowance
from faults.route import Route
from integration.core import decimal_json

EVENTS = "fhir-events"
_FHIR_JSON = {"content-type": "application/fhir+json"}
_MAX_DELAY = 2  # seconds until an event becomes visible


@dataclass(slots=True)
class Person:
    """A patient, or an organization. `allowed`: what staff have done with the row."""

    type: str
    name: str
    id: str
    owner: str | None = None
    allowed: Allowance = field(default_factory=Allowance)

    @property
    def identity(self) -> str:
        return f"{self.type}/{self.id}"


@dataclass(slots=True, kw_only=True)
class People:
    """Everybody that this run knows, and how they are written and announced."""

    route: Route
    random: Random
    known: list[Person] = field(default_factory=list)
    touched: dict[str, Person] = field(default_factory=dict)  # in this round, by Type/id
    strangers: dict[str, tuple[str, str]] = field(default_factory=dict)  # name, FHIR id by key
    # The forms of a failed change set, the least known one first: a run may have one round only.
    refusals: Iterator[str] = field(
        default_factory=lambda: cycle(("anonymous", "multipart", "single"))
    )
    _turns: Counter[str] = field(default_factory=Counter)

    async def prepare(self) -> None:
        """Create the queue of events, which the host only reads, and let two rows have one FHIR id:
        no source of Microsoft's declares a key that forbids it."""
        url = f"{self.route.control_urls['dataverse']}/keys"
        key = {"table": "contact", "name": "msemr_azurefhirid_key"}
        (await self.route.http.delete(url, params=key)).raise_for_status()
        with contextlib.suppress(ResourceExistsError):
            await self.route.queues.create_queue(EVENTS)

    def make(self, type_: str = "Patient", owner: str | None = None) -> Person:
        letter = type_[0]
        id_ = str(UUID(int=self.random.getrandbits(128), version=4))
        person = Person(type_, f"{letter}{len(self.known)}", id_, owner)
        self.known.append(person)
        return person

    def choose(self, number: int, type_: str = "Patient") -> list[Person]:
        """Choose people whose rows staff have not taken away."""
        free = [p for p in self.known if p.type == type_ and p.allowed == Allowance()]
        return self.random.sample(free, min(number, len(free)))

    def build(self, person: Person, **more: Any) -> dict[str, Any]:
        """Return the next state of the resource."""
        self.touched[person.identity] = person
        self._turns[person.name] += 1
        turn = self._turns[person.name]
        name = f"{person.name}~{turn}"
        if person.type == "Organization":
            return {"resourceType": "Organization", "id": person.id, "name": name, **more}
        numbers = [{"system": NUMBERS, "value": f"{person.name}#{n}"} for n in (turn, turn + 1)]
        owner = {"managingOrganization": {"reference": person.owner}} if person.owner else {}
        document = {
            "resourceType": "Patient",
            "id": person.id,
            "name": [{"family": name}],
            **owner,
            **more,
        }
        return {**document, "identifier": [*numbers, *more.get("identifier", ())]}

    # -- at the FHIR server ----------------------------------------------------------------------

    async def write(self, person: Person, **more: Any) -> str:
        """Write the next state to the FHIR server. Return its version."""
        url = f"{self.route.running.fhir_url}/{person.identity}"
        body = decimal_json.encode(self.build(person, **more))
        answer = await self.route.http.put(url, content=body, headers=_FHIR_JSON)
        answer.raise_for_status()
        return str(answer.json()["meta"]["versionId"])

    async def update(self, person: Person, *, copies: int = 1, **more: Any) -> None:
        version = await self.write(person, **more)
        change = "Created" if version == "1" else "Updated"
        await self.announce(person, change, version, copies=copies)

    async def send(self, person: Person) -> None:
        """Have the next state delivered by a sender, through the relay."""
        body = decimal_json.encode(self.build(person))
        path = f"/{person.identity}"
        delivery = Delivery(name="patient", body=body, intents=(), method="PUT", path=path)
        await self.route.send([delivery])

    async def delete(self, person: Person) -> None:
        self.touched[person.identity] = person
        url = f"{self.route.running.fhir_url}/{person.identity}"
        answer = await self.route.http.delete(url)
        answer.raise_for_status()
        version = answer.headers.get("etag", 'W/"1"').strip('W/"')
        await self.announce(person, "Deleted", version)

    async def purge(self, person: Person) -> None:
        """Delete with all versions. The service reports soft deletes alone."""
        url = f"{self.route.running.fhir_url}/{person.identity}?hardDelete=true"
        (await self.route.http.delete(url)).raise_for_status()

    async def load(self, person: Person) -> None:
        """Import the next state, as into another FHIR server."""
        url = f"{self.route.control_urls['fhir']}/import"
        body = {"mode": "InitialLoad", "resources": [self.build(person)]}
        answer = await self.route.http.post(url, json=body)
        answer.raise_for_status()
        assert answer.json()["loaded"] == 1, answer.text
        await self.announce(person, "Created", "1")

    # -- events ----------------------------------------------------------------------------------

    async def announce(self, person: Person, change: str, version: str, *, copies: int = 1) -> None:
        """Report a change, at least once and in any order, as Event Grid does.
        https://learn.microsoft.com/azure/healthcare-apis/events/events-message-structure"""
        event = {
            "eventType": f"Microsoft.HealthcareApis.FhirResource{change}",
            "data": {
                "resourceType": person.type,
                "resourceFhirId": person.id,
                "resourceVersionId": version,
            },
        }
        body = base64.b64encode(decimal_json.encode([event])).decode()
        queue = self.route.queues.get_queue_client(EVENTS)
        for _ in range(copies):
            delay = self.random.randint(0, _MAX_DELAY)
            await queue.send_message(body, visibility_timeout=delay)

    # -- staff -----------------------------------------------------------------------------------

    async def find_key(self, person: Person) -> str | None:
        """Return the key of the person's row."""
        query = {"$filter": f"msemr_azurefhirid eq '{person.id}'", "$select": "contactid"}
        answer = await self.ask_dataverse("GET", "contacts", params=query)
        found: Sequence[dict[str, Any]] = answer.json()["value"]
        return str(found[0]["contactid"]) if found else None

    async def ask_dataverse(self, method: str, path: str, **options: Any) -> Any:
        """Send a request as staff do."""
        url = f"{self.route.running.dataverse_url}/api/data/v9.2/{path}"
        answer = await self.route.http.request(method, url, **options)
        answer.raise_for_status()
        return answer


async def wait_a_little(random: Random, seconds: float = 1.0) -> None:
    await asyncio.sleep(random.uniform(0, seconds))
