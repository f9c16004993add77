"""One `Bundle.entry` as it was sent: each element is checked where it is read. Pure.

https://hl7.org/fhir/R4/bundle-definitions.html#Bundle.entry
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from integration.core import decimal_json
from integration.core.errors import Issue, Rejected
from integration.core.model import FhirResource
from integration.fhir import entries
from integration.fhir.entries import MAX_ISSUES, Content, Entry, refuse, refuse_alone
from integration.fhir.grammar import is_id, is_type, parse_literal
from integration.fhir.json_objects import get_object
from integration.fhir.resources import check_inner_resource

# (position, the entry, the text of its resource if it is at hand)
ParsedEntry = tuple[int, Any, decimal_json.Raw | None]

METHODS = ("POST", "PUT", "DELETE", "PATCH", "GET", "HEAD")


@dataclass(slots=True)
class RawEntry:
    """An entry that has not been interpreted yet.

    The methods return one element. They raise Rejected, with the element's path, when it is
    missing or wrong.
    """

    position: int
    where: str
    value: FhirResource
    request: Mapping[str, Any] | None  # None where `value` has none, or it is no JSON object
    json: decimal_json.Raw | None = None  # the text of the resource, where it is at hand

    def refuse(self, code: str, text: str, element: str = "") -> NoReturn:
        """Raise Rejected for `element`, a path below the entry, or for the entry itself."""
        refuse(code, text, f"{self.where}.{element}" if element else self.where)

    def get_full_url(self) -> str | None:
        """Return fullUrl: what links inside the bundle may call the entry."""
        full_url = self.value.get("fullUrl")
        if full_url is not None and not isinstance(full_url, str):
            self.refuse("value", "fullUrl must be a string", "fullUrl")
        return full_url

    def get_resource(self) -> FhirResource:
        """Return the resource of an entry that must have one."""
        if "resource" not in self.value:
            self.refuse("required", "the entry holds no resource")
        return check_inner_resource(self.value["resource"], f"{self.where}.resource")

    def keep(self, resource: FhirResource) -> Content:
        """Return the content of the entry's resource, or of what was made of it."""
        is_unchanged = resource is self.value.get("resource")
        return entries.keep(resource, self.json if is_unchanged else None)

    def get_method(self) -> str:
        """Return request.method: one of FHIR's methods, whether this app sends it or not.

        bdl-3 of https://hl7.org/fhir/R4/bundle.html#invs demands the request.
        """
        if self.request is None:
            self.refuse("required", "an entry of a batch, transaction or history needs a request")
        method = self.request.get("method")
        if not isinstance(method, str) or method not in METHODS:
            self.refuse("value", f"method must be one of {', '.join(METHODS)}", "request.method")
        return method

    def get_url(self) -> str:
        """Return request.url, which is not empty."""
        url = self.request.get("url") if self.request else None
        if not isinstance(url, str) or not url:
            self.refuse("required", "request.url is missing", "request.url")
        return url

    def get_header(self, name: str) -> str | None:
        """Return an element of the request that stands for an HTTP header, such as `ifMatch`."""
        value = self.request.get(name) if self.request else None
        if value is not None and (not isinstance(value, str) or not value):
            self.refuse("value", f"{name} must be a string", f"request.{name}")
        return value


def open_entry(
    position: int, where: str, value: Any, json: decimal_json.Raw | None = None
) -> RawEntry:
    """Return the entry for reading. Raises Rejected if it is no JSON object."""
    if not isinstance(value, dict):
        refuse("structure", "an entry must be a JSON object", where)
    request = value.get("request")
    return RawEntry(position, where, value, request if isinstance(request, dict) else None, json)


def read_entries(
    parsed: Iterable[ParsedEntry],
    read_entry: Callable[[RawEntry], Entry],
    *,
    atomic: bool = False,
) -> list[Entry]:
    """Read the entries of a bundle, in their order. `parsed` may parse each just before it is read.

    One that is wrong is refused alone: https://hl7.org/fhir/R4/http.html#brules. Raises Rejected if
    none is sound, and for a bundle that is `atomic` if one is wrong.
    """
    read: list[Entry] = []
    issues: list[Issue] = []
    for position, value, json in parsed:
        where = f"Bundle.entry[{position}]"
        try:
            read.append(read_entry(open_entry(position, where, value, json)))
        except Rejected as error:
            issues.append(error.issues[0])
            read.append(_refuse_entry(position, where, value, error.issues[0]))
            if atomic and len(issues) == MAX_ISSUES:
                break
    if issues and (atomic or len(issues) == len(read)):
        raise Rejected(*issues[:MAX_ISSUES])
    return read


def _refuse_entry(position: int, where: str, value: Any, issue: Issue) -> Entry:
    """Return an entry that is refused alone, with the names by which others may refer to it.

    A reference to a resource that would have got a new id must not lead to another one.
    """
    full_url, stated = get_object(value).get("fullUrl"), get_object(value, "resource")
    type_, identifier = stated.get("resourceType"), stated.get("id")
    is_named = is_type(type_) and is_id(identifier)
    return replace(
        refuse_alone(position, where, issue),
        method="PUT" if _names_its_id(value) else "POST",
        type=str(type_) if is_named else "",
        content=entries.keep({"resourceType": type_, "id": identifier}) if is_named else None,
        full_url=full_url if isinstance(full_url, str) else None,
    )


def _names_its_id(value: Any) -> bool:
    """Whether the sender chose the id under which the FHIR server would have the resource."""
    url = get_object(value, "request").get("url", "")
    named = parse_literal(url.removeprefix("/")) if isinstance(url, str) else None
    return named is not None or "request" not in get_object(value)
