"""What a correction takes over: nothing that has changed, and nothing that depends on it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from integration.core import decimal_json
from integration.core.model import DeliveryRequest, EntryResult
from integration.fhir import bundle as bundles
from integration.fhir.correction import Corrected, TakenOver, is_created, list_moved, take_over
from integration.fhir.entries import Contents
from integration.fhir.prepare import prepare
from integration.fhir.resource_ids import Naming
from integration.fhir.units import DEFAULT_LIMITS, UnitEntry
from tests.builders import batch, entry, observation, patient

_WHO = "urn:uuid:00000000-0000-4000-8000-00000000000"

# Of an entry: what it is, whether it is changed, and what became of it.
_KINDS = ("create", "update", "conditional", "link")
_ENDS = ("written", "refused", "superseded", "unknown")
_deliveries = st.lists(
    st.tuples(st.sampled_from(_KINDS), st.booleans(), st.sampled_from(_ENDS)),
    min_size=1,
    max_size=6,
)


def make_entry(kind: str, number: int, version: int) -> dict[str, Any]:
    elements = {"gender": ("female", "male")[version]}
    url = f"{_WHO}{number}"
    if kind == "create":
        return entry(patient(**elements), url)
    if kind == "update":
        return entry(patient(id=f"p{number}", **elements), method="PUT")
    if kind == "conditional":
        return entry(patient(**elements), url, ifNoneExist=f"identifier=urn:mrn|{number}")
    status = ("final", "amended")[version]
    return entry(observation(f"{_WHO}0", status=status), url)


def read(body: Any) -> Contents:
    return bundles.read(decimal_json.encode(body), DeliveryRequest("POST"))


def prepared(contents: Contents) -> list[UnitEntry]:
    naming = Naming("north", "key")
    found, _ = prepare(contents, naming, DEFAULT_LIMITS, "arrival", is_correction=True)
    return [item.unit_entry for item in found]


def make_result(position: int, end: str) -> EntryResult:
    status = {"written": 201, "refused": 422, "superseded": 409}[end]
    etag = 'W/"3"' if end == "written" else None
    return EntryResult(position, status, etag=etag, superseded=end == "superseded")


def compare(drawn: list[tuple[str, bool, str]]) -> tuple[list[UnitEntry], TakenOver]:
    kinds = [kind for kind, _, _ in drawn]
    if kinds[0] == "link":  # it would refer to itself
        kinds[0] = "create"
    versions = [int(is_changed) for _, is_changed, _ in drawn]
    before = read(batch(*(make_entry(kind, n, 0) for n, kind in enumerate(kinds))))
    after = read(batch(*(make_entry(kind, n, versions[n]) for n, kind in enumerate(kinds))))
    results = {n: make_result(n, end) for n, (_, _, end) in enumerate(drawn) if end != "unknown"}
    entries = prepared(after)
    corrected = Corrected(entries=prepared(before), results=results, bases={})
    created = frozenset(item.position for item in after.entries if is_created(item))
    return entries, take_over(corrected, entries, created)


@given(_deliveries)
def test_only_what_was_written_and_has_not_changed_is_taken_over(
    drawn: list[tuple[str, bool, str]],
) -> None:
    entries, taken = compare(drawn)
    kept = {result.position for result in taken.results}
    by_target = {item.target: item.position for item in entries}
    for item in entries:
        _, is_changed, end = drawn[item.position]
        if end == "superseded":
            assert item.position in kept
            continue
        is_same = end == "written" and not is_changed
        follows = all(by_target[target] in kept for target in item.awaits)
        assert (item.position in kept) == (is_same and follows)


@given(_deliveries)
def test_what_was_written_is_replaced_from_the_version_that_was_left(
    drawn: list[tuple[str, bool, str]],
) -> None:
    entries, taken = compare(drawn)
    kept = {result.position for result in taken.results}
    assert kept.isdisjoint(taken.bases)
    for item in entries:
        if item.position in kept:
            continue
        end = drawn[item.position][2]
        if end == "written":
            assert taken.bases[item.position] == "3"
        elif item.condition is not None or item.target.startswith("Patient/p"):
            assert item.position not in taken.bases, "it is sent as at a first attempt"
        else:
            assert taken.bases[item.position] == ""


def test_of_two_writes_of_one_resource_the_later_one_is_sent_after_a_changed_one() -> None:
    first, second = (
        entry(patient(id="p1", gender=each), method="PUT") for each in ("male", "other")
    )
    changed = entry(patient(id="p1", gender="female"), method="PUT")
    results = {n: make_result(n, "written") for n in (0, 1)}
    corrected = Corrected(entries=prepared(read(batch(first, second))), results=results)
    taken = take_over(corrected, prepared(read(batch(changed, second))), frozenset())
    assert (taken.results, sorted(taken.bases)) == ((), [0, 1])
    taken = take_over(corrected, prepared(read(batch(first, changed))), frozenset())
    assert [result.position for result in taken.results] == [0]


@given(st.permutations(range(4)), st.sets(st.integers(0, 3)))
def test_entries_with_ids_by_their_place_may_not_change_it(
    order: list[int], refused: set[int]
) -> None:
    entries = [entry(patient(id=f"x{n}")) for n in range(4)]
    before, after = read(batch(*entries)), read(batch(*(entries[n] for n in order)))
    moved = [item.position for item in list_moved(before, after, refused)]
    assert moved == [n for n in range(4) if order[n] != n and n not in refused]
