"""Map a FHIR resource to rows for `msind_UpsertBundle`.

Microsoft's own maps are not published, so these are small examples. Only the documented parts are
faithful: child rows for identifiers and links.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from local.dataverse.rows import Values

TABLES = {
    "Patient": "contact",
    "Practitioner": "contact",
    "Organization": "account",
    "RelatedPerson": "msemr_relatedperson",
}
CONTACT_TYPES = {"Patient": 935000000, "Practitioner": 935000001}
GENDERS = {"male": 1, "female": 2}
IDENTIFIER_TYPES = {"DL": 935000000, "PPN": 935000001, "MR": 935000003}
LINK_TYPE = 935000071  # of codeable concepts

DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    element: str
    table: str
    parent: str  # navigation property
    match: tuple[str, ...]
    columns: Values
    links: dict[str, str] = field(default_factory=dict)  # bind annotation -> reference
    concepts: dict[str, tuple[int, str]] = field(default_factory=dict)  # navigation -> type, code


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedResource:
    table: str
    fhir_id: str
    columns: Values
    links: dict[str, str]  # bind annotation -> reference
    references: list[str]  # all that must resolve before the row may be written
    children: list[Child]


def map_resource(resource: Values) -> MappedResource:
    kind = resource["resourceType"]
    meta = resource.get("meta", {})
    version_columns = {
        "msemr_azurefhirid": resource["id"],
        "msemr_azurefhirversion": meta.get("versionId"),
        "msemr_azurefhirlastupdatedon": meta.get("lastUpdated"),
    }
    columns, links = _MAPPERS[kind](resource)
    root = {name: value for name, value in resource.items() if name not in ("identifier", "link")}
    children = [*_map_identifiers(resource), *_map_links(resource)] if kind == "Patient" else []
    return MappedResource(
        table=TABLES[kind],
        fhir_id=resource["id"],
        columns={**version_columns, **columns},
        links=links,
        references=_list_references(root),
        children=children,
    )


def _map_person(resource: Values) -> tuple[Values, dict[str, str]]:
    names = sorted(resource.get("name", []), key=lambda name: name.get("use") != "usual")
    name = names[0] if names else {}
    home: Values = next(iter(resource.get("address", [])), {})
    lines = home.get("line", [])
    columns = {
        "msemr_contacttype": CONTACT_TYPES[resource["resourceType"]],
        "firstname": next(iter(name.get("given", [])), None),
        "lastname": name.get("family"),
        "gendercode": GENDERS.get(resource.get("gender", "")),
        "birthdate": resource.get("birthDate") if _has_full_birth_date(resource) else None,
        "address1_line1": lines[0] if lines else None,
        "address1_city": home.get("city"),
        "address1_stateorprovince": home.get("state"),
        "address1_postalcode": home.get("postalCode"),
        "address1_country": home.get("country"),
    }
    links = {}
    references = [reference["reference"] for reference in resource.get("generalPractitioner", [])]
    if references and references[0].startswith("Practitioner/"):
        links["msemr_GeneralPractioner@odata.bind"] = references[0]
    if "reference" in resource.get("managingOrganization", {}):
        reference = resource["managingOrganization"]["reference"]
        links["msemr_ManagingOrganization@odata.bind"] = reference
    return columns, links


def _has_full_birth_date(resource: Values) -> bool:
    return DAY.fullmatch(resource.get("birthDate", "")) is not None


def _map_organization(resource: Values) -> tuple[Values, dict[str, str]]:
    return {"name": resource.get("name")}, {}


def _map_related_person(resource: Values) -> tuple[Values, dict[str, str]]:
    name: Values = next(iter(resource.get("name", [])), {})
    full_name = " ".join([*name.get("given", []), name.get("family", "")]).strip()
    return {"msemr_name": full_name}, {"msemr_Patient@odata.bind": resource["patient"]["reference"]}


_MAPPERS = {
    "Patient": _map_person,
    "Practitioner": _map_person,
    "Organization": _map_organization,
    "RelatedPerson": _map_related_person,
}


def _map_identifiers(resource: Values) -> list[Child]:
    return [
        Child(
            element="Patient.identifier",
            table="msemr_medicalidentifier",
            parent="msemr_Assignee",
            match=("msemr_identifiersystem", "msemr_value"),
            columns={
                "msemr_identifiersystem": identifier.get("system"),
                "msemr_value": identifier.get("value"),
                "msemr_type": _find_identifier_type(identifier),
            },
        )
        for identifier in resource.get("identifier", [])
    ]


def _find_identifier_type(identifier: Values) -> int | None:
    codes = [coding.get("code") for coding in identifier.get("type", {}).get("coding", [])]
    return next((IDENTIFIER_TYPES[code] for code in codes if code in IDENTIFIER_TYPES), None)


def _map_links(resource: Values) -> list[Child]:
    return [
        Child(
            element="Patient.link",
            table="msemr_contactlink",
            parent="msemr_Patient",
            match=("msemr_name",),
            columns={"msemr_name": f"{link['type']} {link['other']['reference']}"[:100]},
            links={"msemr_Link@odata.bind": link["other"]["reference"]},
            concepts={"msemr_LinkType": (LINK_TYPE, link["type"])},
        )
        for link in resource.get("link", [])
    ]


def _list_references(value: Any) -> list[str]:
    """List every literal reference except those to contained resources."""
    if isinstance(value, list):
        return [reference for item in value for reference in _list_references(item)]
    if not isinstance(value, dict):
        return []
    reference = value.get("reference")
    references = [reference] if isinstance(reference, str) and not reference.startswith("#") else []
    return references + [
        reference for item in value.values() for reference in _list_references(item)
    ]
