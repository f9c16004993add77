"""The samples as they are sent, and transactions of any size, the same for the same arguments.

`python -m local.samples 800` writes such a transaction to the standard output.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from integration.core import decimal_json

FOLDER = Path(__file__).resolve().parent.parent / "samples"

# Above the 500 entries that a FHIR server takes at once: one part of 600, one of 200.
LARGE = 800

_LINES = "application/fhir+ndjson"
# Sent again with this key, a delivery is the same delivery.
_ONCE = {"idempotency-key": "samples/transaction.json"}

_NAMESPACE = UUID("c1b8e4a2-9d57-5a3e-8f60-7a1d2b3c4e5f")
_HL7 = "http://terminology.hl7.org/CodeSystem"
_UCUM = "http://unitsofmeasure.org"
_FAMILIES = "Beispiel Deneme Ejemplo Esempio Example Exemple Muster Przyklad Sample Test".split()
_GIVEN = "Alva Bruno Carla Dario Elif Finn Greta".split()
_TOWNS = "Beispielstadt Exampleton Modelville Musterhausen Sampleford".split()
_WORDS = "Seen on the ward, no complaints, to be checked again at the next visit. "
_MEASURES = (
    ("8302-2", "Body height", "cm", 150, 50),
    ("29463-7", "Body weight", "kg", 45, 60),
    ("8867-4", "Heart rate", "/min", 50, 60),
    ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", 0, 2),
    ("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", 11, 6),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One delivery to send: `path` is below the host's address, `body` as it goes over the wire."""

    name: str
    entries: int
    body: bytes
    method: str = "POST"
    path: str = "/api/fhir"
    content_type: str = "application/fhir+json"
    headers: Mapping[str, str] = field(default_factory=dict)


def samples() -> tuple[Sample, ...]:
    """Every sample, the large one last."""
    transaction, batch, patient, lines = (
        (FOLDER / name).read_bytes()
        for name in ("transaction.json", "batch-put.json", "patient.json", "patients.ndjson")
    )
    address = f"/api/fhir/Patient/{decimal_json.decode(patient)['id']}"
    large = gzip.compress(decimal_json.encode(large_transaction(LARGE)), mtime=0)
    return (
        Sample("transaction.json", _count(transaction), transaction, headers=_ONCE),
        Sample("batch-put.json", _count(batch), batch),
        Sample("patient.json", 1, patient, "PUT", address),
        Sample("patients.ndjson", lines.count(b"\n"), lines, content_type=_LINES),
        Sample("large transaction", LARGE, large, headers={"content-encoding": "gzip"}),
    )


