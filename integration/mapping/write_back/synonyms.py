"""What says the same as an element in other words, and is wrong once that says something else. Pure
but for the draft.

A code has a display and a version, and a concept the same thing in other codings and in text; a
unit has a code. What was written in the same change stays.
"""

from __future__ import annotations

from collections.abc import Iterable

from integration.mapping.write_back.element_paths import Draft, Place, Written, at
from integration.mapping.write_back.inverse_paths import Step, Steps

# https://hl7.org/fhir/R4/datatypes.html#Quantity and its specialisations
_QUANTITIES = frozenset({"Quantity", "Age", "Count", "Distance", "Duration"})


def drop(
    draft: Draft, steps: Steps, place: Place, done: Written, *, adds: bool, same_system: bool
) -> None:
    """Take out what said the same as what has been written over. `adds`: a code where there was
    none says the same as the others; `same_system`: it is of the system of the one before."""
    last = steps[-1]
    holder = at(draft, place[:-1])
    if last.parent == "Coding" and last.name in ("code", "system"):
        if adds:
            return
        kept = {"code", *_said(steps[-2:-1]), *(["system"] if same_system else [])}
        _keep(holder, kept, done)
        if len(steps) > 2 and steps[-2].parent == "CodeableConcept":
            _say_only(at(draft, place[:-3]), holder, steps[-3], done)
    elif last.parent in _QUANTITIES and last.name in ("unit", "code"):
        other = "unit" if last.name == "code" else "code"
        _keep(holder, holder.keys() - {other, f"_{other}"}, done)


def cleared(draft: Draft, steps: Steps, place: Place, done: Written) -> list[tuple[Steps, Place]]:
    """What is to be cleared so that nothing of the element is left."""
    last = steps[-1]
    if last.parent != "Coding" or last.name != "code" or len(steps) < 2:
        return [(steps, place)]
    if steps[-2].parent != "CodeableConcept" or len(steps) < 3:
        return [(steps[:-1], place[:-1])]
    concept = at(draft, place[:-3])
    if not done.inside(concept) and not any(map(done.inside, concept["coding"])):
        return [(steps[:-2], place[:-3])]
    _say_only(concept, None, steps[-3], done)
    return []


def _say_only(concept: Draft, coding: Draft | None, step: Step, done: Written) -> None:
    """This coding, and what was written with it."""
    _keep(concept, {"coding", *_said([step])}, done)
    concept["coding"] = [each for each in concept["coding"] if each is coding or done.inside(each)]
    if not concept["coding"]:
        del concept["coding"]


def _keep(holder: Draft, names: Iterable[str], done: Written) -> None:
    kept = {*names}
    for name in [*holder]:
        if name not in kept and (holder, name) not in done:
            del holder[name]


def _said(steps: Iterable[Step]) -> set[str]:
    """The elements of which the path of the column says what they are."""
    return {condition.steps[0].name for step in steps for condition in step.predicates}
