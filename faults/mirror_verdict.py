"""Judge the rows of one resource by what the FHIR server holds. Pure.

The relay's own words count for nothing here. A name says whose it is and how late it is: `P7~3` is
the third state of person P7, and `P7#2` a number of that person.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

Harm = tuple[str, str]  # what it counts as, and a description


@dataclass(frozen=True, slots=True, kw_only=True)
class FhirState:
    """What the FHIR server holds: nothing but `person` where the resource is deleted or unknown."""

    person: str
    identity: str
    version: str | None = None
    name: str = ""
    active: bool = True
    numbers: frozenset[str] = frozenset()
    owner: str | None = None  # Organization/id

    @property
    def exists(self) -> bool:
        return self.version is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRow:
    """A row: what it shows, and the names that it has shown, oldest first."""

    key: str
    fhir_id: str | None
    version: str | None = None
    name: str = ""
    active: bool = True
    merged: bool = False
    numbers: frozenset[str] = frozenset()
    owner: str | None = None  # the key of the row that the lookup points at
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What staff or the organization have done, so that a row cannot be as FHIR is.

    `merged`: the row was merged into another. `missing`: the row was made another one's, so there
    need be none.
    """

    merged: bool = False
    missing: bool = False


NOTHING_ALLOWED = Allowance()


def judge(state: FhirState, rows: Sequence[ShownRow], allowed: Allowance) -> list[Harm]:
    """Judge the rows that have the id of this resource."""
    in_use = [row for row in rows if not row.merged]
    found = [
        *_find_others(state, rows),
        *_find_steps_back(rows),
        *(("stale", "a merged row is active") for row in rows if row.merged and row.active),
    ]
    if not state.exists:
        found += [("stale", "the row of a deleted resource is active") for r in in_use if r.active]
    elif len(in_use) > 1:
        found.append(("doubled", f"{len(in_use)} rows"))
    elif in_use:
        found += _compare(state, in_use[0])
    elif not (allowed.missing or (allowed.merged and rows)):
        found.append(("lost", "there is no row"))
    return found


def judge_handed_over(person: str, fhir_id: str, row: ShownRow | None) -> list[Harm]:
    """Judge a row that staff made somebody else's: nobody else may write it."""
    if row is None:
        return [("lost", "a row of somebody whom FHIR does not know is gone")]
    if row.fhir_id != fhir_id or _find_person(row.name) != person:
        return [("wrong_person", "the row of somebody else was overwritten")]
    return []


def _find_others(state: FhirState, rows: Iterable[ShownRow]) -> Iterator[Harm]:
    for row in rows:
        if _find_person(row.name) != state.person:
            yield "wrong_person", "the row has the name of somebody else"
        if any(_find_person(number) != state.person for number in row.numbers):
            yield "wrong_person", "the row has a number of somebody else"


def _find_steps_back(rows: Iterable[ShownRow]) -> Iterator[Harm]:
    for row in rows:
        turns = [int(turn) for _, mark, turn in map(_split_name, row.names) if mark]
        if turns != sorted(turns):
            yield "stale", f"the row went back: {turns}"


def _compare(state: FhirState, row: ShownRow) -> Iterator[Harm]:
    if row.version != state.version or row.name != state.name:
        yield "stale", f"the row shows version {row.version} of {state.version}"
    if row.active != state.active:
        yield "stale", f"the row is {'active' if row.active else 'inactive'}"
    if row.numbers != state.numbers:
        yield "stale", f"the row has {len(row.numbers)} of {len(state.numbers)} numbers"
    if state.owner is not None and row.owner is None:
        yield "lost", "the lookup of a row that is there is empty"


def _find_person(text: str) -> str:
    return text.partition("~")[0].partition("#")[0]


def _split_name(name: str) -> tuple[str, str, str]:
    return name.partition("~")
