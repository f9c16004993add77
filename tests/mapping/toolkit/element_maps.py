"""Element maps of the kind that organisations have, and Patients to read them on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from fhir.resources.R4B.patient import Patient

RACE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
RELIGION = "http://hl7.org/fhir/StructureDefinition/patient-religion"
BIRTHPLACE = "http://hl7.org/fhir/StructureDefinition/patient-birthPlace"
BIRTH_SEX = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-birthsex"
MR = "http://terminology.hl7.org/CodeSystem/v2-0203"

# Microsoft's own examples.
PUBLISHED = [
    """{"s":"$.name[?(@.use=='usual')].family"}""",
    """{"s":"$.address[0].city","c":{"p":"address[0]","a":[{"line":["x"]},{"city":"%"},{"state":"x"},{"postalCode":"x"},{"country":"x"}]}}""",
    """{"s": "$.name[?(@use=='official')].given[0]", "c": {"p": "name[0]",  "a": [{"use": "official"}, {"family": "x"}, {"given[0]": "%"}]} }""",
    json.dumps(
        {"s": f"$.extension[?(@.url=='{RELIGION}')].valueCodeableConcept.coding[0].display"}
    ),
    json.dumps({"s": f"$.extension[?(@.url=='{RELIGION}')].valueCodeableConcept.text"}),
]

# JSONPath that reads the same in every dialect, and the same in FHIRPath.
EXACT = [
    "$.id",
    "$.gender",
    "$.birthDate",
    "$.active",
    "$.deceasedDateTime",
    "$.deceasedBoolean",
    "$.multipleBirthInteger",
    "$.meta.versionId",
    "$.text.div",
    "$['gender']",
    "$['name'][0]['family']",
    '$["name"][0]["given"][0]',
    "$.name[0].given[1]",
    "$.name[-1:].family",
    "$.name[*].family",
    "$.name[*].given[*]",
    "$.name[?(@.use=='official')].given[1]",
    "$.name[?(@.use == 'official' && @.family)].family",
    "$.name[?(@.use=='usual' || @.use=='official')].family",
    "$.name[?(@.family && (@.use=='usual' || @.use=='old'))].given[0]",
    "$.name[?(@.given[0]=='Eve')].family",
    "$.name[?(@.period.start)].family",
    "$.name[?(@.family=='O\\'Neil')].use",
    "$.telecom[?(@.system=='phone' && @.use=='home')].value",
    "$.telecom[?(@.system=='phone' && @.use=='mobile' && @.rank==1)].value",
    '$.telecom[?(@.system=="email")].value',
    "$.telecom[?(@.rank>1)].value",
    "$.telecom[?(@.rank<=1)].value",
    "$.address[0].line[0]",
    "$.address[0].line[1]",
    "$.address[?(@.use=='home')].line[1]",
    "$.address[?(@.use=='home')].postalCode",
    "$.address[?(@.use=='home')].period.start",
    "$.maritalStatus.coding[0].code",
    "$.communication[?(@.preferred==true)].language.coding[0].code",
    "$.communication[?(@.preferred==false)].language.text",
    "$.generalPractitioner[0].reference",
    "$.managingOrganization.reference",
    "$.contact[0].relationship[0].coding[0].code",
    "$.contact[?(@.relationship[?(@.coding[?(@.code=='N')])])].name.family",
    "$.identifier[?(@.type.coding[?(@.code=='MR')])].value",
    f"$.identifier[?(@.type.coding[?(@.code=='MR' && @.system=='{MR}')])].value",
    "$.identifier[?(@.type.coding[0].code=='MR')].value",
    "$.identifier[?(@.system=='urn:oid:1.2.3')].value",
    f"$.extension[?(@.url=='{RELIGION}')].valueCodeableConcept.coding[0].code",
    f"$.extension[?(@.url=='{BIRTH_SEX}')].valueCode",
    f"$.extension[?(@.url=='{BIRTHPLACE}')].valueAddress.city",
    f"$.extension[?(@.url=='{RACE}')].extension[?(@.url=='ombCategory')].valueCoding.code",
    f"$.extension[?(@.url=='{RACE}')].extension[?(@.url=='text')].valueString",
    "$.link[?(@.type=='replaced-by')].other.reference",
    "$.link[0].type",
    "$.name[?(@.suffix[0])].suffix[0]",
]


@cache
def real_patients() -> list[dict[str, Any]]:
    """Those of a folder of bundles, where there is one; of R4, as FHIR's own model tells."""
    folder = os.environ.get("BUNDLES_DIR")
    found: list[dict[str, Any]] = []
    for path in sorted(Path(folder).rglob("*.json")) if folder else ():
        try:
            found += _patients(json.loads(path.read_text("utf-8-sig")))
        except ValueError:
            pass  # some files are wrong on purpose
    return [patient for patient in found if _is_r4(patient)]


