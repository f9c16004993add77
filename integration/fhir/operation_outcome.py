"""OperationOutcome issues: from this app, and from the FHIR server. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from integration.core.errors import Issue

_ENTRY = re.compile(r"Bundle\.entry\[(\d{1,9})\]")


def as_json(issue: Issue) -> dict[str, Any]:
    """Return an OperationOutcome.issue: https://hl7.org/fhir/R4/operationoutcome.html"""
    value: dict[str, Any] = {
        "severity": issue.severity,
        "code": issue.code,
        "diagnostics": issue.text,
    }
    return {**value, "expression": [issue.expression]} if issue.expression else value


def parse_outcome(outcome: Any) -> list[dict[str, Any]] | None:
    """Return the issues of an OperationOutcome; None for anything else."""
    issues = outcome.get("issue") if isinstance(outcome, dict) else None
    is_well_formed = isinstance(issues, list) and all(isinstance(issue, dict) for issue in issues)
    return issues if is_well_formed else None


def translate(
    issues: list[dict[str, Any]] | None, entry_paths: Sequence[str], entry_path: str | None = None
) -> list[dict[str, Any]] | None:
    """Return the issues with paths into the sender's delivery instead of into the unit.

    `entry_paths`: the paths of the unit's entries in the delivery, in the unit's order.
    `entry_path`: the path of the entry that the issues are about, if it is one.
    """
    if issues is None:
        return None

    def translate_text(value: Any) -> Any:
        if isinstance(value, dict):  # such as `details`
            return {name: translate_text(inner) for name, inner in value.items()}
        if not isinstance(value, str):
            return value
        return _ENTRY.sub(lambda found: _replace_index(found, entry_paths), value)

    def translate_expression(expression: Any) -> Any:
        new = translate_text(expression)
        if entry_path is None or not entry_path.startswith("Bundle.") or not isinstance(new, str):
            return new
        if new[:1].isupper() and not new.startswith("Bundle."):  # from the resource on
            return ".".join([f"{entry_path}.resource", *new.split(".")[1:]])
        return new

    return [
        {
            name: [translate_expression(expression) for expression in value]
            if name == "expression" and isinstance(value, list)
            else translate_text(value)
            for name, value in issue.items()
        }
        for issue in issues
    ]


def _replace_index(found: re.Match[str], entry_paths: Sequence[str]) -> str:
    position = int(found[1])
    return entry_paths[position] if position < len(entry_paths) else found[0]
