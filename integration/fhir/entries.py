"""What a delivery holds, as entries: read from a bundle, one resource or NDJSON. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Issue, Rejected
from integration.core.model import DeliveryRequest
from integration.fhir.grammar import is_id, is_type

# Enough to mend a sender, too few to make an answer large.
MAX_ISSUES = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to do at the FHIR server. `refusal` is set when it cannot even be tried."""

    position: int
    where: str  # how an issue names it to the sender
    method: str
    type: str
    id: str | None = None  # where it will live; None when the relay or the server gives the id
    query: str | None = None  # of Type?query: a conditional update, patch or delete, or a search
    resource: dict[str, Any] | None = None
    full_url: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    if_none_exist: str | None = None
    if_modified_since: str | None = None
    read_path: str | None = None  # of GET and HEAD: the path that is read; such an entry has no id
    version: str | None = None  # what a history says of a version beside the resource
    updated: str | None = None
    refusal: Issue | None = None  # of severity information: left out, and that is as it should be
    write_position: int | None = (
        None  # where it stands among the writes of its resource, if not by position
    )

    @property
    def resource_path(self) -> str:
        """The path of its resource."""
        return f"{self.where}.resource" if self.where.endswith("]") else self.where

    @property
    def is_conditional(self) -> bool:
        """Only the server can say which resource this entry is."""
        has_search = self.query is not None and self.read_path is None
        return has_search or self.if_none_exist is not None

    @property
    def is_linkable(self) -> bool:
        """Links can mean it: of what the server finds, it says only of creates and updates in
        time what was found."""
        return self.read_path is None and (self.query is None or self.method == "PUT")

    @property
    def identity(self) -> str | None:
        """Type/id as the sender knows the resource."""
        stated_id = None if self.method == "PATCH" else (self.resource or {}).get("id")
        entry_id = self.id or stated_id
        return f"{self.type}/{entry_id}" if entry_id else None


@dataclass(frozen=True, slots=True)
class Contents:
    """A delivery taken apart. `kind`: the type of the bundle, or resource or ndjson; `more`: it
    names a next page."""

    kind: str
    entries: tuple[Entry, ...]
    has_next_page: bool = False
    dangling: str = "refuse"  # or note: what to do with placeholders that name no entry


def read_ndjson(body: bytes) -> Contents:
    """NDJSON: one resource a line, each by its own identity. A bad line refuses only itself."""
    lines = [line for line in enumerate(body.split(b"\n"), 1) if line[1].strip()]
    entries = tuple(_read_line(*line, position) for position, line in enumerate(lines))
    if not entries:
        raise Rejected(Issue("invalid", "the NDJSON holds no resource; send one on each line"))
    if all(entry.refusal for entry in entries):
        issues = [entry.refusal for entry in entries if entry.refusal]
        raise Rejected(*issues[:MAX_ISSUES])
    return Contents("ndjson", entries)


def read_resource(resource: dict[str, Any], received: DeliveryRequest) -> Contents:
    """One resource, or the DELETE of one, addressed as FHIR's REST interactions do."""
    kind, identifier = received.type or resource["resourceType"], received.id
    if received.type is None:
        # A webhook that sends a bare resource to the base address means that resource.
        identifier = check_id(resource, kind)
        if received.if_none_exist is not None:
            identifier = None  # a conditional create, whatever id the resource came with
    method = "PUT" if identifier and received.method == "POST" else received.method
    if method == "PUT":
        resource = set_id(resource, identifier or "", f"{kind}.id")
    entry = Entry(
        0,
        kind,
        method,
        kind,
        identifier,
        resource=resource if method != "DELETE" else None,
        if_match=received.if_match,
        if_none_match=received.if_none_match,
        if_none_exist=parse_condition(received.if_none_exist, kind) if method == "POST" else None,
    )
    return Contents("resource", (entry,))


def set_id(resource: dict[str, Any], identifier: str, expression: str) -> dict[str, Any]:
    """The resource with the id of its address. A different one in the body is an error."""
    stated = resource.get("id")
    if stated is not None and stated != identifier:
        raise Rejected(Issue("invalid", "the id differs from the id in the address", expression))
    return resource if stated else {**resource, "id": identifier}


def parse_condition(value: str | None, type_: str, where: str | None = None) -> str | None:
    """The query alone, as FHIR says; many senders put `Type?` before it."""
    path, mark, query = (value or "").partition("?")
    if not mark:
        return value
    if path not in ("", type_) or not query:
        text = "the condition of a create must be a query over its own type"
        raise Rejected(Issue("value", text, where))
    return query


def check_id(resource: dict[str, Any], expression: str) -> str | None:
    """The resource's own id, if it has one that FHIR allows."""
    stated = resource.get("id")
    if stated is not None and not is_id(stated):
        raise Rejected(
            Issue("value", "an id is 1 to 64 letters, digits, - and .", f"{expression}.id")
        )
    return stated


def check_resource(value: Any, expression: str | None) -> dict[str, Any]:
    """A JSON object that names an R4 resource type, not nested beyond reason."""
    resource = check_inner_resource(value, expression)
    if decimal_json.is_too_deep(resource):
        raise Rejected(
            Issue("too-long", f"nested more than {decimal_json.MAX_DEPTH} levels deep", expression)
        )
    return resource


def check_inner_resource(value: Any, expression: str | None) -> dict[str, Any]:
    """The same inside of what has been checked, and so cannot be nested deeper."""
    if not isinstance(value, dict):
        raise Rejected(Issue("structure", "a resource must be a JSON object", expression))
    if "resourceType" not in value:
        raise Rejected(Issue("required", "not FHIR: resourceType is missing", expression))
    if not is_type(value["resourceType"]):
        where = f"{expression}.resourceType" if expression else "resourceType"
        raise Rejected(Issue("value", "resourceType is not a resource type of FHIR R4", where))
    return value


def _read_line(number: int, line: bytes, position: int) -> Entry:
    where = f"line {number}"
    try:
        resource = check_resource(decimal_json.decode(line), where)
        kind, identifier = resource["resourceType"], check_id(resource, where)
        method = "PUT" if identifier else "POST"
        return Entry(position, where, method, kind, identifier, resource=resource)
    except decimal_json.Malformed as error:
        refusal = Issue("invalid", f"line {number} is {error}".replace("line 1, ", ""), where)
    except Rejected as error:
        refusal = Issue(error.issues[0].code, f"line {number}: {error}", error.issues[0].expression)
    return Entry(position, where, "", "", refusal=refusal)
