"""Elements that mean the same as another one, and are wrong once that has changed. Pure, but for
the draft.

A code has a display and a version, a concept other codings and text, a unit a code, and a name or
an address the whole as text. What the same change wrote stays.
"""

from __future__ import annotations

from collections.abc import Iterable

from integration.mapping.write_back.element_paths import (
    Draft,
    Place,
    WrittenElements,
    get_at,
    get_holder,
)
from integration.mapping.write_back.inverse_paths import Step, Steps

# https://hl7.org/fhir/R4/datatypes.html#Quantity and its specialisations
_QUANTITIES = frozenset({"Quantity", "Age", "Count", "Distance", "Duration"})

# They have the whole as text, too: https://hl7.org/fhir/R4/datatypes.html#HumanName
_IN_PARTS = {
    "HumanName": frozenset({"family", "given", "prefix", "suffix"}),
    "Address": frozenset({"line", "city", "district", "state", "postalCode", "country"}),
}


def drop_synonyms(
    draft: Draft,
    steps: Steps,
    place: Place,
    written: WrittenElements,
    *,
    adds: bool,
    same_system: bool,
) -> None:
    """Remove what meant the same as the old value at `place`.

    `adds`: there was no code, so the new one means the same as the others. `same_system`: the new
    code is of the system of the old one.
    """
    last = steps[-1]
    holder = get_at(draft, place[:-1])
    if last.parent == "Coding" and last.name in ("code", "system"):
        if adds:
            return
        system = ["system"] if same_system else []
        _keep_only(holder, {"code", *_list_predicate_elements(steps[-2:-1]), *system}, written)
        if len(steps) > 2 and steps[-2].parent == "CodeableConcept":
            _keep_only_coding(get_at(draft, place[:-3]), holder, steps[-3], written)
    elif last.parent in _QUANTITIES and last.name in ("unit", "code"):
        other = "unit" if last.name == "code" else "code"
        _keep_only(holder, holder.keys() - {other, f"_{other}"}, written)


def drop_whole_text(draft: Draft, steps: Steps, place: Place, written: WrittenElements) -> None:
    """Remove the text of a name or an address of which a part was written."""
    if steps[-1].name in _IN_PARTS.get(steps[-1].parent, ()):
        whole, _ = get_holder(draft, place)
        _keep_only(whole, whole.keys() - {"text", "_text"}, written)


def find_clearable(
    draft: Draft, steps: Steps, place: Place, written: WrittenElements
) -> list[tuple[Steps, Place]]:
    """Return the places to clear, so that nothing of the element at `place` is left. Of a concept
    that must stay, remove the other codings and the text."""
    last = steps[-1]
    if last.parent != "Coding" or last.name != "code" or len(steps) < 2:
        return [(steps, place)]
    if steps[-2].parent != "CodeableConcept" or len(steps) < 3:
        return [(steps[:-1], place[:-1])]
    concept = get_at(draft, place[:-3])
    if not written.has_any_in(concept) and not any(map(written.has_any_in, concept["coding"])):
        return [(steps[:-2], place[:-3])]
    _keep_only_coding(concept, None, steps[-3], written)
    return []


def _keep_only_coding(
    concept: Draft, coding: Draft | None, step: Step, written: WrittenElements
) -> None:
    """Remove all of a concept but this coding, and what was written with it."""
    _keep_only(concept, {"coding", *_list_predicate_elements([step])}, written)
    concept["coding"] = [
        item for item in concept["coding"] if item is coding or written.has_any_in(item)
    ]
    if not concept["coding"]:
        del concept["coding"]


def _keep_only(holder: Draft, names: Iterable[str], written: WrittenElements) -> None:
    kept = {*names}
    for name in [*holder]:
        if name not in kept and (holder, name) not in written:
            del holder[name]


def _list_predicate_elements(steps: Iterable[Step]) -> set[str]:
    """Return the elements whose values the predicates of the column's path give."""
    return {predicate.steps[0].name for step in steps for predicate in step.predicates}