def _is_r4(patient: dict[str, Any]) -> bool:
    try:
        Patient.model_validate(patient)
    except (ValueError, TypeError):
        return False
    return True


def _patients(resource: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(resource, dict):
        return
    if resource.get("resourceType") == "Patient":
        yield resource
    for entry in resource.get("entry") or ():
        if isinstance(entry, dict):
            yield from _patients(entry.get("resource"))


def _coded(code: str, system: str = MR, display: str = "shown") -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}], "text": f"as {code}"}


OWN: list[dict[str, Any]] = [
    {"resourceType": "Patient", "id": "bare"},
    {
        "resourceType": "Patient",
        "id": "whole",
        "meta": {"versionId": "7"},
        "text": {"status": "generated", "div": "<div>shown</div>"},
        "active": False,
        "gender": "other",
        "birthDate": "1980-02-29",
        "deceasedDateTime": "2020-01-02T03:04:05Z",
        "multipleBirthInteger": 2,
        "maritalStatus": _coded("M"),
        "name": [
            {"use": "old", "family": "O'Neil", "given": ["Ada"]},
            {"use": "usual", "given": ["Nameless"]},
            {"use": "usual", "family": "Usual", "given": ["Eve", "May"], "suffix": ["jr"]},
            {"use": "official", "family": "Official", "given": ["Only"]},
            {"use": "official", "given": ["Eve", "Second"], "period": {"start": "2001"}},
        ],
        "telecom": [
            {"system": "phone", "use": "home", "value": "1", "rank": 2},
            {"system": "phone", "use": "mobile", "value": "2", "rank": 1},
            {"system": "email", "value": "3"},
        ],
        "address": [
            {"use": "work", "line": ["W 1"], "city": "Work"},
            {"use": "home", "line": ["H 1", "H 2"], "postalCode": "0", "period": {"start": "1999"}},
            {"use": "home", "line": ["I 1", "I 2"], "postalCode": "9"},
        ],
        "communication": [
            {"language": _coded("de"), "preferred": True},
            {"language": _coded("fr"), "preferred": False},
            {"language": _coded("en")},
        ],
        "generalPractitioner": [
            {"reference": "Organization/o"},
            {"reference": "Practitioner/p"},
        ],
        "managingOrganization": {"reference": "Organization/m"},
        "contact": [
            {"relationship": [_coded("C")], "name": {"family": "Emergency"}},
            {"relationship": [_coded("X"), _coded("N")], "name": {"family": "Kin"}},
        ],
        "identifier": [
            {"system": "urn:oid:1.2.3", "value": "first"},
            {"type": _coded("MR"), "value": "second"},
            {"type": {"coding": [{"code": "X"}, {"code": "MR"}]}, "value": "third"},
        ],
        "link": [
            {"other": {"reference": "Patient/a"}, "type": "seealso"},
            {"other": {"reference": "Patient/b"}, "type": "replaced-by"},
        ],
        "extension": [
            {"url": RELIGION, "valueCodeableConcept": {"text": "only text"}},
            {"url": RELIGION, "valueCodeableConcept": _coded("1013", display="Christian")},
            {"url": BIRTH_SEX, "valueCode": "F"},
            {"url": BIRTHPLACE, "valueAddress": {"city": "Born"}},
            {
                "url": RACE,
                "extension": [
                    {"url": "ombCategory", "valueCoding": {"code": "2106-3"}},
                    {"url": "ombCategory", "valueCoding": {"code": "1002-5"}},
                    {"url": "text", "valueString": "Mixed"},
                ],
            },
        ],
    },
    {
        "resourceType": "Patient",
        "id": "alive",
        "deceasedBoolean": False,
        "name": [{"family": "Plain", "given": ["One", "Two"], "period": {"start": "2000"}}],
        "address": [{"line": ["P 1", "P 2"]}],
        "identifier": [{"value": "untyped"}],
    },
]
