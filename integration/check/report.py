"""The result of one check, and the table of all results. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    FAILED = "failed"
    WARNING = "warning"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check. `detail` holds no secret and no patient data."""

    name: str
    state: State
    detail: str
    remedy: str = ""  # of a failure or a warning: what to do


def report_ok(name: str, found: str) -> CheckResult:
    return CheckResult(name, State.OK, found)


def report_failure(name: str, found: str, mend: str) -> CheckResult:
    return CheckResult(name, State.FAILED, found, mend)


def report_warning(name: str, found: str, mend: str) -> CheckResult:
    """Return a result that fails nothing, and that a person should look at."""
    return CheckResult(name, State.WARNING, found, mend)


def report_skip(name: str, why: str) -> CheckResult:
    return CheckResult(name, State.SKIPPED, why)


def render_table(results: Sequence[CheckResult]) -> list[str]:
    """Return a line of text for each result, and a last one that counts them."""
    width = max((len(line.name) for line in results), default=0)
    lines = [
        f"{result.name:<{width}}  {result.state:<7}  {result.detail}{_format_remedy(result)}"
        for result in results
    ]
    counts = " ".join(
        f"{state}={sum(result.state is state for result in results)}" for state in State
    )
    return [*lines, f"check: {counts}"]


def has_no_failure(results: Iterable[CheckResult]) -> bool:
    return all(line.state is not State.FAILED for line in results)


def _format_remedy(result: CheckResult) -> str:
    return f" => {result.remedy}" if result.remedy else ""