def large_transaction(
    entries: int, *, entry_bytes: int = 1200, seed: str = "samples"
) -> dict[str, Any]:
    """Two patients who share nothing: one with three quarters of the entries, one with the rest."""
    sizes = [entries - entries // 4, entries // 4]
    return transaction(sizes, entry_bytes=entry_bytes, seed=seed)


def transaction(
    sizes: Sequence[int], *, entry_bytes: int = 1200, seed: str = "samples"
) -> dict[str, Any]:
    """One patient for each size, with as many entries, all connected with each other and with no
    other patient's. An entry is filled up with narrative to `entry_bytes`, if it is smaller."""
    entries = [
        _filled(_entry(_Place(seed, part, position)), entry_bytes)
        for part, size in enumerate(sizes)
        for position in range(size)
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


@dataclass(frozen=True, slots=True)
class _Place:
    """Which entry of which patient; all that an entry says follows from it."""

    seed: str
    part: int
    position: int

    @property
    def visit(self) -> int:
        """The position of the encounter that the entry belongs to."""
        return self.position - (self.position - len(_FIRST)) % len(_VISIT)

    def urn(self, position: int) -> str:
        return uuid5(_NAMESPACE, f"{self.seed}/{self.part}/{position}").urn

    def link(self, position: int) -> dict[str, str]:
        return {"reference": self.urn(position)}

    def context(self) -> dict[str, Any]:
        return {"subject": self.link(0), "encounter": self.link(self.visit)}

    def number(self, below: int) -> int:
        """A number that looks like chance."""
        return UUID(self.urn(self.position)).int % below

    def day(self) -> str:
        visit = (self.position - len(_FIRST)) // len(_VISIT)
        return f"{2000 + visit // 300 % 25}-{visit // 25 % 12 + 1:02}-{visit % 25 + 1:02}"


def _entry(at: _Place) -> dict[str, Any]:
    later = at.position - len(_FIRST)
    resource = (_FIRST[later] if later < 0 else _VISIT[later % len(_VISIT)])(at)
    request = {"method": "POST", "url": resource["resourceType"]}
    return {"fullUrl": at.urn(at.position), "resource": resource, "request": request}


def _filled(entry: dict[str, Any], size: int) -> dict[str, Any]:
    text = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'}
    room = size - len(decimal_json.encode([entry, {"text": text}]))
    if room <= 0:
        return entry
    words = (_WORDS * (room // len(_WORDS) + 1))[:room].rstrip()
    text["div"] = text["div"].format(words)
    return {**entry, "resource": {**entry["resource"], "text": text}}


def _patient(at: _Place) -> dict[str, Any]:
    number = at.number(10_000)
    return {
        "resourceType": "Patient",
        "meta": {"security": [{"system": f"{_HL7}/v3-ActReason", "code": "HTEST"}]},
        "identifier": [{"system": "https://bulk.example/patients", "value": f"{at.part}-{number}"}],
        "active": True,
        "name": [{"family": f"{_FAMILIES[number % 10]}{number:04}", "given": [_GIVEN[number % 7]]}],
        "telecom": [{"system": "phone", "value": f"555-01{number % 100:02}", "use": "home"}],
        "gender": ("female", "male")[number % 2],
        "birthDate": f"{1930 + number % 65}-{number % 12 + 1:02}-{number % 28 + 1:02}",
        "address": [{"use": "home", "city": _TOWNS[number % 5], "country": "US"}],
    }


def _practitioner(at: _Place) -> dict[str, Any]:
    name = {"family": f"{_FAMILIES[at.number(10)]}{at.number(10_000):04}", "prefix": ["Dr."]}
    return {"resourceType": "Practitioner", "active": True, "name": [name]}


def _organization(at: _Place) -> dict[str, Any]:
    return {"resourceType": "Organization", "name": f"{_TOWNS[at.number(5)]} Clinic"}


def _encounter(at: _Place) -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"system": f"{_HL7}/v3-ActCode", "code": "AMB"},
        "subject": at.link(0),
        "participant": [{"individual": at.link(1)}],
        "period": {"start": f"{at.day()}T09:00:00+01:00", "end": f"{at.day()}T09:30:00+01:00"},
        "serviceProvider": at.link(2),
    }


def _condition(at: _Place) -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "clinicalStatus": _concept(f"{_HL7}/condition-clinical", "active", "Active"),
        "code": _concept("http://snomed.info/sct", "59621000", "Essential hypertension"),
        **at.context(),
        "recordedDate": at.day(),
    }


def _observation(at: _Place) -> dict[str, Any]:
    code, display, unit, low, span = _MEASURES[at.position % len(_MEASURES)]
    value = low + at.number(span * 10) / 10 + 0.1
    return {
        "resourceType": "Observation",
        "status": "final",
        "category": [_concept(f"{_HL7}/observation-category", "exam", "Exam")],
        "code": _concept("http://loinc.org", code, display),
        **at.context(),
        "performer": [at.link(1)],
        "effectiveDateTime": f"{at.day()}T09:10:00+01:00",
        "valueQuantity": {"value": round(value, 1), "unit": unit, "system": _UCUM, "code": unit},
    }


def _medication_request(at: _Place) -> dict[str, Any]:
    return {
        "resourceType": "MedicationRequest",
        "status": "completed",
        "intent": "order",
        "medicationCodeableConcept": _concept("http://www.whocc.no/atc", "C09AA05", "ramipril"),
        **at.context(),
        "authoredOn": at.day(),
        "requester": at.link(1),
        "reasonReference": [at.link(at.visit + 1)],
    }


def _claim(at: _Place) -> dict[str, Any]:
    item = {"sequence": 1, "productOrService": {"text": "Check-up"}}
    paid = {"value": 40 + at.number(2000) / 10, "currency": "USD"}
    return {
        "resourceType": "Claim",
        "status": "active",
        "type": _concept(f"{_HL7}/claim-type", "professional", "Professional"),
        "use": "claim",
        "patient": at.link(0),
        "created": at.day(),
        "provider": at.link(2),
        "priority": _concept(f"{_HL7}/processpriority", "normal", "Normal"),
        "diagnosis": [{"sequence": 1, "diagnosisReference": at.link(at.visit + 1)}],
        "insurance": [{"sequence": 1, "focal": True, "coverage": {"display": "Sample Health"}}],
        "item": [{**item, "encounter": [at.link(at.visit)], "net": paid}],
        "total": paid,
    }


def _concept(system: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _count(bundle: bytes) -> int:
    return len(decimal_json.decode(bundle)["entry"])


_FIRST: tuple[Callable[[_Place], dict[str, Any]], ...] = (_patient, _practitioner, _organization)
# Links point at the first two of a visit by their place.
_VISIT = (_encounter, _condition, *[_observation] * 6, _medication_request, _claim)


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else LARGE
    sys.stdout.buffer.write(decimal_json.encode(large_transaction(wanted)))
