"""Patients whose rows Dataverse does not take, or not all of it, until somebody mends the cause."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from faults import injected
from faults.deliveries import (
    MARKER_SYSTEM,
    TRACKED_SYSTEM,
    Delivery,
    DeliveryFactory,
    EntryIntent,
    Stream,
    TrackedResource,
    build_bundle,
    build_entry,
)
from faults.route import Route

# An alternate key of the organization: one contact for each address, one child for each number.
_ONE_ADDRESS = {
    "table": "contact",
    "name": "new_address_key",
    "columns": ["emailaddress1"],
}
_ONE_NUMBER = {
    "table": "msemr_medicalidentifier",
    "name": "new_value_key",
    "columns": ["msemr_identifiersystem", "msemr_value"],
}


@dataclass(slots=True)
class RowTroubles:
    """Makes patients, and changes the organization. `owners`: organizations that are not there."""

    route: Route
    maker: DeliveryFactory
    owners: list[TrackedResource] = field(default_factory=list)

    async def prepare(self) -> None:
        """Add the keys that refuse rows."""
        for key in (_ONE_ADDRESS, _ONE_NUMBER):
            url = f"{self.route.control_urls['dataverse']}/keys"
            (await self.route.http.post(url, json=key)).raise_for_status()

    async def mend(self) -> None:
        """Take the keys away."""
        for key in (_ONE_ADDRESS, _ONE_NUMBER):
            url = f"{self.route.control_urls['dataverse']}/keys"
            query = {"table": key["table"], "name": key["name"]}
            (await self.route.http.delete(url, params=query)).raise_for_status()

    def make_patients(self, number: int, *, is_plain: bool = False) -> Stream:
        """Return a batch with so many patients of each trouble; `is_plain`: without one."""
        kinds = [injected.ROW_REFUSED, injected.PART_REFUSED, injected.LOOKUP_WAITED]
        intents, entries = [], []
        for kind, _ in zip(cycle([""] if is_plain else kinds), range(number * 3), strict=False):
            tracked = self.maker.make_resource("Patient", given=self.maker.random.random() < 0.5)
            intent = self.maker.make_intent("sets", tracked)
            intents.append(intent)
            entries.append(build_entry(intent, **self._build_trouble(kind, intent)))
        body = build_bundle("batch", entries)
        return [Delivery(name="patients", body=body, intents=tuple(intents))]

    def _build_trouble(self, kind: str, intent: EntryIntent) -> dict[str, Any]:
        if kind == injected.ROW_REFUSED:
            return {"telecom": [{"system": "email", "value": "one@address.example"}]}
        if kind == injected.PART_REFUSED:
            names = [
                {"system": TRACKED_SYSTEM, "value": intent.tracked.name},
                {"system": MARKER_SYSTEM, "value": intent.marker},
                {"system": "urn:faults:contested", "value": "same"},
            ]
            return {"identifier": names}
        if kind == injected.LOOKUP_WAITED:
            owner = self.maker.make_resource("Organization", given=True)
            self.owners.append(owner)
            return {"managingOrganization": {"reference": owner.identity}}
        return {}

    def make_owners(self) -> Stream:
        """Return a batch with half of the organizations that patients wait for."""
        intents = [self.maker.make_intent("sets", owner) for owner in self.owners[::2]]
        body = build_bundle("batch", [build_entry(intent) for intent in intents])
        return [Delivery(name="organizations", body=body, intents=tuple(intents))]
