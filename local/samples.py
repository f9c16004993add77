"""The samples, and transactions of any size; the same arguments give the same bytes.

`python -m local.samples 800` writes a transaction of 800 entries to the standard output.
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

# More than the 500 entries that a FHIR server takes at once: one part of 600, one of 200.
LARGE_ENTRIES = 800

_LINES = "application/fhir+ndjson"
# A delivery that is sent again with this key is recognised as the same one.
_IDEMPOTENCY_KEY = {"idempotency-key": "samples/transaction.json"}

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request to send: `path` is relative to the host's address, `body` is sent as it is."""

    name: str
    entries: int
    body: bytes
    method: str = "POST"
    path: str = "/api/fhir"
    content_type: str = "application/fhir+json"
    headers: Mapping[str, str] = field(default_factory=dict)


def load_samples() -> tuple[Sample, ...]:
    """Return every sample, the large one last."""
    transaction, batch, patient, lines = (
        (FOLDER / name).read_bytes()
        for name in ("transaction.json", "batch-put.json", "patient.json", "patients.ndjson")
    )
    address = f"/api/fhir/Patient/{decimal_json.decode(patient)['id']}"
    large = gzip.compress(decimal_json.encode(build_large_transaction(LARGE_ENTRIES)), mtime=0)
    return (
        Sample(
            name="transaction.json",
            entries=_count_entries(transaction),
            body=transaction,
            headers=_IDEMPOTENCY_KEY,
        ),
        Sample(name="batch-put.json", entries=_count_entries(batch), body=batch),
        Sample(name="patient.json", entries=1, body=patient, method="PUT", path=address),
        Sample(name="patients.ndjson", entries=lines.count(b"\n"), body=lines, content_type=_LINES),
        Sample(
            name="large transaction",
            entries=LARGE_ENTRIES,
            body=large,
            headers={"content-encoding": "gzip"},
        ),
    )


