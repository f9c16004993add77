"""Full validation of a resource. Pure. Slow, so only where a setting or a write demands it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from integration.core.errors import Issue, Rejected
from integration.core.json_names import ELEMENT_NAME
from integration.fhir.entries import MAX_ISSUES, Contents, Entry
from integration.fhir.grammar import is_type

# One resource, or resources that are written together or not at all.
_ATOMIC = ("resource", "transaction")


def refuse_invalid(contents: Contents) -> Contents:
    """Return the contents with the entries refused whose resource is not valid.

    Raises Rejected if all of them are, or one of a transaction is.
    """
    if contents.kind in _ATOMIC:
        issues = tuple(islice(_find_all_issues(contents), MAX_ISSUES))
        if issues:
            raise Rejected(*issues, status=422)
        return contents
    entries = tuple(map(_refuse_if_invalid, contents.entries))
    pairs = zip(entries, contents.entries, strict=True)
    refused = [new.refusal for new, old in pairs if new is not old]
    if refused and len(refused) == len(entries):
        raise Rejected(*(issue for issue in refused[:MAX_ISSUES] if issue), status=422)
    return replace(contents, entries=entries)


def _find_all_issues(contents: Contents) -> Iterator[Issue]:
    for entry in contents.entries:
        resource = entry.resource if entry.refusal is None else None
        if resource is not None:
            yield from find_issues(resource, entry.resource_path)


def _refuse_if_invalid(entry: Entry) -> Entry:
    resource = entry.resource if entry.refusal is None else None
    if resource is None:
        return entry
    issues = list(islice(find_issues(resource, entry.resource_path), MAX_ISSUES))
    if not issues:
        return entry
    more = f", and {len(issues) - 1} more" if len(issues) > 1 else ""
    return replace(entry, refusal=replace(issues[0], text=f"{issues[0].text}{more}"))


def find_issues(resource: Mapping[str, Any], where: str) -> Iterator[Issue]:
    """Yield what fhir.resources finds wrong. It knows R4B, which equals R4 for nearly every type;
    types that it lacks are left to the FHIR server."""
    # Imported here, since they load hundreds of model files.
    from fhir.resources.R4B import get_fhir_model_class
    from pydantic import ValidationError

    # Inner resources too: the library fails, and does not report, on a type it does not know.
    types = list(_list_types(resource))
    if not all(map(is_type, types)):
        text = "an inner resource has a resourceType that is not one of FHIR R4"
        yield Issue("value", text, where)
        return
    try:
        model, *_ = [get_fhir_model_class(str(type_)) for type_ in types]
    except ValueError:
        return
    try:
        model.model_validate(resource)
    except ValidationError as error:
        # `msg` and `input` are left out: both can quote a value.
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            path = "".join(
                f"[{part}]" if isinstance(part, int) else f".{part}"
                for part in problem["loc"]
                if isinstance(part, int) or ELEMENT_NAME.fullmatch(part)
            )
            yield Issue("structure", f"not valid FHIR R4 ({problem['type']})", f"{where}{path}")


def _list_types(node: Any) -> Iterator[object]:
    """Yield every resourceType, the outermost first. Recursive: depth was checked before."""
    if isinstance(node, Mapping):
        if "resourceType" in node:
            yield node["resourceType"]
        node = node.values()
    elif not isinstance(node, list):
        return
    for inner in node:
        yield from _list_types(inner)
