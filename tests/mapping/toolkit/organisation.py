"""An invented organisation's toolkit, as the Web API shows its rows."""

from __future__ import annotations

import json
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from integration.mapping.toolkit.rows import (
    ATTRIBUTE_MAP,
    ENTITY_MAP,
    RESOURCE,
    VALUE_MAP,
    NewerColumns,
    Toolkit,
    read_toolkit,
)

COPY, DEFAULT, MAPPED, REFERENCE, CONCEPT, EXPAND = range(440670000, 440670006)
LABEL = "@OData.Community.Display.V1.FormattedValue"

LATER = NewerColumns("msind_expand", "msind_parentlink", "msind_expansion", "msind_matching")


def key(name: str) -> str:
    return str(uuid5(NAMESPACE_OID, name))


def resource(code: str) -> dict[str, Any]:
    return {"msind_azurefhirresourceid": key(code), "msind_code": code}


def entity(name: str, table: str, code: str, **more: Any) -> dict[str, Any]:
    return {
        "msind_updateserviceentitymapid": key(name),
        "msind_name": name,
        "msind_entityname": table,
        "_msind_azurefhirresource_value": key(code),
        "msind_disabled": False,
        "statecode": 0,
    } | more


def attribute(
    owner: str, column: str, path: str | None, action: int = COPY, **more: Any
) -> dict[str, Any]:
    return {
        "msind_updateserviceattributemapid": key(f"{owner} {column}"),
        "msind_name": f"{owner} {column}",
        "_msind_updateserviceentitymap_value": key(owner),
        "msind_cdsattributename": column,
        "msind_actiontype": action,
        "msind_fhirelementmap": json.dumps({"s": path}) if path else None,
        "msind_disabled": False,
        "statecode": 0,
    } | more


def value(owner: str, column: str, fhir: str, dataverse: str, **more: Any) -> dict[str, Any]:
    return {
        "msind_attributevaluemapid": key(f"{owner} {column} {fhir} {dataverse}"),
        "_msind_updateserviceattributemap_value": key(f"{owner} {column}"),
        "msind_azurefhirvalue": fhir,
        "msind_cdsvalue": dataverse,
        "statecode": 0,
    } | more


def one(*rows: dict[str, Any], values: tuple[dict[str, Any], ...] = ()) -> Toolkit:
    """A toolkit of one entity map, Patient, with these attribute maps."""
    return read_toolkit(
        {
            RESOURCE: [resource("Patient"), resource("Practitioner"), resource("Organization")],
            ENTITY_MAP: [entity("Patient", "contact", "Patient")],
            ATTRIBUTE_MAP: list(rows),
            VALUE_MAP: list(values),
        }
    )


def whole() -> dict[str, list[dict[str, Any]]]:
    """One of everything."""
    usual = "$.name[?(@.use=='usual')]"
    return {
        RESOURCE: [resource(code) for code in ("Patient", "Practitioner", "Organization", "Nurse")],
        ENTITY_MAP: [
            entity("Patient", "contact", "Patient", msind_writeback=True,
                   msind_supportedmessages="440670000,440670001"),
            entity("Identifiers", "msemr_medicalidentifier", "Patient",
                   msind_expand=True, msind_parentlink="msemr_Patient"),
            entity("Practitioner", "contact", "Practitioner", msind_disabled=True),
            entity("Nurses", "new_nurse", "Nurse"),
        ],
        ATTRIBUTE_MAP: [
            attribute("Patient", "LastName", f"{usual}.family", msind_cdsattributetype="String"),
            attribute("Patient", "firstname", None, msind_fhirelementmap=json.dumps(
                {"s": f"{usual}.given[0]", "c": {"p": "name[0]", "a": [{"given[0]": "%"}]}})),
            attribute("Patient", "birthdate", "$.birthDate", msind_cdsattributetype="DateTime"),
            attribute("Patient", "msemr_contacttype", None, DEFAULT,
                      msind_cdsattributetype="Picklist"),
            attribute("Patient", "gendercode", "$.gender", MAPPED,
                      msind_cdsattributetype="Picklist"),
            attribute("Patient", "msemr_generalpractioner", "$.generalPractitioner[0].reference",
                      REFERENCE, _msind_fhirresourcereference_value=key("Practitioner")),
            attribute("Patient", "msemr_communication1language",
                      "$.communication[0].language.coding[0].code", CONCEPT,
                      msind_codeableconcepttype="Language",
                      msind_codeableconcepttypevalue="935000068"),
            attribute("Patient", "nickname", "$.name.given[0]"),
            attribute("Patient", "fax", "$..value"),
            attribute("Patient", "pager", "$.telecom[0].value", msind_disabled=True),
            attribute("Patient", "msemr_azurefhirid", "$.id"),
            attribute("Patient", "Not Applicable", "$.identifier", EXPAND,
                      _msind_expansion_value=key("Identifiers")),
            attribute("Identifiers", "msemr_value", "$.value", msind_matching=True),
            attribute("Identifiers", "msemr_identifiersystem", "$.system", msind_matching=True),
            attribute("Identifiers", "msemr_type", "$.type.coding[0].code", MAPPED,
                      msind_cdsattributetype="Picklist"),
            attribute("Practitioner", "lastname", "$.name[0].family"),
            attribute("Nurses", "new_name", "$.name[0].family"),
        ],
        VALUE_MAP: [
            value("Patient", "gendercode", "male", "1", msind_optionsetlabel="Male"),
            value("Patient", "gendercode", "female", "2", msind_optionsetlabel="Female"),
            value("Patient", "msemr_contacttype", "x", "935000000", msind_staticvalue="935000000"),
            value("Identifiers", "msemr_type", "MR", "935000003"),
        ],
    }  # fmt: skip
