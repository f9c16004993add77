"""Checks of one resource, wherever it comes from, and deliveries without a bundle. Pure."""

from __future__ import annotations

from typing import Any

from integration.core import decimal_json, json_names
from integration.core.errors import Issue, Rejected
from integration.core.model import DeliveryRequest, FhirResource
from integration.fhir.conditions import HAS_FRAGMENT, has_criterion
from integration.fhir.duplicates import settle_duplicates
from integration.fhir.entries import (
    MAX_ISSUES,
    Contents,
    Entry,
    check_count,
    keep,
    refuse,
    refuse_alone,
)
from integration.fhir.grammar import is_id, is_type

# A receiver may ignore it: https://www.rfc-editor.org/rfc/rfc8259#section-8.1
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def decode_body(body: bytes) -> Any:
    """Parse the JSON of a request's body. Raises Rejected."""
    try:
        return decimal_json.decode(body)
    except decimal_json.Malformed as error:
        raise Rejected(Issue("invalid", f"the body is {error}")) from None


def check_resource(value: Any, data: bytes, expression: str | None) -> FhirResource:
    """Return a JSON object that names an R4 resource type, if its structure is sound.

    `data` is the JSON that it was parsed from.
    """
    resource = check_inner_resource(value, expression)
    check_structure(resource, data, expression or resource["resourceType"], expression)
    return resource


def check_structure(value: Any, data: bytes, root: str | None, expression: str | None) -> None:
    """Check that JSON is not nested beyond reason and no object has a name twice.

    A path to a name begins with `root`. Raises Rejected.
    """
    check_names(data, count_names(value, expression=expression), root, expression)


def count_names(
    value: Any, limit: int = decimal_json.MAX_DEPTH, expression: str | None = None
) -> int:
    """Return how many names the objects of a value have. Raises Rejected if it is nested more than
    `limit` levels deep."""
    names = decimal_json.count_names(value, limit)
    if names is None:
        text = f"nested more than {decimal_json.MAX_DEPTH} levels deep"
        refuse("too-long", text, expression)
    return names


def check_names(data: bytes, names: int, root: str | None, expression: str | None) -> None:
    """Check that no object of the JSON has a name twice. `names`: how many were kept of it."""
    path = json_names.find_duplicate(data, names)
    if path is not None:
        dot = "." if root and path and not path.startswith("[") else ""
        text = "a name occurs more than once in one JSON object: only the last would be kept"
        refuse("invalid", text, f"{root or ''}{dot}{path}" or None)


def check_inner_resource(value: Any, expression: str | None) -> FhirResource:
    """Check a resource inside one that was checked, and so cannot be nested deeper."""
    if not isinstance(value, dict):
        refuse("structure", "a resource must be a JSON object", expression)
    if "resourceType" not in value:
        refuse("required", "not FHIR: resourceType is missing", expression)
    if not is_type(value["resourceType"]):
        where = f"{expression}.resourceType" if expression else "resourceType"
        refuse("value", "resourceType is not a resource type of FHIR R4", where)
    return value


def check_id(resource: FhirResource, expression: str) -> str | None:
    """Return the resource's own id, None if it has none. Raises Rejected if FHIR forbids it."""
    stated = resource.get("id")
    if stated is not None and not is_id(stated):
        refuse("value", "an id is 1 to 64 letters, digits, - and .", f"{expression}.id")
    return stated


def set_id(resource: FhirResource, identifier: str, expression: str) -> FhirResource:
    """Return the resource with the id of its address. Raises Rejected if it states another."""
    stated = resource.get("id")
    if stated is not None and stated != identifier:
        refuse("invalid", "the id differs from the id in the address", expression)
    return resource if stated else {**resource, "id": identifier}


def parse_condition(value: str | None, type_: str, expression: str | None = None) -> str | None:
    """Return the query of an If-None-Exist. FHIR wants the query alone; many senders put `Type?`
    before it."""
    if value is None:
        return None
    path, mark, query = value.partition("?")
    if mark and (path.removeprefix("/") not in ("", type_) or not query):
        text = "the condition of a create must be a query over its own type"
        refuse("value", text, expression)
    query = query if mark else value
    if "#" in query:
        refuse("value", HAS_FRAGMENT, expression)
    if not has_criterion(query):
        text = "the condition of a create needs criteria with values, such as identifier=system|1"
        refuse("value", text, expression)
    return query


