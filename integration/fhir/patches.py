"""The document of a PATCH: what is checked before it is sent. Pure.

https://hl7.org/fhir/R4/http.html#patch -- a FHIRPath patch is a Parameters resource. A JSON patch
is put into a Binary, since a bundle can hold nothing but resources.
"""

from __future__ import annotations

import binascii
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Issue, Rejected
from integration.core.model import DeliveryRequest, FhirResource
from integration.fhir.entries import Contents, Entry, keep, refuse
from integration.fhir.resources import (
    BYTE_ORDER_MARK,
    check_resource,
    check_structure,
    decode_body,
)

JSON_PATCH = "application/json-patch+json"

_EXPECTED = f"a patch is a Parameters resource, or a Binary of contentType {JSON_PATCH}"


def check_patch(resource: FhirResource, where: str) -> FhirResource:
    """Return the resource if it is a patch. The FHIR server judges what its operations do."""
    kind = resource["resourceType"]
    if kind == "Parameters":
        _check_operations(resource.get("parameter"), f"{where}.parameter")
        return resource
    if kind != "Binary" or resource.get("contentType") != JSON_PATCH:
        refuse("not-supported", _EXPECTED, where, status=422)
    _check_data(resource.get("data"), f"{where}.data")
    return resource


def read_patch(body: bytes, received: DeliveryRequest) -> Contents:
    """Read PATCH Type/id, whose body is a patch of either kind."""
    kind = received.type or ""
    body = body.removeprefix(BYTE_ORDER_MARK)
    document = decode_body(body)
    if received.format == "json-patch":
        check_structure(document, body, None, None)
        _check_operations(document, None)
        data = binascii.b2a_base64(body, newline=False).decode()
        document = {"resourceType": "Binary", "contentType": JSON_PATCH, "data": data}
    else:
        document = check_resource(document, body, None)
    entry = Entry(
        position=0,
        where=kind,
        method="PATCH",
        type=kind,
        id=received.id,
        query=received.query,
        content=keep(check_patch(document, "Parameters")),
        if_match=received.if_match,
        if_none_match=received.if_none_match,
    )
    return Contents("resource", (entry,))


def _check_data(data: Any, where: str) -> None:
    try:
        content = binascii.a2b_base64(data if isinstance(data, str) else "")
        document = decimal_json.decode(content)
    except ValueError:
        issue = Issue("value", "data must be a JSON patch in base64", where)
        raise Rejected(issue) from None
    check_structure(document, content, where, where)
    _check_operations(document, where)


def _check_operations(value: Any, where: str | None) -> None:
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(part, dict) for part in value)
    ):
        refuse("invalid", "a patch is a list of operations, at least one", where)
