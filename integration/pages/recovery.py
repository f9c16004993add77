"""Whether the cause for which something waits, or was given up, is gone. Pure.

A reason names the upstream of which it tells. When that one answers again, what waits need not wait
for its own next attempt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from integration.operations.health import Answering, CheckedStates

UPSTREAMS = {"fhir": "FHIR server", "dataverse": "Dataverse", "storage": "Storage"}

# What the check of an upstream does not prove: a FHIR server shows its metadata to anybody, and who
# Dataverse knows may lack the right to write a table.
_NOT_PROVEN = ("answered 401", "answered 403")


def describe_recovery(reason: str, upstreams: CheckedStates | None) -> str | None:
    """Say that the upstream which a reason tells of answers again. None: it does not, or nothing is
    known of it, or the reason is none of an upstream."""
    name = _find_upstream(reason, upstreams)
    if name is None:
        return None
    if any(text in reason for text in _NOT_PROVEN):
        return f"{name} answers now. Whether it lets this app in, the next attempt shows"
    return f"The cause seems to be gone: {name} answers again"


def list_recovered(
    reasons: Mapping[str, int], upstreams: CheckedStates | None
) -> list[tuple[str, int]]:
    """Return, for what waits for each reason, how many wait though their upstream answers again:
    the sentences and numbers, the most frequent first."""
    found: dict[str, int] = {}
    for reason, number in reasons.items():
        sentence = describe_recovery(reason, upstreams)
        if sentence is not None:
            found[sentence] = found.get(sentence, 0) + number
    return sorted(found.items(), key=lambda item: -item[1])


def names_upstream(reasons: Iterable[str]) -> bool:
    """Whether a reason tells of an upstream, so that it is worth asking."""
    return any(reason.startswith(tuple(UPSTREAMS.values())) for reason in reasons)


def _find_upstream(reason: str, upstreams: CheckedStates | None) -> str | None:
    for name, state in (upstreams.states if upstreams else {}).items():
        shown = UPSTREAMS.get(name, name)
        if reason.startswith(shown) and state.answering is Answering.WORKS:
            return shown
    return None
