"""How far a run has come, in a file, so that a later run can go on from there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from integration.core.errors import Misconfigured


@dataclass(slots=True)
class SavedState:
    """What the file says. A run with other options cannot go on from it, so it has them, too.

    `positions`: where each walk stands, by its title. `finished`: titles of the walks that are
    over. `unrepaired`: how many differences were left.
    """

    file: Path | None
    options: list[Any]
    positions: dict[str, str] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)
    unrepaired: int = 0

    @property
    def is_resumed(self) -> bool:
        return bool(self.positions or self.finished)

    def read(self) -> None:
        """Read the file if there is one. Raises Misconfigured if this run cannot resume from it."""
        if self.file is None or not self.file.exists():
            return
        try:
            saved = json.loads(self.file.read_text("utf-8"))
            self.positions = dict(saved["positions"])
            self.finished = list(saved["finished"])
            self.unrepaired = int(saved["unrepaired"])
            options = saved["options"]
        except (OSError, ValueError, TypeError, KeyError):
            raise Misconfigured(
                f"{self.file} was not written by reconcile: name another file, or delete it"
            ) from None
        if options != self.options:
            raise Misconfigured(
                f"{self.file} was written by a run with other options: repeat that run's options, "
                "or delete the file to start again"
            )

    def write(self) -> None:
        """Write the file. A run that is killed meanwhile leaves the file as it was."""
        if self.file is None:
            return
        state = {
            "options": self.options,
            "positions": self.positions,
            "finished": self.finished,
            "unrepaired": self.unrepaired,
        }
        new = self.file.with_name(f"{self.file.name}.new")
        try:
            new.write_text(json.dumps(state), "utf-8")
            new.replace(self.file)
        except OSError as error:
            raise Misconfigured(f"--resume {self.file}: {error.strerror}") from None

    def remove(self) -> None:
        """Delete the file: the run has come to its end."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)
