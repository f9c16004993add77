"""What the mirror hears of a unit: each changed resource, with the version that the server stated."""

from __future__ import annotations

from typing import Any

from integration.core.decimal_json import Raw
from integration.core.model import EntryResult, WorkItem
from integration.core.state_version import StateVersion
from integration.fhir.units import Unit, UnitEntry
from integration.relay.changes import list_changes

DELIVERY = "019caaee-c260-7000-8000-000000000001"


def make_entry(position: int, method: str, target: str, **fields: Any) -> UnitEntry:
    return UnitEntry(
        position=position,
        where=f"Bundle.entry[{position}]",
        target=target,
        full_url=None,
        method=method,
        created=False,
        awaits=(),
        body=Raw(b"{}"),
        **fields,
    )


def list_items(
    unit: Unit, *results: EntryResult, matches: Any = None, restored: Any = None
) -> dict[str, WorkItem]:
    changes = list_changes(DELIVERY, unit, results, matches or {}, restored or {})
    return {name: item for name, (_, item) in changes.items()}


def test_a_write_names_its_version_and_a_create_says_so() -> None:
    unit = Unit("batch", (make_entry(0, "PUT", "Patient/a"), make_entry(1, "PUT", "Patient/b")))
    at = "2026-03-02T10:00:00.5Z"
    items = list_items(
        unit,
        EntryResult(0, 201, location="Patient/a/_history/1", etag='W/"1"', last_modified=at),
        EntryResult(1, 200, location="Patient/b/_history/7", etag='W/"7"'),
    )
    assert items["Patient/a"].version == StateVersion(id="1", updated=at)
    assert items["Patient/b"].version == StateVersion(id="7")
    assert [item.is_create for item in items.values()] == [True, False]
    assert {item.delivery for item in items.values()} == {DELIVERY}


def test_a_delete_is_a_deletion_with_or_without_a_version() -> None:
    unit = Unit(
        "batch", (make_entry(0, "DELETE", "Patient/a"), make_entry(1, "DELETE", "Patient/b"))
    )
    items = list_items(unit, EntryResult(0, 204, etag='W/"3"'), EntryResult(1, 204))
    assert items["Patient/a"].version == StateVersion(id="3", is_deleted=True)
    assert items["Patient/b"].version == StateVersion(is_deleted=True)


def test_a_conditional_delete_names_all_that_it_matched() -> None:
    unit = Unit("batch", (make_entry(0, "DELETE", "Patient", condition="Patient?name=x"),))
    names = ("Patient/a", "Patient/b")
    items = list_items(unit, EntryResult(0, 204), matches={0: names})
    for name in names:
        assert items[name].version == StateVersion(is_deleted=True)


def test_what_was_refused_has_changed_nothing() -> None:
    unit = Unit("batch", (make_entry(0, "PUT", "Patient/a"),))
    assert list_items(unit, EntryResult(0, 422)) == {}


def test_a_state_that_was_restored_counts_with_its_own_version() -> None:
    """The entry that had overtaken it is superseded."""
    unit = Unit("batch", (make_entry(0, "PUT", "Patient/a"),))
    restored = {"Patient/a": StateVersion(id="9")}
    items = list_items(unit, EntryResult(0, 409, superseded=True), restored=restored)
    assert items["Patient/a"].version == StateVersion(id="9")
