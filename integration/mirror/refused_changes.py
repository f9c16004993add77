"""What Dataverse refuses of a change set, one after another, so that the rest can be written. Pure.

Dataverse applies all changes of a set or none. Where its answer names the change that failed, that
one is left out, and the rest goes again. Where it names none, the changes of children and concepts
are halved: one half goes with the row, and the other one after it. Whether it names one, its pages
do not say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from integration.dataverse.requests import Change
from integration.mirror.row_diff import ChangePlan

# Change sets that Dataverse may refuse before everything is left out that has not been written.
_MAX_REFUSED = 10


@dataclass(frozen=True, slots=True)
class Refusal:
    """Dataverse refused a change of a child or of a concept. `why`: status and code. `position`: of
    that change; None: Dataverse did not say which. `is_taken`: another row has its key;
    `detail`: which key, and which row."""

    why: str
    position: int | None
    is_taken: bool = False
    detail: str = ""


@dataclass(slots=True)
class RefusedChanges:
    """`refused`: why a row is left out, by its key. `waiting`: groups of changes whose turn comes
    when what goes now is written or refused. `count`: of refused change sets."""

    refused: dict[str, str] = field(default_factory=dict)
    waiting: list[tuple[Change, ...]] = field(default_factory=list)
    count: int = 0

    @property
    def left_out(self) -> dict[str, str]:
        """The rows that are not to be planned now, by key. Those that wait have no reason."""
        return {change.key: "" for group in self.waiting for change in group} | self.refused

    def try_next(self) -> bool:
        """Let the next group go. Return whether there is one."""
        if not self.waiting:
            return False
        del self.waiting[0]
        return True

    def leave_out(self, plan: ChangePlan, refusal: Refusal) -> None:
        """Leave out what Dataverse refused of this plan; or half of it, to find that out."""
        self.count += 1
        others = tuple(c for n, c in enumerate(plan.changes) if not plan.is_of_row(n))
        if self.count > _MAX_REFUSED:
            for change in (*others, *(change for group in self.waiting for change in group)):
                self.refused[change.key] = _describe(change, refusal, "its changes were left out")
            self.waiting.clear()
            return
        if refusal.position is not None:
            others = (plan.changes[refusal.position],)
        if len(others) == 1:
            (change,) = others
            self.refused[change.key] = _describe(change, refusal, "a row was left out")
            if refusal.position is None:
                self.try_next()
            return
        self.waiting.insert(0, others[len(others) // 2 :])


def _describe(change: Change, refusal: Refusal, what: str) -> str:
    text = f"{change.entity_set}: {refusal.why}, so {what}"
    return f"{text}. {refusal.detail}" if refusal.detail else text
