"""Compare a patient's related lists as virtual tables with the same searches in FHIR.

Reads the first page of each of the twenty tables. The server holds 100,000 resources, 1,000 of
them Observations of this patient. The baseline searches the FHIR server for the same resources.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from integration.core import decimal_json
from integration.mapping.load import load_shipped_maps
from integration.mapping.model import Kind, Route
from integration.virtual_tables.entity_type import (
    MappedEntityType,
    build_entity_type,
    format_property_name,
)

RESOURCES = 100_000
OBSERVATIONS = 1_000
RESOURCES_PER_TYPE = 30
PAGE = 50
ROUNDS = 15
PATIENT = str(UUID(int=1))

_FHIR = {"content-type": "application/fhir+json"}
_PATIENTS = 500
_ALLERGY = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
_BATCH_SIZE = 500


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of each request to the feed, and of the same search in FHIR."""

    feed: list[float]
    direct: list[float]

    def compute_ratio(self, share: float) -> float:
        """Return feed time over direct time at this quantile (0.95 is the 95th percentile)."""
        return compute_quantile(self.feed, share) / compute_quantile(self.direct, share)


async def measure_related_lists(http: httpx.AsyncClient, fhir: str, feed: str) -> Times:
    """Fill the FHIR server, then time both requests alternately."""
    entity_types = _build_entity_types()
    await _fill(http, fhir, entity_types)
    addresses = [(entity_type, *_build_addresses(entity_type)) for entity_type in entity_types]
    times = Times([], [])
    for number in range(-1, ROUNDS):  # the first warms up
        for entity_type, search, query in addresses:
            direct = await _time_request(lambda s=search: http.get(f"{fhir}/{s}"))  # type: ignore[misc]
            shown = await _time_request(
                lambda e=entity_type, q=query: http.get(f"{feed}/{e.type.set}?{q}")  # type: ignore[misc]
            )
            if number >= 0:
                times.direct.append(direct)
                times.feed.append(shown)
    return times


async def measure_processor_time(
    http: httpx.AsyncClient, feed: str, read_cpu_seconds: Callable[[], float]
) -> float:
    """Return the processor milliseconds of the host for a page, in the best of some rounds: other
    work on the machine only adds to them."""
    addresses = [(item.type.set, _build_addresses(item)[1]) for item in _build_entity_types()]
    rounds = []
    for _ in range(ROUNDS):
        before = read_cpu_seconds()
        for set_, query in addresses:
            await http.get(f"{feed}/{set_}?{query}")
        rounds.append((read_cpu_seconds() - before) * 1000 / len(addresses))
    return min(rounds)


def _build_entity_types() -> list[MappedEntityType]:
    return [
        build_entity_type(entity)
        for entity in load_shipped_maps().values()
        if Route.VIRTUAL in entity.routes
    ]


def _build_addresses(entity_type: MappedEntityType) -> tuple[str, str]:
    """Return the FHIR search for a patient's resources and the OData query for their rows."""
    patient = _find_patient_column(entity_type)
    if patient is None:  # a Location has no patient
        search, condition = f"{entity_type.resource}?_count={PAGE}", ""
    else:
        name, parameter = patient
        search = f"{entity_type.resource}?{parameter}=Patient/{PATIENT}&_count={PAGE}"
        condition = f"$filter={name} eq {PATIENT}&"
    names = [entity_type.entity.name_column or "", *list(entity_type.attributes)[1:6]]
    return search, f"{condition}$select={','.join(dict.fromkeys(names))}&$top={PAGE}"


def _find_patient_column(entity_type: MappedEntityType) -> tuple[str, str] | None:
    for attribute in entity_type.attributes.values():
        if (
            attribute.kind is Kind.LOOKUP
            and attribute.virtual_column.target == "Patient"
            and attribute.virtual_column.search
        ):
            return format_property_name(attribute), attribute.virtual_column.search.name
    return None


async def _time_request(send: Callable[[], Awaitable[httpx.Response]]) -> float:
    begun = time.perf_counter()
    response = await send()
    taken = (time.perf_counter() - begun) * 1000
    assert response.status_code == 200, response.text
    assert decimal_json.decode(response.content)
    return taken


def compute_quantile(times: list[float], share: float) -> float:
    return statistics.quantiles(times, n=100)[round(share * 100) - 1]


# -- contents of the FHIR server -------------------------------------------------------------------


async def _fill(http: httpx.AsyncClient, fhir: str, entity_types: list[MappedEntityType]) -> None:
    entries: list[dict[str, Any]] = []
    for resource in _generate_resources(entity_types):
        url = f"{resource['resourceType']}/{resource['id']}"
        entries.append({"resource": resource, "request": {"method": "PUT", "url": url}})
        if len(entries) == _BATCH_SIZE:
            await _send_batch(http, fhir, entries)
            entries = []
    await _send_batch(http, fhir, entries)


