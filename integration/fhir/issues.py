"""OperationOutcome issues: ours as JSON, the FHIR server's as the sender can read them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from integration.core.errors import Issue

_ENTRY = re.compile(r"Bundle\.entry\[(\d+)\]")


def as_json(issue: Issue) -> dict[str, Any]:
    """https://hl7.org/fhir/R4/operationoutcome.html"""
    shape: dict[str, Any] = {
        "severity": issue.severity,
        "code": issue.code,
        "diagnostics": issue.text,
    }
    return {**shape, "expression": [issue.expression]} if issue.expression else shape


def of_outcome(outcome: Any) -> list[dict[str, Any]] | None:
    """The issues of an OperationOutcome; None for anything else."""
    issues = outcome.get("issue") if isinstance(outcome, dict) else None
    well = isinstance(issues, list) and all(isinstance(issue, dict) for issue in issues)
    return issues if well else None


def translated(
    issues: list[dict[str, Any]] | None, sent: Sequence[str], own: str | None = None
) -> list[dict[str, Any]] | None:
    """The same issues, pointing into the sender's delivery instead of the unit.

    `sent`: where the sender has the entries of the unit, in the unit's order. `own`: where it has
    the one entry that the issues are about, if the server has answered about one.
    """
    if issues is None:
        return None

    def theirs(text: Any) -> Any:
        return (
            _ENTRY.sub(lambda found: _place(found, sent), text) if isinstance(text, str) else text
        )

    def pointed(expression: Any) -> Any:
        new = theirs(expression)
        relative = own is not None and isinstance(new, str) and new[:1].isupper()
        if relative and own and own.startswith("Bundle.") and not new.startswith("Bundle."):
            return ".".join([f"{own}.resource", *new.split(".")[1:]])
        return new

    return [
        {
            name: [pointed(one) for one in value]
            if name == "expression" and isinstance(value, list)
            else theirs(value)
            for name, value in issue.items()
        }
        for issue in issues
    ]


def _place(found: re.Match[str], sent: Sequence[str]) -> str:
    position = int(found[1])
    return sent[position] if position < len(sent) else found[0]
