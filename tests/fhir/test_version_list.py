"""Who wrote each version of a resource, as far as its history tells."""

from __future__ import annotations

from typing import Any

import pytest

from integration.fhir.version_list import list_versions
from integration.fhir.write_mark import Mark, add_mark

MARK = Mark(delivery="d1", position=3, digest="ab")


def version(number: str, mark: Mark | None = None) -> dict[str, Any]:
    """An entry of a history."""
    stated = {"versionId": number, "lastUpdated": "2026-03-02T07:00:00Z"}
    resource = {"resourceType": "Patient", "id": "p1", "meta": stated}
    if mark is not None:
        marked = add_mark(resource, mark)
        resource = {**marked, "meta": {**marked["meta"], **stated}}
    return {"resource": resource, "request": {"method": "PUT"}}


def history(*entries: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "history", "entry": list(entries)}


def test_a_version_has_the_mark_of_whoever_wrote_it() -> None:
    found = list_versions(history(version("2"), version("1", MARK)))
    assert found is not None
    assert [(each.id, each.mark, each.is_kept_mark) for each in found] == [
        ("2", None, False),
        ("1", MARK, False),
    ]
    assert found[0].updated == "2026-03-02T07:00:00Z"


def test_a_mark_that_the_version_before_had_already_was_kept() -> None:
    found = list_versions(history(version("2", MARK), version("1", MARK)))
    assert found is not None
    assert [each.is_kept_mark for each in found] == [True, False]


def test_a_deletion_has_the_version_and_time_of_its_response() -> None:
    response = {"etag": 'W/"2"', "lastModified": "2026-03-02T08:00:00Z"}
    found = list_versions(history({"request": {"method": "DELETE"}, "response": response}))
    assert found is not None
    assert (found[0].id, found[0].is_deleted) == ("2", True)
    assert found[0].updated == "2026-03-02T08:00:00Z"


def test_a_history_without_entries_has_no_versions() -> None:
    assert list_versions({"resourceType": "Bundle", "type": "history"}) == []


@pytest.mark.parametrize(
    "body", [None, [], {"resourceType": "OperationOutcome"}, {"resourceType": "Bundle", "entry": 1}]
)
def test_what_is_no_history_is_told_from_one_without_versions(body: Any) -> None:
    assert list_versions(body) is None


def test_entries_of_any_form_are_no_crash() -> None:
    found = list_versions(history(7, {}, {"resource": {"meta": [1]}}))
    assert found is not None
    assert [each.id for each in found] == ["", ""]