def build_large_transaction(
    entries: int, *, entry_bytes: int = 1200, seed: str = "samples"
) -> dict[str, Any]:
    """Build a transaction of two unconnected patients: one has three quarters of the entries."""
    sizes = [entries - entries // 4, entries // 4]
    return build_transaction(sizes, entry_bytes=entry_bytes, seed=seed)


def build_transaction(
    sizes: Sequence[int], *, entry_bytes: int = 1200, seed: str = "samples"
) -> dict[str, Any]:
    """Build a transaction with one patient for each size, with as many entries that refer to each
    other and to no other patient's. Smaller entries are padded with narrative to `entry_bytes`."""
    entries = [
        _pad_entry(_build_entry(_EntryKey(seed, part, position)), entry_bytes)
        for part, size in enumerate(sizes)
        for position in range(size)
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


@dataclass(frozen=True, slots=True)
class _EntryKey:
    """Identifies an entry: which patient, which position. Its content is derived from this."""

    seed: str
    part: int
    position: int

    @property
    def encounter_position(self) -> int:
        """The position of this entry's encounter."""
        return self.position - (self.position - len(_SHARED)) % len(_VISIT)

    def make_urn(self, position: int) -> str:
        return uuid5(_NAMESPACE, f"{self.seed}/{self.part}/{position}").urn

    def make_reference(self, position: int) -> dict[str, str]:
        return {"reference": self.make_urn(position)}

    def make_context(self) -> dict[str, Any]:
        return {
            "subject": self.make_reference(0),
            "encounter": self.make_reference(self.encounter_position),
        }

    def derive_number(self, below: int) -> int:
        """Derive a pseudo-random number from the key."""
        return UUID(self.make_urn(self.position)).int % below

    def derive_day(self) -> str:
        visit = (self.position - len(_SHARED)) // len(_VISIT)
        return f"{2000 + visit // 300 % 25}-{visit // 25 % 12 + 1:02}-{visit % 25 + 1:02}"


def _build_entry(key: _EntryKey) -> dict[str, Any]:
    visit_position = key.position - len(_SHARED)
    resource = (
        _SHARED[visit_position] if visit_position < 0 else _VISIT[visit_position % len(_VISIT)]
    )(key)
    request = {"method": "POST", "url": resource["resourceType"]}
    return {"fullUrl": key.make_urn(key.position), "resource": resource, "request": request}


def _pad_entry(entry: dict[str, Any], size: int) -> dict[str, Any]:
    text = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'}
    room = size - len(decimal_json.encode([entry, {"text": text}]))
    if room <= 0:
        return entry
    words = (_WORDS * (room // len(_WORDS) + 1))[:room].rstrip()
    text["div"] = text["div"].format(words)
    return {**entry, "resource": {**entry["resource"], "text": text}}


def _build_patient(key: _EntryKey) -> dict[str, Any]:
    number = key.derive_number(10_000)
    return {
        "resourceType": "Patient",
        "meta": {"security": [{"system": f"{_HL7}/v3-ActReason", "code": "HTEST"}]},
        "identifier": [
            {"system": "https://bulk.example/patients", "value": f"{key.part}-{number}"}
        ],
        "active": True,
        "name": [{"family": f"{_FAMILIES[number % 10]}{number:04}", "given": [_GIVEN[number % 7]]}],
        "telecom": [{"system": "phone", "value": f"555-01{number % 100:02}", "use": "home"}],
        "gender": ("female", "male")[number % 2],
        "birthDate": f"{1930 + number % 65}-{number % 12 + 1:02}-{number % 28 + 1:02}",
        "address": [{"use": "home", "city": _TOWNS[number % 5], "country": "US"}],
    }


def _build_practitioner(key: _EntryKey) -> dict[str, Any]:
    name = {
        "family": f"{_FAMILIES[key.derive_number(10)]}{key.derive_number(10_000):04}",
        "prefix": ["Dr."],
    }
    return {"resourceType": "Practitioner", "active": True, "name": [name]}


def _build_organization(key: _EntryKey) -> dict[str, Any]:
    return {"resourceType": "Organization", "name": f"{_TOWNS[key.derive_number(5)]} Clinic"}


def _build_encounter(key: _EntryKey) -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"system": f"{_HL7}/v3-ActCode", "code": "AMB"},
        "subject": key.make_reference(0),
        "participant": [{"individual": key.make_reference(1)}],
        "period": {
            "start": f"{key.derive_day()}T09:00:00+01:00",
            "end": f"{key.derive_day()}T09:30:00+01:00",
        },
        "serviceProvider": key.make_reference(2),
    }


def _build_condition(key: _EntryKey) -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "clinicalStatus": _build_concept(f"{_HL7}/condition-clinical", "active", "Active"),
        "code": _build_concept("http://snomed.info/sct", "59621000", "Essential hypertension"),
        **key.make_context(),
        "recordedDate": key.derive_day(),
    }


def _build_observation(key: _EntryKey) -> dict[str, Any]:
    code, display, unit, low, span = _MEASURES[key.position % len(_MEASURES)]
    value = low + key.derive_number(span * 10) / 10 + 0.1
    return {
        "resourceType": "Observation",
        "status": "final",
        "category": [_build_concept(f"{_HL7}/observation-category", "exam", "Exam")],
        "code": _build_concept("http://loinc.org", code, display),
        **key.make_context(),
        "performer": [key.make_reference(1)],
        "effectiveDateTime": f"{key.derive_day()}T09:10:00+01:00",
        "valueQuantity": {"value": round(value, 1), "unit": unit, "system": _UCUM, "code": unit},
    }


def _build_medication_request(key: _EntryKey) -> dict[str, Any]:
    return {
        "resourceType": "MedicationRequest",
        "status": "completed",
        "intent": "order",
        "medicationCodeableConcept": _build_concept(
            "http://www.whocc.no/atc", "C09AA05", "ramipril"
        ),
        **key.make_context(),
        "authoredOn": key.derive_day(),
        "requester": key.make_reference(1),
        "reasonReference": [key.make_reference(key.encounter_position + 1)],
    }


def _build_claim(key: _EntryKey) -> dict[str, Any]:
    item = {"sequence": 1, "productOrService": {"text": "Check-up"}}
    paid = {"value": 40 + key.derive_number(2000) / 10, "currency": "USD"}
    return {
        "resourceType": "Claim",
        "status": "active",
        "type": _build_concept(f"{_HL7}/claim-type", "professional", "Professional"),
        "use": "claim",
        "patient": key.make_reference(0),
        "created": key.derive_day(),
        "provider": key.make_reference(2),
        "priority": _build_concept(f"{_HL7}/processpriority", "normal", "Normal"),
        "diagnosis": [
            {"sequence": 1, "diagnosisReference": key.make_reference(key.encounter_position + 1)}
        ],
        "insurance": [{"sequence": 1, "focal": True, "coverage": {"display": "Sample Health"}}],
        "item": [{**item, "encounter": [key.make_reference(key.encounter_position)], "net": paid}],
        "total": paid,
    }


def _build_concept(system: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _count_entries(bundle: bytes) -> int:
    return len(decimal_json.decode(bundle)["entry"])


_SHARED: tuple[Callable[[_EntryKey], dict[str, Any]], ...] = (
    _build_patient,
    _build_practitioner,
    _build_organization,
)
# References point to the first two of a visit by their position.
_VISIT = (
    _build_encounter,
    _build_condition,
    *[_build_observation] * 6,
    _build_medication_request,
    _build_claim,
)


if __name__ == "__main__":
    entry_count = int(sys.argv[1]) if len(sys.argv) > 1 else LARGE_ENTRIES
    sys.stdout.buffer.write(decimal_json.encode(build_large_transaction(entry_count)))
