"""Entry.request: what does an entry of a bundle ask for? Pure."""

from __future__ import annotations

from typing import Any

from integration.errors import Issue, Rejected
from integration.fhir.entries import Entry, checked_resource, with_id
from integration.fhir.grammar import is_id, is_type

METHODS = ("POST", "PUT", "DELETE", "PATCH", "GET", "HEAD")

_CARRIED = ("POST", "PUT", "DELETE")


def requested(position: int, value: Any) -> Entry:
    """The entry of a batch or a transaction: https://hl7.org/fhir/R4/bundle.html#invs"""
    where, value = checked_entry(position, value)
    request = request_of(value, where)
    method = method_of(request, where)
    if method not in _CARRIED:
        issue = Issue("not-supported", f"{method} is not carried", f"{where}.request.method")
        raise Rejected(issue, status=422)
    type_, identifier, query = _address(method, request.get("url"), f"{where}.request.url")
    return Entry(
        position,
        where,
        method,
        type_,
        identifier,
        query,
        _resource(value, method, type_, identifier, where),
        full_url_of(value, where),
        if_match=_text(request, "ifMatch", where),
        if_none_match=_text(request, "ifNoneMatch", where),
        if_none_exist=_condition(_text(request, "ifNoneExist", where), method, type_, where),
    )


def checked_entry(position: int, value: Any) -> tuple[str, dict[str, Any]]:
    """Where it stands, and itself: a JSON object."""
    where = f"Bundle.entry[{position}]"
    if not isinstance(value, dict):
        raise Rejected(Issue("structure", "an entry must be a JSON object", where))
    return where, value


def request_of(value: dict[str, Any], where: str) -> dict[str, Any]:
    """bdl-3: https://hl7.org/fhir/R4/bundle.html#invs"""
    request = value.get("request")
    if not isinstance(request, dict):
        text = "an entry of a batch, transaction or history needs a request"
        raise Rejected(Issue("required", text, where))
    return request


def full_url_of(value: dict[str, Any], where: str) -> str | None:
    """What links inside the bundle may call the entry."""
    full_url = value.get("fullUrl")
    if full_url is not None and not isinstance(full_url, str):
        raise Rejected(Issue("value", "fullUrl must be a string", f"{where}.fullUrl"))
    return full_url


def method_of(request: dict[str, Any], where: str) -> str:
    """One of FHIR's methods, whether carried or not."""
    method = request.get("method")
    if not isinstance(method, str) or method not in METHODS:
        text = f"method must be one of {', '.join(METHODS)}"
        raise Rejected(Issue("value", text, f"{where}.request.method"))
    return method


def _address(method: str, url: Any, where: str) -> tuple[str, str | None, str | None]:
    """(type, id, query) of request.url, which is relative to the FHIR server's base."""
    if not isinstance(url, str) or not url:
        raise Rejected(Issue("required", "request.url is missing", where))
    path, mark, query = url.removeprefix("/").partition("?")
    parts = path.split("/")
    if "://" in path or url.startswith("//") or ".." in parts or "%" in path or "\\" in path:
        raise Rejected(
            Issue(
                "value", "request.url must be relative to the FHIR server: Type or Type/id", where
            )
        )
    if not is_type(parts[0]):
        raise Rejected(Issue("value", "request.url names no resource type of FHIR R4", where))
    if len(parts) > 1 and parts[1].startswith("$"):
        raise Rejected(Issue("not-supported", "operations are not carried", where), status=422)
    if len(parts) > 2 or (len(parts) == 2 and not is_id(parts[1])):
        raise Rejected(
            Issue(
                "value",
                "request.url must be Type or Type/id, an id 1 to 64 letters, digits, - and .",
                where,
            )
        )
    identifier = parts[1] if len(parts) == 2 else None
    if method == "POST" and (identifier or mark):
        raise Rejected(
            Issue("value", "a create is POST Type; conditions belong in ifNoneExist", where)
        )
    if method == "DELETE" and (identifier is None or mark):
        text = "a delete is DELETE Type/id; conditional deletes are not carried, nor parameters"
        raise Rejected(Issue("not-supported", text, where), status=422)
    if method == "PUT" and (identifier is None) == (not query):
        raise Rejected(Issue("value", "an update is PUT Type/id or PUT Type?query", where))
    return parts[0], identifier, query or None


def _resource(
    value: dict[str, Any], method: str, type_: str, identifier: str | None, where: str
) -> dict[str, Any] | None:
    if method == "DELETE":
        return None
    if "resource" not in value:
        raise Rejected(Issue("required", f"{method} needs a resource", where))
    where = f"{where}.resource"
    resource = checked_resource(value["resource"], where)
    if resource["resourceType"] != type_:
        raise Rejected(Issue("invalid", "resourceType differs from the type in request.url", where))
    return with_id(resource, identifier, f"{where}.id") if identifier else resource


def _text(request: dict[str, Any], name: str, where: str) -> str | None:
    value = request.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise Rejected(Issue("value", f"{name} must be a string", f"{where}.request.{name}"))
    return value


def _condition(value: str | None, method: str, type_: str, where: str) -> str | None:
    """The query alone, as FHIR says; many senders put `Type?` before it."""
    if value is not None and method != "POST":
        text = "ifNoneExist belongs to a create"
        raise Rejected(Issue("value", text, f"{where}.request.ifNoneExist"))
    path, mark, query = (value or "").partition("?")
    if not mark:
        return value
    if path not in ("", type_) or not query:
        text = "ifNoneExist must be a query over the type of the entry"
        raise Rejected(Issue("value", text, f"{where}.request.ifNoneExist"))
    return query
