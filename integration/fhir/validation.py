"""Is a resource valid FHIR? Pure, slow and strict: where the setting or a write asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from integration.errors import Issue


def issues(resource: Mapping[str, Any], where: str) -> Iterator[Issue]:
    """What fhir.resources finds wrong. It knows R4B, which is R4 for nearly every resource; the
    types that it lacks are left to the FHIR server."""
    # Hundreds of model files: imported only where a resource is validated.
    from fhir.resources.R4B import get_fhir_model_class
    from pydantic import ValidationError

    try:
        model = get_fhir_model_class(str(resource["resourceType"]))
    except ValueError:
        return
    try:
        model.model_validate(resource)
    except ValidationError as error:
        # Neither `msg` nor `input` goes on: both can quote a value.
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            path = "".join(
                f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]
            )
            yield Issue("structure", f"not valid FHIR R4 ({problem['type']})", f"{where}{path}")
