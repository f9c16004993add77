"""Judge what became of edits, by the history of the patient and by what the relay has noted. Pure.

A number says whose it is and who gave it: `E7:s2` was sent by the EHR, `E7:e3` typed by staff.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from faults.mirror_verdict import Harm


@dataclass(frozen=True, slots=True, kw_only=True)
class EditedPatient:
    """A patient at the end of a round. `history`: the numbers that FHIR has had since the patient
    was created, the oldest first, and `shown`: those that the row has had. `versions`: of the
    patient, and the one that the row shows. `given`: all numbers that somebody gave, in their
    order. `noted`: how often the relay has said that it replaced an edit; `signed`: how many
    Provenances there are; `answer`: what became of the last delivery, as the relay has it."""

    name: str
    history: Sequence[str]
    shown: Sequence[str]
    versions: tuple[str, str | None]
    given: Sequence[str]
    noted: int
    signed: int
    answer: str

    @property
    def changes(self) -> list[str]:
        """The history without the versions in which the number stayed as it was."""
        return [number for number, _ in groupby(self.history)]

    @property
    def replaced(self) -> list[str]:
        """The edits that the relay has written over. What staff have typed over is their own."""
        pairs = pairwise(number for number, _ in groupby(self.shown))
        return [number for number, after in pairs if is_edit(number) and not is_edit(after)]


def is_edit(number: str) -> bool:
    return ":e" in number


def judge_edits(patient: EditedPatient) -> list[Harm]:
    """Say what is wrong with a patient."""
    return [*_compare_sides(patient), *_find_foreign(patient), *_find_lost(patient)]


def _compare_sides(patient: EditedPatient) -> Iterator[Harm]:
    current, shown = patient.versions
    if shown != current:
        yield "stale", f"the row shows version {shown} of {current}"
    elif patient.shown[-1] != patient.history[-1]:
        yield "stale", f"the row shows {patient.shown[-1]}, and FHIR {patient.history[-1]}"


def _find_foreign(patient: EditedPatient) -> Iterator[Harm]:
    for number in dict.fromkeys([*patient.history, *patient.shown]):
        if number.partition(":")[0] != patient.name:
            yield "wrong_person", f"{number} is of somebody else, or of nobody"
        elif number not in patient.given:
            yield "unexplained", f"nobody gave {number}"


def _find_lost(patient: EditedPatient) -> Iterator[Harm]:
    changes = patient.changes
    lost = [number for number in patient.replaced if number not in changes]
    if len(lost) > patient.noted:
        yield "lost", f"of {', '.join(lost)} nothing is in FHIR, and {patient.noted} are noted"
    # Those before it may have come too late: then their senders were answer so.
    *_, sent = [number for number in patient.given if not is_edit(number)]
    if sent not in changes:
        yield "lost", f"the EHR's {sent} was never in FHIR: {patient.answer}, {changes}"
    written = [number for number in changes if is_edit(number)]
    if len(written) > len(set(written)):
        yield "doubled", f"an edit was written again: {changes}"
    if patient.signed != len(set(written)):
        yield "unexplained", f"{len(set(written))} edits in FHIR, and {patient.signed} Provenances"
