"""Full validation of a resource. Pure. Slow, so only where a setting or a write demands it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from integration.core.errors import Issue
from integration.fhir.grammar import is_type

# A name that no element can have is text of the sender and may hold anything. Its parent is named
# instead. https://hl7.org/fhir/R4/elementdefinition.html#def (eld-19, eld-20)
_ELEMENT = re.compile(r"_?[a-z][A-Za-z0-9]{0,63}")


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
                if isinstance(part, int) or _ELEMENT.fullmatch(part)
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
