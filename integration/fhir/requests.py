"""Entry.request: what does an entry of a bundle ask for? Pure."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

from integration.core.errors import Issue, Rejected
from integration.fhir import patches
from integration.fhir.entries import Entry, check_inner_resource, parse_condition, set_id
from integration.fhir.grammar import is_id, is_type

METHODS = ("POST", "PUT", "DELETE", "PATCH", "GET", "HEAD")

_READS = ("GET", "HEAD")

# Far beyond a search that a sender means, far below what servers and gateways take.
_MAX_URL = 2000

# https://hl7.org/fhir/R4/search.html#Summary -- they say how to answer, not what to find; the last
# two are of https://learn.microsoft.com/azure/healthcare-apis/fhir/fhir-rest-api-capabilities
_NO_CRITERIA = re.compile(
    r"_(contained|containedType|count|elements|format|include|pretty|revinclude|score|sort|summary"
    r"|total|hardDelete|purge)(:.*)?"
)


def read_batch_entry(position: int, value: Any) -> Entry:
    """The entry of a batch: https://hl7.org/fhir/R4/bundle.html#invs"""
    where, value = check_entry(position, value)
    request = get_request(value, where)
    method = get_method(request, where)
    type_, path, query = _parse_url(method, request.get("url"), f"{where}.request.url")
    identifier = None if method in _READS else path.partition("/")[2] or None
    none_exist = _get_text(request, "ifNoneExist", where)
    if none_exist is not None and method != "POST":
        text = "ifNoneExist belongs to a create"
        raise Rejected(Issue("value", text, f"{where}.request.ifNoneExist"))
    return Entry(
        position,
        where,
        method,
        type_,
        identifier,
        query,
        _read_resource(value, method, type_, identifier, where),
        get_full_url(value, where),
        if_match=_get_text(request, "ifMatch", where),
        if_none_match=_get_text(request, "ifNoneMatch", where),
        if_none_exist=parse_condition(none_exist, type_, f"{where}.request.ifNoneExist"),
        if_modified_since=_get_text(request, "ifModifiedSince", where),
        read_path=path if method in _READS else None,
    )


def read_transaction_entry(position: int, value: Any) -> Entry:
    """The entry of a transaction."""
    entry = read_batch_entry(position, value)
    if entry.method == "DELETE" and entry.is_conditional:
        text = (
            "the FHIR server takes no conditional delete in a transaction: "
            "send it in a batch, or delete by id"
        )
        raise Rejected(Issue("not-supported", text, f"{entry.where}.request.url"), status=422)
    return entry


def check_entry(position: int, value: Any) -> tuple[str, dict[str, Any]]:
    """Where it stands, and itself: a JSON object."""
    where = f"Bundle.entry[{position}]"
    if not isinstance(value, dict):
        raise Rejected(Issue("structure", "an entry must be a JSON object", where))
    return where, value


def get_request(value: dict[str, Any], where: str) -> dict[str, Any]:
    """bdl-3: https://hl7.org/fhir/R4/bundle.html#invs"""
    request = value.get("request")
    if not isinstance(request, dict):
        text = "an entry of a batch, transaction or history needs a request"
        raise Rejected(Issue("required", text, where))
    return request


def get_full_url(value: dict[str, Any], where: str) -> str | None:
    """What links inside the bundle may call the entry."""
    full_url = value.get("fullUrl")
    if full_url is not None and not isinstance(full_url, str):
        raise Rejected(Issue("value", "fullUrl must be a string", f"{where}.fullUrl"))
    return full_url


def get_method(request: dict[str, Any], where: str) -> str:
    """One of FHIR's methods, whether carried or not."""
    method = request.get("method")
    if not isinstance(method, str) or method not in METHODS:
        text = f"method must be one of {', '.join(METHODS)}"
        raise Rejected(Issue("value", text, f"{where}.request.method"))
    return method


def _parse_url(method: str, url: Any, where: str) -> tuple[str, str, str | None]:
    """(type, path, query) of request.url, which is relative to the FHIR server's base."""
    if not isinstance(url, str) or not url:
        raise Rejected(Issue("required", "request.url is missing", where))
    if len(url) > _MAX_URL or not url.isprintable():
        text = f"request.url must be plain text of at most {_MAX_URL} characters"
        raise Rejected(Issue("too-long", text, where))
    path, mark, query = url.removeprefix("/").partition("?")
    type_, *rest = path.split("/")
    if "://" in path or url.startswith("//") or ".." in rest or "%" in path or "\\" in path:
        text = "request.url must be relative to the FHIR server: Type or Type/id"
        raise Rejected(Issue("value", text, where))
    if not is_type(type_):
        raise Rejected(Issue("value", "request.url names no resource type of FHIR R4", where))
    if any(part.startswith("$") for part in rest) or "_search" in rest:
        text = "operations are not carried, nor searches by POST"
        raise Rejected(Issue("not-supported", text, where), status=422)
    if method in _READS:
        _check_read(rest, where)
    else:
        _check_write(method, rest, query if mark else None, where)
    return type_, path, query or None


def _check_read(rest: list[str], where: str) -> None:
    """https://hl7.org/fhir/R4/http.html#3.1.0 -- search, read, vread, and the history of one."""
    named = rest[:1] + rest[2:3]
    if len(rest) > 3 or rest[1:2] not in ([], ["_history"]) or not all(map(is_id, named)):
        text = "a read is of Type?query, Type/id, Type/id/_history or Type/id/_history/version"
        raise Rejected(Issue("value", text, where))


def _check_write(method: str, rest: list[str], query: str | None, where: str) -> None:
    if len(rest) > 1 or not all(map(is_id, rest)):
        text = "request.url must be Type or Type/id, an id 1 to 64 letters, digits, - and ."
        raise Rejected(Issue("value", text, where))
    if method == "POST" and (rest or query is not None):
        text = "a create is POST Type; conditions belong in ifNoneExist"
        raise Rejected(Issue("value", text, where))
    if method == "POST":
        return
    if (not rest) == (not query) or (rest and query is not None):
        text = f"{method} wants Type/id or Type?query, and no parameters beside an id"
        raise Rejected(Issue("value", text, where))
    if query and method != "PUT" and not _has_criterion(query):
        text = f"{method} Type?query needs a criterion: this would be every resource of the type"
        raise Rejected(Issue("value", text, where))


def _has_criterion(query: str) -> bool:
    """Whether every parameter is a criterion or control, and one at least a criterion."""
    parameters = parse_qsl(query, keep_blank_values=True)
    criteria = [pair for pair in parameters if not _NO_CRITERIA.fullmatch(pair[0])]
    return bool(criteria) and all(name and value for name, value in criteria)


def _read_resource(
    value: dict[str, Any], method: str, type_: str, identifier: str | None, where: str
) -> dict[str, Any] | None:
    if method not in ("POST", "PUT", "PATCH"):
        return None
    if "resource" not in value:
        raise Rejected(Issue("required", f"{method} needs a resource", where))
    where = f"{where}.resource"
    resource = check_inner_resource(value["resource"], where)
    if method == "PATCH":
        return patches.check_patch(resource, where)
    if resource["resourceType"] != type_:
        raise Rejected(Issue("invalid", "resourceType differs from the type in request.url", where))
    return set_id(resource, identifier, f"{where}.id") if identifier else resource


def _get_text(request: dict[str, Any], name: str, where: str) -> str | None:
    value = request.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise Rejected(Issue("value", f"{name} must be a string", f"{where}.request.{name}"))
    return value
