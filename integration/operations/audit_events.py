"""Build FHIR's AuditEvent of an entry of the audit log. Pure.

https://hl7.org/fhir/R4/auditevent.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from integration.journal.audit_entry import Access, AccessAction, AccessKind, AuditEntry, Reader

# What names in this app are in FHIR: systems of identifiers.
_SYSTEM = "urn:fhir-dataverse-relay"

_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_TYPES = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_INTERACTIONS = "http://hl7.org/fhir/restful-interaction"
_RESOURCE_TYPES = "http://hl7.org/fhir/resource-types"
_OBJECT_TYPES = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_OBJECT_ROLES = "http://terminology.hl7.org/CodeSystem/object-role"
_PEOPLE = "http://terminology.hl7.org/CodeSystem/extra-security-role-type"
_SOURCES = "http://terminology.hl7.org/CodeSystem/security-source-type"

# What leaves the app as a document of its own is an export; rows are asked for by REST.
_EXPORTS = frozenset({AccessKind.DELIVERY_ANSWER, AccessKind.DRY_RUN, AccessKind.CONTENT})

_ACTIONS = {
    AccessAction.CREATE: "C",
    AccessAction.READ: "R",
    AccessAction.UPDATE: "U",
    AccessAction.DELETE: "D",
}


def build_audit_event(entry: AuditEntry) -> dict[str, Any]:
    """Build the AuditEvent. Its id is that of the entry, so that an import twice makes no two."""
    access = entry.access
    return {
        "resourceType": "AuditEvent",
        "id": entry.id,
        **_build_type(access),
        "action": _ACTIONS[access.action],
        "recorded": entry.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        **_build_outcome(access),
        "agent": list(_list_agents(entry.reader)),
        "source": {
            "observer": {
                "identifier": {"system": "urn:ietf:rfc:3986", "value": _SYSTEM},
                "display": "FHIR to Dataverse relay",
            },
            "type": [_build_coding(_SOURCES, "4", "Application Server")],
        },
        "entity": list(_list_entities(access)),
    }


def _build_type(access: Access) -> dict[str, Any]:
    if access.kind in _EXPORTS:
        return {"type": _build_coding(_DICOM, "110106", "Export")}
    if access.kind is AccessKind.CORRECTION:
        return {"type": _build_coding(_DICOM, "110107", "Import")}
    is_search = access.kind in (AccessKind.ROWS, AccessKind.COUNT)
    interaction = "search-type" if is_search else str(access.action)
    return {
        "type": _build_coding(_TYPES, "rest", "Restful Operation"),
        "subtype": [_build_coding(_INTERACTIONS, interaction, interaction)],
    }


def _build_outcome(access: Access) -> dict[str, str]:
    """https://hl7.org/fhir/R4/valueset-audit-event-outcome.html"""
    if access.status is None:
        return {"outcomeDesc": "begun; whether it was done is not known"}
    if access.status < 400:
        return {"outcome": "0"}
    return {"outcome": "4" if access.status < 500 else "8", "outcomeDesc": str(access.status)}


def _list_agents(reader: Reader) -> Iterator[dict[str, Any]]:
    """Yield the person, where one is known, and the system: the one that asked is the requestor."""
    if reader.user is not None:
        yield {
            "type": {"coding": [_build_coding(_PEOPLE, "humanuser", "human user")]},
            "who": {"identifier": {"system": f"{_SYSTEM}:user", "value": reader.user}},
            "requestor": True,
        }
    names = {"sender": reader.sender, "principal": reader.principal, "key": reader.key}
    known = {name: value for name, value in names.items() if value is not None}
    agent: dict[str, Any] = {
        "type": {"coding": [_build_coding(_DICOM, "110150", "Application")]},
        "requestor": reader.user is None,
    }
    for name, value in known.items():
        agent.setdefault("who", {"identifier": {"system": f"{_SYSTEM}:{name}", "value": value}})
    if not known:
        agent["who"] = {"display": "the holder of a function key"}
    if reader.principal is not None:
        agent["altId"] = reader.principal
    yield agent


def _list_entities(access: Access) -> Iterator[dict[str, Any]]:
    for name in access.resources:
        yield {"what": {"reference": name}, **_describe_type(name.partition("/")[0])}
    named = {name.partition("/")[0] for name in access.resources}
    for type_ in access.types:
        if type_ not in named:  # known by its type alone
            yield {"description": f"resources of type {type_}", **_describe_type(type_)}
    counted = [{"type": "resources", "valueString": str(access.number)}]
    batch: dict[str, Any] = {
        "type": _build_coding(_OBJECT_TYPES, "2", "System Object"),
        "role": _build_coding(_OBJECT_ROLES, "20", "Job"),
        "description": str(access.kind),
        "detail": counted,
    }
    if access.delivery is not None:
        identifier = {"system": f"{_SYSTEM}:delivery", "value": access.delivery}
        batch["what"] = {"identifier": identifier}
    yield batch


def _describe_type(type_: str) -> dict[str, Any]:
    is_patient = type_ == "Patient"
    role = ("1", "Patient") if is_patient else ("4", "Domain Resource")
    return {
        "type": _build_coding(_RESOURCE_TYPES, type_, type_),
        "role": _build_coding(_OBJECT_ROLES, *role),
    }


def _build_coding(system: str, code: str, display: str) -> dict[str, str]:
    return {"system": system, "code": code, "display": display}
