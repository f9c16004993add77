"""Bundle: is the envelope sound, and what does each entry ask for? Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from integration import exact_json
from integration.errors import Issue, Rejected
from integration.fhir.entries import (
    MAX_ISSUES,
    Contents,
    Entry,
    checked_resource,
    of_lines,
    of_resource,
    with_id,
)
from integration.fhir.grammar import folded, is_id, is_type
from integration.model import Received

CARRIED = ("transaction", "batch")

_METHODS = {
    "POST": True,
    "PUT": True,
    "DELETE": True,
    "PATCH": False,
    "GET": False,
    "HEAD": False,
}


def read(body: bytes, received: Received) -> Contents:
    """Take a delivery apart. Raises Rejected with every issue found, up to a bound.

    Linear in the body; the body's values never reach an issue.
    """
    if received.format == "ndjson":
        return of_lines(body)
    if received.method == "DELETE":
        return of_resource({}, received)
    resource = _parse(body)
    if resource["resourceType"] == "Bundle" and received.type is None:
        return Contents(_kind(resource), tuple(_entries(resource)))
    if received.type not in (None, resource["resourceType"]):
        raise Rejected(
            Issue(
                "invalid",
                f"the address says {received.type}, the body is another type of resource",
                "resourceType",
            )
        )
    return of_resource(resource, received)


def _parse(body: bytes) -> dict[str, Any]:
    if not body.strip():
        raise Rejected(Issue("required", "the body is empty; send a FHIR resource as JSON"))
    # https://www.rfc-editor.org/rfc/rfc8259#section-8.1
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise Rejected(
            Issue("invalid", "the body starts with a byte order mark; send UTF-8 without one")
        )
    try:
        return checked_resource(exact_json.decode(body), None)
    except exact_json.Malformed as error:
        raise Rejected(Issue("invalid", f"the body is {error}")) from None


def _kind(bundle: dict[str, Any]) -> str:
    kind = bundle.get("type")
    if kind is None:
        raise Rejected(Issue("required", "the bundle has no type", "Bundle.type"))
    if kind not in CARRIED:
        text = f"only bundles of type {' and '.join(CARRIED)} are carried, not this type"
        raise Rejected(Issue("not-supported", text, "Bundle.type"), status=422)
    return str(kind)


def _entries(bundle: dict[str, Any]) -> list[Entry]:
    raw = bundle.get("entry")
    if not isinstance(raw, list) or not raw:
        raise Rejected(Issue("required", "the bundle has no entry", "Bundle.entry"))
    entries: list[Entry] = []
    issues: list[Issue] = []
    for position, value in enumerate(raw):
        try:
            entries.append(_entry(position, value))
        except Rejected as error:
            issues.extend(error.issues)
            if len(issues) >= MAX_ISSUES:
                break
    issues.extend(_repeated(entries, bundle["type"]))
    if issues:
        raise Rejected(*issues[:MAX_ISSUES])
    return entries


def _entry(position: int, value: Any) -> Entry:
    """https://hl7.org/fhir/R4/bundle.html#invs"""
    where = f"Bundle.entry[{position}]"
    if not isinstance(value, dict):
        raise Rejected(Issue("structure", "an entry must be a JSON object", where))
    request = value.get("request")
    if not isinstance(request, dict):  # bdl-3
        raise Rejected(
            Issue("required", "an entry of a batch or transaction needs a request", where)
        )
    method = _method(request, where)
    type_, identifier, query = _address(method, request.get("url"), f"{where}.request.url")
    full_url = value.get("fullUrl")
    if full_url is not None and not isinstance(full_url, str):
        raise Rejected(Issue("value", "fullUrl must be a string", f"{where}.fullUrl"))
    return Entry(
        position,
        where,
        method,
        type_,
        identifier,
        query,
        _resource(value, method, type_, identifier, where),
        full_url,
        if_match=_text(request, "ifMatch", where),
        if_none_match=_text(request, "ifNoneMatch", where),
        if_none_exist=_condition(_text(request, "ifNoneExist", where), method, type_, where),
    )


def _method(request: dict[str, Any], where: str) -> str:
    method = request.get("method")
    if not isinstance(method, str) or method not in _METHODS:
        raise Rejected(
            Issue(
                "value", f"method must be one of {', '.join(_METHODS)}", f"{where}.request.method"
            )
        )
    if not _METHODS[method]:
        raise Rejected(
            Issue("not-supported", f"{method} is not carried", f"{where}.request.method"),
            status=422,
        )
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


def _repeated(entries: list[Entry], kind: str) -> Iterator[Issue]:
    """bdl-7, and https://hl7.org/fhir/R4/http.html#transaction: no resource twice."""
    urls = Counter(folded(entry.full_url) for entry in entries if entry.full_url)
    targets = Counter(f"{entry.type}/{entry.id}" for entry in entries if entry.id)
    for entry in entries:
        if entry.full_url and urls[folded(entry.full_url)] > 1:
            yield Issue(
                "duplicate", "fullUrl occurs more than once in the bundle", f"{entry.where}.fullUrl"
            )
        if kind == "transaction" and entry.id and targets[f"{entry.type}/{entry.id}"] > 1:
            yield Issue(
                "duplicate",
                "a transaction must not touch a resource twice",
                f"{entry.where}.request.url",
            )
