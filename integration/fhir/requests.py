"""Entries of a batch or transaction: what does `Bundle.entry.request` ask for? Pure."""

from __future__ import annotations

from integration.core.model import FhirResource
from integration.fhir import patches
from integration.fhir.conditions import HAS_FRAGMENT, has_criterion, list_parameters
from integration.fhir.entries import Entry
from integration.fhir.grammar import is_id, is_type
from integration.fhir.raw_entry import RawEntry
from integration.fhir.resources import check_inner_resource, parse_condition, set_id
from integration.fhir.server_parameters import find_refusal

_READS = ("GET", "HEAD")

# Far beyond a search that a sender means, far below what servers and gateways take.
_MAX_URL = 2000

_ANSWER_PARAMETERS = ("_format", "_pretty")


def read_batch_entry(raw: RawEntry) -> Entry:
    """Read an entry of a batch: https://hl7.org/fhir/R4/bundle.html#invs"""
    method = raw.get_method()
    type_, path, query = _parse_url(raw, method)
    is_read = method in _READS
    identifier = None if is_read else path.partition("/")[2] or None
    none_exist = raw.get_header("ifNoneExist")
    if none_exist is not None and method != "POST":
        raw.refuse("value", "ifNoneExist belongs to a create", "request.ifNoneExist")
    resource = _read_resource(raw, method, type_, identifier)
    return Entry(
        position=raw.position,
        where=raw.where,
        method=method,
        type=type_,
        id=identifier,
        query=query,
        content=None if resource is None else raw.keep(resource),
        full_url=raw.get_full_url(),
        if_match=raw.get_header("ifMatch"),
        if_none_match=raw.get_header("ifNoneMatch"),
        if_none_exist=none_exist
        and parse_condition(none_exist, type_, f"{raw.where}.request.ifNoneExist"),
        if_modified_since=raw.get_header("ifModifiedSince"),
        read_path=path if is_read else None,
    )


def read_transaction_entry(raw: RawEntry) -> Entry:
    """Read an entry of a transaction."""
    entry = read_batch_entry(raw)
    if entry.method == "DELETE" and entry.is_conditional:
        # TransactionBundleValidator.cs of https://github.com/microsoft/fhir-server refuses it.
        text = (
            "Azure's FHIR service takes no conditional delete in a transaction: "
            "send it in a batch, or delete by id"
        )
        raw.refuse("not-supported", text, "request.url")
    return entry


def _parse_url(raw: RawEntry, method: str) -> tuple[str, str, str | None]:
    """Return (type, path, query) of request.url, which is relative to the FHIR server's base."""
    url, element = raw.get_url(), "request.url"
    if len(url) > _MAX_URL or not url.isprintable():
        text = f"request.url must be plain text of at most {_MAX_URL} characters"
        raw.refuse("too-long", text, element)
    path, mark, query = url.removeprefix("/").partition("?")
    if "#" in query:
        raw.refuse("value", HAS_FRAGMENT, element)
    if path.count("/") == 1:
        path = path.removesuffix("/")
    type_, *rest = path.split("/")
    if "://" in path or url.startswith("//") or ".." in rest or "%" in path or "\\" in path:
        text = "request.url must be relative to the FHIR server: Type or Type/id"
        raw.refuse("value", text, element)
    if not is_type(type_):
        raw.refuse("value", "request.url names no resource type of FHIR R4", element)
    if (reason := _find_unsent(rest)) is not None:
        raw.refuse("not-supported", reason, element)
    if method in _READS:
        problem = _find_read_problem(rest)
    else:
        for name, _ in list_parameters(query) if query else ():
            if (reason := find_refusal(name)) is not None:
                raw.refuse("not-supported", reason, element)
        condition = _strip_format(query) if mark else None
        problem = _find_write_problem(method, rest, condition)
        query = condition or ""
    if problem is not None:
        raw.refuse("value", problem, element)
    return type_, path, query or None


def _find_unsent(rest: list[str]) -> str | None:
    """Return why an address is not sent to the FHIR server as an entry; None if it may be.

    https://hl7.org/fhir/R4/http.html#trules allows operations. Microsoft's server looks for the
    route of each entry, and answers 404 where it has none (BundleHandler.cs of
    https://github.com/microsoft/fhir-server); its TransactionBundleValidator.cs refuses searches
    by POST.
    """
    if any(part.startswith("$") for part in rest):
        return (
            "operations are not sent as entries: Azure's FHIR service has few of them and fails "
            "the whole transaction at any other, and what they write cannot be kept in order; "
            "call the FHIR server directly"
        )
    if "_search" in rest:
        return (
            "Azure's FHIR service takes no search by POST in a transaction, and an entry has no "
            "form for its parameters: send GET Type?query"
        )
    return None


def _strip_format(query: str) -> str | None:
    """Return a query without the parameters that say how a write is answered; None if it has no
    other ones. https://hl7.org/fhir/R4/http.html#parameters"""
    parts = query.split("&")
    kept = [part for part in parts if part.partition("=")[0] not in _ANSWER_PARAMETERS]
    return "&".join(kept) if kept else None


def _find_read_problem(rest: list[str]) -> str | None:
    """https://hl7.org/fhir/R4/http.html#3.1.0 -- search, read, vread, and the history of one."""
    identifiers = rest[:1] + rest[2:3]
    is_read = len(rest) <= 3 and rest[1:2] in ([], ["_history"]) and all(map(is_id, identifiers))
    text = "a read is of Type?query, Type/id, Type/id/_history or Type/id/_history/version"
    return None if is_read else text


def _find_write_problem(method: str, rest: list[str], query: str | None) -> str | None:
    """`query` is None where the url has no question mark."""
    if len(rest) > 1 or not all(map(is_id, rest)):
        return "request.url must be Type or Type/id, an id 1 to 64 letters, digits, - and ."
    if method == "POST":
        is_create = not rest and query is None
        return None if is_create else "a create is POST Type; conditions belong in ifNoneExist"
    if (not rest) == (not query) or (rest and query is not None):
        return f"{method} needs Type/id or Type?query, and no parameters beside an id"
    if query and not has_criterion(query):
        return f"{method} Type?query needs criteria with values: this may be any of the type"
    return None


def _read_resource(
    raw: RawEntry, method: str, type_: str, identifier: str | None
) -> FhirResource | None:
    if method not in ("POST", "PUT", "PATCH"):
        return None
    if "resource" not in raw.value:
        raw.refuse("required", f"{method} needs a resource")
    where = f"{raw.where}.resource"
    resource = check_inner_resource(raw.value["resource"], where)
    if method == "PATCH":
        return patches.check_patch(resource, where)
    if resource["resourceType"] != type_:
        raw.refuse("invalid", "resourceType differs from the type in request.url", "resource")
    return set_id(resource, identifier, f"{where}.id") if identifier else resource
