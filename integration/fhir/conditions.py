"""Queries that choose the resource of a write: does a query choose anything? Pure.

A server ignores a parameter without a value, and so takes whatever else the query finds:
https://hl7.org/fhir/R4/search.html#errors
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

# https://hl7.org/fhir/R4/search.html#Summary -- they say how to answer, not what to find
_NO_CRITERIA = re.compile(
    r"_(contained|containedType|count|elements|format|include|pretty|revinclude|score|sort|summary"
    r"|total)(:.*)?"
)


def list_parameters(query: str) -> list[tuple[str, str]]:
    """Return the parameters of a query, those without a value included."""
    return parse_qsl(query, keep_blank_values=True)


def has_criterion(query: str) -> bool:
    """Whether at least one parameter is a criterion, and each criterion has a name and value."""
    criteria = [pair for pair in list_parameters(query) if not _NO_CRITERIA.fullmatch(pair[0])]
    return bool(criteria) and all(name and value for name, value in criteria)
