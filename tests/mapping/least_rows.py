"""The least that a new row of each table needs, to be a valid resource."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from integration.mapping.model import Lookup

PATIENT = Lookup("Patient/1")

# Of each table, what a user must say of a new row.
LEAST: dict[str, dict[str, Any]] = {
    "AllergyIntolerance": {"msemr_patient": PATIENT},
    "Appointment": {"msemr_actorpatient": PATIENT, "msemr_participantstatus": 935000000},
    "CarePlan": {"msemr_patientidentifier": PATIENT},
    "CareTeam": {},
    "Claim": {
        "msemr_typetext": "Professional",
        "msemr_prioritycode": "normal",
        "msemr_patient": PATIENT,
        "msemr_created": datetime(2024, 3, 4, tzinfo=UTC),
        "msemr_providerpractitioner": Lookup("Practitioner/6"),
        "msemr_coveragename": "Sample Health Plan",
    },
    "Condition": {"msemr_subjecttypepatient": PATIENT},
    "Coverage": {"msemr_beneficiary": PATIENT, "msemr_payororganization": Lookup("Organization/8")},
    "Device": {},
    "DiagnosticReport": {"msemr_codetext": "Blood count"},
    "DocumentReference": {"msemr_contenturl": "https://sample.example/summary.pdf"},
    "Encounter": {"msemr_class": 935000000},
    "EpisodeOfCare": {"msemr_patient": PATIENT},
    "Goal": {"msemr_descriptiontext": "Walk again", "msemr_subjectpatient": PATIENT},
    "Immunization": {
        "msemr_vaccinetext": "Measles",
        "msemr_patient": PATIENT,
        "msemr_occurrencetext": "as a child",
    },
    "Location": {},
    "MedicationRequest": {
        "msemr_medicationtypecodeableconcepttext": "Ibuprofen 400 mg",
        "msemr_subjecttypepatient": PATIENT,
    },
    "Observation": {"msemr_codetext": "Body weight"},
    "Procedure": {"msemr_patient": PATIENT},
    "ServiceRequest": {"msemr_subjectpatient": PATIENT},
    "Task": {},
}
