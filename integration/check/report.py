"""A line of the table, and the table. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Line:
    """One check. `found` holds no secret and nothing of a patient; `mend` is of a failure."""

    name: str
    state: State
    found: str
    mend: str = ""


def ok(name: str, found: str) -> Line:
    return Line(name, State.OK, found)


def failed(name: str, found: str, mend: str) -> Line:
    return Line(name, State.FAILED, found, mend)


def skipped(name: str, why: str) -> Line:
    return Line(name, State.SKIPPED, why)


def table(lines: Sequence[Line]) -> list[str]:
    """One line of text for each, and one that counts them."""
    width = max((len(line.name) for line in lines), default=0)
    told = [f"{one.name:<{width}}  {one.state:<7}  {one.found}{_mend(one)}" for one in lines]
    counts = " ".join(f"{state}={sum(one.state is state for one in lines)}" for state in State)
    return [*told, f"check: {counts}"]


def all_well(lines: Iterable[Line]) -> bool:
    return all(line.state is not State.FAILED for line in lines)


def _mend(line: Line) -> str:
    return f" => {line.mend}" if line.mend else ""
