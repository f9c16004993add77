"""The document of a PATCH: what is asked of it before it is carried. Pure.

https://hl7.org/fhir/R4/http.html#patch -- a FHIRPath patch is a Parameters resource; a JSON patch
travels in a Binary, since nothing else fits into a bundle.
"""

from __future__ import annotations

import binascii
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Issue, Rejected
from integration.core.model import DeliveryRequest
from integration.fhir.entries import Contents, Entry, check_resource

JSON_PATCH = "application/json-patch+json"

_EXPECTED = f"a patch is a Parameters resource, or a Binary of contentType {JSON_PATCH}"


def check_patch(resource: dict[str, Any], where: str) -> dict[str, Any]:
    """The document as it is, if it is one. What its operations do is the server's to judge."""
    kind = resource["resourceType"]
    if kind == "Parameters":
        _check_operations(resource.get("parameter"), f"{where}.parameter")
        return resource
    if kind != "Binary" or resource.get("contentType") != JSON_PATCH:
        raise Rejected(Issue("not-supported", _EXPECTED, where), status=422)
    data = resource.get("data")
    try:
        operations = decimal_json.decode(binascii.a2b_base64(data if isinstance(data, str) else ""))
    except ValueError:
        issue = Issue("value", "data must be a JSON patch in base64", f"{where}.data")
        raise Rejected(issue) from None
    _check_operations(operations, f"{where}.data")
    return resource


def read_patch(body: bytes, received: DeliveryRequest) -> Contents:
    """PATCH Type/id, the body a patch of either kind."""
    kind = received.type or ""
    try:
        document = decimal_json.decode(body)
    except decimal_json.Malformed as error:
        raise Rejected(Issue("invalid", f"the body is {error}")) from None
    if received.format == "json-patch":
        _check_operations(document, None)
        data = binascii.b2a_base64(body, newline=False).decode()
        document = {"resourceType": "Binary", "contentType": JSON_PATCH, "data": data}
    resource = check_patch(check_resource(document, None), "Parameters")
    entry = Entry(
        0,
        kind,
        "PATCH",
        kind,
        received.id,
        resource=resource,
        if_match=received.if_match,
        if_none_match=received.if_none_match,
    )
    return Contents("resource", (entry,))


def _check_operations(value: Any, where: str | None) -> None:
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        raise Rejected(Issue("invalid", "a patch is a list of operations, at least one", where))
    if decimal_json.is_too_deep(value):
        text = f"nested more than {decimal_json.MAX_DEPTH} levels deep"
        raise Rejected(Issue("too-long", text, where))
