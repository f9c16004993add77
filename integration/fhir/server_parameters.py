"""Parameters of FHIR servers that change what a write does. They are refused. Pure.

https://learn.microsoft.com/azure/healthcare-apis/fhir/fhir-rest-api-capabilities
https://github.com/microsoft/fhir-server/pull/4811 (a conditional delete takes _include)
https://hapifhir.io/hapi-fhir/docs/server_jpa/configuration.html#cascading-deletes
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
_ONE = "a write through this app is of the one resource that its condition finds: name each"
_REASONS = {
    "hardDelete": _HARD_DELETE,
    "_hardDelete": _HARD_DELETE,
    "purge": _HARD_DELETE,
    "_purge": _HARD_DELETE,
    "_meta-history": _NO_HISTORY,
    "_count": _ONE,
    "_maxCount": _ONE,
    "_include": _ONE,
    "_revinclude": _ONE,
    "_cascade": _ONE,
    "_remove-references": _ONE,
    "removeReferences": _ONE,
}
_FOLDED = {name.lower(): reason for name, reason in _REASONS.items()}


def find_refusal(name: str) -> str | None:
    """Return why a parameter of a write is refused. None: this is not such a parameter."""
    known = name.partition(":")[0]
    reason = _FOLDED.get(known.lower())
    return None if reason is None else f"{known} is not supported: {reason}"
