"""Parameters of Microsoft's FHIR service that change what a write does. They are refused. Pure.

https://learn.microsoft.com/azure/healthcare-apis/fhir/fhir-rest-api-capabilities
docs/http.md says why.
"""

from __future__ import annotations

_HARD_DELETE = (
    "deletes through this app leave the history in place: delete for good at the FHIR server itself"
)
_NO_HISTORY = (
    "updates through this app leave the history in place: update without it at the FHIR server "
    "itself"
)
_REASONS = {
    "hardDelete": _HARD_DELETE,
    "_hardDelete": _HARD_DELETE,
    "purge": _HARD_DELETE,
    "_purge": _HARD_DELETE,
    "_meta-history": _NO_HISTORY,
}
_FOLDED = {name.lower(): reason for name, reason in _REASONS.items()}


def find_refusal(name: str) -> str | None:
    """Return why a parameter of a write is refused. None: this is not such a parameter."""
    reason = _FOLDED.get(name.lower())
    return None if reason is None else f"{name} is not supported: {reason}"
