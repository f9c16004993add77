"""A worker counts whom it has refused, by sender and status."""

from __future__ import annotations

from integration.core.refusal_counts import RefusalCount, RefusalCounts


def test_refusals_are_counted_by_sender_and_status() -> None:
    counts = RefusalCounts()
    assert counts.list_counts() == ()
    for sender, status in (("lab", 401), (None, 401), ("lab", 401), ("lab", 429), ("lab", 403)):
        counts.add(sender, status)
    assert counts.list_counts() == (
        RefusalCount(None, 401, 1),
        RefusalCount("lab", 401, 2),
        RefusalCount("lab", 403, 1),
        RefusalCount("lab", 429, 1),
    )


def test_other_answers_are_not_counted() -> None:
    counts = RefusalCounts()
    for status in (200, 400, 404, 405, 413, 422, 500):
        counts.add("lab", status)
    assert counts.list_counts() == ()
