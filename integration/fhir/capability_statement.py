"""What the relay says of itself as a FHIR server: a CapabilityStatement. Pure.

Clients ask for it before they send: https://hl7.org/fhir/R4/http.html#capabilities
"""

from __future__ import annotations

from datetime import datetime

from integration.core.model import ALL_RIGHTS, FhirResource, Rights
from integration.fhir.grammar import RESOURCE_TYPES
from integration.fhir.rights import NAMED_TYPES, may_use_conditions

# https://hl7.org/fhir/R4/valueset-type-restful-interaction.html
_INTERACTIONS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

_FORMATS = ["application/fhir+json", "json"]
_PATCH_FORMATS = ["application/json-patch+json", "application/fhir+json"]

_DESCRIPTION = (
    "What is sent is kept, answered with 202 and the address of its result, and then written to "
    "the FHIR server behind: https://hl7.org/fhir/R4/async.html"
)


def build_capability_statement(base: str, rights: Rights, since: datetime) -> FhirResource:
    """Return what a sender may send to its base address. `since`: when the app was started."""
    codes = [_INTERACTIONS[method] for method in _INTERACTIONS if method in rights.methods]
    if not codes:  # an array is never empty: https://hl7.org/fhir/R4/json.html#null
        resources = []
    else:
        named = frozenset() if rights == ALL_RIGHTS else NAMED_TYPES
        types = rights.types or sorted(RESOURCE_TYPES - named)
        resources = [_describe_type(type_, codes, rights) for type_ in types]
    rest: FhirResource = {
        "mode": "server",
        "documentation": _DESCRIPTION,
        "interaction": [{"code": "transaction"}, {"code": "batch"}],
    }
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": since.isoformat(timespec="seconds"),
        "kind": "instance",
        "implementation": {"description": "relay of FHIR deliveries", "url": base},
        "fhirVersion": "4.0.1",
        "format": _FORMATS,
        "patchFormat": _PATCH_FORMATS,
        "rest": [rest | ({"resource": resources} if resources else {})],
    }


def _describe_type(type_: str, codes: list[str], rights: Rights) -> FhirResource:
    takes_conditions = may_use_conditions(type_, rights)
    described: FhirResource = {
        "type": type_,
        "interaction": [{"code": code} for code in codes],
        "versioning": "versioned-update",
        "updateCreate": "PUT" in rights.methods,
        "conditionalCreate": "POST" in rights.methods and takes_conditions,
        "conditionalUpdate": "PUT" in rights.methods and takes_conditions,
    }
    if rights.conditional_deletes and takes_conditions:
        described["conditionalDelete"] = "single"
    return described