def make_entry(
    position: int,
    where: str,
    resource: FhirResource,
    *,
    element: str,
    json: decimal_json.Raw | None = None,
) -> Entry:
    """Return the write of a resource by its own identity: an update if it has an id, else a
    create. `element` is the resource's path, `json` its text. Raises Rejected if FHIR forbids the
    id."""
    identifier = check_id(resource, element)
    return Entry(
        position=position,
        where=where,
        method="PUT" if identifier else "POST",
        type=resource["resourceType"],
        id=identifier,
        content=keep(resource, json),
    )


def read_resource(resource: FhirResource, received: DeliveryRequest) -> Contents:
    """Read a delivery that is one resource, or its DELETE, addressed as FHIR's interactions are:
    https://hl7.org/fhir/R4/http.html"""
    kind, identifier = received.type or resource["resourceType"], received.id
    if received.query is not None:
        return Contents("resource", (_make_conditional_entry(resource, received, kind),))
    if received.type is None:
        # A webhook that sends a bare resource to the base address means that resource.
        identifier = check_id(resource, kind)
        if received.if_none_exist is not None:
            identifier = None  # a conditional create, whatever id the resource came with
    method = "PUT" if identifier and received.method == "POST" else received.method
    if method == "PUT":
        resource = set_id(resource, identifier or "", f"{kind}.id")
    entry = Entry(
        position=0,
        where=kind,
        method=method,
        type=kind,
        id=identifier,
        content=keep(resource) if method != "DELETE" else None,
        if_match=received.if_match,
        if_none_match=received.if_none_match,
        if_none_exist=parse_condition(received.if_none_exist, kind) if method == "POST" else None,
    )
    return Contents("resource", (entry,))


def _make_conditional_entry(resource: FhirResource, received: DeliveryRequest, kind: str) -> Entry:
    """Return a conditional update or delete: https://hl7.org/fhir/R4/http.html#cond-update"""
    if received.method == "PUT":
        check_id(resource, kind)
    return Entry(
        position=0,
        where=kind,
        method=received.method,
        type=kind,
        query=received.query,
        content=keep(resource) if received.method != "DELETE" else None,
        if_match=received.if_match,
        if_none_match=received.if_none_match,
    )


def read_ndjson(body: bytes, max_entries: int | None = None) -> Contents:
    """Read NDJSON: one resource a line, each by its own identity. A bad line refuses only itself.

    Raises Rejected if no line is sound, or if there are more than `max_entries`.
    """
    # Blank lines count here, since they take memory as well.
    check_count(body.count(b"\n"), max_entries)
    lines = [line for line in enumerate(body.split(b"\n"), 1) if line[1].strip()]
    check_count(len(lines), max_entries)
    entries = tuple(_read_line(position, *line) for position, line in enumerate(lines))
    if not entries:
        refuse("invalid", "the NDJSON holds no resource; send one on each line")
    if all(entry.refusal for entry in entries):
        raise Rejected(*(entry.refusal for entry in entries[:MAX_ISSUES] if entry.refusal))
    return Contents("ndjson", tuple(settle_duplicates(entries)))


def _read_line(position: int, number: int, line: bytes) -> Entry:
    where = f"line {number}"
    line = line.removeprefix(BYTE_ORDER_MARK)  # files that were joined have several
    try:
        resource = check_resource(decimal_json.decode(line), line, where)
        return make_entry(position, where, resource, element=where, json=decimal_json.Raw(line))
    except decimal_json.Malformed as error:
        refusal = Issue("invalid", f"line {number} is {error}".replace("line 1, ", ""), where)
    except Rejected as error:
        refusal = Issue(error.issues[0].code, f"line {number}: {error}", error.issues[0].expression)
    return refuse_alone(position, where, refusal)
