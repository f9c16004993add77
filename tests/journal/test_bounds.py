"""What is stored in a row of a table fits into it, whatever it is."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from integration.core.model import RowResult
from integration.journal.bounds import (
    MAX_NOTES_LENGTH,
    bound_notes,
    bound_row_result,
    bound_text,
    bound_texts,
)

# Characters of UTF-16 in one property: 64 KiB
# https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model
PROPERTY = 32_768

NOTES = st.lists(st.text(max_size=200), max_size=80) | st.lists(
    st.sampled_from(["a" * 5000, "患" * 3000, "\0" * 4000, "short"]), max_size=5
)


@given(NOTES)
def test_notes_that_fit_stay_and_of_others_the_first_are_kept_and_the_rest_counted(
    notes: list[str],
) -> None:
    kept = bound_notes(notes)
    assert len("\n".join(kept)) <= MAX_NOTES_LENGTH
    if kept != tuple(notes):
        assert len("\n".join(notes)) >= MAX_NOTES_LENGTH
        whole = [note for note, stated in zip(kept, notes, strict=False) if note == stated]
        assert len(kept) - len(whole) <= 2  # the first one, cut, and the count
        if len(notes) > 1:
            assert kept[-1] == f"and {len(notes) - len(kept) + 1} more"


@given(NOTES)
def test_a_row_result_fits_into_a_property(notes: list[str]) -> None:
    result = RowResult(
        delivery="d" * 36,
        resource=f"MedicinalProductUndesirableEffect/{'a' * 64}",
        table="t" * 100,
        row="r" * 36,
        action="updated",
        version="1" * 64,
        notes=tuple(notes),
    )
    text = msgspec.json.encode(bound_row_result(result)).decode()
    assert len(text.encode("utf-16-le")) // 2 <= PROPERTY


@given(NOTES)
def test_what_is_bounded_stays_the_same_when_it_is_bounded_again(notes: list[str]) -> None:
    assert bound_notes(bound_notes(notes)) == bound_notes(notes)


def test_a_text_that_is_cut_ends_in_an_ellipsis() -> None:
    assert bound_text("abc", 3) == "abc"
    assert bound_text("abcd", 3) == "ab…"
    assert bound_texts({"reason": "a" * 9000, "lanes": 2}) == {
        "reason": "a" * 3999 + "…",
        "lanes": 2,
    }
