"""FHIRPath, compiled once for each expression. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import fhirpathpy
from fhirpathpy.models import models

FhirPath = Callable[[Mapping[str, Any], Mapping[str, Any]], list[Any]]


@cache
def compiled(path: str) -> FhirPath:
    """The expression, to be called with a resource and %variables. Raises ValueError.

    https://hl7.org/fhirpath/
    """
    try:
        expression: FhirPath = fhirpathpy.compile(path, models["r4"])
    except Exception as error:  # the parser has no exception of its own
        raise ValueError(f"not FHIRPath: {error}") from None
    return expression