async def _send_batch(http: httpx.AsyncClient, fhir: str, entries: list[dict[str, Any]]) -> None:
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
    answer = await http.post(fhir, content=decimal_json.encode(bundle), headers=_FHIR)
    responses = [response["response"] for response in answer.json()["entry"]]
    assert all(response["status"][0] == "2" for response in responses), next(
        response for response in responses if response["status"][0] != "2"
    )


def _generate_resources(entity_types: list[MappedEntityType]) -> Iterator[dict[str, Any]]:
    r = random.Random(1)  # noqa: S311
    others = [str(UUID(int=n)) for n in range(2, _PATIENTS)]
    for id_ in (PATIENT, *others):
        yield {"resourceType": "Patient", "id": id_}
    left = RESOURCES - _PATIENTS
    for entity_type in entity_types:
        for _ in range(
            OBSERVATIONS if entity_type.resource == "Observation" else RESOURCES_PER_TYPE
        ):
            left -= 1
            yield _make_resource(r, entity_type.resource, PATIENT, left)
    names = [
        entity_type.resource
        for entity_type in entity_types
        if entity_type.resource != "Observation"
    ]
    while left > 0:
        left -= 1
        type_ = "Observation" if left % 2 else r.choice(names)
        yield _make_resource(r, type_, r.choice(others), left)


def _make_resource(r: random.Random, type_: str, patient: str, number: int) -> dict[str, Any]:
    """Return a minimal valid resource with the elements that lists show."""
    subject = {"reference": f"Patient/{patient}"}
    concept = {
        "coding": [{"system": "http://loinc.org", "code": str(r.randrange(99))}],
        "text": "x",
    }
    day = f"20{r.randrange(10, 26)}-0{r.randrange(1, 10)}-1{r.randrange(10)}"
    document: dict[str, Any] = {
        "resourceType": type_,
        "id": str(UUID(int=10_000_000 + number)),
    }
    return {**document, **_ELEMENTS[type_](subject, concept, day)}


_Make = Callable[[Any, Any, str], dict[str, Any]]

_ELEMENTS: dict[str, _Make] = {
    "AllergyIntolerance": lambda p, c, d: {
        "clinicalStatus": {"coding": [{"system": _ALLERGY, "code": "active"}]},
        "patient": p, "code": c, "recordedDate": d,
    },
    "Appointment": lambda p, c, d: {
        "status": "booked",
        "participant": [{"actor": p, "status": "accepted"}],
        "start": f"{d}T09:00:00Z",
        "end": f"{d}T09:15:00Z",
    },
    "CarePlan": lambda p, c, d: {
        "status": "active", "intent": "plan", "subject": p, "title": "x", "created": d,
    },
    "CareTeam": lambda p, c, d: {"status": "active", "subject": p, "name": "x"},
    "Claim": lambda p, c, d: {
        "status": "active", "type": c, "use": "claim", "patient": p, "created": d,
        "provider": {"display": "x"}, "priority": c,
        "insurance": [{"sequence": 1, "focal": True, "coverage": {"display": "x"}}],
    },
    "Condition": lambda p, c, d: {"subject": p, "code": c, "onsetDateTime": d},
    "Coverage": lambda p, c, d: {
        "status": "active", "beneficiary": p, "payor": [{"display": "x"}],
    },
    "Device": lambda p, c, d: {"status": "active", "patient": p, "type": c},
    "DiagnosticReport": lambda p, c, d: {
        "status": "final", "code": c, "subject": p, "effectiveDateTime": d,
    },
    "DocumentReference": lambda p, c, d: {
        "status": "current", "subject": p, "content": [{"attachment": {"title": "x"}}],
    },
    "Encounter": lambda p, c, d: {
        "status": "finished", "class": {"code": "AMB"}, "subject": p, "period": {"start": d},
    },
    "EpisodeOfCare": lambda p, c, d: {"status": "active", "patient": p, "period": {"start": d}},
    "Goal": lambda p, c, d: {"lifecycleStatus": "active", "description": c, "subject": p},
    "Immunization": lambda p, c, d: {
        "status": "completed", "vaccineCode": c, "patient": p, "occurrenceDateTime": d,
    },
    "Location": lambda p, c, d: {"name": "x", "status": "active"},
    "MedicationRequest": lambda p, c, d: {
        "status": "active", "intent": "order", "medicationCodeableConcept": c, "subject": p,
        "authoredOn": d,
    },
    "Observation": lambda p, c, d: {
        "status": "final", "code": c, "subject": p, "effectiveDateTime": d,
        "valueQuantity": {"value": 1, "unit": "kg"},
    },
    "Procedure": lambda p, c, d: {
        "status": "completed", "code": c, "subject": p, "performedDateTime": d,
    },
    "ServiceRequest": lambda p, c, d: {
        "status": "active", "intent": "order", "code": c, "subject": p, "authoredOn": d,
    },
    "Task": lambda p, c, d: {"status": "requested", "intent": "order", "for": p, "authoredOn": d},
}  # fmt: skip
